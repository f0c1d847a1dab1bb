import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { run, runProcess } from './rules-commands.ts'

const CASE = { method: 'GET', target: '/x', user: 'alice', expect: 'ok' }
const ITEM = { id: 'x', mode: 'enforce', defaultAccess: 'allow' }

describe('rules test', () => {
  test('as a process, exits with 0 when all is as expected', () => {
    const { status, stdout } = runProcess('test', 'expectations.json')
    assert.equal(status, 0)
    assert.match(stdout, /^pass {2}ok {9}alice reads the instance with curl$/m)
    assert.match(stdout, /^3 cases: 3 passed, 0 failed\n$/m)
  })

  test('as a process, exits with 1 when a case fails, and says why', () => {
    const { status, stdout } = runProcess('test', 'expectations-failing.json')
    assert.equal(status, 1)
    assert.match(stdout, /^FAIL {2}forbidden {2}alice reads the instance with curl$/m)
    assert.match(stdout, /^ {17}got ok: privilege "instance" is granted to identity "alice" by$/m)
    assert.match(stdout, /^3 cases: 2 passed, 1 failed\n$/m)
  })

  test('--json counts and explains', () => {
    const { status, stdout } = run(['test', '--json', 'expectations-failing.json'])
    assert.equal(status, 1)
    const { passed, failed, cases } = JSON.parse(stdout)
    assert.deepEqual([passed, failed], [2, 1])
    const [{ expected, verdict, privilege }] = cases
    assert.deepEqual({ expected, verdict, privilege }, { expected: 'forbidden', verdict: 'ok', privilege: 'instance' })
  })

  test('takes rules that stand in the file itself', () => {
    const text = JSON.stringify({ rules: ITEM, endpoint: 'imds', cases: [CASE] })
    assert.equal(run(['test', 't.json'], { 't.json': text }).status, 0)
  })

  const rows: readonly (readonly [situation: string, text: string, error: RegExp])[] = [
    ['is not JSON', '{\n  "rules": ', /^t\.json:2:12: error: this is not JSON: a value is expected \(json-syntax\)/],
    ['is empty of cases', JSON.stringify({ rules: ITEM, endpoint: 'imds', cases: [] }), /'cases': there must be one/],
    [
      'has a slip in a name',
      `{"rules":{},"endpoint":"imds","cases":[\n{"expcet":"ok"}]}`,
      /^t\.json:2:[12]: error: 'method': a required/,
    ],
    [
      'has a member too many',
      JSON.stringify({ rules: ITEM, endpoint: 'imds', cases: [{ ...CASE, groop: [] }] }),
      /error: 'groop': the member has no meaning here \(shape\)/,
    ],
    [
      'expects a word that is no verdict',
      JSON.stringify({ rules: ITEM, endpoint: 'imds', cases: [{ ...CASE, expect: 'maybe' }] }),
      /error: 'expect': expected \("ok" \| "audit" \| "forbidden"\) \(shape\)/,
    ],
    ['names no endpoint', JSON.stringify({ rules: ITEM, cases: [CASE] }), /neither the case nor the file names/],
    [
      'repeats a member',
      '{"rules":{},"endpoint":"imds",\n"endpoint":"imds","cases":[]}',
      /^t\.json:2:1: error: member 'endpoint' stands twice/,
    ],
    [
      'holds rules that are refused',
      JSON.stringify({ rules: { ...ITEM, id: 5 }, endpoint: 'imds', cases: [CASE] }),
      /^t\.json:1:\d\d: error: 'id': expected string, got number/,
    ],
    [
      'names rules that are not there',
      JSON.stringify({ rules: 'gone.json', endpoint: 'imds', cases: [CASE] }),
      /^gone\.json:1:1: error: cannot read the file/,
    ],
  ]
  for (const [situation, text, error] of rows) {
    test(`exits with 1 and names the place in a file that ${situation}`, () => {
      const { status, stdout, stderr } = run(['test', 't.json'], { 't.json': text })
      assert.deepEqual([status, stdout], [1, ''])
      assert.match(stderr, error)
    })
  }
})

test('rules schema prints a schema', () => {
  const { status, stdout } = runProcess('schema')
  assert.equal(status, 0)
  assert.equal(JSON.parse(stdout).$schema, 'https://json-schema.org/draft/2020-12/schema')
})
