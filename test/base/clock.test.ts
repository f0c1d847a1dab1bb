import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { describe, test } from 'node:test'
import { createBootClock, processAgeMs, systemClock, unixNanoseconds } from '../../src/base/clock.ts'

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

describe('createBootClock()', () => {
  const make = () => {
    const now = { boot: 5000, running: 100, wall: 1_000_000, reads: 0 }
    const clock = createBootClock(
      () => {
        now.reads++
        return Math.floor(now.boot / 10) * 10
      },
      () => now.running,
      () => now.wall,
    )
    const pass = (ms: number) => {
      now.boot += ms
      now.running += ms
      now.wall += ms
    }
    return { now, clock, pass }
  }

  test('reads the boot clock once a second', () => {
    const { now, clock, pass } = make()
    for (let i = 0; i < 1000; i++) {
      clock()
      pass(3)
    }
    assert.ok(now.reads >= 3 && now.reads <= 4, `${now.reads} reads in 3 s`)
  })

  test('counts time spent suspended at the first reading after it', () => {
    const { now, clock, pass } = make()
    clock()
    pass(5)
    const before = clock()
    now.boot += 60_000
    now.wall += 60_000
    assert.ok(Math.abs(clock() - before - 60_000) <= 10)
  })

  test('is not moved by the wall clock, and never goes back', () => {
    const { now, clock, pass } = make()
    let last = clock()
    for (const stepMs of [3_600_000, 0, -7_200_000, 0, 17, 0, -17, 25, 0, -25]) {
      now.wall += stepMs
      pass(1)
      const reading = clock()
      assert.ok(reading >= last && reading - last <= 12, `${reading - last} ms after a step of ${stepMs} ms`)
      last = reading
    }
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
