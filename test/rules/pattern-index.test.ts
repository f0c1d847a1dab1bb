import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { type Pattern, PatternIndex } from '../../src/rules/pattern-index.ts'
import { PrefixIndex } from '../../src/rules/prefix-index.ts'

const text = fc.string({ unit: fc.constantFrom('a', 'a', 'b', '/', '\ud83d', '\ude00', 'é'), maxLength: 6 })

describe('PrefixIndex.find()', () => {
  const index = new PrefixIndex(
    ['/a/b', '/a', '/b', '/a/x', '/a', '/a/b/c'].map((path, place) => [path, place] as const),
  )
  const rows: readonly (readonly [text: string, expected: readonly number[]])[] = [
    ['/a/b/d', [1, 4, 0]],
    ['/a/b/c', [1, 4, 0, 5]],
    ['/a', [1, 4]],
    ['/ab', [1, 4]],
    ['/az', [1, 4]],
    ['/bz', [2]],
    ['/', []],
    ['', []],
    ['zzz', []],
    ['!', []],
  ]
  for (const [text, expected] of rows) {
    test(`of '${text}'`, () => assert.deepEqual(index.find(text), expected))
  }
  test('of anything, when there is nothing to find', () => assert.deepEqual(new PrefixIndex([]).find('/a'), []))

  test('says what startsWith() says, of any texts', () => {
    let found = 0
    fc.assert(
      fc.property(fc.array(text, { maxLength: 20 }), text, (texts, asked) => {
        const places = new PrefixIndex(texts.map((each, place) => [each, place] as const)).find(asked)
        const expected = [...texts.keys()].filter((place) => asked.startsWith(texts[place]!))
        assert.deepEqual(
          [...places].sort((a, b) => a - b),
          expected,
        )
        const lengths = places.map((place) => texts[place]!.length)
        assert.deepEqual(
          lengths,
          [...lengths].sort((a, b) => a - b),
          'the shortest comes first',
        )
        found += places.length
      }),
      { numRuns: 5000 },
    )
    assert.ok(found > 1000, `only ${found} found`)
  })
})

describe('PatternIndex.find()', () => {
  const name = fc.constantFrom('k', 'm', 'constructor', '__proto__')
  const values = fc.array(fc.constantFrom('v', 'w', ''), { minLength: 1, maxLength: 6 })
  const parameters = fc.uniqueArray(fc.record({ name, values }), { selector: ({ name }) => name, maxLength: 3 })
  const pattern = fc.option(fc.record({ prefix: fc.constantFrom('/', '/a', '/a/', '/b'), parameters }), {
    nil: undefined,
  })

  test('says what a look at every pattern says', () => {
    let found = 0
    fc.assert(
      fc.property(fc.array(pattern, { maxLength: 12 }), text, parameters, (patterns, rest, given) => {
        const path = `/${rest}`
        const held = new Map<string, string[]>(given.map(({ name, values }) => [name, values]))
        const places = new PatternIndex(patterns).find({ path, parameters: () => held })
        const matches = (each: Pattern | undefined) =>
          each !== undefined &&
          path.startsWith(each.prefix) &&
          each.parameters.every(({ name, values }) => held.get(name)?.some((value) => values.includes(value)))
        const expected = [...patterns.keys()].filter((place) => matches(patterns[place]))
        assert.deepEqual(
          [...places].sort((a, b) => a - b),
          expected,
        )
        found += places.length
      }),
      { numRuns: 5000 },
    )
    assert.ok(found > 1000, `only ${found} found`)
  })

  test('does not take the query apart for patterns that ask for none of it, or lie elsewhere', () => {
    const patterns = new PatternIndex([
      { prefix: '/a', parameters: [] },
      { prefix: '/b', parameters: [{ name: 'k', values: ['v'] }] },
    ])
    assert.deepEqual(patterns.find({ path: '/a', parameters: () => assert.fail('the query was read') }), [0])
  })
})
