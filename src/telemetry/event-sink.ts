/**
 * Turns lines of the log into telemetry events: the sink beside the files and the journal.
 *
 * The same line becomes an event at most once in 15 minutes, with the number of times it came since: a part that fails
 * with every poll is one event, not one for each poll. The number of different lines of one operation is bounded, too.
 */

import type { Level, Log, LogOrigin, LogSink } from '../base/log.ts'
import { cutUtf8 } from '../base/text.ts'
import { createLogEvent, type Writer } from './event.ts'
import type { EventCounts } from './event-counts.ts'
import type { EventQueue } from './event-queue.ts'
import { createToldLately } from './told-lately.ts'

export interface EventSinkOptions {
  readonly threshold: Level
  readonly writer: Writer
  readonly monotonicMs: () => number
  readonly queue: EventQueue
  readonly counts: EventCounts
  /** A log whose lines do not come here. */
  readonly log: Log
}

/** What a line is about that does not say it. */
const COMMON: LogOrigin = { task: 'CommonLogger', operation: 'ProxyAgent' }

/** A start says some forty different lines; a caller who makes us say hundreds has said enough for 15 minutes. */
const TOLD_LATELY = { intervalMs: 15 * 60 * 1000, maxTextsPerGroup: 500, maxGroups: 20 }

/** Lines that are the same so far count as the same. */
const MAX_KIND_BYTES = 512

/** Makes the sink. */
export function createEventSink({ threshold, writer, monotonicMs, queue, counts, log }: EventSinkOptions): LogSink {
  const toldLately = createToldLately(monotonicMs, TOLD_LATELY)
  let isFull = false
  return {
    threshold,
    write(level, message, epochMs, origin = COMMON) {
      const untold = toldLately.ask(origin.operation, `${origin.task} ${cutUtf8(message, MAX_KIND_BYTES)}`)
      if (untold === undefined) return counts.dropped('repeated')
      const text = untold === 0 ? message : `${message} (${untold} more since the last of these lines)`
      if (queue.push(createLogEvent(writer, level, text, epochMs, origin))) {
        isFull = false
        return
      }
      counts.dropped('queue_full')
      if (!isFull) log.warn(`Telemetry events are dropped: ${queue.capacity} wait already`)
      isFull = true
    },
  }
}
