import assert from 'node:assert/strict'
import { test } from 'node:test'
import { HOP_BY_HOP, type OutgoingHead, toClientHeaders, toHostHeaders } from '../../src/proxy/headers.ts'

const HEAD: OutgoingHead = {
  claims: '{ "isRoot": "true"}',
  date: 'Fri, 02 Jan 2026 03:04:05 GMT',
  defaultHost: '169.254.169.254',
  bodyBytes: 0,
  method: 'GET',
}

/** What is added to every request, after what the client said. */
const OURS = [
  ['x-ms-azure-host-claims', '{ "isRoot": "true"}'],
  ['x-ms-azure-host-date', 'Fri, 02 Jan 2026 03:04:05 GMT'],
] as const

const pairs = (list: readonly string[]) => list.flatMap((name, i) => (i % 2 === 0 ? [[name, list[i + 1]]] : []))

test('HOP_BY_HOP is the whole list of headers that never cross the agent', () => {
  assert.deepEqual(
    [...HOP_BY_HOP],
    [
      'connection',
      'expect',
      'http2-settings',
      'keep-alive',
      'proxy-authenticate',
      'proxy-authentication-info',
      'proxy-authorization',
      'proxy-connection',
      'te',
      'trailer',
      'transfer-encoding',
      'upgrade',
    ],
  )
})

test('toHostHeaders() strips, replaces, joins and adds exactly these', () => {
  const received = [
    ['Host', 'metadata.example'],
    ['User-Agent', 'test/1'],
    ['METADATA', 'true'],
    ['Connection', 'keep-alive, X-Hop'],
    ['X-Hop', 'for the agent only'],
    ['Expect', '100-continue'],
    ['HTTP2-Settings', 'AAMAAABk'],
    ['Keep-Alive', 'timeout=5'],
    ['Proxy-Authenticate', 'Basic'],
    ['Proxy-Authentication-Info', 'x'],
    ['Proxy-Authorization', 'Basic eDp5'],
    ['Proxy-Connection', 'keep-alive'],
    ['TE', 'trailers'],
    ['Trailer', 'x-sum'],
    ['Transfer-Encoding', 'chunked'],
    ['Upgrade', 'websocket'],
    ['Content-Length', '999'],
    ['X-Ms-Azure-Host-Claims', '{ "isRoot": "true"}'],
    ['X-Ms-Azure-Host-Date', 'Thu, 01 Jan 1970 00:00:00 GMT'],
    ['X-Ms-Azure-Host-Authorization', 'Azure-HMAC-SHA256 forged'],
    ['X-Ms-Azure-Host-Anything', 'forged'],
    ['X_Ms_Azure_Host_Claims', 'forged for servers to which both are one'],
    ['x-ms-azure_host-date', 'forged'],
    ['X-Ms-Azure-Hosting', 'no prefix of ours'],
    ['Cookie', 'a=1'],
    ['Cookie', 'b=2'],
    ['X-Twice', '1'],
    ['X-Twice', '2'],
    ['X-Latin', '\u00e9\u00ff'],
    ['X-Empty', ''],
    ['__proto__', 'a name like any other'],
  ].flat()
  const sent = toHostHeaders(received, { ...HEAD, method: 'POST', bodyBytes: 12 })
  assert.deepEqual(pairs(sent), [
    ['host', 'metadata.example'],
    ['user-agent', 'test/1'],
    ['metadata', 'true'],
    ['x-ms-azure-hosting', 'no prefix of ours'],
    ['cookie', 'a=1; b=2'],
    ['x-twice', '1, 2'],
    ['x-latin', '\u00e9\u00ff'],
    ['x-empty', ''],
    ['__proto__', 'a name like any other'],
    ['content-length', '12'],
    ...OURS,
  ])
})

const FRAMING: readonly (readonly [situation: string, head: Partial<OutgoingHead>, added: string[][]])[] = [
  ['GET without a body: no length', { method: 'GET', bodyBytes: 0 }, []],
  ['GET with a body: its length', { method: 'GET', bodyBytes: 2 }, [['content-length', '2']]],
  ['POST without a body: length 0', { method: 'POST', bodyBytes: 0 }, [['content-length', '0']]],
  ['PUT without a body: length 0', { method: 'PUT', bodyBytes: 0 }, [['content-length', '0']]],
  ['PATCH without a body: length 0', { method: 'PATCH', bodyBytes: 0 }, [['content-length', '0']]],
  ['DELETE without a body: no length', { method: 'DELETE', bodyBytes: 0 }, []],
  ['a stream of unknown length: chunks', { method: 'PUT', bodyBytes: undefined }, [['transfer-encoding', 'chunked']]],
]

for (const [situation, head, added] of FRAMING) {
  test(`toHostHeaders() frames ${situation}`, () => {
    const sent = pairs(toHostHeaders(['Host', 'a'], { ...HEAD, ...head }))
    assert.deepEqual(sent, [['host', 'a'], ...added, ...OURS])
  })
}

test('toHostHeaders() names the destination as host when the request names none', () => {
  assert.deepEqual(pairs(toHostHeaders([], HEAD)).slice(0, 1), [['host', '169.254.169.254']])
})

/** Dropping one of these would turn the request into another one than the client meant, or the host was to refuse. */
const PROTECTED = ['host', 'metadata', 'x-forwarded-for', 'content-type']

for (const name of PROTECTED) {
  test(`toHostHeaders() keeps ${name} although a connection header names it`, () => {
    const sent = toHostHeaders(['Connection', name.toUpperCase(), name, 'v'], HEAD)
    assert.equal(sent[sent.indexOf(name) + 1], 'v')
  })
}

test('toHostHeaders() reads names of several connection headers in any case', () => {
  const sent = toHostHeaders(['Host', 'a', 'X-A', '1', 'connection', 'x-a', 'X-B', '2', 'CONNECTION', ' ,X-B'], HEAD)
  assert.deepEqual(pairs(sent), [['host', 'a'], ...OURS])
})

test('toHostHeaders() sets claims and date although a connection header names them', () => {
  const sent = toHostHeaders(['Host', 'a', 'Connection', 'x-ms-azure-host-claims, x-ms-azure-host-date'], HEAD)
  assert.deepEqual(pairs(sent).slice(1), OURS)
})

test('toClientHeaders() strips, keeps and adds exactly these', () => {
  const received = [
    ['Content-Type', 'application/json'],
    ['Content-Length', '12'],
    ['Date', 'Fri, 02 Jan 2026 03:04:05 GMT'],
    ['Server', 'IMDS'],
    ['Set-Cookie', 'a=1'],
    ['Set-Cookie', 'b=2'],
    ['Connection', 'close, X-Hop, content-length'],
    ['X-Hop', 'for the agent only'],
    ['Keep-Alive', 'timeout=5'],
    ['Transfer-Encoding', 'chunked'],
    ['Trailer', 'x-sum'],
    ['Upgrade', 'h2c'],
    ['Proxy-Authenticate', 'Basic'],
    ['x-ms-azure-host-authorization', 'Azure-HMAC-SHA256 of the host'],
    ['x-ms-azure-host-other', 'is for the client'],
  ].flat()
  assert.deepEqual(pairs(toClientHeaders(received)), [
    ['content-type', 'application/json'],
    ['content-length', '12'],
    ['date', 'Fri, 02 Jan 2026 03:04:05 GMT'],
    ['server', 'IMDS'],
    ['set-cookie', 'a=1'],
    ['set-cookie', 'b=2'],
    ['x-ms-azure-host-other', 'is for the client'],
    ['x-ms-azure-host-authorization', 'value'],
  ])
})

test('toClientHeaders() marks an answer without headers', () => {
  assert.deepEqual(toClientHeaders([]), ['x-ms-azure-host-authorization', 'value'])
})
