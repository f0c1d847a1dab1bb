/** Keeps a line that comes again and again from washing out of the log what came before it. */

import type { Level, LogSink } from '../base/log.ts'
import { cutUtf8 } from '../base/text.ts'

const WINDOW_MS = 60_000

/** How often the same line is written within a window. */
const MAX_REPEATS = 20

/** Lines that are the same so far count as the same, and so many are told apart; what comes beyond is written. */
const MAX_KIND_BYTES = 512
const MAX_KINDS = 200

/**
 * Hands lines on to `sink`, the same one at most 20 times a minute. With the first line after that minute comes how often
 * it was left out.
 * @param monotonicMs a clock that does not jump
 */
export function limitRepeats(sink: LogSink, monotonicMs: () => number): LogSink {
  let startedAtMs = Number.NEGATIVE_INFINITY
  let kinds = new Map<string, { readonly level: Level; count: number }>()

  const startWindow = (nowMs: number, epochMs: number) => {
    const ended = kinds
    startedAtMs = nowMs
    kinds = new Map()
    for (const [kind, { level, count }] of ended) {
      if (count > MAX_REPEATS)
        sink.write(level, `${count - MAX_REPEATS} more of this line were left out: ${kind}`, epochMs)
    }
  }
  const count = (level: Level, message: string) => {
    const kind = cutUtf8(message, MAX_KIND_BYTES)
    const known = kinds.get(kind)
    if (known !== undefined) return ++known.count
    if (kinds.size < MAX_KINDS) kinds.set(kind, { level, count: 1 })
    return 1
  }
  return {
    threshold: sink.threshold,
    write(level, message, epochMs, origin) {
      const nowMs = monotonicMs()
      if (nowMs - startedAtMs >= WINDOW_MS) startWindow(nowMs, epochMs)
      if (count(level, message) <= MAX_REPEATS) sink.write(level, message, epochMs, origin)
    },
  }
}
