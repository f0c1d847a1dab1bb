import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { run, runProcess } from './rules-commands.ts'

const EXPLAIN = ['explain', '--endpoint', 'imds', '--user', 'alice']

describe('rules check', () => {
  test('as a process, exits with 0 for sound rules', () => {
    assert.deepEqual(runProcess('check', 'item-sound.json'), {
      status: 0,
      stdout: '1 file: 0 errors, 0 warnings\n',
      stderr: '',
    })
  })

  test('as a process, exits with 1 for errors and names their places', () => {
    const { status, stdout } = runProcess('check', 'item-trapped.json')
    assert.equal(status, 1)
    assert.match(stdout, /^item-trapped\.json:17:7: error: identity 'anyone' has no selector: .* \(identity-anyone\)$/m)
    assert.match(stdout, /^1 file: 3 errors, 8 warnings\n$/m)
  })

  test('as a process, exits with 2 for wrong usage', () => {
    const { status, stdout, stderr } = runProcess('check')
    assert.deepEqual([status, stdout], [2, ''])
    assert.match(stderr, /^azure-proxy-agent: 'rules check' needs a file\n\nUsage: azure-proxy-agent rules check/)
  })

  test('exits with 0 when there are warnings alone', () => {
    const { status, stdout } = run(['check', 'local.json'])
    assert.equal(status, 0)
    assert.match(stdout, /1 file: 0 errors, 1 warning\n$/)
  })

  test('tells of a file that cannot be read, and of the others all the same', () => {
    const { status, stdout } = run(['check', 'missing.json', 'item-sound.json'])
    assert.equal(status, 1)
    assert.match(stdout, /^missing\.json:1:1: error: cannot read the file: No such file or directory/)
    assert.match(stdout, /^2 files: 1 error, 0 warnings\n$/m)
  })

  for (const [situation, bytes, expected] of [
    ['Latin-1', Buffer.from('{\n  "id": "caf\xe9"}', 'latin1'), '2:13: error: byte 0xe9 is not UTF-8 (encoding)'],
    [
      'a mark, then Latin-1',
      Buffer.from('\xef\xbb\xbf{"\xff"', 'latin1'),
      '1:3: error: byte 0xff is not UTF-8 (encoding)',
    ],
    [
      'a character cut short at the end',
      Buffer.from('{"\xe2\x84', 'latin1'),
      '1:3: error: byte 0xe2 is not UTF-8 (encoding)',
    ],
    ['UTF-16', Buffer.from('\ufeff{}', 'utf16le'), '1:1: error: the file is UTF-16 (encoding)'],
  ] as const) {
    test(`refuses a file that is not UTF-8, as the agent does: ${situation}`, () => {
      for (const words of [
        ['check', 'f'],
        ['test', 'f'],
        [...EXPLAIN, '--rules', 'f', 'GET', '/'],
      ]) {
        const { status, stdout, stderr } = run(words, { f: bytes })
        assert.equal(status, 1)
        const text = stdout + stderr
        assert.ok(text.startsWith(`f:${expected}\n    Save the file as UTF-8.\n`), text)
      }
    })
  }

  test('--json prints one object with the findings', () => {
    const { status, stdout } = run(['check', '--json', 'bad.json'], { 'bad.json': '{\n  "mode": 5 }' })
    assert.equal(status, 1)
    const { errors, warnings, files } = JSON.parse(stdout)
    assert.deepEqual([errors, warnings, files.length], [1, 0, 1])
    assert.equal(files[0].format, 'item')
    const { severity, code, line, path } = files[0].findings[0]
    assert.deepEqual(
      { severity, code, line, path },
      { severity: 'error', code: 'shape', line: 1, path: 'defaultAccess' },
    )
  })

  test('prints nothing that a terminal would obey', () => {
    const name = '\u001b[31m\u202e\u0085red'
    const text = JSON.stringify({ mode: name, id: '', defaultAccess: name, [name]: 1 })
    const words = [[], ['--json']]
    for (const options of words) {
      const { stdout } = run(['check', ...options, `${name}.json`], { [`${name}.json`]: text })
      assert.match(stdout, /mode-unknown/)
      assert.doesNotMatch(stdout.replaceAll('\n', ''), /[\p{Control}\p{Bidi_Control}]/u)
    }
  })
})
