import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import type { Socket } from 'node:net'
import { describe, type TestContext, test } from 'node:test'
import { inspect } from 'node:util'
import { AgentError, describeError } from '../../src/base/errors.ts'
import {
  callHost,
  decodeBody,
  type HostAnswer,
  type HostCall,
  type HostCallOptions,
} from '../../src/channel/host-call.ts'
import { SecretKey } from '../../src/channel/secret-key.ts'
import { stringToSign } from '../fabric/string-to-sign.ts'
import { findClosedPort, rawAnswer, startRawServer } from '../fakes/raw-server.ts'

const GET: HostCall = { method: 'GET', target: '/secure-channel/status', headers: [['metadata', 'True ']] }
const DATE = 'Wed, 23 Apr 2025 12:00:00 GMT'

function optionsFor(port: number, changes: Partial<HostCallOptions> = {}): HostCallOptions {
  return { address: '127.0.0.1', port, httpDate: () => DATE, timeoutMs: 5000, maxBodyBytes: 1000, ...changes }
}

/** Sends `call` to a server that answers with `answer`. */
async function exchange(t: TestContext, answer: Buffer | string, call = GET, changes: Partial<HostCallOptions> = {}) {
  const server = await startRawServer(t, (socket) => socket.end(answer))
  return { result: await callHost(call, optionsFor(server.port, changes)), server }
}

function assertFailure(error: unknown, code: string, message: string | RegExp): true {
  assert.ok(error instanceof AgentError, `not an AgentError: ${inspect(error)}`)
  assert.equal(error.code, code)
  if (typeof message === 'string') assert.equal(error.message, message)
  else assert.match(error.message, message)
  assert.doesNotMatch(inspect(error, { depth: null, showHidden: true }), /topsecret/)
  return true
}

describe('callHost() sends', () => {
  const common = [`x-ms-azure-host-date: ${DATE}`, 'host: 127.0.0.1', 'x-ms-azure-host-claims: { "isRoot": "true"}']

  test('a GET with exactly these bytes', async (t) => {
    const { server } = await exchange(t, rawAnswer('200 OK', ''))
    const lines = ['GET /secure-channel/status HTTP/1.1', ...common, 'content-length: 0', 'metadata: True ', '', '']
    assert.equal(server.received[0], lines.join('\r\n'))
  })

  test('a POST with a body, its length in bytes', async (t) => {
    const call: HostCall = { method: 'POST', target: '/k', headers: [['content-type', 'text/plain']], body: 'h\u00e9' }
    const { server } = await exchange(t, rawAnswer('200 OK', ''), call)
    const lines = ['POST /k HTTP/1.1', ...common, 'content-length: 3', 'content-type: text/plain', '', 'h\u00c3\u00a9']
    assert.equal(server.received[0], lines.join('\r\n'))
  })

  test('a signed request, its signature covering what the host received', async (t) => {
    const guid = '9cf81e97-0316-4ad3-94a7-8ccbdee8ccbf'
    const hex = '4A404E635266556A586E3272357538782F413F4428472B4B6250645367566B59'
    const key = { guid, incarnationId: undefined, issued: '', key: new SecretKey(hex) }
    const target = `/secure-channel/key/${guid}/key-attestation`
    const call: HostCall = { method: 'POST', target, headers: [['metadata', 'True ']], signWith: key }
    const { server } = await exchange(t, rawAnswer('200 OK', ''), call)
    const head = (server.received[0] as string).split('\r\n').slice(0, -2)
    const authorization = head.pop()
    assert.deepEqual(head, [`POST ${target} HTTP/1.1`, ...common, 'content-length: 0', 'metadata: True '])
    const rawHeaders = head.slice(1).flatMap((line) => line.split(/(?<=^[^:]*): /))
    const signed = stringToSign({ method: 'POST', target, rawHeaders }, Buffer.alloc(0))
    const signature = createHmac('sha256', Buffer.from(hex, 'hex')).update(signed).digest('hex')
    assert.equal(authorization, `x-ms-azure-host-authorization: Azure-HMAC-SHA256 ${guid} ${signature}`)
  })

  test('each call over a connection of its own, closed once the answer is read', async (t) => {
    const server = await startRawServer(t, (socket) => socket.write(rawAnswer('200 OK', 'x', 'connection: keep-alive')))
    await callHost(GET, optionsFor(server.port))
    await callHost(GET, optionsFor(server.port))
    assert.equal(server.sockets.length, 2)
    await waitFor(() => server.sockets.every((socket) => socket.destroyed || socket.readableEnded))
  })
})

describe('callHost() returns', () => {
  test('status, first value of each header, and the body', async (t) => {
    const { result } = await exchange(t, rawAnswer('404 Nope', 'b\u00f6dy', 'X-A: 1', 'x-a: 2', 'Date: today'))
    assert.equal(result.status, 404)
    assert.equal(result.statusText, 'Not Found')
    assert.equal(result.headers.get('x-a'), '1')
    assert.equal(result.headers.get('date'), 'today')
    assert.equal(result.body.toString(), 'b\u00f6dy')
  })

  test('a redirect as it is', async (t) => {
    const { result } = await exchange(t, rawAnswer('302 Found', '', 'location: http://127.0.0.1:1/'))
    assert.equal(result.status, 302)
  })

  test('a chunked body, put together', async (t) => {
    const { result } = await exchange(
      t,
      'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n',
    )
    assert.equal(result.body.toString(), 'abc')
  })

  test('a body that ends with the connection', async (t) => {
    const { result } = await exchange(t, 'HTTP/1.1 200 OK\r\n\r\nabc')
    assert.equal(result.body.toString(), 'abc')
  })

  test('the final answer after interim ones', async (t) => {
    const { result } = await exchange(t, `HTTP/1.1 103 Early Hints\r\n\r\n${rawAnswer('200 OK', 'abc')}`)
    assert.equal(result.body.toString(), 'abc')
  })

  test('a body of exactly the allowed size', async (t) => {
    const { result } = await exchange(t, rawAnswer('200 OK', 'x'.repeat(1000)))
    assert.equal(result.body.length, 1000)
  })
})

describe('callHost() fails', () => {
  test('with the known words when nobody listens', async () => {
    const port = await findClosedPort()
    await assert.rejects(callHost(GET, optionsFor(port)), (error) =>
      assertFailure(error, 'HOST_UNREACHABLE', 'Connection refused (os error 111)'),
    )
    const failure = await callHost(GET, optionsFor(port)).catch(describeError)
    assert.equal(failure, 'Connection refused (os error 111)')
  })

  const secret = 'topsecret'
  const rows: readonly (readonly [situation: string, answer: (socket: Socket) => void, reason: RegExp])[] = [
    ['no byte comes and the connection ends', (socket) => socket.end(), /socket hang up|closed/],
    [
      'the connection is reset before an answer',
      (socket) => socket.resetAndDestroy(),
      /Connection reset by peer \(os error 104\)|hang up/,
    ],
    [
      'the body is cut off',
      (socket) => socket.end(`HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n${secret}`),
      /the connection was closed before the answer was complete/,
    ],
    [
      'the body is cut off by a reset',
      (socket) =>
        socket.write(`HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n${secret}`, () => socket.resetAndDestroy()),
      /closed before|reset|hang up/,
    ],
    [
      'the body is one byte too large',
      (socket) => socket.end(rawAnswer('200 OK', secret.padEnd(1001))),
      /larger than 1000 bytes$/,
    ],
    [
      'the body has no end',
      (socket) => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n')
        const timer = setInterval(() => socket.write(secret.repeat(20)), 1)
        socket.on('close', () => clearInterval(timer))
      },
      /larger than 1000 bytes$/,
    ],
    ['the answer is not HTTP', (socket) => socket.end(`SSH-2.0-${secret}\r\n`), /Parse Error/],
    ['the head is spoilt', (socket) => socket.end(`HTTP/1.1 200 OK\r\n${secret}\r\n\r\n`), /Parse Error/],
    ['the head has no end', (socket) => socket.write(`HTTP/1.1 200 OK\r\nx: ${secret.repeat(10_000)}`), /Parse Error/],
    [
      'the host wants to speak another protocol',
      (socket) => socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n'),
      /closed|hang up|upgrade/i,
    ],
  ]
  for (const [situation, answer, reason] of rows) {
    test(`when ${situation}`, async (t) => {
      const server = await startRawServer(t, answer)
      await assert.rejects(callHost(GET, optionsFor(server.port)), (error) => {
        assertFailure(error, 'HOST_CALL_FAILED', /^Failed to send request to \/secure-channel\/status: /)
        return assertFailure(error, 'HOST_CALL_FAILED', reason)
      })
    })
  }

  for (const [situation, answer] of [
    ['no answer comes', () => undefined],
    ['the head never ends', (socket: Socket) => socket.write('HTTP/1.1 200 OK\r\n')],
    ['the body never ends', (socket: Socket) => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ntopsecre')],
    [
      'a byte comes now and then',
      (socket: Socket) => {
        socket.write('HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n')
        const timer = setInterval(() => socket.write('x'), 20)
        socket.on('close', () => clearInterval(timer))
      },
    ],
  ] as const) {
    test(`in time when ${situation}`, async (t) => {
      const server = await startRawServer(t, answer)
      const startMs = performance.now()
      await assert.rejects(callHost(GET, optionsFor(server.port, { timeoutMs: 100 })), (error) =>
        assertFailure(
          error,
          'HOST_CALL_FAILED',
          'Failed to send request to /secure-channel/status: no complete answer within 100 ms',
        ),
      )
      assert.ok(performance.now() - startMs < 2000)
      await waitFor(() => server.sockets.every((socket) => socket.destroyed || socket.readableEnded))
    })
  }

  test('at once when aborted, before and during the call', async (t) => {
    const server = await startRawServer(t, () => controller.abort())
    const controller = new AbortController()
    const options = optionsFor(server.port)
    await assert.rejects(callHost(GET, options, controller.signal), (error) =>
      assertFailure(error, 'HOST_CALL_FAILED', /aborted/),
    )
    await assert.rejects(callHost(GET, options, controller.signal), (error) =>
      assertFailure(error, 'HOST_CALL_FAILED', /aborted/),
    )
    assert.equal(server.sockets.length, 1)
  })
})

describe('decodeBody()', () => {
  const answer = (type: string | undefined, body: Buffer): HostAnswer => ({
    status: 200,
    statusText: 'OK',
    headers: new Map(type === undefined ? [] : [['content-type', type]]),
    body,
  })
  const text = '{"a":"\u00e9\u{1f600}"}'
  const rows: readonly (readonly [type: string | undefined, body: Buffer, decoded: string])[] = [
    [undefined, Buffer.from(text), text],
    ['application/json', Buffer.from(text), text],
    ['application/json; charset=UTF-8', Buffer.from(text), text],
    ['text/html; charset=iso-8859-1', Buffer.from(text), text],
    ['application/json; charset=utf-16', Buffer.from(text, 'utf16le'), text],
    ['application/json; charset=UTF-16LE', Buffer.from(text, 'utf16le'), text],
    ['application/json; charset=utf-16', Buffer.concat([Buffer.from('ab', 'utf16le'), Buffer.from([0x63])]), 'ab'],
    ['application/json', Buffer.from([0x61, 0xff, 0x62]), 'a\ufffdb'],
  ]
  for (const [type, body, decoded] of rows) {
    test(`${type}, ${body.length} bytes`, () => assert.equal(decodeBody(answer(type, body)), decoded))
  }

  test('refuses UTF-32', () => {
    assert.throws(
      () => decodeBody(answer('text/plain; charset=utf-32', Buffer.from('topsecret'))),
      (error) => assertFailure(error, 'HOST_CALL_FAILED', 'Deserialization failed: utf-32 charset is not supported'),
    )
  })

  test('sees whole characters although they came in pieces', async (t) => {
    const bytes = rawAnswer('200 OK', '\u00e9\u{1f600}')
    const server = await startRawServer(t, async (socket) => {
      socket.setNoDelay(true)
      for (const byte of bytes) await new Promise((resolve) => socket.write(Buffer.from([byte]), resolve))
    })
    assert.equal(decodeBody(await callHost(GET, optionsFor(server.port))), '\u00e9\u{1f600}')
  })
})

async function waitFor(condition: () => boolean): Promise<void> {
  for (let i = 0; !condition(); i++) {
    assert.ok(i < 200, 'the condition did not come true within two seconds')
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
