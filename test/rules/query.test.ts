import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { isCanonicalFailure } from '../../src/rules/canonical-failure.ts'
import { canonicalQueryText } from '../../src/rules/canonicalize.ts'
import { decodeLossy } from '../../src/rules/percent.ts'
import { formParts, literalParts } from '../../src/rules/query.ts'

describe('a query is taken apart', () => {
  const rows: readonly (readonly [
    situation: string,
    raw: string,
    literal: readonly string[],
    form: readonly string[],
  ])[] = [
    ['nothing', '', [], []],
    ['one pair', 'k=v', ['k', 'v'], ['k', 'v']],
    ['a name alone, last', 'a=b&k', ['a', 'b', 'k', ''], ['a', 'b', 'k', '']],
    ['an escaped name alone, last', '%6B', ['k', ''], ['k', '']],
    ['empty pairs and pairs without name', '&=x&&k=v&', ['k', 'v'], ['k', 'v']],
    ['the same with an escape', '&=%41&&k=%56&', ['k', 'V'], ['k', 'v']],
    ['a second equals sign', 'k=a=%62', ['k', 'a=b'], ['k', 'a=b']],
    ['escaped separators', 'k=a%26b%3Dc', ['k', 'a&b=c'], ['k', 'a&b=c']],
    ['a raw and an escaped plus', 'K+=A+%2B', ['K+', 'A++'], ['k ', 'a +']],
    ['a plus without any escape', 'K+=A', ['K+', 'A'], ['k ', 'a']],
    ['letters outside ASCII keep their case', 'k=%C3%89A', ['k', 'ÉA'], ['k', 'Éa']],
    ['a character is not joined across a separator', 'k%C3=%A9', ['k\ufffd', '\ufffd'], []],
  ]
  for (const [situation, raw, literal, form] of rows) {
    test(situation, () => {
      assert.deepEqual(literalParts(raw), literal)
      if (form.length > 0 || raw === '') assert.deepEqual(formParts(raw), form)
      else assert.deepEqual(formParts(raw), { code: 'CANON_UTF8' })
    })
  }
})

/** Each part by itself, by the functions for one text. */
function pairsOf(raw: string): (readonly [name: string, value: string])[] {
  return raw.split('&').map((pair) => {
    const [name = '', ...rest] = pair.split('=')
    return [name, rest.join('=')] as const
  })
}

describe('a query taken apart at once gives what its parts give one by one', () => {
  const piece = fc.constantFrom(
    ...['a', 'B', '&', '&', '=', '=', '+', '%', '%41', '%7e', '%zz', '%0'],
    ...['%80', '%C3', '%A9', '%C3%A9', '%C3%89', '%E2%84%AA', '%26', '%3D', '%2B', '%00', '\x01', '~', ' '],
  )
  const query = fc.array(piece, { maxLength: 12, size: 'max' }).map((pieces) => pieces.join(''))

  test('literal', () => {
    const expected = (raw: string) =>
      pairsOf(raw).flatMap(([name, value]) => (name === '' ? [] : [decodeLossy(name), decodeLossy(value)]))
    fc.assert(
      fc.property(query, (raw) => assert.deepEqual(literalParts(raw), expected(raw))),
      { numRuns: 5000 },
    )
  })

  test('form, the first failure included', () => {
    let failures = 0
    fc.assert(
      fc.property(query, (raw) => {
        const parts = formParts(raw)
        const expected = pairsOf(raw).map((pair) => pair.map(canonicalQueryText))
        const failure = expected.flat().find((text) => isCanonicalFailure(text))
        if (failure !== undefined) failures += 1
        assert.deepEqual(parts, failure ?? expected.filter(([name]) => name !== '').flat())
      }),
      { numRuns: 5000 },
    )
    assert.ok(failures > 500 && failures < 4500, `${failures} failures in 5000 queries`)
  })
})
