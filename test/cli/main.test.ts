import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { USAGE } from '../../src/cli/arguments.ts'
import { temporaryFolder } from '../fakes/temporary-folder.ts'

const MAIN = new URL('../../src/main.ts', import.meta.url).pathname

/** Runs the program as a process of its own. None of these lines starts the agent. */
function run(...words: string[]) {
  const options = { encoding: 'utf8', timeout: 20_000 } as const
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--no-warnings', MAIN, ...words], options)
  return { status, stdout, stderr }
}

function configFile(t: TestContext, text: string): string {
  const path = join(temporaryFolder(t), 'agent.json')
  writeFileSync(path, text)
  return path
}

describe('the program', () => {
  for (const words of [['--version'], ['-v'], ['-s', '-v']]) {
    test(`${words.join(' ')} prints the version alone`, () => {
      const { status, stdout, stderr } = run(...words)
      assert.equal(status, 0)
      assert.match(stdout, /^\d+\.\d+\.\d+\n$/)
      assert.equal(stderr, '')
    })
  }

  for (const words of [['--help'], ['help'], ['console', '--help']]) {
    test(`${words.join(' ')} prints the usage on standard output`, () => {
      assert.deepEqual(run(...words), { status: 0, stdout: USAGE, stderr: '' })
    })
  }

  test('prints reason and usage of a wrong command line on standard error, and exits with 2', () => {
    assert.deepEqual(run('--wait', '5'), {
      status: 2,
      stdout: '',
      stderr: `azure-proxy-agent: '--wait' needs '--status'\n\n${USAGE}`,
    })
  })

  test('exits with 78 for a configuration that is missing', () => {
    const { status, stdout, stderr } = run('-c', '/nonexistent/agent.json')
    assert.equal(status, 78)
    assert.equal(stdout, '')
    assert.equal(
      stderr,
      'azure-proxy-agent: Error in reading Config from Json file: /nonexistent/agent.json: no such file; ' +
        'write one or name it with --config FILE\n',
    )
  })

  test('exits with 78 for a configuration that is wrong, and names file, line, key, value and reason', (t) => {
    const path = configFile(t, '{\n  "logFolder": 5\n}')
    const { status, stderr } = run('-c', path, 'console')
    assert.equal(status, 78)
    assert.equal(
      stderr,
      `azure-proxy-agent: Error in reading Config from Json file: ${path}: line 2: key 'logFolder' is 5; it must be a string\n`,
    )
  })
})
