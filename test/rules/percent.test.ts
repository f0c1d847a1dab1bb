import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { decodeLossy, decodeStrict } from '../../src/rules/percent.ts'

describe('percent-decoding', () => {
  const rows: readonly (readonly [text: string, lossy: string, strict: string])[] = [
    ['', '', ''],
    ['abc', 'abc', 'abc'],
    ['%41%6a%6A', 'Ajj', 'Ajj'],
    ['%2541', '%41', '%41'],
    ['%C3%A9é', 'éé', 'éé'],
    ['%EF%BB%BFa', '\ufeffa', '\ufeffa'],
    ['%', '%', 'CANON_PCT'],
    ['%4', '%4', 'CANON_PCT'],
    ['%zz', '%zz', 'CANON_PCT'],
    ['%%41', '%A', 'CANON_PCT'],
    ['%4%41', '%4A', 'CANON_PCT'],
    ['%é41', '%é41', 'CANON_PCT'],
    ['%80', '\ufffd', 'CANON_UTF8'],
    ['%C3', '\ufffd', 'CANON_UTF8'],
    ['%C0%AF', '\ufffd\ufffd', 'CANON_UTF8'],
    ['%E2%84x', '\ufffdx', 'CANON_UTF8'],
    ['%ED%A0%80', '\ufffd\ufffd\ufffd', 'CANON_UTF8'],
    ['%00%7F', '\0\x7f', '\0\x7f'],
    ['%80%zz', '\ufffd%zz', 'CANON_PCT'],
  ]
  for (const [text, lossy, strict] of rows) {
    test(JSON.stringify(text), () => {
      assert.equal(decodeLossy(text), lossy)
      const result = decodeStrict(text)
      assert.equal(typeof result === 'string' ? result : result.code, strict)
    })
  }

  test('text that is no Unicode is refused by the strict one', () => {
    assert.deepEqual(decodeStrict('\ud800'), { code: 'CANON_UTF8' })
  })

  test('where decodeURIComponent gives a result, both give the same', () => {
    const texts = fc.string({
      unit: fc.oneof(fc.constantFrom('%', '%41', '%C3%A9', '%F0%9F%98%80', 'a', 'é', '%8'), fc.string()),
    })
    fc.assert(
      fc.property(texts, (text) => {
        let expected: string
        try {
          expected = decodeURIComponent(text)
        } catch {
          assert.notEqual(typeof decodeStrict(text), 'string')
          return
        }
        assert.equal(decodeLossy(text), expected)
        assert.equal(decodeStrict(text), expected)
      }),
    )
  })
})
