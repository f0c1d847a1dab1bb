import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import type { CanonicalCode } from '../../src/rules/canonical-failure.ts'
import { isCanonicalFailure } from '../../src/rules/canonical-failure.ts'
import type { CanonicalRequest } from '../../src/rules/canonicalize.ts'
import { canonicalize, renderTarget } from '../../src/rules/canonicalize.ts'

function codeOf(target: string, method = 'GET'): CanonicalCode | 'no failure' {
  const result = canonicalize({ method, target })
  return isCanonicalFailure(result) ? result.code : 'no failure'
}

function canonical(target: string): CanonicalRequest {
  const result = canonicalize({ method: 'GET', target })
  assert.ok(!isCanonicalFailure(result), `${target} fails`)
  return result
}

describe('canonicalize() resolves paths to segments', () => {
  const rows: readonly (readonly [situation: string, paths: readonly string[], segments: readonly string[]])[] = [
    ['the root in all its spellings', ['/', '//', '/./', '/;/', '/a/..', '/%2F', '/;a=b', '/%3b'], []],
    [
      'upper case and empty segments',
      ['/Metadata//Identity', '/metadata%2fidentity', '/metadata/%2Fidentity'],
      ['metadata', 'identity'],
    ],
    ['dots', ['/a/./b/../c', '/a/%2e/b/%2E./c', '/x/../a/c'], ['a', 'c']],
    ['double encoding stays one segment', ['/metadata%252Fidentity'], ['metadata%2fidentity']],
    ['double-encoded dots are no dots', ['/metadata/%252e%252e/identity'], ['metadata', '%2e%2e', 'identity']],
    ['parameters of a segment', ['/a%3Bb/c', '/a;k=v/c', '/A;;/c', '/a/;x/c', '/a/.;x/c', '/a/b/..;x/c'], ['a', 'c']],
    ['a space', ['/foo%20bar'], ['foo bar']],
    ['an encoded letter', ['/%74oken', '/%54oken'], ['token']],
    ['three dots are a name', ['/.../x'], ['...', 'x']],
    ['a plus is a plus', ['/a+b', '/a%2Bb'], ['a+b']],
  ]
  for (const [situation, paths, segments] of rows) {
    for (const path of paths) {
      test(`${situation}: ${path}`, () => assert.deepEqual(canonical(path).path.segments, segments))
    }
  }
})

describe('canonicalize() refuses paths', () => {
  const rows: readonly (readonly [code: CanonicalCode, situation: string, paths: readonly string[]])[] = [
    ['CANON_PCT', 'a percent sign without two digits', ['/abc%', '/abc%2', '/abc%zz', '/%%41']],
    [
      'CANON_UTF8',
      'bytes that are not UTF-8',
      ['/x%C0%AF', '/x%E0%80%AF', '/x%80', '/x%ED%A0%80', '/x%F4%90%80%80', '/x%FF'],
    ],
    [
      'CANON_NON_ASCII',
      'characters outside ASCII',
      ['/x%E4%B8%AD', '/caf%C3%A9', '/to%E2%84%AAen', '/%EF%BB%BFx', '/café'],
    ],
    ['CANON_CTRL', 'control characters', ['/x%00', '/x%09', '/x%0D', '/x%7F', '/x\u0001']],
    ['CANON_EMBQ', 'an encoded question mark', ['/x%3Fy', '/x%3fy', '/;%3F']],
    ['CANON_UNDERFLOW', 'a step above the root', ['/..', '/a/b/../../../c', '/%2e%2e/x', '/a/..;x/..', '/..;/x']],
    ['CANON_PCT', 'a malformed sequence before a bad byte', ['/%zz%80', '/%80%zz']],
    ['CANON_CTRL', 'a control character beside one outside ASCII', ['/%C3%A9%00']],
    ['CANON_EMBQ', 'a question mark before a step above the root', ['/../%3F']],
  ]
  for (const [code, situation, paths] of rows) {
    for (const path of paths)
      test(`${code}: ${situation}: ${JSON.stringify(path)}`, () => assert.equal(codeOf(path), code))
  }
})

describe('canonicalize() reads queries', () => {
  const rows: readonly (readonly [query: string, pairs: Readonly<Record<string, readonly string[]>>])[] = [
    ['k=a+b&K=C&k=%41', { k: ['a b', 'c', 'a'] }],
    ['=x&&k=v', { k: ['v'] }],
    ['b', { b: [''] }],
    ['', {}],
    ['k=a=b', { k: ['a=b'] }],
    ['k=a%26b%3Dc', { k: ['a&b=c'] }],
    ['%6B%65y=a%2Bb', { key: ['a+b'] }],
    ['k=%C3%89', { k: ['É'] }],
    ['k=%C3%89A', { k: ['Éa'] }],
    ['__proto__=1&constructor=2', { ['__proto__']: ['1'], constructor: ['2'] }],
    ['k=a?b', { k: ['a?b'] }],
  ]
  for (const [query, pairs] of rows) {
    test(`?${query}`, () => assert.deepEqual([...canonical(`/x?${query}`).query], Object.entries(pairs)))
  }

  const failures: readonly (readonly [code: CanonicalCode, query: string])[] = [
    ['CANON_PCT', 'a=%'],
    ['CANON_PCT', '%zz=a'],
    ['CANON_PCT', '=%zz'],
    ['CANON_UTF8', 'a=%80'],
    ['CANON_UTF8', 'a=%C0%AF'],
    ['CANON_CTRL', 'a=%0A'],
    ['CANON_CTRL', '%00=a'],
    ['CANON_CTRL', 'a=b%7F'],
    ['CANON_NON_ASCII', 'a=é'],
  ]
  for (const [code, query] of failures) test(`?${query} is ${code}`, () => assert.equal(codeOf(`/x?${query}`), code))
})

describe('canonicalize() checks in a fixed order', () => {
  test('each failure hides those after it', () => {
    const all = 'ftp://u@h_:99999/%zz%80%00%C3%A9%3F/..?a=%zz'
    const ladder: readonly (readonly [code: CanonicalCode | 'no failure', target: string, method: string])[] = [
      ['CANON_SCHEME', all, 'TRACE'],
      ['CANON_METHOD', all.replace('ftp', 'HTTP'), 'TRACE'],
      ['CANON_USERINFO', all.replace('ftp', 'HTTP'), 'GET'],
      ['CANON_PORT', 'http://h_:99999/%zz', 'GET'],
      ['CANON_HOST', 'http://h_:80/%zz', 'GET'],
      ['CANON_PCT', 'http://h/%zz%80%00%C3%A9%3F/../..', 'GET'],
      ['CANON_UTF8', '/%80%00%C3%A9%3F/../..', 'GET'],
      ['CANON_CTRL', '/%00%C3%A9%3F/../..', 'GET'],
      ['CANON_NON_ASCII', '/%C3%A9%3F/../..', 'GET'],
      ['CANON_EMBQ', '/%3F/../..?a=%zz', 'GET'],
      ['CANON_UNDERFLOW', '/a/../..?a=%zz', 'GET'],
      ['CANON_PCT', '/a/..?a=%zz', 'GET'],
      ['no failure', '/a/..?a=z', 'GET'],
    ]
    for (const [code, target, method] of ladder) assert.equal(codeOf(target, method), code, target)
  })

  for (const method of ['GET', 'POST', 'PUT', 'DELETE', 'HEAD', 'OPTIONS', 'PATCH']) {
    test(`${method} is a method`, () => assert.equal(codeOf('/', method), 'no failure'))
  }
  for (const method of ['get', 'TRACE', 'CONNECT', 'QUERY', '', 'GET ']) {
    test(`${JSON.stringify(method)} is none`, () => assert.equal(codeOf('/', method), 'CANON_METHOD'))
  }
})

describe('canonicalize() and the forms of a target', () => {
  test('a fragment is no part of it', () => assert.deepEqual(canonical('/a?b=c#d%zz'), canonical('/a?b=c')))
  test('absolute form without path is the root', () => {
    assert.deepEqual(canonical('http://169.254.169.254?a=b').path, { segments: [], hasTrailingSlash: false })
    assert.deepEqual([...canonical('http://169.254.169.254?a=b').query], [['a', ['b']]])
  })
  test('the asterisk is a segment', () => assert.deepEqual(canonical('*').path.segments, ['*']))
  test('a trailing slash is noted, and none at the root', () => {
    const withSlash = ['/a/', '/a//', '/a/.', '/a/b/..', '/a/;x', '/a%2f']
    for (const path of withSlash) assert.equal(canonical(path).path.hasTrailingSlash, true, path)
    for (const path of ['/a', '/a;x', '/', '//', '/./', '/a/..'])
      assert.equal(canonical(path).path.hasTrailingSlash, false, path)
  })
})

describe('renderTarget()', () => {
  for (const [target, rendered] of [
    ['/A//b;c/', '/a/b/'],
    ['/', '/'],
    ['//', '/'],
    ['/a%20b%25%23', '/a%20b%25%23'],
    ['/a?K=%26%3D%2B%25%23+x&b&k=é'.replace('é', '%C3%A9'), '/a?k=%26%3D%2B%25%23%20x&k=%C3%A9&b='],
    ['http://0xa9fea9fe/x', 'http://169.254.169.254:80/x'],
    ['HTTP://[::1]:8080', 'http://[0:0:0:0:0:0:0:1]:8080/'],
  ] as const) {
    test(`${target} is written ${rendered}`, () => assert.equal(renderTarget(canonical(target)), rendered))
  }
})

describe('canonicalize() properties', () => {
  const segmentText = fc.string({ unit: fc.constantFrom(...'abcXY01-._~/%;:@&=+$,'), maxLength: 24 })
  const queryText = fc.string({ unit: fc.constantFrom(...'abcXY01-._~%+'), maxLength: 12 })
  const encoded = fc.constantFrom(
    '%2e',
    '%2F',
    '%3B',
    '%20',
    '%41',
    '%25',
    '%252e',
    '%C3%A9',
    '%26',
    '%3D',
    '%2B',
    '%23',
    '%EF%BB%BF',
  )
  const hosts = fc.constantFrom(
    '',
    '',
    'http://169.254.169.254',
    'http://0xA9FEA9FE:80',
    'http://[::ffff:a83f:8110]:32526',
    'HTTP://Host.Name.:1',
  )
  const target = fc
    .tuple(
      hosts,
      fc.array(fc.oneof(segmentText, encoded), { maxLength: 5 }),
      fc.array(fc.tuple(fc.oneof(queryText, encoded), fc.oneof(queryText, encoded)), { maxLength: 4 }),
    )
    .map(([host, path, pairs]) => `${host}/${path.join('')}?${pairs.map((pair) => pair.join('=')).join('&')}`)
  const method = fc.constantFrom('GET', 'PUT', 'OPTIONS')

  test('idempotent: the rendered form canonicalises to the same request and renders the same again', () => {
    let successes = 0
    fc.assert(
      fc.property(target, method, (target, method) => {
        const first = canonicalize({ method, target })
        if (isCanonicalFailure(first)) return
        successes += 1
        const rendered = renderTarget(first)
        const second = canonicalize({ method, target: rendered })
        assert.deepEqual(second, first)
        assert.equal(renderTarget(second as CanonicalRequest), rendered)
      }),
      { numRuns: 3000 },
    )
    assert.ok(successes > 500, `only ${successes} of 3000 targets were canonical`)
  })

  test('total: any text gives a request or one of the codes', () => {
    const codes = /^CANON_(SCHEME|METHOD|USERINFO|PORT|HOST|PCT|UTF8|CTRL|NON_ASCII|EMBQ|UNDERFLOW)$/
    const texts = fc.oneof(
      fc.string({ unit: 'grapheme-ascii', maxLength: 80 }),
      fc.string({ unit: 'binary', maxLength: 40 }),
      target,
    )
    fc.assert(
      fc.property(texts, fc.oneof(method, fc.string()), (target, method) => {
        const result = canonicalize({ method, target })
        if (isCanonicalFailure(result)) assert.match(result.code, codes)
        else assert.equal(result.method, method)
      }),
      { numRuns: 5000 },
    )
  })

  test('segments hold nothing that a second reading would take apart', () => {
    fc.assert(
      fc.property(target, (target) => {
        const result = canonicalize({ method: 'GET', target })
        if (isCanonicalFailure(result)) return
        for (const segment of result.path.segments) {
          assert.match(segment, /^[ !-~]+$/)
          assert.doesNotMatch(segment, /[A-Z/?;]|^\.{1,2}$/)
        }
        for (const [name, values] of result.query) {
          assert.notEqual(name, '')
          assert.ok(values.length > 0)
        }
      }),
      { numRuns: 2000 },
    )
  })

  test('long hostile targets take linear time', () => {
    const size = 200_000
    const began = performance.now()
    for (const target of [
      `/${'../'.repeat(size)}`,
      `/${'a/'.repeat(size)}`,
      `/${';'.repeat(size)}`,
      `/${'%2e'.repeat(size)}`,
      `/?${'a&'.repeat(size)}`,
      `/?${'a=%41&'.repeat(size)}`,
      `http://${'.'.repeat(size)}_/`,
      `http://${'1.'.repeat(size)}/`,
      `http://[${':'.repeat(size)}]/`,
      `${'a'.repeat(size)}`,
    ]) {
      canonicalize({ method: 'GET', target })
    }
    assert.ok(performance.now() - began < 5000)
  })
})
