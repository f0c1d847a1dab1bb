import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { cutList, cutUtf8, escapeControls } from '../../src/base/text.ts'

const anyText = fc.string({ unit: fc.oneof(fc.constantFrom('a', '\u00e9', '\u20ac', '\u{1f600}'), fc.string()) })

describe('escapeControls()', () => {
  for (const [situation, text, escaped] of [
    ['plain text', 'GET /a?b=\u00e9\u{1f600} \\x0a', 'GET /a?b=\u00e9\u{1f600} \\x0a'],
    ['a forged line', 'a\r\n2026-01-01 [ERROR] b', 'a\\x0d\\x0a2026-01-01 [ERROR] b'],
    ['a terminal sequence', '\u001b[2J', '\\x1b[2J'],
    ['NUL and DEL', '\u0000\u007f', '\\x00\\u007f'],
    ['an 8-bit control', '\u009b', '\\u009b'],
    ['line and paragraph separators', '\u2028\u2029', '\\u2028\\u2029'],
    ['reversed reading order', 'exe.\u202etxt', 'exe.\\u202etxt'],
    ['direction isolates', '\u2066a\u2069', '\\u2066a\\u2069'],
    ['direction marks', '\u200e\u200f\u061c', '\\u200e\\u200f\\u061c'],
    ['a byte-order mark', '\ufeffa', '\\ufeffa'],
    ['half a character', 'a\ud83d', 'a\\ud83d'],
  ] as const) {
    test(situation, () => assert.equal(escapeControls(text), escaped))
  }

  test('leaves nothing that ends a line, moves a cursor or turns the reading order', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string(), (a, b) => {
        for (const text of [a, b, a + b]) {
          assert.doesNotMatch(escapeControls(text), /\p{Cc}|\p{Zl}|\p{Zp}|\p{Bidi_Control}|\p{Cs}/u)
        }
      }),
    )
    const unsafe = Array.from({ length: 0x10000 }, (_, code) => String.fromCharCode(code)).filter((char) =>
      /\p{Cc}|\p{Zl}|\p{Zp}|\p{Bidi_Control}|\p{Cs}/u.test(escapeControls(char)),
    )
    assert.deepEqual(
      unsafe.map((char) => char.charCodeAt(0).toString(16)),
      [],
    )
  })
})

describe('cutUtf8()', () => {
  for (const [situation, text, maxBytes, mark, cut] of [
    ['text that fits exactly', 'abc', 3, '...', 'abc'],
    ['one byte too many', 'abcd', 3, '...', 'abc...'],
    ['a cut inside two bytes', 'ab\u00e9', 3, '...', 'ab...'],
    ['a cut inside three bytes', 'a\u20ac', 3, '...', 'a...'],
    ['a cut inside four bytes', '\u{1f600}b', 3, '', ''],
    ['a cut behind four bytes', '\u{1f600}b', 4, '', '\u{1f600}'],
    ['no room', 'abc', 0, '...', '...'],
    ['nothing to cut', '', 0, '...', ''],
  ] as const) {
    test(situation, () => assert.equal(cutUtf8(text, maxBytes, mark), cut))
  }

  test('never splits a character and never gives more bytes', () => {
    fc.assert(
      fc.property(anyText, fc.nat(40), (text, maxBytes) => {
        const cut = cutUtf8(text, maxBytes)
        assert.ok(Buffer.byteLength(cut) <= maxBytes)
        assert.ok(text.toWellFormed().startsWith(cut.toWellFormed()))
        assert.ok(!cut.isWellFormed() || !/\ufffd$/.test(cut) || text.toWellFormed().includes('\ufffd'))
        const next = [...text.toWellFormed()][[...cut].length]
        if (next !== undefined)
          assert.ok(Buffer.byteLength(cut + next) > maxBytes, 'one more character would have fitted')
      }),
    )
  })

  test('adds the mark when it had to cut, and only then', () => {
    fc.assert(
      fc.property(anyText, fc.nat(40), (text, maxBytes) => {
        const isTooLong = Buffer.byteLength(text) > maxBytes
        assert.equal(cutUtf8(text, maxBytes, '...'), isTooLong ? `${cutUtf8(text, maxBytes)}...` : text)
      }),
    )
  })
})

test('cutList() leaves a list that fits, and says how many texts of another are missing', () => {
  const texts = ['ab', '\u20ac', 'c']
  assert.equal(cutList(texts, 6), texts)
  assert.deepEqual(cutList(texts, 5), ['ab', '\u20ac', '... 1 more'])
  assert.deepEqual(cutList(texts, 1), ['... 3 more'])
})
