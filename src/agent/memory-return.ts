/**
 * Gives memory back to the machine when a busy time is over.
 *
 * Left alone, V8 keeps the pages of a burst until its next full collection, which an idle agent does not reach for hours,
 * malloc keeps what was freed in between, and code that only the start needed stays in memory. The collection stops the agent for some tens of milliseconds, so it waits for quiet.
 */

import type { Clock } from '../base/clock.ts'

/** What is called of this process. */
export interface MemoryReturnEnv {
  /** CPU time of this process so far. */
  cpuMs(): number
  /** Collects garbage, and hands the kernel free memory and code that is not in use. Must not throw. */
  giveBack(): void
}

const CHECK_INTERVAL_MS = 10_000

/** CPU time in an interval below which it was quiet: half a percent, some times what polling the host takes. */
const QUIET_CPU_MS = 50

/** CPU time since the last return from which on there is something to give back. */
const BUSY_CPU_MS = 1000

/** Runs until `signal` is aborted: gives memory back in the first quiet interval after the start, and after each busy time. */
export async function keepGivingBack(env: MemoryReturnEnv, clock: Clock, signal: AbortSignal): Promise<void> {
  let givenBackAtMs = Number.NEGATIVE_INFINITY
  let lastMs = env.cpuMs()
  while (!signal.aborted) {
    await clock.sleep(CHECK_INTERVAL_MS, signal)
    const nowMs = env.cpuMs()
    if (!signal.aborted && nowMs - lastMs < QUIET_CPU_MS && nowMs - givenBackAtMs >= BUSY_CPU_MS) {
      env.giveBack()
      givenBackAtMs = lastMs = env.cpuMs()
    } else lastMs = nowMs
  }
}
