import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { test } from 'node:test'
import type { Mode } from './channel.ts'
import { type Fabric, type FabricOptions, header, headers, startFabric } from './fabric.ts'
import { exchange, type RawRequest, requestBytes, signed } from './raw-client.ts'

const KEY = {
  guid: '9cf81e97-0316-4ad3-94a7-8ccbdee8ccbf',
  keyHex: '4A404E635266556A586E3272357538782F413F4428472B4B6250645367566B59',
}
const GOAL_STATE: RawRequest = {
  method: 'GET',
  target: '/machine?comp=goalstate',
  headers: [
    ['Host', '168.63.129.16'],
    ['Connection', 'close'],
  ],
}

async function withFabric(options: FabricOptions, use: (fabric: Fabric) => Promise<void>): Promise<void> {
  const fabric = await startFabric(options)
  try {
    await use(fabric)
  } finally {
    await fabric.close()
  }
}

interface Vector {
  name: string
  guid: string
  keyHex: string
  signatureHex: string
  method: string
  target: string
  headers: [string, string][]
  bodyBase64: string
}
const VECTORS: Vector[] = JSON.parse(readFileSync(new URL('../fixtures/signing.json', import.meta.url), 'utf8'))
/** Vectors that describe what an agent is handed, and that no agent would put on the wire like this. */
const NOT_FOR_THE_WIRE: Record<string, string> = {
  'expect-and-authorization-headers': 'forged authorization headers are replaced before sending',
}

test('Fabric verifies every vector from the bytes on the wire', async () => {
  for (const vector of VECTORS.filter(({ name }) => NOT_FOR_THE_WIRE[name] === undefined)) {
    await withFabric({ latchedKey: { guid: vector.guid, keyHex: vector.keyHex } }, async (fabric) => {
      const isChunked = vector.headers.some(([name]) => name.toLowerCase() === 'transfer-encoding')
      const body = Buffer.from(vector.bodyBase64, 'base64')
      const authorization = `Azure-HMAC-SHA256 ${vector.guid} ${vector.signatureHex}`
      const bytes = requestBytes({
        ...vector,
        headers: [...vector.headers, ['x-ms-azure-host-authorization', authorization]],
        body: isChunked ? `${body.length.toString(16)}\r\n${body.toString()}\r\n0\r\n\r\n` : body,
      })
      void exchange(fabric.addresses.imds, bytes, 200)
      const recorded = await fabric.waitForRequest((request) => request.target === vector.target)
      assert.equal(recorded.signature, 'right', vector.name)
      assert.equal(recorded.date, 'stale', vector.name)
      assert.deepEqual(recorded.body, body, vector.name)
    })
  }
})

const TABLE: [mode: Mode, kind: 'absent' | 'wrong' | 'right', status: number, decision: string][] = [
  ['disabled', 'absent', 200, 'served'],
  ['disabled', 'wrong', 200, 'served'],
  ['disabled', 'right', 200, 'served'],
  ['audit', 'absent', 200, 'audited'],
  ['audit', 'wrong', 200, 'audited'],
  ['audit', 'right', 200, 'served'],
  ['enforce', 'absent', 401, 'refused'],
  ['enforce', 'wrong', 401, 'refused'],
  ['enforce', 'right', 200, 'served'],
]
for (const [mode, kind, status, decision] of TABLE) {
  test(`Fabric in mode ${mode} answers ${status} to a request whose signature is ${kind}`, async () => {
    const rules = { wireserver: { defaultAccess: 'allow' as const, mode } }
    await withFabric({ rules, latchedKey: KEY }, async (fabric) => {
      const request =
        kind === 'absent'
          ? GOAL_STATE
          : signed(GOAL_STATE, kind === 'right' ? KEY : { ...KEY, keyHex: 'AB'.repeat(32) })
      const reply = await exchange(fabric.addresses.wireserver, requestBytes(request))
      assert.equal(reply.status, status)
      const [recorded] = fabric.requests
      assert.deepEqual(
        [recorded?.decision, recorded?.signature, recorded?.status, recorded?.mode],
        [decision, kind, status, mode],
      )
    })
  })
}

const REFUSALS: [situation: string, options: FabricOptions, atMs: number, objection: string | undefined][] = [
  ['a date six minutes old', {}, Date.now() - 360_000, 'date-stale'],
  ['a host clock an hour ahead', { clockSkewMs: 3_600_000 }, Date.now(), 'date-stale'],
  ['a host clock an hour ahead that the client follows', { clockSkewMs: 3_600_000 }, Date.now() + 3_600_000, undefined],
  ['a tolerance set wider', { dateToleranceMs: 7_200_000 }, Date.now() - 3_600_000, undefined],
  [
    'claims that are asked for and missing',
    { channel: { requiredClaims: ['isRoot', 'runAs'] } },
    Date.now(),
    'claims-missing',
  ],
]
for (const [situation, options, atMs, objection] of REFUSALS) {
  test(`Fabric that enforces looks beyond the signature: ${situation}`, async () => {
    await withFabric({ enforce: true, latchedKey: KEY, ...options }, async (fabric) => {
      const reply = await exchange(fabric.addresses.wireserver, requestBytes(signed(GOAL_STATE, KEY, atMs)))
      assert.equal(reply.status, objection === undefined ? 200 : 401)
      assert.equal(fabric.requests[0]?.objection, objection)
      assert.equal(fabric.requests[0]?.isRoot, true)
    })
  })
}

test('Fabric tells its own time in Date, skew included', async () => {
  await withFabric({ clockSkewMs: 3_600_000 }, async (fabric) => {
    const dateOf = async () => {
      const { headText } = await exchange(fabric.addresses.wireserver, requestBytes(GOAL_STATE))
      return Date.parse(/^Date: (.*)$/m.exec(headText)![1]!)
    }
    assert.ok(Math.abs((await dateOf()) - Date.now() - 3_600_000) < 5000)
    fabric.setClockSkew(-3_600_000)
    assert.ok(Math.abs((await dateOf()) - Date.now() + 3_600_000) < 5000)
  })
})

const EXEMPT: [endpoint: 'wireserver' | 'hostga', method: string, target: string, isExempt: boolean][] = [
  ['wireserver', 'GET', '/secure-channel/status', true],
  ['wireserver', 'POST', '/machine/?comp=telemetrydata', true],
  ['wireserver', 'POST', '/machine?comp=telemetrydata', true],
  ['wireserver', 'POST', '/MACHINE/?COMP=TelemetryData', true],
  ['hostga', 'PUT', '/vmAgentLog', true],
  ['hostga', 'PUT', '/vmagentlog', true],
  ['hostga', 'GET', '/vmAgentLog', false],
  ['hostga', 'PUT', '/status', false],
  ['wireserver', 'GET', '/machine/?comp=telemetrydata', false],
  ['wireserver', 'POST', '/machine?comp=health', false],
]
for (const [endpoint, method, target, isExempt] of EXEMPT) {
  test(`Fabric that enforces ${isExempt ? 'asks no signature of' : 'refuses an unsigned'} ${method} ${target}`, async () => {
    await withFabric({ enforce: true, latchedKey: KEY }, async (fabric) => {
      const reply = await exchange(fabric.addresses[endpoint], requestBytes({ ...GOAL_STATE, method, target }))
      assert.equal(reply.status === 401, !isExempt)
      assert.equal(fabric.requests[0]?.decision, isExempt ? 'exempt' : 'refused')
    })
  })
}

test('Fabric that enforces demands nothing before a key is latched, unless told to', async () => {
  for (const [demandBeforeLatch, status] of [
    [false, 200],
    [true, 401],
  ] as const) {
    await withFabric({ enforce: true, demandBeforeLatch }, async (fabric) => {
      assert.equal((await exchange(fabric.addresses.wireserver, requestBytes(GOAL_STATE))).status, status)
    })
  }
})

test('Fabric latches a key over the wire, and names a late signature after a rotation', async () => {
  await withFabric({ enforce: true, strict: { channelRequests: true } }, async (fabric) => {
    const address = fabric.addresses.wireserver
    const common: [string, string][] = [
      ['Host', '168.63.129.16'],
      ['Metadata', 'True '],
      ['Connection', 'close'],
      ['x-ms-azure-host-claims', '{ "isRoot": "true"}'],
      ['x-ms-azure-host-date', new Date().toUTCString()],
    ]
    const ask = '{"authorizationScheme": "Azure-HMAC-SHA256"}'
    const acquire = await exchange(
      address,
      requestBytes({
        method: 'POST',
        target: '/secure-channel/key',
        headers: [...common, ['Content-Type', 'application/json'], ['Content-Length', '44']],
        body: ask,
      }),
    )
    const { guid, key } = JSON.parse(acquire.body) as { guid: string; key: string }
    const attest = signed(
      {
        method: 'POST',
        target: `/secure-channel/key/${guid}/key-attestation`,
        headers: [...common.slice(0, 3), ['Content-Length', '0']],
      },
      { guid, keyHex: key },
    )
    const forged = signed({ ...attest, headers: attest.headers.slice(0, -3) }, { guid, keyHex: 'AB'.repeat(32) })
    assert.equal((await exchange(address, requestBytes(forged))).status, 403)
    assert.equal(fabric.readState().channel, 'offered')
    assert.equal((await exchange(address, requestBytes(attest))).status, 200)
    assert.equal(fabric.readState().latchedGuid, guid)

    const request = requestBytes(signed(GOAL_STATE, { guid, keyHex: key }))
    assert.equal((await exchange(address, request)).status, 200)
    assert.equal(fabric.requests.at(-1)?.signature, 'right')
    fabric.rotateKey()
    await exchange(address, request)
    assert.equal(fabric.requests.at(-1)?.signature, 'not-latched')
    const status = JSON.parse(
      (await exchange(address, requestBytes({ method: 'GET', target: '/secure-channel/status', headers: common })))
        .body,
    )
    assert.deepEqual([status.keyGuid, status.keyIncarnationId], [null, 2])
  })
})

test('Fabric counts and hashes a log upload of 100 MiB without holding it, and refuses one byte more', async () => {
  const sizeBytes = 100 * 1024 * 1024
  const piece = Buffer.alloc(1024 * 1024, 7)
  await withFabric({ enforce: true, latchedKey: KEY }, async (fabric) => {
    const put = (length: number) =>
      requestBytes({
        method: 'PUT',
        target: '/vmAgentLog',
        headers: [
          ['Host', 'h'],
          ['Content-Length', String(length)],
          ['x-ms-containerid', 'a1b2c3d4-0000-4000-8000-00000000abcd'],
        ],
      })
    const socket = connect(fabric.addresses.hostga)
    socket.write(put(sizeBytes))
    const hash = createHash('sha256')
    for (let sent = 0; sent < sizeBytes; sent += piece.length) {
      hash.update(piece)
      if (!socket.write(piece)) await new Promise((resolve) => socket.once('drain', resolve))
    }
    const recorded = await fabric.waitForRequest((request) => request.method === 'PUT', 20_000)
    socket.destroy()
    assert.deepEqual(fabric.logUploads, [{ sizeBytes, sha256: hash.digest('hex') }])
    assert.deepEqual([recorded.status, recorded.bodySizeBytes, recorded.body.length], [200, sizeBytes, 64 * 1024])

    const big = connect(fabric.addresses.hostga)
    big.on('error', () => undefined)
    big.write(put(sizeBytes + 1))
    for (let sent = 0; sent <= sizeBytes && !big.destroyed; sent += piece.length) {
      if (!big.write(piece))
        await new Promise<void>((resolve) => {
          const go = () => {
            for (const event of ['drain', 'close']) big.off(event, go)
            resolve()
          }
          for (const event of ['drain', 'close']) big.once(event, go)
        })
    }
    const refused = await fabric.waitForRequest((request) => request.decision === 'cut-off', 20_000)
    big.destroy()
    assert.equal(refused.reason, 'body too large')
  })
})

test('Fabric records bytes that are no request, answers 400 and closes', async () => {
  await withFabric({}, async (fabric) => {
    const reply = await exchange(fabric.addresses.imds, Buffer.from('GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n'))
    assert.deepEqual([reply.status, reply.ended], [400, 'closed'])
    assert.deepEqual([fabric.requests[0]?.decision, fabric.requests[0]?.reason], ['malformed', 'more than one Host'])
  })
})

test('Fabric records a request that its sender did not finish', async () => {
  await withFabric({}, async (fabric) => {
    const socket = connect(fabric.addresses.hostga)
    socket.write('PUT /status HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc', () => socket.end())
    const recorded = await fabric.waitForRequest(() => true)
    assert.deepEqual([recorded.decision, recorded.bodySizeBytes, recorded.status], ['cut-off', 3, 0])
    socket.destroy()
  })
})

test('Fabric answers pipelined requests one after the other, on one connection', async () => {
  await withFabric({}, async (fabric) => {
    const one = requestBytes({ ...GOAL_STATE, headers: [['Host', 'h']] })
    const { text } = await exchange(fabric.addresses.wireserver, Buffer.concat([one, one, requestBytes(GOAL_STATE)]))
    assert.equal(text.match(/HTTP\/1\.1 200 OK/g)?.length, 3)
    assert.deepEqual(
      fabric.requests.map((request) => [request.connection, request.nthOnConnection]),
      [
        [1, 1],
        [1, 2],
        [1, 3],
      ],
    )
  })
})

test('Fabric sends 100 Continue before it reads a body that waits for it', async () => {
  await withFabric({}, async (fabric) => {
    const bytes = requestBytes({
      method: 'POST',
      target: '/machine?comp=health',
      headers: [
        ['Host', 'h'],
        ['Expect', '100-continue'],
        ['Content-Length', '1'],
        ['Connection', 'close'],
      ],
      body: 'x',
    })
    const { text, status } = await exchange(fabric.addresses.wireserver, bytes)
    assert.match(text, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 400 /)
    assert.equal(status, 400)
  })
})

test('Fabric answers HEAD without a body, and HTTP/1.0 with an end', async () => {
  await withFabric({}, async (fabric) => {
    const head = await exchange(
      fabric.addresses.imds,
      requestBytes({ ...GOAL_STATE, method: 'HEAD', target: '/metadata/versions' }),
    )
    assert.deepEqual([head.status, head.body], [400, ''])
    const old = await exchange(fabric.addresses.wireserver, Buffer.from('GET /?comp=versions HTTP/1.0\r\n\r\n'))
    assert.deepEqual([old.status, old.ended], [200, 'closed'])
  })
})

test('Fabric keeps as many requests and bodies as it is told, and counts all', async () => {
  await withFabric({ records: { records: 10, bodyBytes: 4, allBodiesBytes: 16 } }, async (fabric) => {
    const headersOf: [string, string][] = [
      ['Host', 'h'],
      ['Content-Length', '6'],
    ]
    const one = requestBytes({ method: 'POST', target: '/machine?comp=health', headers: headersOf, body: 'abcdef' })
    const sent = 1025
    const socket = connect(fabric.addresses.wireserver)
    socket.resume()
    for (let at = 0; at < sent; at++) socket.write(one)
    await fabric.waitForRequest((request) => request.seq === sent)
    socket.destroy()
    assert.equal(fabric.requests.length, 10)
    assert.equal(fabric.counters.requests, sent)
    assert.deepEqual(fabric.counters.byStatus, { 400: sent })
    assert.equal(fabric.requests.at(-1)?.body.toString(), 'abcd')
    assert.equal(
      fabric.requests.reduce((sum, request) => sum + request.body.length, 0),
      16,
    )
    assert.equal(fabric.requests[0]?.bodySizeBytes, 6)
    fabric.clearRequests()
    assert.deepEqual([fabric.requests.length, fabric.counters.requests], [0, 0])
  })
})

test('Fabric.waitForRequest() says what did come when the awaited one does not', async () => {
  await withFabric({}, async (fabric) => {
    await exchange(fabric.addresses.wireserver, requestBytes(GOAL_STATE))
    await assert.rejects(
      fabric.waitForRequest((request) => request.endpoint === 'imds', 20),
      /none came within 20 ms; last ones: wireserver GET \/machine\?comp=goalstate/,
    )
  })
})

test('Fabric.setListener() refuses, closes, stays silent and recovers on the same port', async () => {
  await withFabric({}, async (fabric) => {
    const address = fabric.addresses.imds
    const attempt = () => exchange(address, requestBytes(GOAL_STATE), 150)
    await fabric.setListener('imds', 'refuse')
    assert.deepEqual([(await attempt()).ended, fabric.addresses.imds], ['reset', address])
    await fabric.setListener('imds', 'close')
    assert.deepEqual([(await attempt()).status, (await attempt()).ended !== 'open'], [0, true])
    await fabric.setListener('imds', 'silent')
    assert.deepEqual([(await attempt()).status, (await attempt()).ended], [0, 'open'])
    await fabric.setListener('imds', 'normal')
    assert.equal((await attempt()).status, 400)
  })
})

test('header() and headers() read a record', async () => {
  await withFabric({}, async (fabric) => {
    const twice: [string, string][] = [
      ['X-A', '1 '],
      ['x-a', '2'],
    ]
    await exchange(
      fabric.addresses.wireserver,
      requestBytes({ ...GOAL_STATE, headers: [...GOAL_STATE.headers, ...twice] }),
    )
    const [request] = fabric.requests
    assert.deepEqual(headers(request!, 'X-a'), ['1', '2'])
    assert.equal(header(request!, 'X-a'), '2')
    assert.equal(header(request!, 'x-b'), undefined)
  })
})

test('Fabric lets a test answer in an endpoint’s place', async () => {
  const respond: FabricOptions['respond'] = (endpoint, { path }) =>
    endpoint === 'imds' && path === '/x'
      ? { status: 418, headers: [['X-Own', '1']], body: Buffer.from('tea') }
      : undefined
  await withFabric({ respond }, async (fabric) => {
    const reply = await exchange(fabric.addresses.imds, requestBytes({ ...GOAL_STATE, target: '/X' }))
    assert.deepEqual([reply.status, reply.body], [418, 'tea'])
  })
})
