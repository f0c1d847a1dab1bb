import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { lastHeader, type ReaderEvent, RequestReader, trimWhiteSpace } from './http-reader.ts'

function readAll(...pieces: string[]): ReaderEvent[] {
  const reader = new RequestReader()
  const events: ReaderEvent[] = []
  for (const piece of pieces) {
    reader.push(Buffer.from(piece, 'latin1'))
    for (let event = reader.next(); event !== undefined; event = reader.next()) events.push(event)
  }
  return events
}

/** Joins body pieces, so that events do not depend on where the bytes were cut. */
function summarise(events: ReaderEvent[]): unknown[] {
  const summary: unknown[] = []
  let body = ''
  for (const event of events) {
    if (event.kind === 'body') body += event.bytes.toString('latin1')
    else if (event.kind === 'end') {
      summary.push({ body })
      body = ''
    } else summary.push(event)
  }
  return summary
}

test('RequestReader keeps target, order, case and repetition of headers', () => {
  const [head] = readAll('GET /A%2e?b=%20&B HTTP/1.1\r\nhost: h\r\nX-a:1\r\nx-A:  two \r\nMetadata: True \r\n\r\n')
  assert.deepEqual(head, {
    kind: 'head',
    head: {
      method: 'GET',
      target: '/A%2e?b=%20&B',
      minorVersion: 1,
      rawHeaders: ['host', 'h', 'X-a', '1', 'x-A', 'two ', 'Metadata', 'True '],
      framing: { kind: 'none' },
      keepAlive: true,
      expectation: '',
    },
  })
})

test('RequestReader finds the body by its framing, and the next request behind it', () => {
  const events = readAll(
    'POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc' +
      'POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;x=1\r\nde\r\n1\r\nf\r\n0\r\nTrailer: 1\r\n\r\n' +
      'GET /c HTTP/1.1\r\nHost: h\r\n\r\n',
  )
  const targets = events.flatMap((event) => (event.kind === 'head' ? [event.head.target] : []))
  assert.deepEqual(targets, ['/a', '/b', '/c'])
  assert.deepEqual(
    summarise(events).filter((event) => typeof event === 'object' && event !== null && 'body' in event),
    [{ body: 'abc' }, { body: 'def' }, { body: '' }],
  )
})

test('RequestReader says the same wherever the bytes are cut', () => {
  const text =
    'POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\na\r\n0123456789\r\n0\r\n\r\n' +
    'PUT /c HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nxyGET / HTTP/1.1\r\n\r\n'
  const whole = summarise(readAll(text))
  fc.assert(
    fc.property(fc.uniqueArray(fc.nat(text.length), { maxLength: 12 }), (cuts) => {
      const edges = [0, ...cuts.sort((a, b) => a - b), text.length]
      const pieces = edges.slice(1).map((edge, at) => text.slice(edges[at], edge))
      assert.deepEqual(summarise(readAll(...pieces)), whole)
    }),
  )
})

const REFUSED: [situation: string, text: string, reason: string][] = [
  ['an empty line first', '\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n', 'request line is malformed'],
  ['two spaces in the request line', 'GET  / HTTP/1.1\r\nHost: h\r\n\r\n', 'request line is malformed'],
  ['a byte above 0x7e in the target', 'GET /\xe9 HTTP/1.1\r\nHost: h\r\n\r\n', 'request line is malformed'],
  ['HTTP/2.0', 'GET / HTTP/2.0\r\nHost: h\r\n\r\n', 'request line is malformed'],
  ['a bare LF between headers', 'GET / HTTP/1.1\r\nHost: h\nX: 1\r\n\r\n', 'header value holds a control character'],
  ['a NUL in a value', 'GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n', 'header value holds a control character'],
  ['a folded line', 'GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n', 'header line without a name'],
  ['a space before the colon', 'GET / HTTP/1.1\r\nHost : h\r\n\r\n', 'header name is not a token'],
  ['no Host', 'GET / HTTP/1.1\r\n\r\n', 'no Host'],
  ['two Hosts', 'GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n', 'more than one Host'],
  [
    'two equal lengths',
    'GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n',
    'more than one Content-Length',
  ],
  ['a signed length', 'GET / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\n', 'Content-Length is not a number'],
  [
    'both framings',
    'GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n',
    'Transfer-Encoding beside Content-Length',
  ],
  [
    'gzip, chunked',
    'GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n',
    'unknown Transfer-Encoding',
  ],
  ['chunked in HTTP/1.0', 'GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n', 'Transfer-Encoding in HTTP/1.0'],
  [
    'a chunk size in 0x form',
    'GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n',
    'chunk size is not hexadecimal',
  ],
  [
    'a chunk longer than it says',
    'GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n',
    'chunk is longer than its size says',
  ],
  ['a head without end', `GET / HTTP/1.1\r\nHost: ${'h'.repeat(70_000)}`, 'header section too large'],
]
for (const [situation, text, reason] of REFUSED) {
  test(`RequestReader refuses ${situation}`, () => {
    const last = readAll(text).at(-1)
    assert.equal(last?.kind === 'malformed' ? last.reason : last?.kind, reason)
  })
}

const KEEP_ALIVE: [situation: string, text: string, expected: boolean][] = [
  ['HTTP/1.1 without Connection', 'GET / HTTP/1.1\r\nHost: h\r\n\r\n', true],
  ['HTTP/1.1 with close among others', 'GET / HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n\r\n', false],
  ['HTTP/1.0 without Connection', 'GET / HTTP/1.0\r\n\r\n', false],
  ['HTTP/1.0 that asks for it', 'GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n', true],
]
for (const [situation, text, expected] of KEEP_ALIVE) {
  test(`RequestReader keeps the connection or not: ${situation}`, () => {
    const [head] = readAll(text)
    assert.equal(head?.kind === 'head' && head.head.keepAlive, expected)
  })
}

test('RequestReader.isMidRequest tells an unfinished request from a pause between two', () => {
  const reader = new RequestReader()
  assert.equal(reader.isMidRequest, false)
  reader.push(Buffer.from('GET / HT'))
  reader.next()
  assert.equal(reader.isMidRequest, true)
  reader.push(Buffer.from('TP/1.1\r\nHost: h\r\n\r\n'))
  while (reader.next() !== undefined);
  assert.equal(reader.isMidRequest, false)
})

test('lastHeader() finds the last value in any case; trimWhiteSpace() takes spaces and tabs only', () => {
  assert.equal(lastHeader(['A', '1', 'a', ' 2\t'], 'a'), '2')
  assert.equal(lastHeader(['A', '1'], 'b'), undefined)
  assert.equal(trimWhiteSpace('\t \xa0x\xa0 '), '\xa0x\xa0')
})
