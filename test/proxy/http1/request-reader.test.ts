import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { findHeader, parseRequest, type RequestHead } from '../../../src/proxy/http1/request-reader.ts'

const MAX_HEADERS = 100
const parse = (...lines: string[]) => parseRequest(lines.join('\r\n'), MAX_HEADERS)
const HOST = 'Host: h'

describe('parseRequest() reads', () => {
  const rows: readonly (readonly [situation: string, lines: string[], expected: Partial<RequestHead>])[] = [
    ['a request', ['GET /x?y=z HTTP/1.1', HOST], { method: 'GET', target: '/x?y=z', isOld: false, keepsOpen: true }],
    ['a request without headers, of HTTP/1.0', ['GET / HTTP/1.0'], { isOld: true, keepsOpen: false, rawHeaders: [] }],
    ['a method nobody knows', ['brew-1 / HTTP/1.1', HOST], { method: 'brew-1' }],
    ['a target in any form', ['CONNECT h:80 HTTP/1.1', HOST], { target: 'h:80' }],
    ['bytes above ASCII in a target, for others to judge', ['GET /\xe9 HTTP/1.1', HOST], { target: '/\xe9' }],
    [
      'names and values as they stand',
      ['GET / HTTP/1.1', 'hOsT:\t h \t', 'X:'],
      { rawHeaders: ['hOsT', 'h', 'X', ''] },
    ],
    ['blanks and bytes above ASCII inside a value', ['GET / HTTP/1.1', HOST, 'X: a \t\xff'], {}],
    ['a length', ['PUT / HTTP/1.1', HOST, 'Content-Length: 0012'], { bodyBytes: 12 }],
    ['chunks, in any case', ['PUT / HTTP/1.1', HOST, 'transfer-ENCODING: Chunked'], { bodyBytes: undefined }],
    ['an expectation', ['PUT / HTTP/1.1', HOST, 'Expect: 100-Continue'], { expect: '100-Continue' }],
    ['the wish to close, among others', ['GET / HTTP/1.1', HOST, 'Connection: x, CLOSE'], { keepsOpen: false }],
    [
      'the wish to close in a second header',
      ['GET / HTTP/1.1', HOST, 'Connection: x', 'connection: close'],
      { keepsOpen: false },
    ],
    ['no wish in a name that only resembles it', ['GET / HTTP/1.1', HOST, 'Connection: closed'], { keepsOpen: true }],
    ['the wish of HTTP/1.0 to stay', ['GET / HTTP/1.0', 'Connection: Keep-Alive'], { keepsOpen: true }],
    [
      'names that only begin like those that count',
      ['GET / HTTP/1.1', HOST, 'Hosts: a', 'Content-Length-X: a'],
      { bodyBytes: 0 },
    ],
  ]
  for (const [situation, lines, expected] of rows) {
    test(situation, () => {
      const head = parse(...lines)
      assert.ok(!('detail' in head), JSON.stringify(head))
      assert.deepEqual({ ...head, ...expected }, head)
    })
  }
  test('as many headers as are allowed', () => {
    assert.ok(!('detail' in parse('GET / HTTP/1.1', HOST, ...Array.from({ length: 99 }, () => 'X: 1'))))
  })
})

describe('parseRequest() refuses', () => {
  const get = (...headers: string[]) => ['GET / HTTP/1.1', HOST, ...headers]
  const rows: readonly (readonly [situation: string, lines: string[], status?: number])[] = [
    ['nothing', ['']],
    ['HTTP/0.9', ['GET /']],
    ['a version with more digits', ['GET / HTTP/1.10', HOST]],
    ['HTTP/1.2', ['GET / HTTP/1.2', HOST]],
    ['HTTP/2', ['PRI * HTTP/2.0']],
    ['a version in lower case', ['GET / http/1.1', HOST]],
    ['two blanks', ['GET  / HTTP/1.1', HOST]],
    ['a blank in the target', ['GET /a b HTTP/1.1', HOST]],
    ['a blank in front', [' GET / HTTP/1.1', HOST]],
    ['a blank behind', ['GET / HTTP/1.1 ', HOST]],
    ['a tab in place of a blank', ['GET\t/ HTTP/1.1', HOST]],
    ['a method that is no token', ['G(T / HTTP/1.1', HOST]],
    ['a control character in the target', ['GET /\x7f HTTP/1.1', HOST]],
    ['NUL in the target', ['GET /\0 HTTP/1.1', HOST]],
    ['a bare line feed', ['GET / HTTP/1.1\nX: 1', HOST]],
    ['no host', ['GET / HTTP/1.1']],
    ['two hosts', get('host: h')],
    ['a header without a colon', get('X')],
    ['a header without a name', get(': 1')],
    ['a blank before the colon', get('X : 1')],
    ['a tab before the colon', get('X\t: 1')],
    ['a folded header', get('X: 1', ' 2')],
    ['a fold before the first header', ['GET / HTTP/1.1', ' X: 1', HOST]],
    ['a bare line feed in a value', get('X: 1\nY: 2')],
    ['a bare carriage return in a value', get('X: 1\rY: 2')],
    ['NUL in a value', get('X: \0')],
    ['a control character in a value', get('X: \x1b')],
    ['a name with a byte above ASCII', get('X\xe9: 1')],
    ['two lengths', get('Content-Length: 3', 'content-length: 4')],
    ['two equal lengths', get('Content-Length: 3', 'content-length: 3')],
    ['a list of lengths', get('Content-Length: 3, 3')],
    ['an empty length', get('Content-Length:')],
    ['a length with a sign', get('Content-Length: +3')],
    ['a negative length', get('Content-Length: -1')],
    ['a hexadecimal length', get('Content-Length: 0x3')],
    ['a length with a blank', get('Content-Length: 1 2')],
    ['a length that no number holds', get(`Content-Length: ${'9'.repeat(20)}`)],
    ['a length and chunks', get('Content-Length: 3', 'Transfer-Encoding: chunked')],
    ['chunks and a length', get('Transfer-Encoding: chunked', 'Content-Length: 3')],
    ['chunks twice', get('Transfer-Encoding: chunked', 'Transfer-Encoding: chunked')],
    ['chunks inside another coding', get('Transfer-Encoding: gzip, chunked')],
    ['chunks under another coding', get('Transfer-Encoding: chunked, gzip')],
    ['another coding', get('Transfer-Encoding: identity')],
    ['an empty coding', get('Transfer-Encoding:')],
    ['chunks of HTTP/1.0', ['PUT / HTTP/1.0', 'Transfer-Encoding: chunked']],
    ['more headers than are allowed', get(...Array.from({ length: 100 }, () => 'X: 1')), 431],
  ]
  for (const [situation, lines, status = 400] of rows) {
    test(situation, () => {
      const refusal = parse(...lines)
      assert.ok('detail' in refusal, JSON.stringify(refusal))
      assert.equal(refusal.status, status)
    })
  }
})

test('findHeader() gives the last value, whatever the case of the name', () => {
  const headers = ['Metadata', 'a', 'X', 'b', 'METADATA', 'c']
  assert.equal(findHeader(headers, 'metadata'), 'c')
  assert.equal(findHeader(headers, 'x'), 'b')
  assert.equal(findHeader(headers, 'y'), undefined)
})
