import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { createAnswerReader, MAX_ANSWER_HEAD_BYTES } from '../../../src/proxy/http1/answer-reader.ts'
import { cuts } from './pieces.ts'

/** Reads pieces as one answer. @param hasEnded whether the connection ends behind them */
function read(pieces: readonly Buffer[], { hasBody = true, hasEnded = false } = {}) {
  const got = { heads: [] as string[], body: '', end: 'open' as string | boolean }
  const reader = createAnswerReader({
    onHead: (status, fields) => void got.heads.push(`${status} ${fields.join(' ')}`.trim()),
    onData: (piece) => {
      got.body += piece.toString('latin1')
    },
    onEnd: (isReusable) => {
      got.end = isReusable ? 'reusable' : 'not reusable'
    },
    onMalformed: () => {
      got.end = 'malformed'
    },
  })
  reader.begin(hasBody)
  for (const piece of pieces) reader.read(piece)
  if (hasEnded && !reader.end()) got.end = 'broken off'
  return got
}

describe('createAnswerReader() reads, however it is cut', () => {
  for (const [situation, wire, head, body, end] of [
    ['a length', 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc', '200 Content-Length 3', 'abc', 'reusable'],
    ['no body', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', '200 Content-Length 0', '', 'reusable'],
    ['204', 'HTTP/1.1 204 No Content\r\n\r\n', '204', '', 'reusable'],
    [
      '304 with the length of what it stands for',
      'HTTP/1.1 304 X\r\nContent-Length: 9\r\n\r\n',
      '304 Content-Length 9',
      '',
      'reusable',
    ],
    [
      'chunks',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n',
      '200 Transfer-Encoding chunked',
      'abc',
      'reusable',
    ],
    ['no reason', 'HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n', '200 Content-Length 0', '', 'reusable'],
    ['a status nobody knows', 'HTTP/1.1 799 X Y\r\nContent-Length: 0\r\n\r\n', '799 Content-Length 0', '', 'reusable'],
    [
      'an interim answer before it',
      'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na',
      '200 Content-Length 1',
      'a',
      'reusable',
    ],
    [
      'the wish to close',
      'HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 1\r\n\r\na',
      '200 Connection x, Close Content-Length 1',
      'a',
      'not reusable',
    ],
    ['HTTP/1.0', 'HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na', '200 Content-Length 1', 'a', 'not reusable'],
    [
      'HTTP/1.0 that stays',
      'HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na',
      '200 Connection keep-alive Content-Length 1',
      'a',
      'reusable',
    ],
  ] as const) {
    test(situation, () => {
      for (const pieces of cuts(wire)) assert.deepEqual(read(pieces), { heads: [head], body, end })
    })
  }
  test('an answer to HEAD', () => {
    const wire = 'HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n'
    for (const pieces of cuts(wire)) assert.equal(read(pieces, { hasBody: false }).end, 'reusable')
  })
  test('a body that ends with the connection', () => {
    for (const pieces of cuts('HTTP/1.1 200 OK\r\nX: y\r\n\r\nabc')) {
      assert.equal(read(pieces).end, 'open')
      assert.deepEqual(read(pieces, { hasEnded: true }), { heads: ['200 X y'], body: 'abc', end: 'not reusable' })
    }
  })
})

test('createAnswerReader() gives a connection up that sends more than its answer', () => {
  assert.equal(read([Buffer.from('HTTP/1.1 204 X\r\n\r\nHTTP/1.1 200 OK\r\n\r\n')]).end, 'not reusable')
  assert.equal(read([Buffer.from('HTTP/1.1 200 X\r\nContent-Length: 1\r\n\r\nab')]).end, 'not reusable')
  const chunked = 'HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nx'
  assert.equal(read([Buffer.from(chunked)]).end, 'not reusable')
})

describe('createAnswerReader() finds malformed, however it is cut', () => {
  const answer = (...headers: string[]) => `HTTP/1.1 200 OK\r\n${headers.map((line) => `${line}\r\n`).join('')}\r\nabc`
  for (const [situation, wire] of [
    ['another protocol', 'SSH-2.0-OpenSSH_9.2\r\n\r\n'],
    ['HTTP/2', 'HTTP/2 200\r\n\r\n'],
    ['HTTP/1.2', 'HTTP/1.2 200 OK\r\n\r\n'],
    ['a status of two digits', 'HTTP/1.1 20 OK\r\n\r\n'],
    ['a status below 100', 'HTTP/1.1 099 OK\r\n\r\n'],
    ['a control character in the reason', 'HTTP/1.1 200 \x1b\r\n\r\n'],
    ['a switch of protocols', 'HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n'],
    ['two lengths', answer('Content-Length: 3', 'Content-Length: 3')],
    ['a length that is no number', answer('Content-Length: 3a')],
    ['a length and chunks', answer('Content-Length: 3', 'Transfer-Encoding: chunked')],
    ['chunks and a length', answer('Transfer-Encoding: chunked', 'Content-Length: 3')],
    ['another coding', answer('Transfer-Encoding: gzip')],
    ['two codings', answer('Transfer-Encoding: chunked', 'Transfer-Encoding: chunked')],
    ['chunks of HTTP/1.0', 'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['a folded header', answer('X: 1', ' 2')],
    ['a bare line feed', answer('X: 1\nY: 2')],
    ['a blank before the colon', answer('X : 1')],
    ['bad chunks', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n'],
  ] as const) {
    test(situation, () => {
      for (const pieces of cuts(wire)) assert.equal(read(pieces).end, 'malformed', JSON.stringify(pieces.map(String)))
    })
  }
  test('a head without end', () => {
    const line = `X: ${'a'.repeat(1000)}\r\n`
    const pieces = Array.from({ length: MAX_ANSWER_HEAD_BYTES / 1000 + 2 }, () => Buffer.from(line))
    assert.equal(read([Buffer.from('HTTP/1.1 200 OK\r\n'), ...pieces]).end, 'malformed')
  })
  test('what cannot become a status line, without waiting for its end', () => {
    assert.equal(read([Buffer.from('garbage')]).end, 'malformed')
  })
})

test('createAnswerReader() tells that an answer broke off', () => {
  for (const wire of ['', 'HTTP/1.1 2', 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab']) {
    assert.equal(read([Buffer.from(wire)], { hasEnded: true }).end, 'broken off')
  }
})
