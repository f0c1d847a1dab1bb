/** The host's time: signatures carry it, because the guest's own clock may be wrong. */

import type { Clock } from '../base/clock.ts'
import { httpDate, parseHttpDate } from '../base/dates.ts'

/** Differences below this are the delay of the answer, not news. */
const SAME_CLOCK_MS = 2000

/** A step of the host's clock is believed at once below this, and only when two answers agree above it. */
const ABSURD_STEP_MS = 24 * 60 * 60 * 1000

export interface HostClock {
  /** Host time in epoch milliseconds; the guest's own before the first `sync`. */
  nowMs(): number
  /** `nowMs` in the form of the date header. Made once a second at most. */
  httpDate(): string
  /**
   * Takes the date of an answer: `x-ms-azure-host-date`, or `Date` when that is missing or unreadable.
   * A jump of more than a day counts only when the next answer says the same.
   */
  sync(hostDate: string | undefined, date: string | undefined): void
  /** Tells whether any answer gave a readable date so far. */
  readonly isSynced: boolean
}

/** Makes a clock that advances with `clock.monotonicMs`, which counts time spent suspended. */
export function createHostClock(clock: Clock): HostClock {
  let base: { hostMs: number; monotonicMs: number } | undefined
  let doubted: { hostMs: number; monotonicMs: number } | undefined
  let cachedSecond = Number.NaN
  let cachedText = ''

  const at = (point: { hostMs: number; monotonicMs: number }) => point.hostMs + clock.monotonicMs() - point.monotonicMs
  const nowMs = () => (base === undefined ? clock.nowMs() : at(base))
  return {
    nowMs,
    httpDate() {
      const second = Math.floor(nowMs() / 1000)
      if (second !== cachedSecond) {
        cachedSecond = second
        cachedText = httpDate(second * 1000)
      }
      return cachedText
    },
    sync(hostDate, date) {
      const hostMs = readDate(hostDate) ?? readDate(date)
      if (hostMs === undefined) return
      const point = { hostMs, monotonicMs: clock.monotonicMs() }
      if (base !== undefined) {
        const stepMs = Math.abs(hostMs - at(base))
        if (stepMs < SAME_CLOCK_MS) {
          doubted = undefined
          return
        }
        if (stepMs > ABSURD_STEP_MS && (doubted === undefined || Math.abs(hostMs - at(doubted)) > SAME_CLOCK_MS)) {
          doubted = point
          return
        }
      }
      base = point
      doubted = undefined
    },
    get isSynced() {
      return base !== undefined
    },
  }
}

function readDate(text: string | undefined): number | undefined {
  return text === undefined ? undefined : parseHttpDate(text.trim())
}
