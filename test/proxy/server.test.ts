import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync } from 'node:fs'
import { connect } from 'node:net'
import { constants } from 'node:os'
import { describe, type TestContext, test } from 'node:test'
import { setTimeout as delay, setImmediate as nextRound } from 'node:timers/promises'
import { LISTENER_SOCKETS } from '../../src/agent/listener-sockets.ts'
import type { Caller } from '../../src/identity/caller.ts'
import { createProxyServer, PROXY_SERVER_DEFAULTS } from '../../src/proxy/server.ts'
import {
  ALICE,
  attributing,
  type ProxySettings,
  type ProxyUnderTest,
  portOf,
  ROOT,
  startProxy,
} from './proxy-under-test.ts'
import { connectClient } from './raw-client.ts'

const start = async (t: TestContext, settings?: ProxySettings): Promise<ProxyUnderTest> => {
  const proxy = await startProxy(settings)
  t.after(() => proxy.close())
  return proxy
}
const get = (target: string, headers = '') => `GET ${target} HTTP/1.1\r\nHost: h\r\n${headers}\r\n`
const withoutDate = (head: string) => head.split('\r\n').filter((line) => !/^date: /i.test(line))

describe('a head that is not sound', () => {
  const rows: readonly (readonly [situation: string, request: string, status: number])[] = [
    ['no host in HTTP/1.1', 'GET / HTTP/1.1\r\n\r\n', 400],
    ['two hosts', 'GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n', 400],
    ['a version that does not exist', 'GET / HTTP/1.2\r\nHost: a\r\n\r\n', 400],
    ['HTTP/2.0 as a version', 'GET / HTTP/2.0\r\nHost: a\r\n\r\n', 400],
    ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400],
    ['no version', 'GET /\r\n\r\n', 400],
    ['a TLS hello', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 400],
    ['a blank in the target', 'GET /a b HTTP/1.1\r\nHost: a\r\n\r\n', 400],
    ['a raw byte above 0x7f in the target', 'GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n', 400],
    ['a method with a blank before it', ' GET / HTTP/1.1\r\nHost: a\r\n\r\n', 400],
    ['a blank before the colon', 'GET / HTTP/1.1\r\nHost : a\r\n\r\n', 400],
    ['a folded header', 'GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n', 400],
    ['line feeds alone', 'GET / HTTP/1.1\nHost: a\n\n', 400],
    ['NUL in a value', 'GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n', 400],
    [
      'a length and chunks',
      'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n',
      400,
    ],
    ['two lengths', 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc', 400],
    ['a list of lengths', 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc', 400],
    ['a signed length', 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc', 400],
    ['an encoding that does not end in chunked', 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n', 400],
    [
      'chunks of another coding',
      'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n',
      400,
    ],
    ['chunks in HTTP/1.0', 'POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', 400],
    ['a chunk size that is none', 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n', 400],
    ['a head of more than 32 KiB', `GET / HTTP/1.1\r\nHost: a\r\nX: ${'a'.repeat(33_000)}\r\n\r\n`, 431],
    ['a target of more than 32 KiB', `GET /${'a'.repeat(33_000)} HTTP/1.1\r\nHost: a\r\n\r\n`, 414],
    ['101 headers', `GET / HTTP/1.1\r\nHost: a\r\n${'X: 1\r\n'.repeat(100)}\r\n`, 431],
  ]
  for (const [situation, request, status] of rows) {
    test(`${situation} is refused with ${status} on a connection that ends, and told`, async (t) => {
      const proxy = await start(t)
      const client = proxy.connect()
      client.write(request)
      const [answer] = await client.answers(1)
      assert.equal(answer?.status, status)
      assert.deepEqual(withoutDate(answer?.head ?? '').slice(1), ['content-length: 0', 'connection: close'])
      assert.match(answer?.headers.date ?? '', / GMT$/)
      await client.ended
      assert.equal(client.received(), `${answer?.head}\r\n\r\n`, 'more came after the refusal')
      const last = String(proxy.told.at(-1))
      assert.match(last, new RegExp(`^(rejected|finished .* normal) ${status}: .`))
      assert.equal(proxy.host.calls.length, 0, 'the host was asked')
    })
  }

  test('100 headers are not too many', async (t) => {
    const proxy = await start(t)
    assert.equal((await proxy.ask(`GET / HTTP/1.1\r\nHost: a\r\n${'X: 1\r\n'.repeat(99)}\r\n`)).status, 200)
  })
  test('a refused head of a method nobody knows is told by its method, also after another request', async (t) => {
    const proxy = await start(t)
    const client = proxy.connect()
    client.write(`${get('/1')}BREW /2 HTTP/1.1\r\nHost: a\r\n\r\n`)
    const answers = await client.answers(2)
    assert.deepEqual(
      answers.map(({ status }) => status),
      [200, 405],
    )
    assert.equal(proxy.told.at(-1), "finished BREW /2 nobody normal 405: Rejected unsupported HTTP method 'BREW'")
  })
})

describe('several requests on one connection', () => {
  test('are carried and answered in order, one at a time', async (t) => {
    const proxy = await start(t)
    let running = 0
    let most = 0
    proxy.host.onCall((call) => {
      most = Math.max(most, ++running)
      // The first takes longest: side by side, the others would overtake it.
      setTimeout(
        () => {
          running--
          call.answer(200, {}, call.target)
        },
        call.target === '/1' ? 60 : 0,
      )
    })
    const client = proxy.connect()
    client.write(
      `PUT /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc${get('/2')}POST /3 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n${get('/4')}`,
    )
    const answers = await client.answers(4)
    assert.deepEqual(
      answers.map(({ body }) => body),
      ['/1', '/2', '/3', '/4'],
    )
    assert.deepEqual(
      proxy.host.calls.map(({ target, body }) => `${target} ${body}`),
      ['/1 abc', '/2 ', '/3 de', '/4 '],
    )
    assert.equal(most, 1)
  })
  test('after a refusal that ends the connection are not carried', async (t) => {
    const proxy = await start(t)
    const client = proxy.connect()
    client.write(`${get('/ok')}${get('/../x')}PUT /late HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n`)
    await client.ended
    const answers = await client.answers(3)
    assert.deepEqual(
      answers.map(({ status }) => status),
      [200, 403],
    )
    await delay(50)
    assert.deepEqual(
      proxy.host.calls.map(({ target }) => target),
      ['/ok'],
    )
  })
  test('after one whose client asked to close are not carried, and its answer arrives', async (t) => {
    const proxy = await start(t)
    proxy.host.onCall((call) => setTimeout(() => call.answer(200, {}, 'whole'), 30))
    const client = proxy.connect()
    client.write(`${get('/last', 'Connection: close\r\n')}${get('/more')}`)
    await client.ended
    const [answer, ...rest] = await client.answers(2)
    assert.equal(answer?.body, 'whole')
    assert.equal(rest.length, 0)
    assert.equal(proxy.host.calls.length, 1)
  })
  test('with nonsense behind them are answered before the nonsense is refused', async (t) => {
    const proxy = await start(t)
    proxy.host.onCall((call) => setTimeout(() => call.answer(200, {}, 'whole'), 30))
    const client = proxy.connect()
    client.write(`${get('/1')}nonsense\r\n\r\n`)
    const answers = await client.answers(2)
    assert.deepEqual(
      answers.map(({ status, body }) => `${status} ${body}`),
      ['200 whole', '400 '],
    )
    assert.equal(await client.ended, 'closed')
  })
  test('of which small ones wait are all answered in order, however many', async (t) => {
    const proxy = await start(t)
    const client = proxy.connect()
    const count = 500
    client.write(Array.from({ length: count }, (_, i) => get(`/${i}`)).join(''))
    const answers = await client.answers(count)
    assert.equal(answers.length, count)
    assert.deepEqual(
      proxy.host.calls.map(({ target }) => target),
      Array.from({ length: count }, (_, i) => `/${i}`),
    )
  })
  test('of which large ones wait are not read any further, and all answered in order', async (t) => {
    const proxy = await start(t)
    const { promise, resolve } = Promise.withResolvers<void>()
    proxy.host.onCall((call) => void promise.then(() => call.answer(200, {}, call.target)))
    const client = proxy.connect()
    const count = 400
    for (let i = 0; i < count; i++) client.write(get(`/${i}`, `x-a: ${'a'.repeat(30_000)}\r\n`))
    let unsent = client.socket.writableLength
    for (let last = -1; last !== unsent; unsent = client.socket.writableLength) {
      last = unsent
      await delay(100)
    }
    assert.ok(unsent > 2_000_000, `the kernel's buffers and one read took all but ${unsent} bytes`)
    assert.equal(proxy.host.calls.length, 1)
    resolve()
    const answers = await client.answers(count)
    assert.deepEqual(
      answers.map(({ status, body }) => `${status} ${body}`),
      Array.from({ length: count }, (_, i) => `200 /${i}`),
    )
  })
  test('of which a body waits for its turn are carried whole, one after the other', async (t) => {
    const proxy = await start(t, { keepsBodies: true })
    proxy.host.onCall((call) => setTimeout(() => call.answer(200, {}, String(call.body.length)), 20))
    const client = proxy.connect()
    const put = (i: number) => `PUT /${i} HTTP/1.1\r\nHost: h\r\nContent-Length: ${100_000 + i}\r\n\r\n`
    for (let i = 0; i < 20; i++) client.write(put(i) + 'b'.repeat(100_000 + i))
    const answers = await client.answers(20)
    assert.deepEqual(
      answers.map(({ body }) => Number(body)),
      Array.from({ length: 20 }, (_, i) => 100_000 + i),
    )
  })
  test('that rest end with the client: the next answer finds nobody, and the others are not carried', async (t) => {
    const proxy = await start(t)
    const large = (i: number) => get(`/${i}`, `x-a: ${'a'.repeat(30_000)}\r\n`)
    proxy.host.onCall((call) => setTimeout(() => call.answer(200, {}, call.target), 150))
    const client = proxy.connect()
    for (let i = 0; i < 200; i++) client.write(large(i))
    while (proxy.host.calls.length === 0) await delay(5)
    client.socket.resetAndDestroy()
    await delay(500)
    assert.ok(proxy.host.calls.length <= 2, `${proxy.host.calls.length} were carried`)
    await proxy.close(2000)
  })
  test('that rest keep the time limits: a head broken off behind them is answered 408 in its turn', async (t) => {
    const proxy = await start(t, { server: { headTimeoutMs: 300, requestTimeoutMs: 500 } })
    proxy.host.onCall((call) => setTimeout(() => call.answer(200, {}, call.target), 20))
    const client = proxy.connect()
    for (let i = 0; i < 3; i++) client.write(get(`/${i}`, `x-a: ${'a'.repeat(30_000)}\r\n`))
    client.write('GET /late HTTP/1.1\r\nHos')
    const answers = await client.answers(4)
    assert.deepEqual(
      answers.map(({ status }) => status),
      [200, 200, 200, 408],
    )
    assert.equal(await client.ended, 'closed')
  })
  test('end with the connection: what waits is not carried when the client has left', async (t) => {
    const proxy = await start(t)
    proxy.host.onCall(() => undefined)
    const client = proxy.connect()
    client.write(`${get('/1')}${get('/2')}`)
    while (proxy.host.calls.length === 0) await delay(5)
    client.destroy()
    while (proxy.host.closed() === 0) await delay(5)
    await delay(20)
    assert.deepEqual(
      proxy.host.calls.map(({ target }) => target),
      ['/1'],
    )
  })
})

describe('Expect: 100-continue', () => {
  const head = (length: number, target = '/x') =>
    `PUT ${target} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: ${length}\r\n\r\n`

  test('is answered when the body is wanted, and goes no further', async (t) => {
    const proxy = await start(t)
    const client = proxy.connect()
    client.write(head(3))
    while (!client.received().includes('\r\n\r\n')) await delay(5)
    assert.equal(client.received(), 'HTTP/1.1 100 Continue\r\n\r\n')
    client.write('abc')
    const [answer] = await client.answers(1)
    assert.equal(answer?.status, 200)
    assert.equal(proxy.host.calls[0]?.body.toString(), 'abc')
    assert.doesNotMatch(proxy.host.calls[0]?.head ?? '', /expect/i)
  })
  test('is not answered when the request is refused', async (t) => {
    const proxy = await start(t)
    const client = proxy.connect()
    client.write(head(102_401))
    const [answer] = await client.answers(1)
    assert.equal(answer?.status, 413)
    assert.doesNotMatch(client.received(), /100 Continue/)
  })
  test('ends the connection of a local answer: whether the body follows nobody knows', async (t) => {
    const proxy = await start(t)
    const client = proxy.connect()
    client.write(head(3, '/provision').replace('\r\n', '\r\nMetadata: true\r\n'))
    const [answer] = await client.answers(1)
    assert.equal(answer?.status, 200)
    assert.equal(answer?.headers.connection, 'close')
  })
  test('of another kind is ignored', async (t) => {
    const proxy = await start(t)
    assert.equal((await proxy.ask(get('/x', 'Expect: the-unexpected\r\n'))).status, 200)
    assert.doesNotMatch(proxy.host.calls[0]?.head ?? '', /expect/i)
  })
  test('in HTTP/1.0 is ignored', async (t) => {
    const proxy = await start(t)
    const client = proxy.connect()
    client.write('PUT /x HTTP/1.0\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc')
    const [answer] = await client.answers(1)
    assert.equal(answer?.status, 200)
    assert.doesNotMatch(client.received(), /100 Continue/)
  })
})

describe('versions and connections', () => {
  test('HTTP/1.0 without a host is carried, and its connection ends', async (t) => {
    const proxy = await start(t)
    const client = proxy.connect()
    client.write('GET /x HTTP/1.0\r\n\r\n')
    const [answer] = await client.answers(1)
    assert.equal(answer?.body, 'ok')
    assert.equal(await client.ended, 'closed')
    assert.match(proxy.host.calls[0]?.head ?? '', /^GET \/x HTTP\/1\.1\r\nhost: 169\.254\.169\.254\r\n/)
  })
  test('HTTP/1.0 that asks for it keeps its connection', async (t) => {
    const proxy = await start(t)
    const client = proxy.connect()
    client.write('GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n')
    await client.answers(1)
    client.write('GET /2 HTTP/1.0\r\n\r\n')
    assert.equal((await client.answers(2)).length, 2)
  })
  test('an upgrade is carried as an ordinary request', async (t) => {
    const proxy = await start(t)
    const got = await proxy.ask(get('/x', 'Connection: Upgrade\r\nUpgrade: websocket\r\n'))
    assert.equal(got.status, 200)
    assert.doesNotMatch(proxy.host.calls[0]?.head ?? '', /upgrade/i)
  })
  test('a connection over the limit is closed without a word', async (t) => {
    const proxy = await start(t, { server: { maxConnections: 1 } })
    const first = proxy.connect()
    first.write(get('/1'))
    await first.answers(1)
    const second = proxy.connect()
    await second.ended
    assert.equal(second.received(), '')
    first.write(get('/2'))
    assert.equal((await first.answers(2)).length, 2)
  })
  test('a connection over the share of its user is closed, and others have theirs', async (t) => {
    const proxy = await start(t, { server: { maxConnectionsPerUser: 2 } })
    const ask = async (caller: Caller) => {
      proxy.stages.attribute = attributing(caller)
      const client = proxy.connect()
      client.write(get('/x'))
      return { client, status: (await client.answers(1))[0]?.status }
    }
    const first = await ask(ALICE)
    assert.equal((await ask(ALICE)).status, 200)
    assert.equal((await ask(ALICE)).status, undefined)
    const reason = 'Closed a connection: the user has 2 others, or all users have theirs'
    assert.ok(proxy.told.includes(`dismissed uid 1000: ${reason}`), proxy.told.join('\n'))
    assert.equal((await ask({ ...ALICE, uid: 1001, userName: 'bob' })).status, 200)
    for (let i = 0; i < 4; i++) assert.equal((await ask(ROOT)).status, 200)
    first.client.destroy()
    await delay(50)
    assert.equal((await ask(ALICE)).status, 200)
  })
  test('of direct connections over their share the oldest makes room', async (t) => {
    const proxy = await start(t, { server: { maxConnectionsPerUser: 2 } })
    proxy.stages.attribute = () => undefined
    const clients = []
    for (let i = 0; i < 3; i++) {
      const client = proxy.connect()
      client.write(get('/provision', 'Metadata: true\r\n'))
      assert.equal((await client.answers(1))[0]?.status, 200)
      clients.push(client)
    }
    await clients[0]?.ended
    clients[1]?.write(get('/provision', 'Metadata: true\r\n'))
    assert.equal((await clients[1]?.answers(2))?.length, 2)
  })
  test('a connection that was reset before it is accepted is closed without a word, and its record is not asked for', async (t) => {
    const proxy = await start(t)
    const peers: string[] = []
    const attribute = proxy.stages.attribute
    proxy.stages.attribute = (peer, socket, netns) => {
      peers.push(peer.address)
      return attribute(peer, socket, netns)
    }
    const reset = `for (let i = 0; i < 20; i++) {
      const socket = require('node:net').connect(${proxy.port}, '127.0.0.1', () => socket.resetAndDestroy())
    }`
    // Synchronous: while it runs nobody accepts.
    execFileSync(process.execPath, ['--eval', reset])
    while (proxy.told.length < 20) await delay(5)
    assert.deepEqual([...new Set(proxy.told)], ['dismissed nobody: Closed a connection: its client had left already'])
    assert.deepEqual(peers, [])
  })
  test('the record of a connection is taken when it is accepted, once, with its own source', async (t) => {
    const proxy = await start(t)
    const peers: { address: string; port: number }[] = []
    const attribute = proxy.stages.attribute
    proxy.stages.attribute = (peer, socket, netns) => {
      peers.push({ ...peer })
      return attribute(peer, socket, netns)
    }
    const client = proxy.connect({ localAddress: '127.0.0.2' })
    while (peers.length === 0) await delay(5)
    client.write(get('/1'))
    await client.answers(1)
    client.write(get('/2'))
    await client.answers(2)
    assert.deepEqual(peers, [{ address: '127.0.0.2', port: client.socket.localPort }])
  })
  test('connections that wait are accepted many at a time, not one a round of the event loop', async (t) => {
    const proxy = await start(t)
    const rounds = new Set<number>()
    let round = 0
    const attribute = proxy.stages.attribute
    proxy.stages.attribute = (peer, socket, netns) => {
      rounds.add(round)
      return attribute(peer, socket, netns)
    }
    // The kernel connects all of them before the loop looks at the listener.
    const clients = Array.from({ length: 100 }, () => proxy.connect())
    const next = () => {
      round++
      immediate = setImmediate(next)
    }
    let immediate = setImmediate(next)
    for (const client of clients) client.write(get('/x'))
    for (const client of clients) assert.equal((await client.answers(1))[0]?.status, 200)
    clearImmediate(immediate)
    assert.ok(rounds.size < 20, `it took ${rounds.size} rounds`)
  })
  test('a request waits for the names of its caller, and does not meet the host before', async (t) => {
    const proxy = await start(t)
    const { promise, resolve } = Promise.withResolvers<never>()
    const attribute = proxy.stages.attribute
    proxy.stages.attribute = (peer, socket, netns) => {
      const attribution = attribute(peer, socket, netns)
      return attribution && { ...attribution, caller: promise.then(() => attribution.caller) }
    }
    const client = proxy.connect()
    client.write(get('/x'))
    await delay(30)
    assert.equal(proxy.host.connections(), 0)
    resolve(undefined as never)
    assert.equal((await client.answers(1))[0]?.status, 200)
  })
})

describe('time limits', () => {
  test('a head that does not come is answered 408', async (t) => {
    const proxy = await start(t, { server: { headTimeoutMs: 300, requestTimeoutMs: 500 } })
    const client = proxy.connect()
    client.write('GET / HTTP/1.1\r\nHos')
    const [answer] = await client.answers(1)
    assert.equal(answer?.status, 408)
    assert.equal(answer?.headers.connection, 'close')
  })
  test('a body that does not come is answered 408', async (t) => {
    const proxy = await start(t, { server: { headTimeoutMs: 300, requestTimeoutMs: 500 } })
    const client = proxy.connect()
    client.write('POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na')
    const [answer] = await client.answers(1)
    assert.equal(answer?.status, 408)
    assert.equal(proxy.host.connections(), 0)
  })
  test('an idle connection is closed', async (t) => {
    const proxy = await start(t, { server: { idleTimeoutMs: 100 } })
    const client = proxy.connect()
    client.write(get('/x'))
    await client.answers(1)
    assert.equal(await client.ended, 'closed')
  })
})

describe('close()', () => {
  test('waits for the request in flight, then ends its connection at once', async (t) => {
    const proxy = await start(t)
    proxy.host.onCall((call) => setTimeout(() => call.answer(200, {}, 'late but whole'), 150))
    const client = proxy.connect()
    client.write(get('/x'))
    while (proxy.host.calls.length === 0) await delay(5)
    const startedAtMs = performance.now()
    await proxy.close(5000)
    const tookMs = performance.now() - startedAtMs
    assert.equal((await client.answers(1))[0]?.body, 'late but whole')
    assert.ok(tookMs < 2500, `took ${tookMs} ms`)
    await proxy.closed
  })
  test('cuts what is not done when the grace is over', async (t) => {
    const proxy = await start(t)
    proxy.host.onCall(() => undefined)
    const client = proxy.connect()
    client.write(get('/x'))
    while (proxy.host.calls.length === 0) await delay(5)
    const startedAtMs = performance.now()
    await proxy.close(200)
    const tookMs = performance.now() - startedAtMs
    assert.ok(tookMs >= 190 && tookMs < 2000, `took ${tookMs} ms`)
    await client.ended
    assert.equal(client.received(), '')
  })
  test('ends idle connections at once and takes no more', async (t) => {
    const proxy = await start(t)
    const client = proxy.connect()
    client.write(get('/x'))
    await client.answers(1)
    const startedAtMs = performance.now()
    await proxy.close(5000)
    assert.ok(performance.now() - startedAtMs < 2000)
    await client.ended
    const late = proxy.connect()
    assert.equal(await late.ended, 'reset')
  })
  test('serves who has connected and not asked yet, and does not wait long for who does not ask', async (t) => {
    const proxy = await start(t)
    const [asking, silent] = [proxy.connect(), proxy.connect()]
    while (proxy.openConnections() < 2) await delay(5)
    const startedAtMs = performance.now()
    const closing = proxy.close(60_000)
    asking.write(get('/x'))
    assert.equal((await asking.answers(1))[0]?.status, 200)
    await closing
    await silent.ended
    assert.ok(performance.now() - startedAtMs < 30_000)
  })
  test('ends a kept connection with the request that was on its way', async (t) => {
    const proxy = await start(t)
    proxy.host.onCall((call) => setTimeout(() => call.answer(200, {}, call.target), 100))
    const client = proxy.connect()
    client.write(get('/1'))
    while (proxy.host.calls.length === 0) await delay(5)
    client.write(get('/2'))
    const closing = proxy.close(5000)
    const [first, second] = await client.answers(2)
    assert.equal(first?.body, '/1')
    assert.equal(second?.headers.connection, 'close')
    await closing
  })
})

test('listen() says what is in the way, and works after that', async (t) => {
  const proxy = await start(t)
  const other = createProxyServer(proxy.stages, () => 0)
  await assert.rejects(other.listen('127.0.0.1', proxy.port), {
    name: 'AgentError',
    code: 'LISTEN_FAILED',
    message: `IO error: Failed to bind TcpListener '127.0.0.1:${proxy.port}': Address already in use (os error 98)`,
    facts: { errno: 'EADDRINUSE' },
  })
  assert.equal(other.descriptor(), undefined)
  await other.listen('127.0.0.1', 0)
  assert.equal(typeof other.descriptor(), 'number')
  await other.close(0)
  await other.closed
})

describe('a listener that was adopted', () => {
  const { listen, boundTo } = LISTENER_SOCKETS
  const portAt = (fd: number) => boundTo(fd).port
  const answers = async (port: number) => {
    const client = connectClient(port)
    client.write(get('/x'))
    const [answer] = await client.answers(1)
    client.destroy()
    return answer?.status
  }

  test('is served, until who adopted it lets go', async (t) => {
    const proxy = await start(t)
    const fd = listen('127.0.0.1', 0, 8)
    const port = portAt(fd)
    const adopted = proxy.adopt(fd)
    assert.equal(await answers(port), 200)
    adopted[Symbol.dispose]()
    await assert.rejects(once(connect(port, '127.0.0.1'), 'connect'), { code: 'ECONNREFUSED' })
    assert.equal((await proxy.ask(get('/main'))).status, 200)
  })

  test('keeps its number when it does not listen any more, and letting go of it closes no other', async (t) => {
    const proxy = await start(t)
    const deaf = new Set<number>()
    const accept = (fd: number) => (deaf.has(fd) ? -constants.errno.EINVAL : LISTENER_SOCKETS.accept(fd))
    proxy.stages.sockets = { ...LISTENER_SOCKETS, accept }
    const fd = listen('127.0.0.1', 0, 8)
    const adopted = proxy.adopt(fd)
    deaf.add(fd)
    const client = connect(portAt(fd), '127.0.0.1')
    client.on('error', () => undefined)
    await once(client, 'connect')
    for (let round = 0; round < 20; round++) await nextRound()
    assert.ok(portAt(fd) > 0, 'the descriptor is open')
    adopted[Symbol.dispose]()
    assert.throws(() => boundTo(fd), { facts: { command: 'getsockname', errno: 'EBADF' } })

    deaf.clear()
    // Others' sockets may have closed meanwhile: their numbers are filled up first.
    const others = [listen('127.0.0.1', 0, 8)]
    while (others.at(-1) !== fd && others.length < 100) others.push(listen('127.0.0.1', 0, 8))
    const other = others.pop() as number
    for (const each of others) closeSync(each)
    assert.equal(other, fd, 'the number is given again')
    using _ = proxy.adopt(other)
    adopted[Symbol.dispose]()
    assert.equal(await answers(portAt(other)), 200)
    client.destroy()
  })

  test('closes with the server', async (t) => {
    const proxy = await start(t)
    const fd = listen('127.0.0.1', 0, 8)
    proxy.adopt(fd)
    await proxy.close()
    assert.throws(() => boundTo(fd), { facts: { command: 'getsockname', errno: 'EBADF' } })
  })
})

test('a lost listener of the server is closed at once, and the time limits of its connections go on', async (t) => {
  let isDeaf = false
  const proxy = await start(t)
  proxy.stages.sockets = {
    ...LISTENER_SOCKETS,
    accept: (fd) => (isDeaf ? -constants.errno.EINVAL : LISTENER_SOCKETS.accept(fd)),
  }
  const server = createProxyServer(proxy.stages, () => performance.now(), {
    ...PROXY_SERVER_DEFAULTS,
    headTimeoutMs: 400,
  })
  await server.listen('127.0.0.1', 0)
  const port = portOf(server.descriptor() as number)
  const slow = connectClient(port)
  slow.write('GET /x HT')
  while (server.openConnections() < 1) await delay(5)
  isDeaf = true
  connect(port, '127.0.0.1').on('error', () => undefined)
  await server.closed
  assert.equal(server.descriptor(), undefined)
  assert.equal((await slow.answers(1))[0]?.status, 408)
  await server.close(0)
})

test('a listener that is handed over is refused when it is bound elsewhere, and closed', async (t) => {
  const proxy = await start(t)
  const server = createProxyServer(proxy.stages, () => 0)
  const fd = LISTENER_SOCKETS.listen('127.0.0.1', 0, 8)
  await assert.rejects(server.listen('127.0.0.1', 1, fd), {
    code: 'LISTEN_FAILED',
    message: /is at 127\.0\.0\.1:\d+, not 127/,
  })
  assert.throws(() => LISTENER_SOCKETS.boundTo(fd), { facts: { command: 'getsockname', errno: 'EBADF' } })
})
