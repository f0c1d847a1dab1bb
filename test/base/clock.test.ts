import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { describe, test } from 'node:test'
import { processAgeMs, systemClock, unixNanoseconds } from '../../src/base/clock.ts'

describe('systemClock', () => {
  test('sleep() takes its time', async () => {
    const startMs = performance.now()
    await systemClock.sleep(30)
    assert.ok(performance.now() - startMs >= 29)
  })

  test('sleep() ends at once when aborted, before or meanwhile, and does not reject', async () => {
    const startMs = performance.now()
    await systemClock.sleep(60_000, AbortSignal.abort())
    const controller = new AbortController()
    const sleeping = systemClock.sleep(60_000, controller.signal)
    controller.abort(new Error('wake up'))
    await sleeping
    assert.ok(performance.now() - startMs < 5000)
  })

  test('sleep() keeps the process alive, since a command may have nothing else to wait for', () => {
    const module = new URL('../../src/base/clock.ts', import.meta.url).href
    const script = `import { systemClock } from '${module}'; systemClock.sleep(50).then(() => console.log('woken'))`
    assert.equal(execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' }), 'woken\n')
  })

  test('monotonicMs() never goes back and advances with time', async () => {
    const readings = [systemClock.monotonicMs()]
    for (let i = 0; i < 1000; i++) readings.push(systemClock.monotonicMs())
    await systemClock.sleep(60)
    readings.push(systemClock.monotonicMs())
    assert.deepEqual(
      readings,
      readings.toSorted((a, b) => a - b),
    )
    const passedMs = (readings.at(-1) as number) - (readings[0] as number)
    assert.ok(passedMs >= 40 && passedMs < 30_000, `${passedMs} ms`)
  })
})

describe('unixNanoseconds()', () => {
  test('is the wall clock', () => {
    const before = BigInt(Date.now()) * 1_000_000n
    const now = unixNanoseconds()
    const after = BigInt(Date.now() + 1) * 1_000_000n
    assert.ok(before <= now && now <= after, `${before} ${now} ${after}`)
  })

  test('follows the wall clock when that is set, forth and back', (t) => {
    for (const stepMs of [3_600_000, -3_600_000, 86_400_000]) {
      const wallMs = Date.now() + stepMs
      t.mock.timers.enable({ apis: ['Date'], now: wallMs })
      const now = unixNanoseconds()
      t.mock.timers.reset()
      const differenceMs = Number(now / 1_000_000n) - wallMs
      assert.ok(differenceMs >= 0 && differenceMs <= 1, `${differenceMs} ms off after a step of ${stepMs} ms`)
    }
  })

  test('does not repeat itself within a millisecond', async () => {
    const readings = new Set<bigint>()
    for (let i = 0; i < 50; i++) {
      readings.add(unixNanoseconds())
      for (const endMs = performance.now() + 0.05; performance.now() < endMs; );
    }
    // Whole milliseconds would give three or four; a busy machine may pause us between two readings.
    assert.ok(readings.size > 10, `${readings.size} of 50 differ`)
  })
})

describe('processAgeMs()', () => {
  test('is a whole number that grows', async () => {
    const before = processAgeMs()
    await systemClock.sleep(20)
    assert.ok(Number.isInteger(before))
    assert.ok(processAgeMs() >= before + 19)
  })
})
