import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createBodyCollector } from '../../../src/proxy/http1/body-collector.ts'
import { cuts } from './pieces.ts'

test('createBodyCollector() gives the body however it is cut', () => {
  for (const pieces of cuts('The quick brown fox')) {
    const collector = createBodyCollector()
    for (const piece of pieces) collector.add(piece)
    assert.equal(collector.sizeBytes, 19)
    assert.equal(collector.take().toString(), 'The quick brown fox')
    assert.equal(collector.take().length, 0)
  }
})

test('createBodyCollector() keeps nothing of a piece, whose memory may be used again', () => {
  const piece = Buffer.from('abc')
  const collector = createBodyCollector()
  collector.add(piece)
  piece.fill('x')
  assert.equal(collector.take().toString(), 'abc')
})

test('createBodyCollector() does not keep all of a large read for a small piece of it', () => {
  const collector = createBodyCollector()
  collector.add(Buffer.allocUnsafeSlow(64 * 1024).subarray(7, 17))
  assert.equal(collector.take().buffer.byteLength, 10)
})

test('createBodyCollector() holds twice what arrived at most, in however many pieces', () => {
  const collector = createBodyCollector()
  for (let i = 0; i < 100_000; i++) collector.add(Buffer.from([i]))
  const whole = collector.take()
  assert.equal(whole.length, 100_000)
  assert.ok(whole.buffer.byteLength <= 200_000)
  assert.equal(whole[99_999], 99_999 & 0xff)
})
