import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createToldLately } from '../../src/telemetry/told-lately.ts'

const MINUTE_MS = 60_000

function memory(maxTextsPerGroup = 10, maxGroups = 10) {
  const time = { ms: 1000 }
  return { time, told: createToldLately(() => time.ms, { intervalMs: MINUTE_MS, maxTextsPerGroup, maxGroups }) }
}

test('ask() lets a text out once in the interval, for each group, with the number of times it was held back', () => {
  const { time, told } = memory()
  assert.equal(told.ask('alice', 'a'), 0)
  assert.equal(told.ask('alice', 'a'), undefined)
  assert.equal(told.ask('alice', 'b'), 0)
  assert.equal(told.ask('bob', 'a'), 0)
  time.ms += MINUTE_MS - 1
  assert.equal(told.ask('alice', 'a'), undefined, 'being asked again does not prolong it')
  time.ms += 1
  assert.equal(told.ask('alice', 'a'), 2)
  assert.equal(told.ask('alice', 'a'), undefined)
  assert.equal(told.ask('alice', 'b'), 0)
})

test('ask() takes what a group has no room for as one text, until old texts have gone', () => {
  const { time, told } = memory(2)
  const ask = (text: string) => told.ask('alice', text)
  assert.deepEqual(['a', 'b', 'c', 'd', 'e'].map(ask), [0, 0, 0, undefined, undefined])
  assert.equal(told.ask('bob', 'c'), 0, 'another group has its own room')
  time.ms += MINUTE_MS
  assert.deepEqual(['d', 'e', 'f', 'g'].map(ask), [0, 0, 0, undefined])
})

test('ask() takes the groups it has no room for as one, until silent ones have gone', () => {
  const { time, told } = memory(10, 2)
  const ask = (group: string) => told.ask(group, 'a')
  assert.deepEqual(['u1', 'u2', 'u3', 'u4'].map(ask), [0, 0, 0, undefined])
  assert.equal(told.ask('u4', 'b'), 0)
  time.ms += MINUTE_MS
  assert.equal(ask('u4'), 0)
})
