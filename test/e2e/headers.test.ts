/**
 * Which header lines cross the agent, on the wire of the executable, in both directions. Nothing that a client says stands for
 * the agent's own word, and nothing that concerns one connection goes further, however it is spelled.
 */

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { PLACES } from '../fuzz/requests.ts'
import type { Echo } from '../fuzz/told-host.ts'
import { SLOWNESS } from '../kernel/lab.ts'
import type { Machine } from './machine.ts'
import { answersOf, createToldMachine, echoOf, hold, telling } from './wire.ts'
import type { Conversation } from './wire-client.ts'

let machine: Machine
before(async () => {
  machine = await createToldMachine()
})
after(() => machine[Symbol.asyncDispose]())

/** What was written, and what of it arrives; `refused`: nothing does, the answer is 400. */
type Row = readonly [situation: string, lines: readonly string[], arrives: readonly string[] | 'refused']

const NOTHING: readonly string[] = []
const ROOT = '{ "isRoot": "true"}'

/** The agent's own headers that a client might want to write. */
const FORGED: readonly Row[] = ['claims', 'date', 'authorization', 'anything'].flatMap((part): Row[] => {
  const name = `x-ms-azure-host-${part}`
  const upper = name.toUpperCase()
  return [
    [`${name}`, [`${name}: ${ROOT}`], NOTHING],
    [`${upper}`, [`${upper}: ${ROOT}`], NOTHING],
    [`${name} in mixed case`, [`X-Ms-aZURE-Host-${part}:${ROOT}`], NOTHING],
    [`${name} twice`, [`${name}: a`, `${upper}: b`], NOTHING],
    [`${name} among others`, ['X-A: 1', `${name}: a`, 'X-B: 2', `${name}: b`], ['x-a: 1', 'x-b: 2']],
    [`${name} without a value`, [`${name}:`], NOTHING],
    [`${name} with blanks around its value`, [`${name}: \t ${ROOT} \t`], NOTHING],
    [`${name} declared a header of the connection`, [`Connection: ${upper}`, `${name}: a`], NOTHING],
    [`${name} with underscores`, [`${name.replaceAll('-', '_')}: ${ROOT}`], NOTHING],
    [`${name} with one underscore`, [`x-ms-azure-host_${part}: ${ROOT}`], NOTHING],
    [`${name} with a blank before the colon`, [`${name} : a`], 'refused'],
    [`${name} with a tab before the colon`, [`${name}\t: a`], 'refused'],
    [`${name} behind a blank`, [` ${name}: a`], 'refused'],
    [`${name} folded into another`, ['X-A: 1', ` ${name}: a`], 'refused'],
    [`${name} behind a carriage return`, [`X-A: 1\r${name}: a`], 'refused'],
    [`${name} behind a line feed`, [`X-A: 1\n${name}: a`], 'refused'],
    [`${name} behind NUL`, [`X-A: 1\0${name}: a`], 'refused'],
    [`${name} with NUL in it`, [`${name}\0: a`], 'refused'],
    [`${name} with a byte above ASCII in it`, [`${name}\xa0: a`], 'refused'],
  ]
})

/** Each in several spellings, with what it declares. */
const OF_THE_CONNECTION: readonly Row[] = [
  ...[
    ['Connection', 'keep-alive'],
    ['Expect', '100-continue'],
    ['HTTP2-Settings', 'AAMAAABk'],
    ['Keep-Alive', 'timeout=5'],
    ['Proxy-Authenticate', 'Basic'],
    ['Proxy-Authentication-Info', 'a'],
    ['Proxy-Authorization', 'Basic eDp5'],
    ['Proxy-Connection', 'keep-alive'],
    ['TE', 'trailers'],
    ['Trailer', 'x-sum'],
    ['Upgrade', 'websocket'],
  ].flatMap(([name = '', value = '']): Row[] => [
    [name, [`${name}: ${value}`], NOTHING],
    [`${name} in upper case, twice`, [`${name.toUpperCase()}:${value}`, `${name.toLowerCase()}:\t${value} `], NOTHING],
  ]),
  ['a declared header', ['Connection: X-Mine', 'x-mine: 1', 'X-Other: 2'], ['x-other: 2']],
  ['a header declared behind it', ['X-MINE: 1', 'connection: x-mine'], NOTHING],
  ['a header declared in a list with blanks', ['Connection: ,, close ,\tX-Mine ,', 'X-Mine: 1'], NOTHING],
  ['headers declared in two lines', ['Connection: x-a', 'CONNECTION: x-b', 'X-A: 1', 'X-B: 2'], NOTHING],
  ['a declared header that comes twice', ['Connection: x-mine', 'X-Mine: 1', 'x-mine: 2'], NOTHING],
  [
    'what the host judges by, declared',
    ['Connection: metadata, host, x-forwarded-for', 'Metadata: true', 'X-Forwarded-For: 10.0.0.1'],
    ['metadata: true', 'x-forwarded-for: 10.0.0.1'],
  ],
]

const ORDINARY: readonly Row[] = [
  ['a repeated header', ['X-A: 1', 'x-a: 2'], ['x-a: 1, 2']],
  ['a repeated cookie', ['Cookie: a=1', 'cookie: b=2'], ['cookie: a=1; b=2']],
  ['an empty header', ['X-Empty:'], ['x-empty: ']],
  ['bytes above ASCII', ['X-Name: J\xf6rg'], ['x-name: J\xf6rg']],
  ['a name that objects have by nature', ['__proto__: 1', 'constructor: 2'], ['__proto__: 1', 'constructor: 2']],
  [
    'a name that only begins alike',
    ['x-ms-azure-hosting: 1', 'x-ms-azure: 2'],
    ['x-ms-azure-hosting: 1', 'x-ms-azure: 2'],
  ],
  ['the version of the service', ['x-ms-version: 2012-11-30'], ['x-ms-version: 2012-11-30']],
]

/** The agent's own, in this order, at the end of every request. */
const OWN = ['x-ms-azure-host-claims', 'x-ms-azure-host-date', 'x-ms-azure-host-authorization']

test('what a client says reaches the host like this', { timeout: 120_000 * SLOWNESS }, async (t) => {
  const rows = [...FORGED, ...OF_THE_CONNECTION, ...ORDINARY]
  const outcomes = await hold(
    machine,
    rows.map(([, lines]): Conversation => {
      const write = `GET /x HTTP/1.1\r\nHost: h\r\n${lines.join('\r\n')}\r\n\r\n`
      return { to: PLACES.imds, steps: [{ write }, { await: '"nth":' }, { end: 'half' }], patienceMs: 3000 * SLOWNESS }
    }),
  )
  for (const [i, [situation, , arrives]] of rows.entries()) {
    await t.test(situation, () => {
      const [answer] = answersOf(outcomes[i] as (typeof outcomes)[number], ['GET'])
      if (arrives === 'refused') return assert.equal(answer?.status, 400)
      const { rawHeaders = [] } = echoOf(answer)
      const lines = rawHeaders.flatMap((name, at) => (at % 2 === 0 ? [`${name}: ${rawHeaders[at + 1]}`] : []))
      assert.deepEqual(lines.slice(0, -3), ['host: h', ...arrives])
      assert.deepEqual(
        lines.slice(-3).map((line) => line.split(': ')[0]),
        OWN,
      )
      assert.equal(lines.at(-3), `x-ms-azure-host-claims: ${ROOT}`)
      assert.match(lines.at(-2) ?? '', /: [A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} 20\d\d \d\d:\d\d:\d\d GMT$/)
      assert.match(lines.at(-1) ?? '', /: Azure-HMAC-SHA256 [0-9a-f-]{36} [0-9a-f]{64}$/)
      return undefined
    })
  }
})

test('what another user says of himself changes nothing: he is no root', async () => {
  const asUser = { uid: 1000, gid: 1000 }
  const forged = ['-H', `x-ms-azure-host-claims: ${ROOT}`, '-H', `X_MS_AZURE_HOST_CLAIMS: ${ROOT}`]
  const { body } = await machine.curl([...forged, 'http://169.254.169.254/x'], asUser)
  const { rawHeaders } = JSON.parse(body) as Echo
  const claims = rawHeaders.filter((_, i) => i % 2 === 1 && /claims/i.test(rawHeaders[i - 1] as string))
  assert.deepEqual(claims, ['{ "isRoot": "false"}'])
})

test('trailers of a client are dropped, whatever they are called', async () => {
  const trailers = 'x-ms-azure-host-claims: a\r\nContent-Length: 3\r\nX-A: 1\r\n'
  const write = `POST /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n${trailers}\r\n`
  const [outcome] = await hold(machine, [{ to: PLACES.imds, steps: [{ write }], patienceMs: 5000 * SLOWNESS }])
  const { rawHeaders = [], body } = echoOf(answersOf(outcome!, ['POST'])[0])
  assert.equal(body, 'a')
  assert.deepEqual(
    rawHeaders.filter((_, i) => i % 2 === 0),
    ['host', 'content-length', ...OWN],
  )
})

describe('what the host says', () => {
  const rows: readonly Row[] = [
    ...[
      ['Keep-Alive', 'timeout=5'],
      ['Proxy-Authenticate', 'Basic'],
      ['Proxy-Authentication-Info', 'a'],
      ['Proxy-Connection', 'keep-alive'],
      ['TE', 'trailers'],
      ['Trailer', 'x-sum'],
      ['Upgrade', 'h2c'],
      ['HTTP2-Settings', 'AAMAAABk'],
      ['Connection', 'keep-alive'],
      ['Connection', 'close'],
    ].flatMap(([name = '', value = '']): Row[] => [
      [`${name}: ${value}`, [`${name}: ${value}`], NOTHING],
      [
        `${name}: ${value}, twice, in other cases`,
        [`${name.toUpperCase()}: ${value}`, `${name.toLowerCase()}:${value} `],
        NOTHING,
      ],
    ]),
    ['its own authorization', ['X-Ms-Azure-Host-Authorization: Azure-HMAC-SHA256 a b'], NOTHING],
    ['its own authorization, twice', ['x-ms-azure-host-authorization: a', 'X-MS-AZURE-HOST-AUTHORIZATION: b'], NOTHING],
    ['another header of that kind', ['x-ms-azure-host-other: 1'], ['x-ms-azure-host-other: 1']],
    ['a declared header', ['Connection: X-Mine', 'x-mine: 1', 'X-Other: 2'], ['x-other: 2']],
    ['a header declared behind it, in a list', ['X-Mine: 1', 'connection:,X-MINE ,close'], NOTHING],
    [
      'the length and the type, declared',
      ['Connection: content-length, content-type', 'Content-Type: a/b'],
      ['content-type: a/b'],
    ],
    ['cookies', ['Set-Cookie: a=1', 'Set-Cookie: b=2'], ['set-cookie: a=1', 'set-cookie: b=2']],
    ['bytes above ASCII', ['Server: J\xf6rg'], ['server: J\xf6rg']],
    ['an empty header', ['X-Empty:'], ['x-empty: ']],
  ]

  test('reaches the client like this', { timeout: 120_000 * SLOWNESS }, async (t) => {
    const outcomes = await hold(
      machine,
      rows.map(([, lines]): Conversation => {
        const write = `HTTP/1.1 200 OK\r\n${lines.join('\r\n')}\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: 2\r\n\r\nok`
        const steps = [{ write: telling([{ write }]) }, { await: 'ok' }, { end: 'half' as const }]
        return { to: PLACES.imds, steps, patienceMs: 3000 * SLOWNESS }
      }),
    )
    for (const [i, [situation, , arrives]] of rows.entries()) {
      await t.test(situation, () => {
        const [answer] = answersOf(outcomes[i] as (typeof outcomes)[number], ['GET'])
        const { fields = [], body } = answer ?? {}
        assert.equal(body, 'ok')
        assert.deepEqual(
          fields.flatMap((name, at) => (at % 2 === 0 ? [`${name}: ${fields[at + 1]}`] : [])),
          [
            ...arrives,
            'date: Thu, 01 Jan 2026 00:00:00 GMT',
            'content-length: 2',
            'x-ms-azure-host-authorization: value',
          ],
        )
      })
    }
  })
})
