import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { openSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { temporaryFolder } from '../fakes/temporary-folder.ts'

const MODULE = new URL('../../src/agent/end-by-fault.ts', import.meta.url).href

/** Runs a script that has `endByFault`, `write` and `writeSync`; its standard output is `stdout`. */
async function run(stdout: number | 'pipe', script: string) {
  const head = `import { write, writeSync } from 'node:fs'\nimport { endByFault } from '${MODULE}'\n`
  const args = ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', head + script]
  const child = spawn(process.execPath, args, { stdio: ['ignore', stdout, 'pipe'] })
  let text = ''
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => (text += chunk))
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null]
  return { code, signal, text }
}

describe('endByFault()', () => {
  test('takes all steps, also after one that failed, and exits with the code', async () => {
    const script = `
      const say = (text) => () => writeSync(2, text)
      setTimeout(say('another turn'), 0)
      endByFault(101, [say('1'), () => { throw new Error('x') }, say('2')])`
    assert.deepEqual(await run('pipe', script), { code: 101, signal: null, text: '12' })
  })

  for (const [situation, step] of [
    ['this thread', `() => writeSync(1, Buffer.alloc(1e6))`],
    ['another thread', `() => write(1, Buffer.alloc(1e6), () => {})`],
  ] as const) {
    test(`ends by a signal where ${situation} waits for a reader who does not read`, async (t) => {
      const pipe = join(temporaryFolder(t), 'pipe')
      execFileSync('mkfifo', [pipe])
      // Open for reading as well, so that there is a reader.
      const { code, signal } = await run(openSync(pipe, 'r+'), `endByFault(101, [${step}])`)
      assert.deepEqual({ code, signal }, { code: null, signal: 'SIGALRM' })
    })
  }
})
