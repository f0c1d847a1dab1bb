import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createToldLately } from '../../src/telemetry/told-lately.ts'

test('isNews() is true once in the interval, for each text', () => {
  let now = 1000
  const told = createToldLately(() => now, 60_000, 10)
  assert.equal(told.isNews('a'), true)
  assert.equal(told.isNews('a'), false)
  assert.equal(told.isNews('b'), true)
  now += 59_999
  assert.equal(told.isNews('a'), false, 'being asked again does not prolong it')
  now += 1
  assert.equal(told.isNews('a'), true)
  assert.equal(told.isNews('a'), false)
})

test('isNews() is false for what comes when the memory is full, until old texts have gone', () => {
  let now = 0
  const told = createToldLately(() => now, 60_000, 2)
  assert.deepEqual(
    ['a', 'b', 'c', 'd'].map((text) => told.isNews(text)),
    [true, true, false, false],
  )
  now += 60_000
  assert.equal(told.isNews('c'), true)
})
