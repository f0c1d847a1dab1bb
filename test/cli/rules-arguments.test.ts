import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseArguments } from '../../src/cli/arguments.ts'
import { RULES_USAGE } from '../../src/cli/rules-arguments.ts'

const split = (line: string) => ['rules', ...line.split(' ').filter((word) => word !== '')]
const QUESTION = 'explain --rules f --endpoint imds --user u'

describe('parseArguments() accepts rules', () => {
  test('check with several files', () => {
    const command = parseArguments(split('check a --json b'))
    assert.deepEqual(command, { kind: 'rules', name: 'check', files: ['a', 'b'], json: true })
  })

  test('check with a file that looks like an option', () => {
    const command = parseArguments(split('check -- --json'))
    assert.deepEqual(command, { kind: 'rules', name: 'check', files: ['--json'], json: false })
  })

  test('explain with all it takes, in any order', () => {
    const line =
      'explain GET --rules f --endpoint=hostga --user -u --group g --group h --exe /bin/x --elevated /t --canonical enforce ' +
      '--sha256 AB --cgroup /a --unit b.service --container CD'
    assert.deepEqual(parseArguments(split(line)), {
      kind: 'rules',
      name: 'explain',
      file: 'f',
      question: {
        endpoint: 'hostga',
        caller: {
          userName: '-u',
          groups: ['g', 'h'],
          exePath: '/bin/x',
          processName: 'x',
          elevated: true,
          exeSha256: 'ab',
          cgroupPath: '/a',
          systemdUnit: 'b.service',
          containerId: 'cd',
        },
        request: { method: 'GET', target: '/t' },
      },
      canonicalMode: 'enforce',
      json: false,
    })
  })

  for (const line of ['--help', '-h', 'help']) {
    test(`'rules ${line}'`, () => {
      assert.deepEqual(parseArguments(split(line)), { kind: 'rules', name: 'help', usage: RULES_USAGE })
    })
  }

  for (const name of ['check', 'explain', 'test', 'schema']) {
    test(`help of ${name}, asked in three ways, within 80 columns`, () => {
      const command = parseArguments(split(`${name} --help`))
      assert.ok(command.kind === 'rules' && command.name === 'help')
      assert.ok(command.usage.startsWith(`Usage: azure-proxy-agent rules ${name} `))
      assert.deepEqual(parseArguments(split(`help ${name}`)), command)
      assert.deepEqual(parseArguments(['help', ...split(name)]), command)
      assert.deepEqual(
        command.usage.split('\n').filter((row) => row.length > 80),
        [],
      )
    })
  }
})

describe('parseArguments() refuses rules', () => {
  const rows: readonly (readonly [line: string, reason: string])[] = [
    ['', "'rules' needs a command"],
    ['lint x', "'lint' is not a command of 'rules'"],
    ['constructor', "'constructor' is not a command of 'rules'"],
    ['check', "'rules check' needs a file"],
    ['check --jsn x', "unexpected option '--jsn'"],
    ['check --json=1 x', "option '--json' takes no value"],
    ['check --json --json x', "option '--json' is given twice"],
    ['check --no-json x', "unexpected option '--no-json'"],
    ['test a b', "unexpected argument 'b'"],
    ['schema key', "'key' is not the name of a schema"],
    [`${QUESTION} GET`, "'rules explain' needs a method and a target"],
    [`${QUESTION} GET /a /b`, "unexpected argument '/b'"],
    [`${QUESTION} --user v GET /a`, "option '--user' is given twice"],
    [`${QUESTION} --canonical on GET /a`, "'--canonical' must be off, shadow or enforce, not 'on'"],
    [`${QUESTION} GET /a --exe`, "option '--exe' needs a value"],
    ['explain --rules f --user u GET /a', "'rules explain' needs '--endpoint'"],
    ['explain --rules f --endpoint imds GET /a', "'rules explain' needs '--user'"],
    ['explain --endpoint imds --user u GET /a', "'rules explain' needs '--rules'"],
    ['explain --rules f --endpoint IMDS --user u GET /', "'--endpoint' must be imds, wireserver or hostga, not 'IMDS'"],
  ]
  for (const [line, reason] of rows) {
    test(`'${line}'`, () => {
      const command = parseArguments(split(line))
      assert.ok(command.kind === 'usage-error')
      assert.equal(command.reason, reason)
      assert.match(command.usage ?? '', /^Usage: azure-proxy-agent rules /)
    })
  }
})
