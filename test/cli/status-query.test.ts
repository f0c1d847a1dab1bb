import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { before, describe, test } from 'node:test'

const PROBE = new URL('./query-probe.ts', import.meta.url).pathname
const answer = (head: string, body: string) => `HTTP/1.1 ${head}\r\ncontent-length: ${body.length}\r\n\r\n${body}`

const ROWS: readonly (readonly [situation: string, answer: string | null, outcome: unknown])[] = [
  [
    'the state as it is answered',
    answer('200 OK', '{"finished":false,"errorMessage":"keyLatchStatus - x\\r\\n"}'),
    { finished: false, errorMessage: 'keyLatchStatus - x\r\n' },
  ],
  [
    'any 2xx, and members it does not know',
    answer('201 X', '{"finished":true,"errorMessage":"","x":1}'),
    { finished: true, errorMessage: '' },
  ],
  ['a refusal', answer('400 Bad Request', ''), 'status code: 400'],
  ['a redirect, which it does not follow', answer('302 Found\r\nlocation: /', ''), 'status code: 302'],
  ['no JSON', answer('200 OK', '<html>'), 'the answer is not a provision state'],
  ['a state without its message', answer('200 OK', '{"finished":true}'), 'the answer is not a provision state'],
  [
    'a state of the wrong type',
    answer('200 OK', '{"finished":1,"errorMessage":""}'),
    'the answer is not a provision state',
  ],
  ['an answer that is too large', answer('200 OK', ' '.repeat(70_000)), 'the answer is too large'],
  ['half an answer', 'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"fin', /closed|aborted/],
  ['an answer in another protocol', 'HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n', /closed/],
  ['nothing but the end', '', /hang up|closed/],
  ['silence', null, 'no answer within 300 ms'],
  ['nobody there', null, /ECONNREFUSED/],
]

describe('queryService(), in a network namespace of its own,', { skip: skipReason() }, () => {
  let results: readonly { readonly sent: string; readonly outcome: unknown }[]
  before(() => {
    const answers = JSON.stringify(ROWS.slice(0, -1).map(([, text]) => text))
    const command = ['ip link set lo up && exec "$@"', 'sh', process.execPath, PROBE, answers]
    const child = spawnSync('unshare', ['--net', 'sh', '-c', ...command], { encoding: 'utf8', timeout: 30_000 })
    assert.equal(child.status, 0, child.stderr)
    results = JSON.parse(child.stdout)
  })

  for (const [index, [situation, , outcome]] of ROWS.entries()) {
    test(`hears ${situation}`, () => {
      const heard = results[index]?.outcome
      if (outcome instanceof RegExp) assert.match(heard as string, outcome)
      else assert.deepEqual(heard, outcome)
    })
  }

  test('sends exactly these headers, the wish to be noticed with the first query alone', () => {
    const lines = (results[0]?.sent ?? '').split('\r\n')
    const date = lines.splice(5, 1)[0]
    assert.match(
      date as string,
      /^x-ms-azure-host-date: [A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/,
    )
    assert.deepEqual(lines, [
      'GET /provision HTTP/1.1',
      'host: 127.0.0.1',
      'metadata: true',
      'x-ms-azure-time-tick: 1767323045123456789',
      'x-ms-azure-notify: true',
      'x-ms-azure-host-claims: { "isRoot": "true"}',
      'content-length: 0',
      '',
      '',
    ])
    assert.doesNotMatch(results[1]?.sent ?? '', /notify/)
  })
})

/** The listener's port is fixed and may be taken on this machine, hence the namespace, hence root. */
function skipReason(): string | false {
  return process.getuid?.() === 0 ? false : 'needs root, to make a network namespace'
}
