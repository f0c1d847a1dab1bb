import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { parseRequestTarget } from '../../src/base/request-target.ts'
import { SecretKey } from '../../src/channel/secret-key.ts'
import {
  authorizationValue,
  canonicalHeaders,
  canonicalQuery,
  type SignableRequest,
  sign,
  stringToSign,
} from '../../src/channel/sign.ts'
import { stringToSign as stringToSignOfHost } from '../fabric/string-to-sign.ts'

interface Vector {
  readonly name: string
  readonly keyHex: string
  readonly guid: string
  readonly method: string
  readonly target: string
  readonly headers: readonly (readonly [name: string, value: string])[]
  readonly bodyBase64: string
  readonly stringToSignBase64: string
  readonly signatureHex: string
}

const VECTORS: readonly Vector[] = JSON.parse(
  readFileSync(new URL('../fixtures/signing.json', import.meta.url), 'utf8'),
)

function requestOf(vector: Vector): SignableRequest {
  const { path, query } = parseRequestTarget(vector.target)
  return {
    method: vector.method,
    path,
    query,
    headers: vector.headers.flat(),
    body: Buffer.from(vector.bodyBase64, 'base64'),
  }
}

describe('the signing vectors', () => {
  test('are all here', () => assert.equal(VECTORS.length, 29))
  for (const vector of VECTORS) {
    test(vector.name, () => {
      const request = requestOf(vector)
      const key = new SecretKey(vector.keyHex)
      assert.equal(stringToSign(request).toString('base64'), vector.stringToSignBase64)
      assert.equal(sign(key, request), vector.signatureHex)
      assert.equal(
        authorizationValue({ guid: vector.guid, incarnationId: undefined, issued: '', key }, request),
        `Azure-HMAC-SHA256 ${vector.guid} ${vector.signatureHex}`,
      )
    })
  }
})

const latin1 = (min: number, max: number) =>
  fc.string({ unit: fc.integer({ min, max }).map((code) => String.fromCharCode(code)), maxLength: 6 })
const headerName = fc.stringMatching(/^[A-Za-z0-9_-]{1,4}$/)
const headerPairs = fc.array(fc.tuple(headerName, latin1(0x20, 0xff)), { maxLength: 8 })
const querySegment = fc.stringMatching(/^[abAB_%=~-]{0,5}$/)

describe('stringToSign()', () => {
  test('is what sign() signs, for any bytes', () => {
    const key = new SecretKey('4A'.repeat(32))
    fc.assert(
      fc.property(
        headerPairs,
        latin1(0x21, 0x7e),
        latin1(0x21, 0x7e),
        fc.uint8Array({ maxLength: 300 }),
        (headers, path, query, body) => {
          const request = { method: 'POST', path, query, headers: headers.flat(), body: Buffer.from(body) }
          const hmac = createHmac('sha256', Buffer.from('4A'.repeat(32), 'hex'))
          assert.equal(sign(key, request), hmac.update(stringToSign(request)).digest('hex'))
        },
      ),
    )
  })

  test('agrees with the simulated host, which was written apart', () => {
    const text = latin1(0x21, 0x7e).filter((each) => !/[#?]/.test(each))
    const values = fc.array(fc.tuple(headerName, latin1(0x20, 0x7e)), { maxLength: 8 })
    fc.assert(
      fc.property(values, text, fc.array(querySegment), fc.uint8Array(), (headers, path, segments, bytes) => {
        const [query, rawHeaders, body] = [segments.join('&'), headers.flat(), Buffer.from(bytes)]
        const target = query === '' ? `/${path}` : `/${path}?${query}`
        const ours = stringToSign({ method: 'PUT', path: `/${path}`, query, headers: rawHeaders, body })
        const theirs = stringToSignOfHost({ method: 'PUT', target, rawHeaders }, body)
        assert.equal(ours.toString('latin1'), theirs.toString('latin1'))
      }),
    )
  })

  test('holds header bytes above 0x7f as the single bytes they are', () => {
    const headers = ['x-a', 'caf\u00e9\u00a0']
    const bytes = stringToSign({ method: 'GET', path: '/', query: '', headers, body: Buffer.alloc(0) })
    assert.equal(bytes.toString('hex'), Buffer.from('GET\n\nx-a:caf\u00e9\u00a0\n/\n', 'latin1').toString('hex'))
  })
})

describe('canonicalHeaders()', () => {
  test('does not depend on the order of headers with different names', () => {
    const distinct = fc.uniqueArray(fc.tuple(headerName, latin1(0x20, 0x7e)), {
      selector: ([name]) => name.toLowerCase(),
      maxLength: 8,
    })
    const shuffled = distinct.chain((pairs) =>
      fc.tuple(fc.constant(pairs), fc.shuffledSubarray(pairs, { minLength: pairs.length })),
    )
    fc.assert(
      fc.property(shuffled, ([pairs, others]) => {
        assert.equal(canonicalHeaders(pairs.flat()), canonicalHeaders(others.flat()))
      }),
    )
  })

  test('signs the last value of a name, whatever its letter case', () => {
    fc.assert(
      fc.property(headerPairs, headerName, latin1(0x21, 0x7e), (pairs, name, value) => {
        const lines = canonicalHeaders([...pairs, [name.toUpperCase(), value]].flat()).split('\n')
        assert.deepEqual(
          lines.filter((line) => line.startsWith(`${name.toLowerCase()}:`)),
          [`${name.toLowerCase()}:${value}`],
        )
      }),
    )
  })

  test('leaves out the authorization header alone', () => {
    const names = ['X-MS-Azure-Host-Authorization', 'Authorization', 'Expect', 'Connection', 'Transfer-Encoding']
    assert.equal(
      canonicalHeaders(names.flatMap((name) => [name, 'v'])),
      'authorization:v\nconnection:v\nexpect:v\ntransfer-encoding:v\n',
    )
  })

  for (const [situation, value, signed] of [
    ['blanks and tabs at the ends', ' \t v \t', 'v'],
    ['nothing but blanks', ' \t ', ''],
    ['white space inside', 'a \t b', 'a \t b'],
    ['a no-break space, which is no blank', '\u00a0v\u00a0', '\u00a0v\u00a0'],
  ] as const) {
    test(`a value with ${situation}`, () => assert.equal(canonicalHeaders(['X', value]), `x:${signed}\n`))
  }

  test('lower-cases A to Z and no other byte', () => {
    assert.equal(canonicalHeaders(['X-\u00c0', '1']), 'x-\u00c0:1\n')
  })
})

describe('canonicalQuery()', () => {
  for (const [query, signed, why] of [
    ['', '', 'nothing to sign'],
    ['b=2&a=3&a=1', 'a=1&a=3&b=2', 'repeated names are kept, in the order of their values'],
    ['a=1&A=1', 'a=1', 'equal once lower-cased'],
    ['empty=&flag', 'empty&flag', 'an empty value loses its equals sign'],
    ['a&a=', 'a', 'equal sums'],
    ['a=z&ab=c', 'ab=c&a=z', 'abc sorts before az'],
    ['a=bc&ab=c', 'ab=c', 'equal sums, the last one counts'],
    ['ab=c&a=bc', 'a=bc', 'equal sums, the other way round'],
    ['a=b&ab', 'ab', 'a name alone can win'],
    ['ab&a=b', 'a=b', 'and lose'],
    ['s=a=b==', 's=a=b==', 'only the first equals sign splits'],
    ['=v&&x=1&', 'x=1', 'pieces without a name are dropped'],
    ['A%2FB=C%2F', 'a%2fb=C%2F', 'escapes in a name are lower-cased, in a value not'],
    ['a=1+2&b=%20', 'a=1+2&b=%20', 'nothing is decoded'],
    ['__proto__=1&constructor=2', '__proto__=1&constructor=2', 'names that objects know are names like any other'],
  ] as const) {
    test(`${why}: ${JSON.stringify(query)}`, () => assert.equal(canonicalQuery(query), signed))
  }

  test('is in byte order, without doubles, and the same when applied again', () => {
    fc.assert(
      fc.property(fc.array(querySegment, { maxLength: 10 }), (segments) => {
        const signed = canonicalQuery(segments.join('&'))
        const sums = signed.split('&').map((piece) => piece.replace('=', ''))
        const inByteOrder = [...new Set(sums)].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
        assert.deepEqual(sums, inByteOrder)
        assert.equal(canonicalQuery(signed), signed)
      }),
    )
  })

  test('does not depend on the order of parameters with different sums', () => {
    const distinct = fc.uniqueArray(fc.tuple(fc.stringMatching(/^[a-z]{1,3}$/), fc.stringMatching(/^[0-9]{1,3}$/)), {
      selector: ([name, value]) => name + value,
      maxLength: 8,
    })
    const shuffled = distinct.chain((pairs) =>
      fc.tuple(fc.constant(pairs), fc.shuffledSubarray(pairs, { minLength: pairs.length })),
    )
    const write = (pairs: [string, string][]) => pairs.map(([name, value]) => `${name}=${value}`).join('&')
    fc.assert(
      fc.property(shuffled, ([pairs, others]) => {
        assert.equal(canonicalQuery(write(pairs)), canonicalQuery(write(others)))
      }),
    )
  })
})
