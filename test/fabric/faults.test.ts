import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { after, before, beforeEach, test } from 'node:test'
import { type Fabric, startFabric } from './fabric.ts'
import { type Fault, FaultList, type FaultRule, KEY_FAULTS } from './faults.ts'
import { exchange, type RawReply, requestBytes, signed } from './raw-client.ts'

const VERSIONS = requestBytes({
  method: 'GET',
  target: '/?comp=versions',
  headers: [
    ['Host', 'h'],
    ['Connection', 'close'],
  ],
})
const VERSIONS_KEPT_OPEN = requestBytes({ method: 'GET', target: '/?comp=versions', headers: [['Host', 'h']] })

let fabric: Fabric
let normal: RawReply
before(async () => {
  fabric = await startFabric()
  normal = await exchange(fabric.addresses.wireserver, VERSIONS)
})
beforeEach(() => {
  fabric.clearFaults()
  fabric.clearRequests()
})
after(() => fabric.close())

function meet(fault: Fault, bytes = VERSIONS, forMs = 3000): Promise<RawReply> {
  fabric.clearFaults()
  fabric.addFault({ fault })
  return exchange(fabric.addresses.wireserver, bytes, forMs)
}

function dechunk(body: string): { pieces: string[]; rest: string } {
  const pieces: string[] = []
  let at = 0
  for (;;) {
    const end = body.indexOf('\r\n', at)
    const size = Number.parseInt(body.slice(at, end), 16)
    at = end + 2
    if (size === 0 || Number.isNaN(size)) return { pieces, rest: body.slice(at) }
    pieces.push(body.slice(at, at + size))
    at += size + 2
  }
}

test('a fabric without faults answers the document used below', () => {
  assert.equal(normal.status, 200)
  assert.match(normal.body, /2012-11-30/)
})

for (const [status, retryAfterS] of [
  [410, undefined],
  [429, 3],
  [503, 7],
] as const) {
  test(`fault status ${status} answers in the endpoint's place`, async () => {
    const reply = await meet({ kind: 'status', status, body: 'no', ...(retryAfterS !== undefined && { retryAfterS }) })
    assert.deepEqual([reply.status, reply.body], [status, 'no'])
    assert.equal(/^Retry-After: (\d+)/m.exec(reply.headText)?.[1], retryAfterS?.toString())
    assert.deepEqual([fabric.requests[0]?.fault, fabric.requests[0]?.status], ['status', status])
  })
}

test('fault delay answers later, and properly', async () => {
  const startMs = performance.now()
  const reply = await meet({ kind: 'delay', delayMs: 120 })
  assert.ok(performance.now() - startMs >= 119)
  assert.equal(reply.body, normal.body)
})

test('fault never-answer takes the request and says nothing, until the client leaves', async () => {
  const reply = await meet({ kind: 'never-answer' }, VERSIONS, 100)
  assert.deepEqual([reply.text, reply.ended, fabric.requests[0]?.status], ['', 'open', 0])
})

test('fault close ends without an answer, fault reset with a reset', async () => {
  const closed = await meet({ kind: 'close' })
  assert.deepEqual([closed.text, closed.ended], ['', 'closed'])
  const reset = await meet({ kind: 'reset' })
  assert.deepEqual([reset.text, reset.ended], ['', 'reset'])
})

test('fault reset-mid-body breaks off after a part of the body', async () => {
  const reply = await meet({ kind: 'reset-mid-body', afterBytes: 10 })
  assert.equal(reply.ended, 'reset')
  assert.ok(reply.body.length <= 10)
})

test('fault truncate sends half of what Content-Length promised', async () => {
  const reply = await meet({ kind: 'truncate' })
  const promised = Number(/^Content-Length: (\d+)/m.exec(reply.headText)?.[1])
  assert.deepEqual([reply.ended, reply.body], ['closed', normal.body.slice(0, promised / 2)])
  assert.equal(promised, normal.body.length)
})

test('fault garbage-body keeps the head and spoils the body', async () => {
  const reply = await meet({ kind: 'garbage-body' })
  assert.equal(reply.status, 200)
  assert.match(reply.headText, /^Content-Type: text\/xml/m)
  assert.throws(() => new TextDecoder('utf-8', { fatal: true }).decode(Buffer.from(reply.body, 'latin1')))
  assert.equal((await meet({ kind: 'garbage-body', bodyBase64: 'AAE=' })).body, '\x00\x01')
})

test('fault patch-json changes members of a JSON body, and leaves other bodies alone', async () => {
  assert.equal((await meet({ kind: 'patch-json', set: { a: 1 } })).body, normal.body)
  const status = requestBytes({
    method: 'GET',
    target: '/secure-channel/status',
    headers: [
      ['Host', 'h'],
      ['Connection', 'close'],
    ],
  })
  const reply = await meet({ kind: 'patch-json', set: { keyGuid: 7 }, remove: ['version'] }, status)
  const document = JSON.parse(reply.body)
  assert.deepEqual([document.keyGuid, 'version' in document, document.keyDeliveryMethod], [7, false, 'http'])
})

test('fault chunked sends the same body in pieces', async () => {
  const reply = await meet({ kind: 'chunked', chunkBytes: 16 })
  const { pieces, rest } = dechunk(reply.body)
  assert.match(reply.headText, /^Transfer-Encoding: chunked\r$/m)
  assert.doesNotMatch(reply.headText, /^Content-Length/m)
  assert.equal(pieces.join(''), normal.body)
  assert.ok(pieces.slice(0, -1).every((piece) => piece.length === 16))
  assert.equal(rest, '\r\n')
})

test('fault until-close sends no length and ends the body by closing', async () => {
  const reply = await meet({ kind: 'until-close' }, VERSIONS_KEPT_OPEN)
  assert.deepEqual([reply.body, reply.ended], [normal.body, 'closed'])
  assert.doesNotMatch(reply.headText, /^(Content-Length|Transfer-Encoding)/m)
})

test('fault slow-body trickles', async () => {
  const startMs = performance.now()
  const reply = await meet({ kind: 'slow-body', pieceBytes: 50, everyMs: 20 })
  assert.equal(reply.body, normal.body)
  assert.ok(performance.now() - startMs >= (Math.ceil(normal.body.length / 50) - 1) * 20 - 5)
})

test('fault informational sends interim answers first', async () => {
  const reply = await meet({ kind: 'informational', status: 103, count: 2, headers: [['Link', '<x>']] })
  assert.equal(reply.text.match(/^HTTP\/1\.1 103 Early Hints\r\nLink: <x>\r\n\r\n/gm)?.length, 2)
  assert.deepEqual([reply.status, reply.body], [200, normal.body])
})

test('fault huge-body streams a pattern of the size asked for', async () => {
  const sizeBytes = 5_000_000
  const reply = await meet({ kind: 'huge-body', sizeBytes }, VERSIONS, 10_000)
  assert.equal(reply.body.length, sizeBytes)
  assert.match(reply.headText, /^Content-Length: 5000000\r$/m)
})

test('fault headers adds lines, also enormous ones', async () => {
  const reply = await meet({
    kind: 'headers',
    headers: [
      ['Set-Cookie', 'a'],
      ['Set-Cookie', 'b'],
    ],
    fillBytes: 70_000,
  })
  assert.equal(reply.headText.match(/^Set-Cookie: /gm)?.length, 2)
  assert.ok(reply.headText.length > 70_000)
  assert.equal(reply.body, normal.body)
})

test('fault close-after answers as if the connection stayed, and ends it', async () => {
  const reply = await meet({ kind: 'close-after' }, VERSIONS_KEPT_OPEN)
  assert.deepEqual([reply.body, reply.ended], [normal.body, 'closed'])
  assert.doesNotMatch(reply.headText, /^Connection/m)
})

test('fault raw writes the bytes given, whatever they are', async () => {
  const bytes = 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab'
  const reply = await meet({ kind: 'raw', bytesBase64: Buffer.from(bytes).toString('base64') })
  assert.deepEqual([reply.text, reply.ended], [bytes, 'closed'])
})

test('fault stop-reading lets the sender get stuck', async () => {
  fabric.addFault({ fault: { kind: 'stop-reading' } })
  const socket = connect(fabric.addresses.wireserver)
  socket.on('error', () => undefined)
  const size = 64 * 1024 * 1024
  socket.write(`POST /machine?comp=health HTTP/1.1\r\nHost: h\r\nContent-Length: ${size}\r\n\r\n`)
  socket.write(Buffer.alloc(size))
  const recorded = await fabric.waitForRequest(() => true)
  await new Promise((resolve) => setTimeout(resolve, 150))
  assert.deepEqual([recorded.decision, recorded.fault], ['cut-off', 'stop-reading'])
  assert.ok(socket.writableLength > 0)
  socket.destroy()
})

test('faults of one request add up', async () => {
  fabric.addFault({ fault: { kind: 'status', status: 503 } })
  fabric.addFault({ fault: { kind: 'headers', headers: [['X-More', '1']] } })
  const reply = await exchange(fabric.addresses.wireserver, VERSIONS)
  assert.equal(reply.status, 503)
  assert.match(reply.headText, /^X-More: 1/m)
  assert.equal(fabric.requests[0]?.fault, 'status+headers')
})

const MATCHES: [situation: string, rule: Omit<FaultRule, 'fault'>, isMet: boolean][] = [
  ['nothing said', {}, true],
  ['this endpoint', { endpoint: 'wireserver' }, true],
  ['another endpoint', { endpoint: 'imds' }, false],
  ['another method', { method: 'PUT' }, false],
  ['the path in another case', { path: '/SECURE-channel/KEY/g/key-attestation' }, true],
  ['the path with a star', { path: '/secure-channel/*/key-attestation' }, true],
  ['a prefix without a star', { path: '/secure-channel/key' }, false],
  ['a part of the target', { targetIncludes: 'A=1' }, true],
  ['a part that is not there', { targetIncludes: 'a=2' }, false],
  ['a path with characters special in patterns', { path: '/secure.channel/*' }, false],
]
for (const [situation, rule, isMet] of MATCHES) {
  test(`FaultList.take() with ${situation}: ${isMet ? 'meets' : 'passes'}`, () => {
    const list = new FaultList()
    list.add({ ...rule, fault: { kind: 'close' } })
    const path = '/secure-channel/key/G/key-attestation'
    assert.equal(list.take('wireserver', 'POST', path, `${path}?a=1`).length, isMet ? 1 : 0)
  })
}

test('FaultList counts down what to skip and what to meet, and removes by number', () => {
  const list = new FaultList()
  list.add({ skip: 1, times: 2, fault: { kind: 'close' } })
  const stays = list.add({ path: '/never', fault: { kind: 'reset' } })
  const met = Array.from({ length: 5 }, () => list.take('imds', 'GET', '/', '/').length)
  assert.deepEqual(met, [0, 1, 1, 0, 0])
  assert.deepEqual(
    list.list().map(({ id }) => id),
    [stays],
  )
  list.remove(stays)
  assert.deepEqual(list.list(), [])
})

test('FaultList.add() refuses slips instead of meeting nothing, or everything', () => {
  const list = new FaultList()
  assert.throws(
    () => list.add({ target: '/x', fault: { kind: 'close' } } as unknown as FaultRule),
    /no member "target"/,
  )
  assert.throws(() => list.add({ fault: { kind: 'closed' } } as unknown as FaultRule), /no kind "closed"/)
  assert.throws(() => list.add({} as FaultRule), /no kind "undefined"/)
})

const ACQUIRE = requestBytes({
  method: 'POST',
  target: '/secure-channel/key',
  headers: [
    ['Host', 'h'],
    ['Content-Type', 'application/json'],
    ['Content-Length', '44'],
    ['Connection', 'close'],
  ],
  body: '{"authorizationScheme": "Azure-HMAC-SHA256"}',
})
async function acquire(): Promise<RawReply> {
  return exchange(fabric.addresses.wireserver, ACQUIRE)
}

function attestation({ guid, key }: { guid: string; key: string }): Uint8Array {
  const headers: [string, string][] = [
    ['Host', 'h'],
    ['Content-Length', '0'],
    ['Connection', 'close'],
  ]
  return requestBytes(
    signed({ method: 'POST', target: `/secure-channel/key/${guid}/key-attestation`, headers }, { guid, keyHex: key }),
  )
}

const BAD_KEYS: [name: keyof typeof KEY_FAULTS, member: string, expected: RegExp][] = [
  ['keyNotHex', 'key', /^Y/],
  ['keyOddLength', 'key', /^A{63}$/],
  ['keyTooShort', 'key', /^(AB){16}$/],
  ['keyMissing', 'key', /^undefined$/],
  ['guidTraversal', 'guid', /^\.\.\//],
  ['guidLineBreak', 'guid', /\r\n/],
  ['unknownScheme', 'authorizationScheme', /MD5/],
]
for (const [name, member, expected] of BAD_KEYS) {
  test(`KEY_FAULTS.${name} spoils the key offered`, async () => {
    fabric.addFault(KEY_FAULTS[name])
    assert.match(String(JSON.parse((await acquire()).body)[member]), expected)
  })
}

test('KEY_FAULTS.acquireRefused and attestRefused answer 403, and nothing is latched', async () => {
  fabric.addFault(KEY_FAULTS.acquireRefused)
  assert.equal((await acquire()).status, 403)
  fabric.clearFaults()
  fabric.addFault(KEY_FAULTS.attestRefused)
  const reply = await exchange(fabric.addresses.wireserver, attestation(JSON.parse((await acquire()).body)))
  assert.equal(reply.status, 403)
  assert.equal(fabric.readState().channel, 'offered')
})

test('KEY_FAULTS.attestAnswerLost latches the key, although no answer comes', async () => {
  fabric.addFault(KEY_FAULTS.attestAnswerLost)
  const reply = await exchange(fabric.addresses.wireserver, attestation(JSON.parse((await acquire()).body)))
  assert.deepEqual([reply.status, fabric.readState().channel], [0, 'latched'])
})
