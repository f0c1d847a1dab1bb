import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { beginsWith } from '../../src/rules/prefix.ts'

test('beginsWith() says what startsWith() says', () => {
  const text = fc.string({ unit: fc.constantFrom('a', 'b', '\ud83d', '\ude00'), maxLength: 5 })
  fc.assert(fc.property(text, text, (a, b) => assert.equal(beginsWith(a, b), a.startsWith(b))))
  fc.assert(fc.property(text, text, (a, b) => assert.ok(beginsWith(a + b, a))))
})
