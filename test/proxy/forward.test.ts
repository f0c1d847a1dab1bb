import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { describe, type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { HOSTGA, IMDS, WIRESERVER } from '../../src/base/endpoints.ts'
import { stringToSign } from '../fabric/string-to-sign.ts'
import {
  ALICE,
  attributing,
  DATE,
  KEY,
  KEY_HEX,
  type ProxySettings,
  type ProxyUnderTest,
  ROOT,
  startProxy,
} from './proxy-under-test.ts'
import type { HostCall } from './raw-host.ts'

const start = async (t: TestContext, settings?: ProxySettings): Promise<ProxyUnderTest> => {
  const proxy = await startProxy(settings)
  t.after(() => proxy.close())
  return proxy
}
const get = (target: string, headers = '') => `GET ${target} HTTP/1.1\r\nHost: h\r\n${headers}\r\n`
const withoutDate = (head: string) => head.split('\r\n').filter((line) => !/^date: /i.test(line))
const until = async (condition: () => boolean, what: string, withinMs = 5000) => {
  for (const endMs = Date.now() + withinMs; !condition(); await delay(5))
    if (Date.now() > endMs) throw new Error(`not within ${withinMs} ms: ${what}`)
}

/** Computes from what the host received what its authorization header must be, by the host's own rules. */
function expectedAuthorization({ method, target, rawHeaders, body }: HostCall): string {
  const text = stringToSign({ method, target, rawHeaders }, body)
  const signature = createHmac('sha256', Buffer.from(KEY_HEX, 'hex')).update(text).digest('hex')
  return `Azure-HMAC-SHA256 ${KEY.guid} ${signature}`
}

const header = ({ rawHeaders }: HostCall, name: string) =>
  rawHeaders.flatMap((each, i) => (i % 2 === 0 && each === name ? [rawHeaders[i + 1]] : []))

describe('what the host receives is what was signed', () => {
  const rows: readonly (readonly [situation: string, request: string, firstLine: string, body: string])[] = [
    ['GET', get('/metadata/instance?api-version=2021-02-01'), 'GET /metadata/instance?api-version=2021-02-01', ''],
    ['HEAD', 'HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n', 'HEAD /x', ''],
    ['DELETE without a body', 'DELETE /x HTTP/1.1\r\nHost: h\r\n\r\n', 'DELETE /x', ''],
    ['OPTIONS', 'OPTIONS /x HTTP/1.1\r\nHost: h\r\n\r\n', 'OPTIONS /x', ''],
    ['POST without a body', 'POST /x HTTP/1.1\r\nHost: h\r\n\r\n', 'POST /x', ''],
    ['PATCH with a body', 'PATCH /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc', 'PATCH /x', 'abc'],
    ['GET with a body', 'GET /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc', 'GET /x', 'abc'],
    ['DELETE with a body', 'DELETE /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc', 'DELETE /x', 'abc'],
    [
      'a chunked body with a trailer',
      'PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n2\r\nab\r\n1;ext=1\r\nc\r\n0\r\nX-Sum: 1\r\n\r\n',
      'PUT /x',
      'abc',
    ],
    [
      'an empty chunked body',
      'PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
      'PUT /x',
      '',
    ],
    [
      'bytes that are no text',
      'POST /x HTTP/1.1\r\nHost: h\r\nX-Latin: \xe9\xff\r\nContent-Length: 4\r\n\r\n\x00\xff\r\n',
      'POST /x',
      '\x00\xff\r\n',
    ],
    ['a query out of order', get('/x?b=2&a=1&A=3&&c&=d'), 'GET /x?b=2&a=1&A=3&&c&=d', ''],
    ['escapes', get('/a%2Fb/%C3%A9?x=%26&y=a+b'), 'GET /a%2Fb/%C3%A9?x=%26&y=a+b', ''],
    ['odd characters that are allowed', get('/a|b{c}[d]^\\\'(e)"?q=`|\\^{}'), 'GET /a|b{c}[d]^\\\'(e)"?q=`|\\^{}', ''],
    ['a fragment, which is dropped', get('/x?y#z?w'), 'GET /x?y', ''],
    ['an absolute form, which stays', get('http://169.254.169.254/x?y'), 'GET http://169.254.169.254/x?y', ''],
    ['an absolute form without a path', get('http://169.254.169.254?y'), 'GET http://169.254.169.254?y', ''],
    ['an empty query', get('/x?'), 'GET /x?', ''],
    ['a repeated header', get('/x', 'X-A: 1\r\nX-B: 0\r\nx-a: 2\r\n'), 'GET /x', ''],
    ['blanks around values', get('/x', 'X-A: \t 1 \t\r\n'), 'GET /x', ''],
    ['close asked for by the client', get('/x', 'Connection: close\r\n'), 'GET /x', ''],
    ['HTTP/1.0', 'GET /x HTTP/1.0\r\n\r\n', 'GET /x', ''],
  ]
  for (const [situation, request, firstLine, body] of rows) {
    test(situation, async (t) => {
      const proxy = await start(t)
      assert.equal((await proxy.ask(request)).status, 200)
      const call = proxy.host.calls[0] as HostCall
      assert.equal(call.head.split('\r\n')[0], `${firstLine} HTTP/1.1`)
      assert.equal(call.body.toString('latin1'), body)
      assert.deepEqual(header(call, 'x-ms-azure-host-authorization'), [expectedAuthorization(call)])
      const lengths = header(call, 'content-length')
      assert.deepEqual(lengths, body !== '' || /^P/.test(firstLine) ? [String(body.length)] : [])
      assert.deepEqual(header(call, 'transfer-encoding'), [])
      assert.deepEqual(header(call, 'connection'), [])
    })
  }
})

describe('the head that the host receives', () => {
  test('is exactly this', async (t) => {
    const proxy = await start(t)
    Object.assign(proxy.stages, { attribute: attributing(ALICE) })
    await proxy.ask(get('/x', 'Metadata: true\r\nUser-Agent: curl/8\r\nAccept: */*\r\n'))
    const call = proxy.host.calls[0] as HostCall
    assert.deepEqual(call.head.split('\r\n'), [
      'GET /x HTTP/1.1',
      'host: h',
      'metadata: true',
      'user-agent: curl/8',
      'accept: */*',
      'x-ms-azure-host-claims: { "isRoot": "false"}',
      `x-ms-azure-host-date: ${DATE}`,
      `x-ms-azure-host-authorization: ${expectedAuthorization(call)}`,
    ])
  })
  for (const name of [
    'x-ms-azure-host-claims',
    'X-MS-AZURE-HOST-CLAIMS',
    'X-Ms-Azure-Host-Date',
    'x-ms-azure-host-x',
  ]) {
    test(`has nothing that the client said as ${name}`, async (t) => {
      const proxy = await start(t)
      Object.assign(proxy.stages, { attribute: attributing(ALICE) })
      await proxy.ask(get('/x', `${name}: forged\r\nX-Ms-Azure-Host-Authorization: forged\r\n${name}: forged\r\n`))
      const call = proxy.host.calls[0] as HostCall
      assert.doesNotMatch(call.head, /forged/)
      assert.deepEqual(header(call, 'x-ms-azure-host-claims'), ['{ "isRoot": "false"}'])
    })
  }
  test('has no authorization while no key is held, not even a forged one', async (t) => {
    const proxy = await start(t)
    Object.assign(proxy.stages, { authorize: () => undefined })
    assert.equal((await proxy.ask(get('/x', 'x-ms-azure-host-authorization: forged\r\n'))).status, 200)
    assert.doesNotMatch(proxy.host.calls[0]?.head ?? '', /authorization/)
  })
  test('keeps what the host judges by, whatever the connection header names', async (t) => {
    const proxy = await start(t)
    const named = 'Connection: metadata, host, x-forwarded-for, x-ms-azure-host-claims, x-mine\r\n'
    await proxy.ask(get('/x', `${named}Metadata: true\r\nX-Forwarded-For: 10.0.0.1\r\nX-Mine: 1\r\n`))
    const call = proxy.host.calls[0] as HostCall
    assert.deepEqual(header(call, 'metadata'), ['true'])
    assert.deepEqual(header(call, 'host'), ['h'])
    assert.deepEqual(header(call, 'x-forwarded-for'), ['10.0.0.1'])
    assert.deepEqual(header(call, 'x-ms-azure-host-claims'), ['{ "isRoot": "true"}'])
    assert.deepEqual(header(call, 'x-mine'), [])
    assert.deepEqual(header(call, 'x-ms-azure-host-authorization'), [expectedAuthorization(call)])
  })
})

test('a request that cannot be signed is answered 500 and not carried', async (t) => {
  const proxy = await start(t)
  Object.assign(proxy.stages, {
    authorize: () => {
      throw new Error('no entropy')
    },
  })
  const got = await proxy.ask(get('/x'))
  assert.deepEqual(withoutDate(got.head), [
    'HTTP/1.1 500 Internal Server Error',
    'content-length: 0',
    'connection: close',
  ])
  assert.equal(proxy.told.at(-1), 'failed GET /x: no entropy')
  assert.equal(proxy.host.connections(), 0)
})

describe('answers of the host', () => {
  test('come with this head, and the connection stays', async (t) => {
    const proxy = await start(t)
    proxy.host.onCall((call) =>
      call.answer(
        207,
        { 'Content-Type': 'text/xml', 'X-Ms-Version': '1', Connection: 'close', Server: 'host' },
        '<a/>',
      ),
    )
    const got = await proxy.ask(get('/x'))
    assert.deepEqual(withoutDate(got.head), [
      'HTTP/1.1 207 Multi-Status',
      'content-type: text/xml',
      'x-ms-version: 1',
      'server: host',
      'content-length: 4',
      'x-ms-azure-host-authorization: value',
    ])
    assert.equal(got.body, '<a/>')
  })
  test('that are chunked stay whole', async (t) => {
    const proxy = await start(t)
    proxy.host.onCall(({ socket }) =>
      socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n'),
    )
    const got = await proxy.ask(get('/x'))
    assert.equal(got.headers['transfer-encoding'], 'chunked')
    assert.equal(got.body, 'abcde')
  })
  test('that are chunked end with the connection for HTTP/1.0', async (t) => {
    const proxy = await start(t)
    proxy.host.onCall(({ socket }) =>
      socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n'),
    )
    const got = await proxy.ask('GET /x HTTP/1.0\r\n\r\n')
    assert.equal(got.headers['transfer-encoding'], undefined)
    assert.equal(got.headers.connection, 'close')
    assert.equal(got.body, 'abc')
  })
  for (const [situation, request, answer] of [
    ['HEAD', 'HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n', 'HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n'],
    ['204', get('/x'), 'HTTP/1.1 204 No Content\r\n\r\n'],
    ['304', get('/x'), 'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n'],
    ['304 with a length', get('/x'), 'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 1234\r\n\r\n'],
  ] as const) {
    test(`to ${situation} have no body, and the connection stays`, async (t) => {
      const proxy = await start(t)
      proxy.host.onCall(({ socket }) => socket.write(answer))
      const methods = Array(3).fill(request.slice(0, request.indexOf(' ')))
      const client = proxy.connect({ methods })
      for (let i = 1; i <= 3; i++) {
        client.write(request)
        await client.answers(i)
      }
      const [first] = await client.answers(3)
      assert.equal(first?.headers['content-length'], answer.includes('1234') ? '1234' : undefined)
      // The pool takes a length without a body for a broken answer when the method does not explain it.
      if (situation !== '304 with a length') assert.equal(proxy.host.connections(), 1)
    })
  }
  test('of early hints before the real one are passed over', async (t) => {
    const proxy = await start(t)
    proxy.host.onCall(({ socket }) =>
      socket.write(
        'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
      ),
    )
    assert.equal((await proxy.ask(get('/x'))).body, 'ok')
  })
  for (const [situation, answer] of [
    ['switch protocols', 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n'],
    ['are no HTTP', 'SSH-2.0-OpenSSH_9\r\n'],
    ['frame their body twice', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok'],
    ['have a head larger than 16 KiB', `HTTP/1.1 200 OK\r\nX: ${'a'.repeat(20_000)}\r\n\r\n`],
  ] as const) {
    test(`that ${situation} become 503, and the agent lives`, async (t) => {
      const proxy = await start(t)
      proxy.host.onCall(({ socket, connection }) =>
        socket.write(connection === 1 ? answer : 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'),
      )
      const got = await proxy.ask('POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n')
      assert.equal(got.status, 503)
      assert.equal((await proxy.ask(get('/x'))).status, 200)
    })
  }

  const BIG = 24 * 1024 * 1024
  /** Bytes that tell where they belong, so that a lost or doubled piece shows. */
  const pattern = Buffer.from(Uint32Array.from({ length: BIG / 4 }, (_, i) => i).buffer)

  for (const framing of ['content-length', 'chunked'] as const) {
    test(`that are large arrive byte for byte (${framing})`, async (t) => {
      const proxy = await start(t)
      proxy.host.onCall(({ socket }) => {
        socket.write(
          `HTTP/1.1 200 OK\r\n${framing === 'chunked' ? 'Transfer-Encoding: chunked' : `Content-Length: ${BIG}`}\r\n\r\n`,
        )
        if (framing === 'chunked') {
          for (let at = 0; at < BIG; at += 1 << 20) {
            socket.write('100000\r\n')
            socket.write(pattern.subarray(at, at + (1 << 20)))
            socket.write('\r\n')
          }
          socket.write('0\r\n\r\n')
        } else socket.write(pattern)
      })
      const client = proxy.connect()
      const pieces: Buffer[] = []
      client.socket.removeAllListeners('data')
      client.socket.on('data', (piece: Buffer) => pieces.push(piece))
      client.write(get('/x', 'Connection: close\r\n'))
      await client.ended
      const received = Buffer.concat(pieces)
      const body = received.subarray(received.indexOf('\r\n\r\n') + 4)
      const whole = framing === 'chunked' ? dechunk(body) : body
      assert.equal(whole.length, BIG)
      assert.equal(whole.equals(pattern), true, 'the bytes differ')
    })
  }

  test('that are large wait for a slow client: the host is read no faster', async (t) => {
    const proxy = await start(t)
    const size = 64 * 1024 * 1024
    let written = 0
    proxy.host.onCall(({ socket }) => {
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`)
      const piece = Buffer.alloc(1 << 20, 'a')
      const more = () => {
        while (written < size) {
          written += piece.length
          if (!socket.write(piece)) return
        }
      }
      socket.on('drain', more)
      more()
    })
    const client = proxy.connect()
    client.write(get('/x'))
    client.socket.pause()
    for (let before = -1; before !== written; await delay(400)) before = written
    assert.ok(written < size / 2, `the host could write ${written} bytes although nobody read`)
    client.socket.removeAllListeners('data')
    let received = 0
    client.socket.on('data', (piece: Buffer) => {
      received += piece.length
    })
    client.socket.resume()
    await until(() => received > size, 'the rest arrives', 15_000)
  })
  test('that a client never reads are given up', async (t) => {
    const proxy = await start(t, { server: { stallTimeoutMs: 300, headTimeoutMs: 300 } })
    proxy.host.onCall(({ socket }) =>
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${BIG}\r\n\r\n${'a'.repeat(BIG)}`),
    )
    const client = proxy.connect()
    client.socket.pause()
    client.write(get('/x'))
    await until(() => proxy.host.closed() === 1, 'the connection to the host is given back', 6000)
    assert.match(String(proxy.told.at(-1)), /The client went away before the end of the answer/)
  })

  for (const [situation, request, answer] of [
    ['inside a body with a length', get('/x'), 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc'],
    ['inside a chunk', get('/x'), 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nabc'],
    ['between chunks', get('/x'), 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n'],
    ['for HTTP/1.0', 'GET /x HTTP/1.0\r\n\r\n', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n'],
  ] as const) {
    for (const end of ['reset', 'close'] as const) {
      test(`that break off by a ${end} ${situation} do not look complete`, async (t) => {
        const proxy = await start(t)
        proxy.host.onCall(({ socket }) => {
          socket.write(answer)
          setTimeout(() => (end === 'reset' ? socket.resetAndDestroy() : socket.end()), 30)
        })
        const client = proxy.connect()
        client.write(request)
        assert.equal(await client.ended, 'reset')
        assert.match(String(proxy.told.at(-1)), /normal 200: The answer of the host broke off: /)
        assert.equal(proxy.host.calls.length, 1, 'asked again')
      })
    }
  }
})

/** Frees what nobody holds, so that what is held can be measured. */
function collectGarbage(): void {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
}

/** Takes chunks apart that are known to be whole. */
function dechunk(wire: Buffer): Buffer {
  const chunks: Buffer[] = []
  for (let at = 0; ; ) {
    const lineEnd = wire.indexOf('\r\n', at)
    const size = Number.parseInt(wire.toString('latin1', at, lineEnd), 16)
    if (size === 0 || Number.isNaN(size)) return Buffer.concat(chunks)
    chunks.push(wire.subarray(lineEnd + 2, lineEnd + 2 + size))
    at = lineEnd + 2 + size + 2
  }
}

describe('connections to the host', () => {
  test('are shared by clients', async (t) => {
    const proxy = await start(t)
    for (let i = 0; i < 5; i++) await proxy.ask(get('/x'))
    assert.equal(proxy.host.connections(), 1)
  })
  test('that the host gave up are replaced: a GET is sent again, once', async (t) => {
    const proxy = await start(t)
    // The host closes the second request of a connection unread, as one does that timed out at that moment.
    const perConnection = new Map<number, number>()
    proxy.host.onCall((call) => {
      const count = (perConnection.get(call.connection) ?? 0) + 1
      perConnection.set(call.connection, count)
      if (count === 1) call.answer(200, {}, `connection ${call.connection}`)
      else call.socket.destroy()
    })
    assert.equal((await proxy.ask(get('/x'))).body, 'connection 1')
    assert.equal((await proxy.ask(get('/x'))).body, 'connection 2')
    assert.equal(proxy.host.calls.length, 3)
  })
  test('closed twice before an answer: 503, and no third try', async (t) => {
    const proxy = await start(t)
    proxy.host.onCall(({ socket }) => socket.destroy())
    const got = await proxy.ask(get('/x'))
    assert.deepEqual(withoutDate(got.head), [
      'HTTP/1.1 503 Service Unavailable',
      'content-length: 0',
      'connection: close',
    ])
    assert.equal(proxy.host.calls.length, 2)
    assert.match(
      String(proxy.told.at(-1)),
      /^finished GET \/x root normal 503: Failed to send request to host: Failed to send request to \/x: ./,
    )
  })
  for (const end of ['reset', 'close'] as const) {
    test(`that ${end} before the answer to a POST: 503, and it is not sent again`, async (t) => {
      const proxy = await start(t)
      proxy.host.onCall(({ socket }) => (end === 'reset' ? socket.resetAndDestroy() : socket.end()))
      const got = await proxy.ask('POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc')
      assert.equal(got.status, 503)
      assert.equal(proxy.host.calls.length, 1)
    })
  }
  test('that are refused: 502', async (t) => {
    const proxy = await start(t)
    await proxy.host.close()
    const got = await proxy.ask(get('/x'))
    assert.deepEqual(withoutDate(got.head), ['HTTP/1.1 502 Bad Gateway', 'content-length: 0', 'connection: close'])
    assert.equal(
      proxy.told.at(-1),
      'finished GET /x root normal 502: Failed to send request to host: Host connection error: ECONNREFUSED',
    )
  })
  test('on which no head comes in time: 503', async (t) => {
    const proxy = await start(t, { hostClient: { headTimeoutMs: 100 } })
    proxy.host.onCall(() => undefined)
    assert.equal((await proxy.ask(get('/x'))).status, 503)
    await until(() => proxy.host.closed() === 1, 'the connection is given up')
  })
  test('on which a body stops in the middle: the client is cut off', async (t) => {
    const proxy = await start(t, { hostClient: { bodyTimeoutMs: 100 } })
    proxy.host.onCall(({ socket }) => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc'))
    const client = proxy.connect()
    client.write(get('/x'))
    assert.equal(await client.ended, 'reset')
  })
  test('end with a client that leaves before the answer', async (t) => {
    const proxy = await start(t)
    proxy.host.onCall(() => undefined)
    const client = proxy.connect()
    client.write(get('/x'))
    await until(() => proxy.host.calls.length === 1, 'the host is asked')
    client.destroy()
    await until(() => proxy.host.closed() === 1, 'the connection to the host ends')
    assert.match(String(proxy.told.at(-1)), /499: The client went away before the end of the answer$/)
  })
  test('end with a client that leaves inside the answer', async (t) => {
    const proxy = await start(t)
    proxy.host.onCall(({ socket }) => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc'))
    const client = proxy.connect()
    client.write(get('/x'))
    await until(() => client.received().endsWith('abc'), 'the beginning arrives')
    client.socket.resetAndDestroy()
    await until(() => proxy.host.closed() === 1, 'the connection to the host ends')
    assert.match(String(proxy.told.at(-1)), /200: The client went away before the end of the answer$/)
  })
  test('that are all busy: a request that waited bears the time of its sending, and is signed then', async (t) => {
    const proxy = await start(t, { hostClient: { maxConnections: 1 } })
    proxy.host.onCall(() => undefined)
    const [first, second] = [proxy.connect(), proxy.connect()]
    first.write(get('/first'))
    await until(() => proxy.host.calls.length === 1, 'the host is asked')
    second.write(get('/second'))
    await until(() => proxy.told.includes('started GET /second'), 'the other request is read')
    const later = 'Fri, 02 Jan 2026 03:06:07 GMT'
    proxy.stages.httpDate = () => later
    proxy.host.calls[0]?.answer(200, {}, 'ok')
    await until(() => proxy.host.calls.length === 2, 'the host is asked again')
    const call = proxy.host.calls[1] as HostCall
    assert.deepEqual(header(call, 'x-ms-azure-host-date'), [later])
    assert.deepEqual(header(call, 'x-ms-azure-host-authorization'), [expectedAuthorization(call)])
  })
  test('are not made for a client that left while its names were looked up', async (t) => {
    const proxy = await start(t)
    const { promise, resolve } = Promise.withResolvers<typeof ROOT>()
    Object.assign(proxy.stages, { attribute: () => ({ destination: IMDS, uid: 0, caller: promise }) })
    const client = proxy.connect()
    client.write(get('/x'))
    await until(() => proxy.told.includes('started GET /x'), 'the request is read')
    client.destroy()
    await delay(50)
    resolve(ROOT)
    await delay(50)
    assert.equal(proxy.host.connections(), 0)
    assert.match(String(proxy.told.at(-1)), /499: The client went away/)
  })
  test('are not made for a client that leaves inside its request', async (t) => {
    const proxy = await start(t)
    const client = proxy.connect()
    client.write('POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc')
    await until(() => proxy.told.length === 3, 'the request is read')
    client.destroy()
    await until(() => proxy.told.length === 4, 'its end is told')
    assert.match(String(proxy.told.at(-1)), /The client went away before the end of its request$/)
    assert.equal(proxy.host.connections(), 0)
  })
})

describe('the two uploads that are not signed', () => {
  const upload = (length: number, target = '/vmAgentLog', method = 'PUT') =>
    `${method} ${target} HTTP/1.1\r\nHost: h\r\nx-ms-azure-host-authorization: forged\r\nContent-Length: ${length}\r\n\r\n`

  for (const endpoint of [WIRESERVER, HOSTGA]) {
    for (const [method, target] of [
      ['PUT', '/vmAgentLog'],
      ['PUT', '/VMAGENTLOG'],
      ['POST', '/machine/?comp=telemetrydata'],
    ] as const) {
      test(`${method} ${target} passes unsigned to ${endpoint.name}, above the limit of others`, async (t) => {
        const proxy = await start(t)
        Object.assign(proxy.stages, { attribute: attributing(ROOT, endpoint) })
        const got = await proxy.ask(upload(200_000, target, method) + 'a'.repeat(200_000))
        assert.equal(got.status, 200)
        const call = proxy.host.calls[0] as HostCall
        assert.equal(call.body.length, 200_000)
        assert.deepEqual(header(call, 'content-length'), ['200000'])
        assert.deepEqual(header(call, 'x-ms-azure-host-authorization'), [])
        assert.deepEqual(header(call, 'x-ms-azure-host-claims'), ['{ "isRoot": "true"}'])
        assert.deepEqual(header(call, 'x-ms-azure-host-date'), [DATE])
      })
    }
  }
  test('is signed and limited like any other on imds', async (t) => {
    const proxy = await start(t)
    assert.equal((await proxy.ask(upload(200_000) + 'a'.repeat(200_000))).status, 413)
    assert.equal((await proxy.ask(`${upload(3)}abc`)).status, 200)
    const call = proxy.host.calls[0] as HostCall
    assert.deepEqual(header(call, 'x-ms-azure-host-authorization'), [expectedAuthorization(call)])
  })
  for (const [situation, request] of [
    ['another target', upload(3, '/vmAgentLog?x')],
    ['an absolute form', upload(3, 'http://168.63.129.16/vmAgentLog')],
    ['another method', upload(3, '/vmAgentLog', 'POST')],
    ['a fragment', upload(3, '/vmAgentLog#x')],
  ] as const) {
    test(`is signed when it has ${situation}`, async (t) => {
      const proxy = await start(t)
      Object.assign(proxy.stages, { attribute: attributing(ROOT, WIRESERVER) })
      await proxy.ask(`${request}abc`)
      const call = proxy.host.calls[0] as HostCall
      assert.deepEqual(header(call, 'x-ms-azure-host-authorization'), [expectedAuthorization(call)])
    })
  }
  test('stays chunked when its length is not known', async (t) => {
    const proxy = await start(t)
    Object.assign(proxy.stages, { attribute: attributing(ROOT, WIRESERVER) })
    const client = proxy.connect()
    client.write('PUT /vmAgentLog HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n')
    await until(() => proxy.host.bodyBytes() > 0, 'the first chunk arrives')
    client.write('2\r\nde\r\n0\r\n\r\n')
    assert.equal((await client.answers(1))[0]?.status, 200)
    const call = proxy.host.calls[0] as HostCall
    assert.equal(call.body.toString(), 'abcde')
    assert.deepEqual(header(call, 'transfer-encoding'), ['chunked'])
    assert.deepEqual(header(call, 'content-length'), [])
  })
  test('without a body has length 0', async (t) => {
    const proxy = await start(t)
    Object.assign(proxy.stages, { attribute: attributing(ROOT, WIRESERVER) })
    assert.equal((await proxy.ask(upload(0))).status, 200)
    assert.deepEqual(header(proxy.host.calls[0] as HostCall, 'content-length'), ['0'])
  })
  test('above 100 MiB by its own word is refused', async (t) => {
    const proxy = await start(t)
    Object.assign(proxy.stages, { attribute: attributing(ROOT, WIRESERVER) })
    assert.equal((await proxy.ask(upload(100 * 1024 * 1024 + 1))).status, 413)
    assert.equal(proxy.host.connections(), 0)
  })

  const SIZE = 64 * 1024 * 1024
  /** Buffers that are read and written all the time and not collected yet, on a busy machine. The body is four times that. */
  const MOST_HELD = SIZE / 4
  test('streams: the host reads while the client writes, and memory stays flat', async (t) => {
    const proxy = await start(t, { keepsBodies: false })
    Object.assign(proxy.stages, { attribute: attributing(ROOT, WIRESERVER) })
    const client = proxy.connect()
    client.write(upload(SIZE))
    const piece = Buffer.alloc(256 * 1024, 'a')
    await until(() => proxy.host.connections() === 1, 'the host is asked before the body is there')
    collectGarbage()
    const beforeBytes = process.memoryUsage().arrayBuffers
    let mostBytes = 0
    for (let sent = 0; sent < SIZE; sent += piece.length) {
      if (!client.socket.write(piece)) await new Promise((resolve) => client.socket.once('drain', resolve))
      if (sent % (2 << 20) !== 0) continue
      collectGarbage()
      mostBytes = Math.max(mostBytes, process.memoryUsage().arrayBuffers - beforeBytes)
    }
    const [answer] = await client.answers(1)
    assert.equal(answer?.status, 200)
    assert.equal(proxy.host.bodyBytes(), SIZE)
    assert.ok(mostBytes < MOST_HELD, `held ${mostBytes} bytes`)
  })
  test('waits for a host that does not read', async (t) => {
    const proxy = await start(t, { keepsBodies: false })
    Object.assign(proxy.stages, { attribute: attributing(ROOT, WIRESERVER) })
    proxy.host.onHead((_, socket) => socket.pause())
    const client = proxy.connect()
    client.write(upload(100 * 1024 * 1024))
    const piece = Buffer.alloc(1 << 20, 'a')
    let sent = 0
    while (sent < 100 && client.socket.write(piece)) sent++
    await delay(100)
    for (let i = 0; i < 60 && client.socket.writableLength < piece.length; i++) {
      client.socket.write(piece)
      sent++
      await delay(5)
    }
    assert.ok(sent < 60, `${sent} MiB went somewhere`)
  })
  test('that the host refuses before its end is answered, and the connection goes on', async (t) => {
    const proxy = await start(t)
    Object.assign(proxy.stages, { attribute: attributing(ROOT, WIRESERVER) })
    let isFirst = true
    proxy.host.onHead((_, socket) => {
      if (!isFirst) return
      isFirst = false
      socket.write('HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 4\r\n\r\nfull')
    })
    const client = proxy.connect()
    client.write(upload(SIZE))
    client.write('a'.repeat(1000))
    const [answer] = await client.answers(1)
    assert.equal(answer?.body, 'full')
    client.write(Buffer.alloc(SIZE - 1000, 'a'))
    client.write(get('/next'))
    assert.equal((await client.answers(2, 10_000))[1]?.status, 200)
  })
  test('ends at the host when the client leaves', async (t) => {
    const proxy = await start(t)
    Object.assign(proxy.stages, { attribute: attributing(ROOT, WIRESERVER) })
    const client = proxy.connect()
    client.write(`${upload(SIZE)}abc`)
    await until(() => proxy.host.bodyBytes() === 3, 'the beginning arrives')
    client.destroy()
    await until(() => proxy.host.closed() === 1, 'the connection to the host ends')
    assert.equal(proxy.host.calls.length, 0)
  })
  test('that the host cuts off is answered 503', async (t) => {
    const proxy = await start(t)
    Object.assign(proxy.stages, { attribute: attributing(ROOT, WIRESERVER) })
    proxy.host.onHead((_, socket) => socket.resetAndDestroy())
    const client = proxy.connect()
    client.write(`${upload(SIZE)}abc`)
    const [answer] = await client.answers(1)
    assert.equal(answer?.status, 503)
    assert.equal(answer?.headers.connection, 'close')
  })
})
