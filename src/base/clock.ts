/** Time as the parts of the agent see it, so that tests can bring their own. */

import { uptime } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'

/** A source of time. All values are milliseconds. */
export interface Clock {
  /** Wall clock, milliseconds since the Unix epoch. May jump. */
  nowMs(): number
  /** Monotonic milliseconds that count time spent suspended, from an arbitrary origin. Never jumps back. */
  monotonicMs(): number
  /** Resolves after `ms`, or at once when `signal` is aborted. Never rejects. Keeps the process alive meanwhile. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
}

/**
 * The clock of this machine.
 * `monotonicMs` follows CLOCK_BOOTTIME (10 ms resolution here), because the date we sign must be right after a resume.
 * Source: clock_gettime(2), CLOCK_BOOTTIME; libuv uv_uptime.
 */
export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: createBootClock(
    () => uptime() * 1000,
    () => performance.now(),
    () => Date.now(),
  ),
  sleep: async (ms, signal) => {
    try {
      await delay(ms, undefined, signal === undefined ? undefined : { signal })
    } catch {
      // Woken early: that is what the signal is for.
    }
  },
}

/** How long a reading of the boot clock is carried on by the clocks that cost nothing. */
const CARRY_MS = 1000

/** A difference between these clocks that is no rounding: the machine was suspended, or its wall clock set. */
const STEP_MS = 20

/**
 * Makes a clock that counts time spent suspended and is cheap to read: the boot clock costs 5 µs, and a request reads it
 * several times. Between its readings the running clock carries it on, which stands still while suspended; the wall clock
 * does not, so a suspension shows at once as a difference between the two.
 */
export function createBootClock(bootMs: () => number, runningMs: () => number, wallMs: () => number): () => number {
  let readAt = { runningMs: Number.NEGATIVE_INFINITY, wallMs: 0 }
  let offsetMs = Number.NEGATIVE_INFINITY
  return () => {
    const running = runningMs()
    const wall = wallMs()
    const passedMs = running - readAt.runningMs
    if (passedMs >= CARRY_MS || Math.abs(wall - readAt.wallMs - passedMs) > STEP_MS) {
      readAt = { runningMs: running, wallMs: wall }
      // The coarser clock is behind by as much as its resolution: never back.
      offsetMs = Math.max(offsetMs, bootMs() - running)
    }
    return running + offsetMs
  }
}

/** Resolves when `signal` is aborted, at once when it was already. */
export function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}

/**
 * Waits for `promise`, but not longer than `ms`; what it stands for goes on then, and its failure is ignored.
 * @returns whether it ended in time
 * @throws what `promise` rejects with in time
 */
export async function endsWithin(promise: Promise<unknown>, ms: number, clock: Clock): Promise<boolean> {
  const waiting = new AbortController()
  try {
    return await Promise.race([promise.then(() => true), clock.sleep(ms, waiting.signal).then(() => false)])
  } finally {
    waiting.abort()
  }
}

/** Milliseconds since this process began, as start-up messages report them. */
export function processAgeMs(): number {
  return Math.floor(process.uptime() * 1000)
}

/** Wall time at the origin of `performance.now`, as the last reading saw it. */
let originMs = performance.timeOrigin

/**
 * Nanoseconds since the Unix epoch, of the resolution the platform has (microseconds in practice).
 * Follows the wall clock when that is set: ticks are compared across processes, and `performance.timeOrigin` alone would
 * stay at the time this process believed it was when it started.
 */
export function unixNanoseconds(): bigint {
  const wallMs = Date.now()
  const sinceOriginMs = performance.now()
  // Date.now() is cut to a millisecond, so anything within the next one agrees with it.
  if (originMs + sinceOriginMs < wallMs) originMs = wallMs - sinceOriginMs
  else if (originMs + sinceOriginMs >= wallMs + 1) originMs = wallMs + 0.999 - sinceOriginMs
  return BigInt(Math.round((originMs + sinceOriginMs) * 1000)) * 1000n
}
