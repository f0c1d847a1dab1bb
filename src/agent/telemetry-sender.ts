/**
 * Hands telemetry to the host: one payload at a time, each over a connection of its own, slowly enough for the host and
 * in pieces short enough for everybody else.
 */

import type { Clock } from '../base/clock.ts'
import { parseHttpDate } from '../base/dates.ts'
import { describeError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import type { TelemetryEvent } from '../telemetry/event.ts'
import type { EventCounts } from '../telemetry/event-counts.ts'
import type { EventQueue } from '../telemetry/event-queue.ts'
import { createPayload, MAX_PAYLOAD_BYTES, type Payload, renderEvent } from '../telemetry/payload.ts'
import { createTurns } from './turns.ts'
import type { VmMetadata } from './vm-metadata.ts'

/** Posts one payload. @returns the status and the value of Retry-After @throws when there is no answer */
export type PostTelemetry = (
  xml: string,
  signal: AbortSignal,
) => Promise<{ readonly status: number; readonly retryAfter: string | undefined }>

export interface TelemetrySender {
  /** There is something to send. */
  notify(): void
  /** Sends until `signal` is aborted; what is not sent then is in the queue. Never rejects. */
  run(signal: AbortSignal): Promise<void>
}

export interface TelemetrySenderOptions {
  readonly queue: EventQueue
  readonly metadata: VmMetadata
  readonly post: PostTelemetry
  readonly counts: EventCounts
  readonly clock: Clock
  /** Its lines must not become telemetry. */
  readonly log: Log
  /** Between 0 and 1, for pauses that are not the same on all machines. */
  readonly random: () => number
}

/** With the pauses below two to four minutes for one payload at most. */
const MAX_ATTEMPTS = 5
const FIRST_PAUSE_MS = 10_000
const MAX_PAUSE_MS = 80_000

/** Longest pause that the host can ask for. */
const MAX_RETRY_AFTER_MS = 5 * 60 * 1000

/** The host takes some 15 posts in 15 s from all agents of the machine. */
const PAUSE_BETWEEN_MS = 2000

interface Batch {
  readonly events: readonly TelemetryEvent[]
  readonly xml: string
}

/** Makes the sender; nothing is sent before it is told to run and notified. */
export function createTelemetrySender(options: TelemetrySenderOptions): TelemetrySender {
  const { queue, metadata, post, counts, clock, log, random } = options
  const turn = createTurns()
  let notified = Promise.withResolvers<void>()
  let lastFailure = ''

  /** Takes as many events as fit, for the machine as it is known now. */
  const fill = async (signal: AbortSignal): Promise<Batch | undefined> => {
    const vm = await metadata.current(signal)
    if (vm === undefined) return undefined
    const payload: Payload = createPayload()
    const events: TelemetryEvent[] = []
    for (let event = queue.first(); event !== undefined; event = queue.first()) {
      const rendered = renderEvent(event, vm)
      if (payload.add(rendered)) events.push(event)
      else if (events.length > 0) break
      else {
        counts.dropped('too_large')
        log.warn(
          `A telemetry event of ${rendered.sizeBytes} bytes is dropped: ${MAX_PAYLOAD_BYTES} bytes is all that can be sent`,
        )
      }
      queue.take(1)
      await turn()
    }
    return { events, xml: payload.render() }
  }

  /** Makes one attempt. @returns how it ended, and for how long the host wants to be left alone */
  const attempt = async (xml: string, signal: AbortSignal) => {
    let complaint: string
    let waitMs = 0
    try {
      const { status, retryAfter } = await post(xml, signal)
      if (status >= 200 && status <= 299) return { result: 'accepted', waitMs } as const
      complaint = `the host answered ${status}`
      if (status >= 400 && status <= 499 && status !== 408 && status !== 429)
        return { result: 'refused', complaint, waitMs } as const
      waitMs = readRetryAfter(retryAfter, clock.nowMs())
    } catch (error) {
      complaint = describeError(error)
    }
    return { result: 'failed', complaint, waitMs } as const
  }

  /** Posts `batch` until the host has taken it, will not have it, or time is up. */
  const deliver = async ({ events, xml }: Batch, signal: AbortSignal) => {
    for (let attempts = 1, pauseMs = FIRST_PAUSE_MS; !signal.aborted; attempts++) {
      const { result, complaint, waitMs } = await attempt(xml, signal)
      if (result === 'failed' && signal.aborted) break
      counts.posted(result)
      if (result === 'accepted') {
        counts.sent(events.length)
        if (lastFailure !== '') log.info(`Telemetry is taken again after: ${lastFailure}`)
        lastFailure = ''
        return
      }
      if (complaint !== lastFailure) log.warn(`Failed to send telemetry: ${complaint}`)
      lastFailure = complaint as string
      if (result === 'refused' || attempts === MAX_ATTEMPTS) {
        counts.dropped(result === 'refused' ? 'refused' : 'not_taken', events.length)
        log.warn(`${events.length} telemetry events are dropped after ${attempts} attempt(s): ${complaint}`)
        log.trace(xml)
        // The host may have refused it for what it says about the machine.
        if (result === 'refused') metadata.expire()
        return
      }
      await clock.sleep(Math.max(waitMs, pauseMs * (0.5 + random() / 2)), signal)
      pauseMs = Math.min(pauseMs * 2, MAX_PAUSE_MS)
    }
    queue.restore(events)
  }

  return {
    notify: () => notified.resolve(),
    async run(signal) {
      signal.addEventListener('abort', () => notified.resolve(), { once: true })
      while (!signal.aborted) {
        await notified.promise
        notified = Promise.withResolvers()
        while (queue.size > 0 && !signal.aborted) {
          const batch = await fill(signal)
          if (batch === undefined) break
          if (batch.events.length === 0) continue
          await deliver(batch, signal)
          if (queue.size > 0) await clock.sleep(PAUSE_BETWEEN_MS, signal)
        }
      }
    },
  }
}

/** Reads how long to wait: seconds, or a date. Source: RFC 9110 section 10.2.3. */
function readRetryAfter(value: string | undefined, nowMs: number): number {
  const text = value ?? ''
  const waitMs = /^\d{1,9}$/.test(text) ? Number(text) * 1000 : (parseHttpDate(text) ?? nowMs) - nowMs
  return Math.min(Math.max(0, waitMs), MAX_RETRY_AFTER_MS)
}
