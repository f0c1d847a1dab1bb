import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { splitJsonArray } from '../../src/telemetry/split-events.ts'

const split = async (text: string | Buffer) => {
  const bytes = Buffer.from(text)
  const slices = await splitJsonArray(bytes, () => undefined)
  return slices?.map(({ start, end }) => bytes.toString('utf8', start, end))
}

test('splitJsonArray() finds the elements of any array, however it is written', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.jsonValue()), fc.constantFrom(undefined, 2, '\t'), async (values, indent) => {
      const elements = await split(JSON.stringify(values, null, indent))
      assert.deepEqual(
        elements?.map((each) => JSON.parse(each)),
        JSON.parse(JSON.stringify(values)),
      )
    }),
  )
})

test('splitJsonArray() finds elements behind a byte-order mark, and none in an empty array', async () => {
  assert.deepEqual(await split('\ufeff [1, "a,]\\"", {"b": [2]} ]\r\n'), ['1', '"a,]\\""', '{"b": [2]} '])
  assert.deepEqual(await split(' [ ] '), [])
})

const NOT_ARRAYS: readonly (readonly [situation: string, text: string])[] = [
  ['nothing', ''],
  ['an object', '{"a": []}'],
  ['a text', '"[]"'],
  ['half an array', '[{"a": 1}, {"b"'],
  ['half a text', '["a'],
  ['a text that ends in half an escape', '["a\\'],
  ['a missing element', '[1,,2]'],
  ['something behind it', '[1] x'],
  ['two of them', '[1][2]'],
  ['too many elements', `[${'1,'.repeat(200_000)}1]`],
]
for (const [situation, text] of NOT_ARRAYS) {
  test(`splitJsonArray() refuses ${situation}`, async () => assert.equal(await split(text), undefined))
}

test('splitJsonArray() lets others work every 16 KiB, whatever it reads', async () => {
  for (const filler of ['{"a": "a longer text"},', '"\\\\\\\\",', '          ', `"${'\\x'.repeat(50_000)}",`]) {
    const bytes = Buffer.from(`[${filler.repeat(Math.ceil(500_000 / filler.length))}1]`)
    let turns = 0
    await splitJsonArray(bytes, () => {
      turns++
      return undefined
    })
    assert.ok(turns >= 500_000 / (16 * 1024 + 1), `${turns} turns for ${filler.slice(0, 20)}`)
  }
})
