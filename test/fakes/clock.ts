/** A clock that stands still until a test moves it. */

import { setImmediate as turn } from 'node:timers/promises'
import type { Clock } from '../../src/base/clock.ts'

export interface FakeClock extends Clock {
  /**
   * Moves both times on by `ms`. Sleepers wake in the order of their time, and what they start by promises alone runs
   * before the next one wakes, so that a loop of sleeps makes all its rounds.
   */
  advance(ms: number): Promise<void>
  /** Moves the wall clock alone, as an administrator or NTP does. */
  stepWall(ms: number): void
  /** Lets all that is ready by promises alone run, without moving time. */
  settle(): Promise<void>
  /** What each sleeper asked for that still sleeps, in milliseconds, in the order of asking. */
  readonly sleeping: readonly number[]
}

interface Sleeper {
  readonly ms: number
  readonly wakeAtMs: number
  readonly wake: () => void
}

/** Makes a clock whose wall time starts at `startMs` and whose monotonic time starts at an unrelated value. */
export function createFakeClock(startMs = Date.UTC(2025, 3, 23, 12)): FakeClock {
  let monotonicMs = 5_000_000
  let wallOffsetMs = startMs - monotonicMs
  const sleepers = new Set<Sleeper>()

  const settle = async () => {
    await turn()
    await turn()
  }
  const nextBefore = (endMs: number) =>
    [...sleepers].filter(({ wakeAtMs }) => wakeAtMs <= endMs).sort((a, b) => a.wakeAtMs - b.wakeAtMs)[0]

  return {
    nowMs: () => monotonicMs + wallOffsetMs,
    monotonicMs: () => monotonicMs,
    sleep: (ms, signal) => {
      if (signal?.aborted) return Promise.resolve()
      return new Promise((resolve) => {
        const sleeper = {
          ms,
          wakeAtMs: monotonicMs + ms,
          wake: () => {
            sleepers.delete(sleeper)
            resolve()
          },
        }
        sleepers.add(sleeper)
        signal?.addEventListener('abort', sleeper.wake, { once: true })
      })
    },
    async advance(ms) {
      const endMs = monotonicMs + ms
      await settle()
      for (let next = nextBefore(endMs); next !== undefined; next = nextBefore(endMs)) {
        monotonicMs = Math.max(monotonicMs, next.wakeAtMs)
        next.wake()
        await settle()
      }
      monotonicMs = endMs
    },
    stepWall(ms) {
      wallOffsetMs += ms
    },
    settle,
    get sleeping() {
      return [...sleepers].map(({ ms }) => ms)
    },
  }
}
