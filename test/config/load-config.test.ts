import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { AgentError } from '../../src/base/errors.ts'
import { type ConfigEnv, configEnv, loadConfig, SYSTEM_CONFIG_PATH } from '../../src/config/load-config.ts'
import { temporaryFolder } from '../fakes/temporary-folder.ts'

const BESIDE = '/opt/agent/proxy-agent.json'
const WORDS = 'Error in reading Config from Json file:'

const fileOf = (logFolder: string) =>
  JSON.stringify({ logFolder, eventFolder: '/e', latchKeyFolder: '/k', pollKeyStatusIntervalInSeconds: 15 })

/** A machine with these files; a value that is no text is the code of the failure to read it. */
function machine(files: Readonly<Record<string, string | { readonly code: string }>>): ConfigEnv & { reads: string[] } {
  const reads: string[] = []
  return {
    reads,
    environment: { HERE: '/from/environment' },
    executablePath: '/opt/agent/azure-proxy-agent',
    readFile(path) {
      reads.push(path)
      const file = files[path] ?? { code: 'ENOENT' }
      if (typeof file === 'string') return file
      throw Object.assign(new Error(file.code), file)
    },
  }
}

describe('loadConfig() reads', () => {
  test('the system file first, and no other', () => {
    const env = machine({ [SYSTEM_CONFIG_PATH]: fileOf('/system'), [BESIDE]: fileOf('/beside') })
    const config = loadConfig(undefined, env)
    assert.deepEqual([config.logFolder, config.path], ['/system', SYSTEM_CONFIG_PATH])
    assert.deepEqual(env.reads, [SYSTEM_CONFIG_PATH])
  })

  test('the file beside the executable when there is no system file', () => {
    const config = loadConfig(undefined, machine({ [BESIDE]: fileOf('/beside') }))
    assert.deepEqual([config.logFolder, config.path], ['/beside', BESIDE])
  })

  test('the file it is told to, and no other', () => {
    const env = machine({ [SYSTEM_CONFIG_PATH]: fileOf('/system'), '/my.json': fileOf('/mine') })
    assert.equal(loadConfig('/my.json', env).logFolder, '/mine')
    assert.deepEqual(env.reads, ['/my.json'])
  })

  test('variables of the environment it is given', () => {
    assert.equal(loadConfig('/my.json', machine({ '/my.json': fileOf('%HERE%') })).logFolder, '/from/environment')
  })

  test('real files', (t) => {
    const path = join(temporaryFolder(t), 'my.json')
    writeFileSync(path, `\ufeff${fileOf('/real')}`)
    assert.equal(loadConfig(path).logFolder, '/real')
    assert.equal(configEnv.executablePath, process.execPath)
  })
})

describe('loadConfig() fails, in words that tools look for', () => {
  const rows: readonly (readonly [situation: string, explicit: string | undefined, env: ConfigEnv, message: string])[] =
    [
      [
        'when there is no file at all',
        undefined,
        machine({}),
        `${WORDS} ${SYSTEM_CONFIG_PATH} or ${BESIDE}: no such file; write one or name it with --config FILE`,
      ],
      [
        'when the file it is told to read is missing, although another is there',
        '/my.json',
        machine({ [SYSTEM_CONFIG_PATH]: fileOf('/system') }),
        `${WORDS} /my.json: no such file; write one or name it with --config FILE`,
      ],
      [
        'when the system file cannot be read, although another is there',
        undefined,
        machine({ [SYSTEM_CONFIG_PATH]: { code: 'EACCES' }, [BESIDE]: fileOf('/beside') }),
        `${WORDS} ${SYSTEM_CONFIG_PATH}: cannot be read: EACCES`,
      ],
      [
        'when the system file is bad, although another is good',
        undefined,
        machine({ [SYSTEM_CONFIG_PATH]: '{}', [BESIDE]: fileOf('/beside') }),
        `${WORDS} ${SYSTEM_CONFIG_PATH}: key 'logFolder' is missing; it must be a string`,
      ],
      [
        'when the file is a directory',
        '/my.json',
        machine({ '/my.json': { code: 'EISDIR' } }),
        `${WORDS} /my.json: cannot be read: EISDIR`,
      ],
    ]
  for (const [situation, explicit, env, message] of rows) {
    test(situation, () => {
      assert.throws(
        () => loadConfig(explicit, env),
        (error) => {
          assert.ok(error instanceof AgentError)
          assert.deepEqual([error.code, error.message], ['CONFIG_INVALID', message])
          return true
        },
      )
    })
  }
})
