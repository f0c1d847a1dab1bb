import assert from 'node:assert/strict'
import { test } from 'node:test'
import { aborted } from '../../src/base/clock.ts'

test('aborted() resolves at once when the signal is aborted already, and when it is later', async () => {
  const early = new AbortController()
  early.abort()
  await aborted(early.signal)

  const late = new AbortController()
  let isResolved = false
  const waiting = aborted(late.signal).then(() => {
    isResolved = true
  })
  await new Promise(setImmediate)
  assert.equal(isResolved, false)
  late.abort()
  await waiting
  assert.equal(isResolved, true)
})
