import assert from 'node:assert/strict'
import type { Socket } from 'node:net'
import { describe, type TestContext, test } from 'node:test'
import { inspect } from 'node:util'
import { AgentError } from '../../src/base/errors.ts'
import { createHostChannel } from '../../src/channel/host-channel.ts'
import { parseLatchedKey, renderKeyFile } from '../../src/channel/key-document.ts'
import { isAllowedDuplicate, parseAuthorizationRules } from '../../src/rules/document.ts'
import { findClosedPort, rawAnswer, startRawServer } from '../fakes/raw-server.ts'

const HEX = '4A404E635266556A586E3272357538782F413F4428472B4B6250645367566B59'
const GUID = '9cf81e97-0316-4ad3-94a7-8ccbdee8ccbf'
const KEY_MEMBERS = {
  authorizationScheme: 'Azure-HMAC-SHA256',
  guid: GUID,
  incarnationId: 1,
  issued: '2021-05-05T 12:00:00Z',
  key: HEX,
}
const keyJson = (changes: Record<string, unknown> = {}) => JSON.stringify({ ...KEY_MEMBERS, ...changes })
const STATUS = JSON.stringify({
  version: '1.0',
  authorizationScheme: 'Azure-HMAC-SHA256',
  keyDeliveryMethod: 'http',
  secureChannelState: 'Wireserver',
})

function channelTo(port: number) {
  const dates: (readonly [hostDate: string | undefined, date: string | undefined])[] = []
  const channel = createHostChannel({
    address: '127.0.0.1',
    port,
    httpDate: () => 'Wed, 23 Apr 2025 12:00:00 GMT',
    timeoutMs: 2000,
    maxBodyBytes: 10_000,
    rules: { parse: (json) => parseAuthorizationRules(json), isAllowedDuplicate },
    onDate: (...pair) => dates.push(pair),
  })
  return { channel, dates }
}

/** A channel to a host that answers everything with `answer`. */
async function setUp(t: TestContext, answer: Buffer | ((socket: Socket) => void)) {
  const server = await startRawServer(t, typeof answer === 'function' ? answer : (socket) => socket.end(answer))
  return { server, ...channelTo(server.port) }
}

/** Expects a failure that reads `message` and holds no digit of the key. */
function refusal(code: string, message: string | RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof AgentError)
    assert.equal(error.code, code)
    if (typeof message === 'string') assert.equal(error.message, message)
    else assert.match(error.message, message)
    assert.doesNotMatch(inspect(error, { depth: null, showHidden: true }), /4A404E63|67566B59/i)
    return true
  }
}

describe('getStatus()', () => {
  test('reads any 2xx answer, whatever its content type', async (t) => {
    const { channel } = await setUp(
      t,
      rawAnswer('203 Non-Authoritative Information', STATUS, 'content-type: text/plain'),
    )
    assert.equal((await channel.getStatus()).secureChannelState, 'Wireserver')
  })

  test('hands the dates on before the body is read', async (t) => {
    const answer = rawAnswer('200 OK', 'no json', 'X-MS-Azure-Host-Date: a', 'Date: b')
    const { channel, dates } = await setUp(t, answer)
    await assert.rejects(channel.getStatus(), refusal('STATUS_UNREADABLE', /^Cannot read key status: /))
    assert.deepEqual(dates, [['a', 'b']])
  })

  test('hands no date on from a failing answer', async (t) => {
    const { channel, dates, server } = await setUp(t, rawAnswer('404 Gone Fishing', HEX, 'date: b'))
    const url = `http://127.0.0.1:${server.port}/secure-channel/status`
    await assert.rejects(
      channel.getStatus(),
      refusal('HOST_CALL_FAILED', `Failed to get response from ${url}, status code: 404 Not Found`),
    )
    assert.deepEqual(dates, [])
  })

  test('reads a document once that the host sends again, and a changed one anew', async (t) => {
    const changed = STATUS.replace('Wireserver', 'Disabled')
    const answers = [STATUS, STATUS, 'no json', STATUS, changed].map((text) => rawAnswer('200 OK', text))
    const { channel } = await setUp(t, (socket) => void socket.end(answers.shift() ?? ''))
    const first = await channel.getStatus()
    assert.equal(await channel.getStatus(), first)
    await assert.rejects(channel.getStatus(), refusal('STATUS_UNREADABLE', /^Cannot read key status: /))
    assert.equal(await channel.getStatus(), first)
    assert.equal((await channel.getStatus()).secureChannelState, 'Disabled')
  })

  test('does not follow a redirect', async (t) => {
    const { channel, server } = await setUp(t, rawAnswer('301 Moved', '', 'location: /elsewhere'))
    await assert.rejects(channel.getStatus(), refusal('HOST_CALL_FAILED', /status code: 301 Moved Permanently$/))
    assert.equal(server.sockets.length, 1)
  })
})

describe('acquireKey()', () => {
  test('asks with exactly this body and reads the key', async (t) => {
    const { channel, server } = await setUp(t, rawAnswer('200 OK', keyJson()))
    const key = await channel.acquireKey()
    assert.deepEqual(
      { ...key, key: key.key.revealHex() },
      { guid: GUID, incarnationId: 1, issued: '2021-05-05T 12:00:00Z', key: HEX },
    )
    assert.equal(
      server.received[0],
      [
        'POST /secure-channel/key HTTP/1.1',
        'x-ms-azure-host-date: Wed, 23 Apr 2025 12:00:00 GMT',
        'host: 127.0.0.1',
        'x-ms-azure-host-claims: { "isRoot": "true"}',
        'content-length: 44',
        'metadata: True ',
        'content-type: application/json',
        '',
        '{"authorizationScheme": "Azure-HMAC-SHA256"}',
      ].join('\r\n'),
    )
  })

  test('fails with the known words for any status but 200, even another 2xx', async (t) => {
    for (const status of [201, 403, 500]) {
      const { channel } = await setUp(t, rawAnswer(`${status} X`, keyJson()))
      await assert.rejects(channel.acquireKey(), refusal('KEY_REFUSED', `Key(KeyResponse("acquire", ${status}))`))
    }
  })

  test('fails with the known words when nobody listens', async () => {
    const { channel } = channelTo(await findClosedPort())
    await assert.rejects(
      channel.acquireKey(),
      refusal('KEY_REQUEST_FAILED', 'Key(SendKeyRequest("acquire", "Connection refused (os error 111)"))'),
    )
  })

  test('says nothing of a key that is cut off', async (t) => {
    const { channel } = await setUp(t, (socket) => {
      socket.end(rawAnswer('200 OK', keyJson()).subarray(0, -3))
    })
    await assert.rejects(channel.acquireKey(), refusal('KEY_REQUEST_FAILED', /closed before the answer was complete/))
  })
})

describe('attestKey()', () => {
  test('signs with the key it is given, its id in the path', async (t) => {
    const { channel, server } = await setUp(t, rawAnswer('200 OK', 'ignored'))
    await channel.attestKey(parseLatchedKey(keyJson()))
    const lines = (server.received[0] as string).split('\r\n')
    assert.equal(lines[0], `POST /secure-channel/key/${GUID}/key-attestation HTTP/1.1`)
    assert.match(
      lines.at(-3) as string,
      new RegExp(`^x-ms-azure-host-authorization: Azure-HMAC-SHA256 ${GUID} [0-9a-f]{64}$`),
    )
  })

  test('fails with the known words for any status but 200', async (t) => {
    for (const status of [202, 403]) {
      const { channel } = await setUp(t, rawAnswer(`${status} X`, ''))
      const attest = channel.attestKey(parseLatchedKey(keyJson()))
      await assert.rejects(attest, refusal('KEY_REFUSED', `Key(KeyResponse("attest", ${status}))`))
    }
  })

  test('fails with the known words when the connection breaks', async (t) => {
    const { channel } = await setUp(t, (socket) => socket.resetAndDestroy())
    const attest = channel.attestKey(parseLatchedKey(keyJson()))
    await assert.rejects(
      attest,
      refusal('KEY_REQUEST_FAILED', /^Key\(SendKeyRequest\("attest", "Failed to send request to /),
    )
  })
})

describe('parseLatchedKey()', () => {
  const rows: readonly (readonly [situation: string, text: string, code: string, message: string | RegExp])[] = [
    ['no JSON', `${HEX}`, 'KEY_UNREADABLE', /^Cannot read the key: there is text after the value at line 1, column 2$/],
    ['nothing', '', 'KEY_UNREADABLE', 'Cannot read the key: a value is expected at line 1, column 1'],
    ['a list', `["${HEX}"]`, 'KEY_UNREADABLE', 'Cannot read the key: the document must be an object'],
    ['no key', keyJson({ key: undefined }), 'KEY_UNREADABLE', 'Cannot read the key: key is missing'],
    ['a null key', keyJson({ key: null }), 'KEY_UNREADABLE', 'Cannot read the key: key must be string'],
    ['no date of issue', keyJson({ issued: undefined }), 'KEY_UNREADABLE', 'Cannot read the key: issued is missing'],
    ['a textual incarnation', keyJson({ incarnationId: HEX }), 'KEY_UNREADABLE', /incarnationId must be number$/],
    ['a negative incarnation', keyJson({ incarnationId: -1 }), 'KEY_UNREADABLE', /an unsigned 32-bit integer$/],
    ['a repeated key', `{"key":"${HEX}",${keyJson().slice(1)}`, 'KEY_UNREADABLE', /member key is repeated$/],
    ['another scheme', keyJson({ authorizationScheme: HEX }), 'KEY_INVALID', /its scheme is not Azure-HMAC-SHA256$/],
    [
      'an id that is a path',
      keyJson({ guid: `../${HEX}` }),
      'KEY_INVALID',
      'Cannot use the key: its guid is not a guid',
    ],
    ['an id that splits a header', keyJson({ guid: `${GUID}\r\nx:` }), 'KEY_INVALID', /its guid is not a guid$/],
    ['a short key', keyJson({ key: HEX.slice(2) }), 'KEY_INVALID', /it is not 64 hexadecimal digits$/],
    ['a key with a letter', keyJson({ key: `${HEX.slice(1)}Y` }), 'KEY_INVALID', /it is not 64 hexadecimal digits$/],
  ]
  for (const [situation, text, code, message] of rows) {
    test(`refuses ${situation}`, () => assert.throws(() => parseLatchedKey(text), refusal(code, message)))
  }

  test('takes null for no incarnation, and members it does not know', () => {
    assert.equal(parseLatchedKey(keyJson({ incarnationId: null, more: [] })).incarnationId, undefined)
  })

  test('reads what renderKeyFile() writes', () => {
    for (const incarnationId of [0, 1, 4294967295, null]) {
      const key = parseLatchedKey(keyJson({ incarnationId, issued: '"\\\u2028' }))
      const again = parseLatchedKey(renderKeyFile(key))
      assert.deepEqual({ ...again, key: again.key.revealHex() }, { ...key, key: HEX })
    }
  })
})
