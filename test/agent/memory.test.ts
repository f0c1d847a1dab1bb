import assert from 'node:assert/strict'
import { test } from 'node:test'
import { watchMemory } from '../../src/agent/memory.ts'
import { createFakeClock } from '../fakes/clock.ts'
import { createFakeLog } from '../fakes/log.ts'

const status = (nowKb: number, peakKb: number) => `Name:\tx\nVmHWM:\t  ${peakKb} kB\nVmRSS:\t  ${nowKb} kB\n`

async function watch(read?: () => Promise<string>) {
  const clock = createFakeClock()
  const log = createFakeLog()
  const stopping = new AbortController()
  const running = watchMemory(clock, log, 60_000, stopping.signal, read)
  while (clock.sleeping.length === 0) await clock.settle()
  return {
    clock,
    log,
    async stop() {
      stopping.abort()
      await running
    },
  }
}

test('watchMemory() tells memory and peak in whole megabytes, again after the interval', async () => {
  const { clock, log, stop } = await watch(async () => status(50 * 1024 + 1023, 70 * 1024))
  const told = ['Info Current process memory usage: 50 MB', 'Info Current process peak memory usage: 70 MB']
  assert.deepEqual(log.lines, told)
  await clock.advance(60_000)
  assert.deepEqual(log.lines, [...told, ...told])
  await stop()
})

test('watchMemory() warns above what the runtime needs', async () => {
  const { log, stop } = await watch(async () => status(513 * 1024, 600 * 1024))
  assert.equal(log.lines[2], 'Warn Current process memory usage 513 MB exceeds the limit of 512 MB.')
  await stop()
})

test('watchMemory() reads this process, and survives that it cannot be read', async () => {
  const real = await watch()
  assert.match(String(real.log.lines[0]), /^Info Current process memory usage: [1-9]\d* MB$/)
  await real.stop()
  const blind = await watch(() => Promise.reject(new Error('no such file')))
  assert.deepEqual(blind.log.lines, ['Warn Cannot read the memory usage of this process: no such file'])
  await blind.stop()
})
