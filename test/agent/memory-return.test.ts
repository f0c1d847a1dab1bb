import assert from 'node:assert/strict'
import { test } from 'node:test'
import { keepGivingBack } from '../../src/agent/memory-return.ts'
import type { Clock } from '../../src/base/clock.ts'

/** Runs through intervals in which the process uses so much CPU time; tells in which it gave memory back. */
async function runThrough(cpuMsOfIntervals: readonly number[], giveBackCpuMs = 0): Promise<number[]> {
  const stopping = new AbortController()
  const given: number[] = []
  let usedMs = 300
  let interval = -1
  const clock: Clock = {
    nowMs: () => 0,
    monotonicMs: () => 0,
    async sleep() {
      interval++
      if (interval === cpuMsOfIntervals.length) stopping.abort()
      else usedMs += cpuMsOfIntervals[interval] ?? 0
    },
  }
  const giveBack = () => {
    given.push(interval)
    usedMs += giveBackCpuMs
  }
  await keepGivingBack({ cpuMs: () => usedMs, giveBack }, clock, stopping.signal)
  return given
}

test('memory is given back in the first quiet interval, and not again while it stays quiet', async () => {
  assert.deepEqual(await runThrough([400, 200, 4, 4, 4, 4]), [2])
})

test('after each busy time, once it is over', async () => {
  assert.deepEqual(await runThrough([4, 5000, 9000, 4, 4, 3000, 4, 4]), [0, 3, 6])
})

test('not for a little work', async () => {
  assert.deepEqual(await runThrough([4, 300, 4, 300, 4]), [0])
})

test('what the return itself takes does not count as work', async () => {
  assert.deepEqual(await runThrough([4, 4, 4, 4], 2000), [0])
})

test('not when the agent ends', async () => {
  assert.deepEqual(await runThrough([400]), [])
})
