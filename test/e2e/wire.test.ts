/**
 * HTTP/1 on the wire of the executable: what it takes from clients, what it takes from the host, and what becomes of it, over
 * raw sockets that the kernel redirects. The host does what each request tells it, and tells what arrived.
 */

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { PLACES, type Place } from '../fuzz/requests.ts'
import type { HostStep } from '../fuzz/told-host.ts'
import { SLOWNESS } from '../kernel/lab.ts'
import type { Machine } from './machine.ts'
import { answersOf, createToldMachine, echoOf, hold, telling } from './wire.ts'
import type { ClientStep, Conversation, Outcome } from './wire-client.ts'

const PATIENCE_MS = 6000 * SLOWNESS

let machine: Machine

before(async () => {
  machine = await createToldMachine()
})
after(() => machine[Symbol.asyncDispose]())

/** A conversation of bytes that are written at once. */
const say = (bytes: string, to: Place = 'imds', patienceMs = PATIENCE_MS): Conversation => ({
  to: PLACES[to],
  steps: [{ write: bytes }],
  patienceMs,
})

/** What has reached the host so far, as methods and targets. */
async function allArrived(): Promise<string[]> {
  const [outcome] = await hold(machine, [
    { ...say(telling([{ tellAll: true }], 'GET /all HTTP/1.1', 'Connection: close\r\n')), patienceMs: PATIENCE_MS },
  ])
  return JSON.parse(answersOf(outcome as Outcome, ['GET'])[0]?.body ?? '') as string[]
}

/** The last answer of every sound request here. */
const LAST = 'Connection: close\r\n'

describe('a client that writes', () => {
  /** `#` stands for the number of the row, by which its requests are known at the host. */
  type Row = readonly [situation: string, bytes: string, statuses: readonly number[], arrived: readonly string[]]

  const smuggled = 'GET /#-smuggled HTTP/1.1\r\nHost: h\r\n\r\n'
  const post = (fields: string, body: string) => `POST /# HTTP/1.1\r\nHost: h\r\n${fields}\r\n\r\n${body}`
  const chunked = (body: string) => post('Transfer-Encoding: chunked', body)
  const get = (more = '') => `GET /# HTTP/1.1\r\nHost: h\r\n${more}\r\n`

  const rows: readonly Row[] = [
    // Framing that could be read in two ways.
    ['a length and chunks', post('Content-Length: 6\r\nTransfer-Encoding: chunked', `0\r\n\r\n${smuggled}`), [400], []],
    ['chunks and a length', post('Transfer-Encoding: chunked\r\nContent-Length: 6', `0\r\n\r\n${smuggled}`), [400], []],
    ['two lengths', post('Content-Length: 0\r\nContent-Length: 40', smuggled), [400], []],
    ['two equal lengths', post('Content-Length: 3\r\nContent-Length: 3', 'abc'), [400], []],
    ['a list of lengths', post('Content-Length: 3, 3', 'abc'), [400], []],
    ['a length with a sign', post('Content-Length: +3', 'abc'), [400], []],
    ['a negative length', post('Content-Length: -1', smuggled), [400], []],
    ['a hexadecimal length', post('Content-Length: 0x3', 'abc'), [400], []],
    ['a length with a blank inside', post('Content-Length: 3 3', 'abc'), [400], []],
    ['an empty length', post('Content-Length:', smuggled), [400], []],
    ['a length that no number holds', post('Content-Length: 18446744073709551617', 'a'), [400], []],
    ['a length above the limit', post('Content-Length: 102401', 'abc'), [413], []],
    ['another encoding', post('Transfer-Encoding: gzip', smuggled), [400], []],
    ['chunks under another encoding', post('Transfer-Encoding: chunked, gzip', smuggled), [400], []],
    [
      'chunks twice',
      post('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked', `0\r\n\r\n${smuggled}`),
      [400],
      [],
    ],
    ['an encoding of a similar name', post('Transfer-Encoding: xchunked', `0\r\n\r\n${smuggled}`), [400], []],
    ['an encoding behind a vertical tab', post('Transfer-Encoding: \x0bchunked', `0\r\n\r\n${smuggled}`), [400], []],
    ['a blank before the colon of an encoding', post('Transfer-Encoding : chunked', `0\r\n\r\n${smuggled}`), [400], []],
    ['a folded encoding', post('Transfer-Encoding:\r\n chunked', `0\r\n\r\n${smuggled}`), [400], []],
    ['a folded header', get('X: a\r\n b\r\n'), [400], []],
    ['a fold before the first header', 'GET /# HTTP/1.1\r\n X: a\r\nHost: h\r\n\r\n', [400], []],
    // Chunks.
    ['chunks', chunked('3\r\nabc\r\n0\r\n\r\n'), [200], ['POST /#']],
    ['chunks in pieces with an extension', chunked('1;a=b\r\na\r\n2\r\nbc\r\n0;x\r\n\r\n'), [200], ['POST /#']],
    [
      'trailers, which go no further',
      chunked('1\r\na\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n'),
      [200],
      ['POST /#'],
    ],
    ['a chunk size with 0x', chunked('0x1\r\na\r\n0\r\n\r\n'), [400], []],
    ['a chunk size with a sign', chunked('+1\r\na\r\n0\r\n\r\n'), [400], []],
    ['a negative chunk size', chunked('-1\r\na\r\n0\r\n\r\n'), [400], []],
    ['a chunk size that overflows', chunked('ffffffffffffffff1\r\na\r\n0\r\n\r\n'), [400], []],
    ['a blank before a chunk size', chunked(' 1\r\na\r\n0\r\n\r\n'), [400], []],
    ['an empty chunk size', chunked('\r\na\r\n0\r\n\r\n'), [400], []],
    ['a line feed behind a chunk size', chunked('1\na\r\n0\r\n\r\n'), [400], []],
    ['a line feed behind a chunk', chunked('1\r\na\n0\r\n\r\n'), [400], []],
    ['a chunk longer than it says', chunked('1\r\nabc\r\n0\r\n\r\n'), [400], []],
    ['a trailer without a colon', chunked('0\r\nX\r\n\r\n'), [400], []],
    ['more trailers than are read', chunked(`0\r\n${'X: 1\r\n'.repeat(4000)}\r\n`), [431], []],
    ['chunks above the limit', chunked(`19001\r\n${'a'.repeat(0x19001)}\r\n0\r\n\r\n`), [413], []],
    // Characters.
    ['NUL in a value', get('X: a\0b\r\n'), [400], []],
    ['NUL in a name', get('X\0: a\r\n'), [400], []],
    ['NUL in the target', 'GET /#\0 HTTP/1.1\r\nHost: h\r\n\r\n', [400], []],
    ['NUL in front', '\0GET /# HTTP/1.1\r\nHost: h\r\n\r\n', [400], []],
    ['a control character in a value', get('X: \x1b[31m\r\n'), [400], []],
    ['delete in a value', get('X: \x7f\r\n'), [400], []],
    ['a carriage return alone in a value', get(`X: a\r${smuggled}\r\n`), [400], []],
    ['a line feed alone in a value', get('X: a\nY: b\r\n'), [400], []],
    ['lines that end in line feeds', 'GET /# HTTP/1.1\nHost: h\n\n', [400], []],
    ['a name that is no token', get('X(Y): a\r\n'), [400], []],
    ['a header without a name', get(': a\r\n'), [400], []],
    ['a header without a colon', get('X\r\n'), [400], []],
    ['bytes above ASCII in a value', get('X: J\xf6rg\r\n'), [200], ['GET /#']],
    ['bytes above ASCII in the target', 'GET /#\xe9 HTTP/1.1\r\nHost: h\r\n\r\n', [400], []],
    // Targets and versions.
    ['a target of 30 KiB', `GET /#?${'a'.repeat(30_000)} HTTP/1.1\r\nHost: h\r\n\r\n`, [200], ['GET /#?…']],
    ['a target larger than a head may be', `GET /#?${'a'.repeat(33_000)} HTTP/1.1\r\nHost: h\r\n\r\n`, [414], []],
    ['a head larger than a head may be', get(`X: ${'a'.repeat(33_000)}\r\n`), [431], []],
    ['a head without end', `GET /# HTTP/1.1\r\n${'X: a\r\n'.repeat(20_000)}`, [431], []],
    ['101 headers', get('X: 1\r\n'.repeat(100)), [431], []],
    [
      'an absolute form',
      'GET http://169.254.169.254/# HTTP/1.1\r\nHost: h\r\n\r\n',
      [200],
      ['GET http://169.254.169.254/#'],
    ],
    ['an absolute form of another scheme', 'GET ftp://h/# HTTP/1.1\r\nHost: h\r\n\r\n', [400], []],
    ['an authority form', 'GET h:80 HTTP/1.1\r\nHost: h\r\n\r\n', [400], []],
    ['CONNECT', 'CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: h\r\n\r\n', [405], []],
    ['TRACE', 'TRACE /# HTTP/1.1\r\nHost: h\r\n\r\n', [405], []],
    ['an asterisk', 'OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n', [400], []],
    ['two blanks in the request line', 'GET  /# HTTP/1.1\r\nHost: h\r\n\r\n', [400], []],
    ['a tab in the request line', 'GET\t/# HTTP/1.1\r\nHost: h\r\n\r\n', [400], []],
    ['a request of HTTP/0.9', 'GET /#\r\n\r\n', [400], []],
    ['a version that is none', 'GET /# HTTP/1.10\r\nHost: h\r\n\r\n', [400], []],
    ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', [400], []],
    ['a TLS hello', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', [400], []],
    ['no host', 'GET /# HTTP/1.1\r\n\r\n', [400], []],
    ['two hosts', 'GET /# HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n', [400], []],
    ['chunks in HTTP/1.0', 'POST /# HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', [400], []],
    ['HTTP/1.0, once', `GET /# HTTP/1.0\r\n\r\n${smuggled}`, [200], ['GET /#']],
    [
      'HTTP/1.0 that stays',
      'GET /# HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /#-2 HTTP/1.0\r\n\r\n',
      [200, 200],
      ['GET /#', 'GET /#-2'],
    ],
    ['empty lines in front', `\r\n\r\n${get()}`, [200], ['GET /#']],
    // Several requests.
    [
      'three requests at once',
      `${get()}${post('Content-Length: 3', 'abc')}${chunked('1\r\na\r\n0\r\n\r\n')}`,
      [200, 200, 200],
      ['GET /#', 'POST /#', 'POST /#'],
    ],
    ['a request behind one that closes', `${get(LAST)}${smuggled}`, [200], ['GET /#']],
    ['a request behind one that is refused', `GET /#/../x HTTP/1.1\r\nHost: h\r\n\r\n${smuggled}`, [403], []],
    [
      'a request behind a local answer that came before its body',
      `POST /provision HTTP/1.1\r\nHost: h\r\nMetadata: 1\r\nContent-Length: 5\r\n\r\nhello${get()}`,
      [200, 200],
      ['GET /#'],
    ],
    [
      'a request inside such a body',
      `POST /provision HTTP/1.1\r\nHost: h\r\nMetadata: 1\r\nContent-Length: ${smuggled.length + 4}\r\n\r\n${smuggled}${get()}`,
      [200, 200],
      ['GET /#'],
    ],
    [
      'chunks that are none behind a local answer',
      `POST /provision HTTP/1.1\r\nHost: h\r\nMetadata: 1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n${smuggled}`,
      [200],
      [],
    ],
    [
      'a request behind a body that is too large',
      post('Content-Length: 102401', `${'a'.repeat(102_401)}${smuggled}`),
      [413],
      [],
    ],
    ['nonsense behind a request', `${get()}\0\0\r\n\r\n`, [200, 400], ['GET /#']],
    [
      'an upgrade, which goes no further',
      get('Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n'),
      [200],
      ['GET /#'],
    ],
    ['another expectation', get('Expect: the-unexpected\r\n'), [200], ['GET /#']],
    ['HEAD', 'HEAD /# HTTP/1.1\r\nHost: h\r\n\r\n', [200], ['HEAD /#']],
  ] as const

  test('gets these answers, and this much of it reaches the host', { timeout: 120_000 * SLOWNESS }, async (t) => {
    const numbered = (text: string, i: number) => text.replaceAll('#', `row${i}`)
    // A connection that stays is ended by its client after a while.
    const outcomes = await hold(
      machine,
      rows.map(([, bytes], i) => ({
        to: PLACES.imds,
        steps: [{ write: numbered(bytes, i) }, { await: '\0' }, { end: 'half' }],
        patienceMs: 1500 * SLOWNESS,
      })),
    )
    const arrived = (await allArrived()).map((line) => line.replace(/a{1000,}/, '…'))
    for (const [i, [situation, bytes, statuses, expected]] of rows.entries()) {
      await t.test(situation, () => {
        const outcome = outcomes[i] as Outcome
        const asked = [...bytes.matchAll(/([A-Z]+) [^ \r\n]+ HTTP\/1/g)].map(([, method = '']) => method)
        const answers = answersOf(
          outcome,
          statuses.map((_, nth) => asked[nth] ?? 'GET'),
        )
        assert.deepEqual(
          answers.map(({ status }) => status),
          statuses,
          outcome.received,
        )
        assert.notEqual(outcome.end, 'open')
        for (const { status, fields } of answers) if (status >= 400) assert.equal(fields.includes('close'), true)
        const mine = new RegExp(`row${i}(?!\\d)`)
        assert.deepEqual(
          arrived.filter((line) => mine.test(line)),
          expected.map((line) => numbered(line, i)),
        )
      })
    }
  })
})

describe('a host that answers', () => {
  const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
  const second = 'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled'
  const write = (text: string, times = 1): HostStep => ({ write: text, times })

  /** `cut`: the client's connection ends inside the answer. */
  type Row = readonly [situation: string, steps: readonly HostStep[], outcome: string, method?: string]

  const rows: readonly Row[] = [
    ['with a length', [write(ok)], '200 ok'],
    [
      'in chunks',
      [write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x\r\no\r\n1\r\nk\r\n0\r\nX: 1\r\n\r\n')],
      '200 ok',
    ],
    ['up to its end', [write('HTTP/1.1 200 OK\r\n\r\nok'), { end: 'close' }], '200 ok'],
    ['as HTTP/1.0', [write('HTTP/1.0 200 OK\r\n\r\nok'), { end: 'close' }], '200 ok'],
    [
      'and closes',
      [write('HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok'), { end: 'close' }],
      '200 ok',
    ],
    ['byte by byte', [...ok].flatMap((byte) => [write(byte), { pauseMs: 1 }]), '200 ok'],
    [
      'HEAD with the length of what it stands for',
      [write('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n')],
      '200 ',
      'HEAD',
    ],
    ['with 204', [write('HTTP/1.1 204 No Content\r\n\r\n')], '204 '],
    ['with 304 and a length', [write('HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n')], '304 '],
    [
      'after an interim answer',
      [write('HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n'), { pauseMs: 20 }, write(ok)],
      '200 ok',
    ],
    ['after a thousand interim answers', [write('HTTP/1.1 100 Continue\r\n\r\n', 1000), write(ok)], '200 ok'],
    [
      'with the header of a smuggler',
      [write(`HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok`), { end: 'close' }],
      '503 ',
    ],
    ['with a body behind 204', [write(`HTTP/1.1 204 No Content\r\n\r\n${second}`)], '204 '],
    ['twice', [write(`${ok}${second}`)], '200 ok'],
    ['HEAD with a body', [write(ok)], '200 ', 'HEAD'],
    [
      'with two lengths',
      [write(`HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 40\r\n\r\nok${second}`)],
      '503 ',
    ],
    [
      'with a length and chunks',
      [write(`HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${second}`)],
      '503 ',
    ],
    ['in another encoding', [write(`HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n${second}`)], '503 '],
    ['with a folded header', [write(`HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n${second}`)], '503 '],
    ['with line feeds', [write('HTTP/1.1 200 OK\nContent-Length: 2\n\nok'), { end: 'close' }], '503 '],
    ['with NUL in a header', [write('HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 2\r\n\r\nok')], '503 '],
    [
      'with a head above the limit',
      [write('HTTP/1.1 200 OK\r\n'), write(`X: ${'a'.repeat(100)}\r\n`, 200), write('\r\n')],
      '503 ',
    ],
    ['with what is no HTTP', [write('SSH-2.0-x\r\n')], '503 '],
    [
      'by switching protocols',
      [write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n')],
      '503 ',
    ],
    ['with a status that is none', [write(`HTTP/1.1 99 X\r\n\r\n${second}`)], '503 '],
    ['with nothing but its end', [{ end: 'close' }], '503 '],
    ['with nothing but a reset', [{ end: 'reset' }], '503 '],
    ['with half a head', [write('HTTP/1.1 200 OK\r\nContent-Le'), { end: 'close' }], '503 '],
    [
      'with a body that breaks off',
      [write('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok'), { pauseMs: 20 }, { end: 'close' }],
      'cut',
    ],
    [
      'with a body that is reset',
      [write('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok'), { pauseMs: 20 }, { end: 'reset' }],
      'cut',
    ],
    [
      'with chunks that break off',
      [write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n'), { pauseMs: 20 }, { end: 'close' }],
      'cut',
    ],
    [
      'with a chunk that is none',
      [write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n'), { pauseMs: 20 }, write('x\r\n')],
      'cut',
    ],
  ]

  test('is taken like this, and nothing of it reaches the next request', { timeout: 120_000 * SLOWNESS }, async (t) => {
    const conversations = rows.map(([, steps, , method = 'GET'], i): Conversation => {
      // What cannot be sent twice shows what one try gives.
      const start = `${method === 'GET' ? 'DELETE' : method} /answer${i} HTTP/1.1`
      const next = `GET /next${i} HTTP/1.1\r\nHost: h\r\n${LAST}\r\n`
      return { to: PLACES.imds, steps: [{ write: telling(steps, start) }, { write: next }], patienceMs: PATIENCE_MS }
    })
    const outcomes = await hold(machine, conversations)
    // Connections of the pool that are still there carry what comes now.
    const echoes = await hold(
      machine,
      rows.map((_, i) => say(`GET /after${i} HTTP/1.1\r\nHost: h\r\n${LAST}\r\n`)),
    )
    for (const [i, [situation, , expected, method = 'GET']] of rows.entries()) {
      await t.test(situation, () => {
        const outcome = outcomes[i] as Outcome
        const [answer, next] = answersOf(outcome, [method, 'GET'])
        assert.equal(answer?.isWhole ? `${answer.status} ${answer.body}` : 'cut', expected, outcome.received)
        if (expected === 'cut') assert.equal(outcome.end, 'ECONNRESET')
        if (/^(?:cut|503)/.test(expected)) assert.equal(next, undefined)
        else assert.equal(echoOf(next).target, `/next${i}`)
        const [after] = answersOf(echoes[i] as Outcome, ['GET'])
        assert.equal(echoOf(after).target, `/after${i}`)
      })
    }
  })

  test('is asked again when it closed without an answer, if that can do no harm, and once', async () => {
    const methods = ['GET', 'HEAD', 'OPTIONS', 'POST', 'PUT', 'DELETE', 'PATCH']
    const asks = methods.map((method) => telling([{ end: 'close' }], `${method} /again-${method} HTTP/1.1`))
    const outcomes = await hold(
      machine,
      asks.map((ask) => say(ask)),
    )
    for (const [i, outcome] of outcomes.entries())
      assert.equal(answersOf(outcome, [methods[i] as string])[0]?.status, 503)
    const arrived = await allArrived()
    const counts = methods.map((method) => arrived.filter((line) => line === `${method} /again-${method}`).length)
    assert.deepEqual(counts, [2, 2, 2, 1, 1, 1, 1])
  })

  test('is not asked again when a byte of its answer has come', async () => {
    await hold(machine, [
      say(telling([{ write: 'HTTP/1.1 200' }, { pauseMs: 20 }, { end: 'close' }], 'GET /begun HTTP/1.1')),
    ])
    assert.equal((await allArrived()).filter((line) => line === 'GET /begun').length, 1)
  })
})

describe('a request and its answer', () => {
  const one = async (conversation: Conversation) => (await hold(machine, [conversation]))[0] as Outcome

  test('whose body is expected to be asked for is asked for, once', async () => {
    const outcome = await one({
      to: PLACES.imds,
      steps: [
        { write: `POST /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n${LAST}\r\n` },
        { await: 'HTTP/1.1 100 Continue\r\n\r\n' },
        { write: 'abc' },
      ],
      patienceMs: PATIENCE_MS,
    })
    assert.equal(outcome.received.split('100 Continue').length, 2)
    const echo = echoOf(answersOf(outcome, ['POST'])[0])
    assert.equal(echo.body, 'abc')
    assert.equal(echo.rawHeaders?.includes('expect'), false)
  })

  test('of an upload: the answer comes before its body was read, and the connection goes on', async () => {
    const early = telling(
      [{ write: 'HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 4\r\n\r\nfull' }],
      'PUT /vmAgentLog HTTP/1.1',
      'Content-Length: 1000000\r\n',
      true,
    )
    const outcome = await one({
      to: PLACES.hostga,
      steps: [
        { write: early },
        { write: 'a'.repeat(1000) },
        { await: 'full' },
        { write: 'a'.repeat(999_000) },
        { write: `GET /next HTTP/1.1\r\nHost: h\r\n${LAST}\r\n` },
      ],
      patienceMs: PATIENCE_MS,
    })
    const [answer, next] = answersOf(outcome, ['PUT', 'GET'])
    assert.equal(`${answer?.status} ${answer?.body}`, '507 full')
    assert.equal(echoOf(next).target, '/next')
  })

  test('of an upload that the host resets inside its body: 503', async () => {
    const steps: HostStep[] = [{ stopReading: true }, { end: 'reset' }]
    const ask = telling(steps, 'PUT /vmAgentLog HTTP/1.1', 'Content-Length: 1000000\r\n', true)
    const outcome = await one({
      to: PLACES.hostga,
      steps: [{ write: ask }, { write: 'a'.repeat(1000) }],
      patienceMs: PATIENCE_MS,
    })
    assert.equal(answersOf(outcome, ['PUT'])[0]?.status, 503)
  })

  const ways: readonly (readonly [situation: string, end: ClientStep])[] = [
    ['ended its side', { end: 'half' }],
    ['reset the connection', { end: 'reset' }],
  ]
  for (const [situation, end] of ways) {
    test(`whose client has ${situation}: the connection ends, and the host is left`, async () => {
      const ask = telling([{ pauseMs: 30_000 }], `GET /left HTTP/1.1`)
      const startMs = performance.now()
      const outcome = await one({
        to: PLACES.imds,
        steps: [{ write: ask }, { pauseMs: 200 }, end],
        patienceMs: PATIENCE_MS,
      })
      assert.equal(outcome.received, '')
      assert.notEqual(outcome.end, 'open')
      assert.ok(performance.now() - startMs < 30_000, 'nobody waited for the host')
    })
  }

  test('cut off inside the request: the connection ends with its client', async () => {
    const starts = ['GET /half HT', 'POST /half HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc']
    const conversations = starts.map((bytes): Conversation => {
      return { to: PLACES.imds, steps: [{ write: bytes }, { pauseMs: 100 }, { end: 'half' }], patienceMs: PATIENCE_MS }
    })
    for (const { received, end } of await hold(machine, conversations))
      assert.deepEqual({ received, end }, { received: '', end: 'closed' })
    assert.equal(
      (await allArrived()).some((line) => line.includes('/half')),
      false,
    )
  })
})
