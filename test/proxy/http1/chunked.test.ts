import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type ChunkedState, createChunkedReader, MAX_OVERHEAD_BYTES } from '../../../src/proxy/http1/chunked.ts'
import { cuts } from './pieces.ts'

/** Reads pieces to the end. @returns body, state, and what was left of all bytes */
function read(pieces: readonly Buffer[]) {
  const reader = createChunkedReader()
  let body = ''
  let state: ChunkedState = 'more'
  let rest = ''
  for (const piece of pieces) {
    if (state !== 'more') rest += piece.toString('latin1')
    else {
      state = reader.read(piece, 0, (data) => {
        body += data.toString('latin1')
      })
      rest += piece.toString('latin1', reader.position)
    }
  }
  return { body, state, rest }
}

describe('createChunkedReader() reads, however it is cut', () => {
  for (const [situation, wire, body, rest = ''] of [
    ['chunks', '4\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\n', 'Wikipedia'],
    ['an empty body', '0\r\n\r\n', ''],
    ['leading zeros', '0003\r\nabc\r\n000\r\n\r\n', 'abc'],
    ['digits of either case', 'a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n', '01234567890123456789'],
    ['extensions', '3;a=b;c="d e"\r\nabc\r\n0;last\r\n\r\n', 'abc'],
    ['trailers', '1\r\na\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n', 'a'],
    ['CRLF inside data', '4\r\n\r\n\r\n\r\n0\r\n\r\n', '\r\n\r\n'],
    ['what follows is left', '1\r\na\r\n0\r\n\r\nGET / HTTP/1.1\r\n', 'a', 'GET / HTTP/1.1\r\n'],
  ] as const) {
    test(situation, () => {
      for (const pieces of cuts(wire)) assert.deepEqual(read(pieces), { body, state: 'done', rest })
    })
  }
})

describe('createChunkedReader() refuses, however it is cut', () => {
  for (const [situation, wire] of [
    ['no size', '\r\nabc'],
    ['a size that is no number', 'x\r\n'],
    ['a size with a prefix', '0x3\r\nabc\r\n0\r\n\r\n'],
    ['a negative size', '-1\r\na\r\n0\r\n\r\n'],
    ['a blank before the size', ' 3\r\nabc\r\n0\r\n\r\n'],
    ['a blank behind the size', '3 \r\nabc\r\n0\r\n\r\n'],
    ['a size beyond all bodies', `${'f'.repeat(11)}\r\n`],
    ['a bare line feed behind the size', '3\nabc\r\n0\r\n\r\n'],
    ['a bare carriage return behind the size', '3\rabc\r\n0\r\n\r\n'],
    ['data longer than its size', '2\r\nabc\r\n0\r\n\r\n'],
    ['a bare line feed behind data', '3\r\nabc\n0\r\n\r\n'],
    ['a control character in an extension', '3;\0\r\nabc\r\n0\r\n\r\n'],
    ['a bare line feed in an extension', '3;a\nb\r\nabc\r\n0\r\n\r\n'],
    ['a trailer that is no header', '0\r\nX\r\n\r\n'],
    ['a folded trailer', '0\r\nX: 1\r\n 2\r\n\r\n'],
    ['a bare line feed in a trailer', '0\r\nX: 1\nY: 2\r\n\r\n'],
  ] as const) {
    test(situation, () => {
      for (const pieces of cuts(wire)) assert.equal(read(pieces).state, 'malformed')
    })
  }
  for (const [situation, wire] of [
    ['extensions without end', `1;${'a'.repeat(MAX_OVERHEAD_BYTES + 1)}`],
    ['small extensions without end', `1;${'a'.repeat(100)}\r\na\r\n`.repeat(MAX_OVERHEAD_BYTES / 100 + 1)],
    ['trailers without end', `0\r\n${`X: ${'a'.repeat(100)}\r\n`.repeat(MAX_OVERHEAD_BYTES / 100)}`],
  ] as const) {
    test(situation, () => assert.equal(read([Buffer.from(wire)]).state, 'overhead'))
  }
})
