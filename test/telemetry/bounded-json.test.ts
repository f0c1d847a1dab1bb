import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { boundedJson } from '../../src/telemetry/bounded-json.ts'

const RECORD = { id: 12, url: '/x', userGroups: ['alice', 'adm'], runAsElevated: false, errorDetails: '' }

describe('boundedJson()', () => {
  test('leaves alone what fits, to the byte', () => {
    const line = JSON.stringify(RECORD)
    assert.equal(boundedJson(RECORD, line.length), line)
  })

  for (const [situation, changes, shown] of [
    ['a long text', { url: `/${'a'.repeat(300)}` }, { ...RECORD, url: /^\/a+\.\.\.$/ }],
    ['many groups', { userGroups: Array(100).fill('a-group') }, { ...RECORD, userGroups: 'a-group' }],
    [
      'a text that is long when it is escaped',
      { url: '"\u202e'.repeat(40) },
      { ...RECORD, url: /^("\u202e?)+\.\.\.$/ },
    ],
  ] as const) {
    test(`cuts ${situation} and nothing else`, () => {
      const line = boundedJson({ ...RECORD, ...changes }, 200)
      assert.ok(Buffer.byteLength(line) <= 200, line)
      const { url, userGroups, ...rest } = JSON.parse(line)
      const { url: shownUrl, userGroups: shownGroups, ...same } = shown
      assert.deepEqual(rest, same)
      if (shownUrl instanceof RegExp) assert.match(url, shownUrl)
      else assert.equal(url, shownUrl)
      if (typeof shownGroups === 'string') assert.deepEqual([...new Set(userGroups)], [shownGroups])
      else assert.deepEqual(userGroups, shownGroups)
    })
  }

  test('hides a secret that it would have cut in half', () => {
    const line = boundedJson({ ...RECORD, url: `/?a=${'a'.repeat(40)}&sig=${'s'.repeat(300)}` }, 150)
    assert.ok(!line.includes('ss'), line)
  })

  test('is JSON with all members and short enough, whatever callers are called and do', () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 3000 }),
      fc.string({ maxLength: 200 }).map((part) => `"\\\u0000\u202e${part}`.repeat(40)),
    )
    const record = fc.record({ id: fc.nat(), url: text, userGroups: fc.array(text, { maxLength: 20 }), path: text })
    fc.assert(
      fc.property(record, fc.integer({ min: 100, max: 4096 }), (summary, maxBytes) => {
        const line = boundedJson(summary, maxBytes)
        assert.ok(Buffer.byteLength(line) <= maxBytes)
        assert.doesNotMatch(line, /\p{Cc}/u)
        assert.deepEqual(Object.keys(JSON.parse(line)), Object.keys(summary))
      }),
      { numRuns: 300 },
    )
  })
})
