import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { type Command, parseArguments, USAGE } from '../../src/cli/arguments.ts'
import { SERVICE_STATUS_USAGE } from '../../src/cli/service-arguments.ts'

const split = (line: string) => line.split(' ').filter((word) => word !== '')
const SERVICE: Command = { kind: 'service', configPath: undefined }
const CONSOLE: Command = { kind: 'console', configPath: undefined }
const VERSION: Command = { kind: 'version' }
const HELP: Command = { kind: 'help' }
const status = (waitSeconds = 0): Command => ({ kind: 'status', waitSeconds })

describe('parseArguments() accepts', () => {
  const rows: readonly (readonly [line: string, command: Command])[] = [
    ['', SERVICE],
    ['console', CONSOLE],
    ['--version', VERSION],
    ['-v', VERSION],
    ['--help', HELP],
    ['-h', HELP],
    ['help', HELP],
    ['help console', HELP],
    ['console --help', HELP],
    ['console -h', HELP],
    ['--status', status()],
    ['-s', status()],
    ['--status --wait 30', status(30)],
    ['--wait 30 --status', status(30)],
    ['--status --wait=30', status(30)],
    ['-s -w 30', status(30)],
    ['-s -w30', status(30)],
    ['-s -w=30', status(30)],
    ['-sw30', status(30)],
    ['-sw=30', status(30)],
    ['-sw 30', status(30)],
    ['-s -w 0', status()],
    ['-s -w 007', status(7)],
    ['-s -w 18446744073709551615', status(2 ** 64)],
    ['--config /x.json', { kind: 'service', configPath: '/x.json' }],
    ['--config=/x.json console', { kind: 'console', configPath: '/x.json' }],
    ['-c /x.json', { kind: 'service', configPath: '/x.json' }],
    ['-c=/x.json', { kind: 'service', configPath: '/x.json' }],
    ['-c/x=y', { kind: 'service', configPath: '/x=y' }],
    ['-c console', { kind: 'service', configPath: 'console' }],
    ['-c console console', { kind: 'console', configPath: 'console' }],
    ['-c console -s', status()],
    ['-c -x', { kind: 'service', configPath: '-x' }],
  ]
  for (const [line, command] of rows) {
    test(`'${line}'`, () => assert.deepEqual(parseArguments(split(line)), command))
  }
})

describe('parseArguments() reads the words after status', () => {
  const ask = (changes: Record<string, unknown> = {}) =>
    ({
      kind: 'service-status',
      output: { form: 'text' },
      socket: undefined,
      configPath: undefined,
      ...changes,
    }) as Command
  const rows: readonly (readonly [line: string, command: Command])[] = [
    ['status', ask()],
    ['status --json', ask({ output: { form: 'json' } })],
    ['status --textfile /x.prom', ask({ output: { form: 'textfile', file: '/x.prom' } })],
    ['status --textfile=/x=y', ask({ output: { form: 'textfile', file: '/x=y' } })],
    ['status --socket /s -c /c', ask({ socket: '/s', configPath: '/c' })],
    ['status --config=/c --json', ask({ configPath: '/c', output: { form: 'json' } })],
    ['status --help', { kind: 'command-help', usage: SERVICE_STATUS_USAGE }],
    ['status --json -h', { kind: 'command-help', usage: SERVICE_STATUS_USAGE }],
    ['help status', { kind: 'command-help', usage: SERVICE_STATUS_USAGE }],
  ]
  for (const [line, command] of rows) {
    test(`'${line}'`, () => assert.deepEqual(parseArguments(split(line)), command))
  }
  const refusals: readonly (readonly [line: string, reason: string])[] = [
    ['status now', "unexpected argument 'now'"],
    ['status --wait 3', "unexpected option '--wait'"],
    ['status --json=1', "unexpected option '--json=1'"],
    ['status -s', "unexpected option '-s'"],
    ['status --json --json', "option '--json' is given twice"],
    ['status -c a --config b', "option '--config' is given twice"],
    ['status --textfile', "option '--textfile' needs a value"],
    ['status --socket=', "option '--socket' needs a value"],
    ['status --json --textfile /x', "'--json' and '--textfile' exclude each other"],
  ]
  for (const [line, reason] of refusals) {
    test(`not '${line}'`, () =>
      assert.deepEqual(parseArguments(split(line)), { kind: 'usage-error', reason, usage: SERVICE_STATUS_USAGE }))
  }
})

describe('parseArguments() honours one request, in this order', () => {
  const rows: readonly (readonly [line: string, command: Command])[] = [
    ['-s -v', VERSION],
    ['-v -s -w 5', VERSION],
    ['-v console', VERSION],
    ['--status console', status()],
    ['-sw 5 console', status(5)],
    ['-v -h', HELP],
    ['-svh', HELP],
    ['-s help', HELP],
  ]
  for (const [line, command] of rows) {
    test(`'${line}'`, () => assert.deepEqual(parseArguments(split(line)), command))
  }
})

describe('parseArguments() refuses', () => {
  const rows: readonly (readonly [words: string | readonly string[], reason: string])[] = [
    ['--wait 5', "'--wait' needs '--status'"],
    ['--wait 5 --version', "'--wait' needs '--status'"],
    ['--status --wait', "option '--wait' needs a value"],
    ['-sw', "option '--wait' needs a value"],
    ['-c', "option '--config' needs a value"],
    ['--config=', "'--config' needs a file"],
    [['-c', ''], "'--config' needs a file"],
    ['-s --wait=', "'--wait' needs a whole number of seconds, not ''"],
    [['-s', '-w', ''], "'--wait' needs a whole number of seconds, not ''"],
    ['-s -w=', "'--wait' needs a whole number of seconds, not ''"],
    ['-s -w -5', "'--wait' needs a whole number of seconds, not '-5'"],
    ['-s -w 1.5', "'--wait' needs a whole number of seconds, not '1.5'"],
    ['-s -w 1e3', "'--wait' needs a whole number of seconds, not '1e3'"],
    ['-s -w 0x10', "'--wait' needs a whole number of seconds, not '0x10'"],
    ['-s -w ten', "'--wait' needs a whole number of seconds, not 'ten'"],
    [['-s', '-w', ' 5'], "'--wait' needs a whole number of seconds, not ' 5'"],
    ['-s -w 18446744073709551616', "'--wait' needs a whole number of seconds, not '18446744073709551616'"],
    ['--wait --status', "'--wait' needs a whole number of seconds, not '--status'"],
    ['-s -s', "option '--status' is given twice"],
    ['-s --status', "option '--status' is given twice"],
    ['-ss', "option '--status' is given twice"],
    ['-vv', "option '--version' is given twice"],
    ['-s -w 1 -w 1', "option '--wait' is given twice"],
    ['-c a --config=b', "option '--config' is given twice"],
    ['--status=true', "option '--status' takes no value"],
    ['-s=1', "option '--status' takes no value"],
    ['--stat', "unexpected option '--stat'"],
    ['--no-status', "unexpected option '--no-status'"],
    ['--', "unexpected option '--'"],
    ['--__proto__=1', "unexpected option '--__proto__=1'"],
    ['--constructor', "unexpected option '--constructor'"],
    ['-V', "unexpected option '-V'"],
    ['-x', "unexpected option '-x'"],
    ['-sx', "unexpected option '-sx'"],
    ['-', "unexpected argument '-'"],
    [[''], "unexpected argument ''"],
    ['start', "unexpected argument 'start'"],
    ['Console', "unexpected argument 'Console'"],
    ['console console', "unexpected argument 'console'"],
    ['console --status', "unexpected argument '--status'"],
    ['console -c /x', "unexpected argument '--config=/x'"],
    ['help start', "unexpected argument 'start'"],
    ['--help start', "unexpected argument 'start'"],
    ['--help --bogus', "unexpected option '--bogus'"],
  ]
  for (const [line, reason] of rows) {
    const words = typeof line === 'string' ? split(line) : line
    test(JSON.stringify(words.join(' ')), () =>
      assert.deepEqual(parseArguments(words), { kind: 'usage-error', reason }),
    )
  }
})

describe('parseArguments()', () => {
  test('gives a command for any words', () => {
    const word = fc.oneof(
      fc.string(),
      fc.constantFrom('-s', '-w', '--wait', '5', 'console', 'help', '--config', '-c=', '--'),
    )
    const kinds = ['service', 'console', 'version', 'help', 'status', 'usage-error']
    fc.assert(
      fc.property(fc.array(word, { maxLength: 6 }), (words) => {
        assert.ok(kinds.includes(parseArguments(words).kind))
      }),
      { numRuns: 2000 },
    )
  })

  test('knows every option that the usage text names', () => {
    const options = [...USAGE.matchAll(/^ {2}(-\w), (--\w+)/gm)].flatMap(([, short, long]) => [short, long] as string[])
    assert.equal(options.length, 10)
    for (const option of options) {
      const command = parseArguments([option, ...(/^--?[wc]/.test(option) ? ['1'] : [])])
      if (command.kind === 'usage-error') assert.equal(command.reason, "'--wait' needs '--status'")
    }
  })
})
