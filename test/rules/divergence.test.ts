import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { formatDivergence, quote } from '../../src/rules/divergence.ts'
import { ALICE, BOB, decideGet, itemGranting } from './make.ts'

const ITEM = itemGranting([{ name: 'events', path: '/metadata/scheduledevents' }])

function lineFor(
  target: string,
  caller = ALICE,
  mode: 'shadow' | 'enforce' = 'shadow',
  item = ITEM,
): string | undefined {
  const { divergence } = decideGet(item, target, caller, mode)
  return divergence && formatDivergence(divergence)
}

describe('formatDivergence()', () => {
  test('an encoded question mark, as some clients send it', () => {
    assert.equal(
      lineFor('/metadata/scheduledevents%3Fapi-version=2019-08-01'),
      'CANON_DIVERGENCE mode=shadow rule_set=rules-1 legacy=allow canon=error:CANON_EMBQ uri="/metadata/scheduledevents%3Fapi-version=2019-08-01"',
    )
  })
  test('another spelling of the path, in enforce mode', () => {
    assert.equal(
      lineFor('/metadata/./scheduledevents?a=b', BOB, 'enforce', { ...ITEM, defaultAccess: 'allow' }),
      'CANON_DIVERGENCE mode=enforce rule_set=rules-1 legacy=allow canon=deny uri="/metadata/./scheduledevents?a=b"',
    )
  })
  test('the canonical matcher allows more', () => {
    assert.equal(
      lineFor('http://u.v/metadata/./scheduledevents?#f'),
      'CANON_DIVERGENCE mode=shadow rule_set=rules-1 legacy=deny canon=allow uri="/metadata/./scheduledevents"',
    )
  })
  test('nothing where both agree, even for different reasons', () => {
    assert.equal(lineFor('/metadata/scheduledevents'), undefined)
    assert.equal(lineFor('/other%3F'), undefined)
  })
  test('quotes and backslashes of the request, control characters of the rule set', () => {
    assert.equal(
      lineFor('/metadata/scheduledevents/%80?"\\', ALICE, 'shadow', { ...ITEM, id: 'a\nb' }),
      'CANON_DIVERGENCE mode=shadow rule_set=a\\nb legacy=allow canon=error:CANON_UTF8 uri="/metadata/scheduledevents/%80?\\"\\\\"',
    )
  })
})

describe('quote()', () => {
  for (const [text, quoted] of [
    ['', '""'],
    ['a"b\\c', '"a\\"b\\\\c"'],
    ['\r\n\t\0', '"\\r\\n\\t\\0"'],
    ['\x1b[31m\x7f\x85\u2028', '"\\u{1b}[31m\\u{7f}\\u{85}\\u{2028}"'],
    ['é😀', '"é😀"'],
  ] as const) {
    test(JSON.stringify(text), () => assert.equal(quote(text), quoted))
  }
  test('keeps any text on one line and inside the quotes', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        assert.match(quote(text), /^"(?:[^"\\\p{Cc}\u2028\u2029]|\\(?:["\\ntr0]|u\{[0-9a-f]+\}))*"$/u)
      }),
    )
  })
})
