/**
 * The way of telemetry, from a line of the log to the host:
 *
 *   log lines ──► fresh ──interval──► outgoing ──► payloads ──► host
 *                              └─ full ─► files ──5 intervals──┘
 *   status, every 15 minutes ────────────► outgoing     (full ─► files ──interval──┘)
 *   files of an earlier run, and of other components ──► outgoing
 *
 * All of it is bounded, and none of it is waited for. What has not been sent at the end is in files.
 */

import type { Clock } from '../base/clock.ts'
import type { Log } from '../base/log.ts'
import { createStatusEvent, type Writer } from '../telemetry/event.ts'
import type { EventCounts } from '../telemetry/event-counts.ts'
import { EventQueue } from '../telemetry/event-queue.ts'
import { byLabel, type Metric } from '../telemetry/metrics.ts'
import type { StatusBoard } from '../telemetry/status.ts'
import type { EventFolder } from './event-folder.ts'
import { createTelemetrySender, type PostTelemetry } from './telemetry-sender.ts'
import type { VmMetadata } from './vm-metadata.ts'

export interface Telemetry {
  /** Works until `signal` is aborted. Never rejects. */
  run(signal: AbortSignal): Promise<void>
  /** Writes what has not been sent to files; for the end. Never rejects. */
  save(): Promise<void>
  state(): TelemetryState
  metrics(): Metric[]
}

/** Telemetry in numbers of events, since the start. */
export interface TelemetryState {
  readonly sent: number
  /** In memory, at this moment. */
  readonly waiting: number
  readonly lost: number
}

export interface TelemetryOptions {
  /** Where the sinks of the logs put events. */
  readonly fresh: EventQueue
  readonly folder: EventFolder
  readonly metadata: VmMetadata
  readonly post: PostTelemetry
  readonly counts: EventCounts
  readonly board: StatusBoard
  readonly writer: Writer
  readonly clock: Clock
  /** Its lines must not become telemetry. */
  readonly log: Log
  /** Between two looks at the fresh events, and before the first. */
  readonly intervalMs: number
}

/** Intervals between two looks at the files of log events. */
const INTERVALS_PER_LOOK = 5

const STATUS_INTERVAL_MS = 15 * 60 * 1000

/** Puts the parts together; nothing happens before `run`. */
export function createTelemetry(options: TelemetryOptions): Telemetry {
  const { fresh, folder, counts, board, writer, clock, log, intervalMs } = options
  const outgoing = new EventQueue()
  const sender = createTelemetrySender({ ...options, queue: outgoing, random: Math.random })

  /** Moves fresh events on, to files where there is no room. What the disk does not take stays fresh. */
  const drain = async () => {
    const events = fresh.take()
    const overflow = events.filter((event) => !outgoing.push(event))
    if (outgoing.size > 0) sender.notify()
    if (overflow.length > 0) fresh.restore(await folder.save(overflow))
  }
  const collect = async (kind: 'log' | 'status') => {
    if ((await folder.collect(kind, outgoing)) > 0) sender.notify()
  }
  const tellStatus = async (durationMs: number) => {
    const { proxyAgentStatus } = board.document()
    const message = JSON.stringify(proxyAgentStatus)
    const isSuccess = proxyAgentStatus.status === 'SUCCESS'
    const event = createStatusEvent(writer, isSuccess, message, clock.nowMs(), durationMs)
    if (outgoing.push(event)) return sender.notify()
    const lost = await folder.save([event])
    counts.dropped('not_written', lost.length)
  }
  /** Runs `work` again and again; its first turn comes after `firstMs`. */
  const every = async (
    firstMs: number,
    periodMs: number,
    signal: AbortSignal,
    work: (passedMs: number) => Promise<void>,
  ) => {
    let lastMs = clock.monotonicMs()
    for (let waitMs = firstMs; ; waitMs = periodMs) {
      await clock.sleep(waitMs, signal)
      if (signal.aborted) return
      const nowMs = clock.monotonicMs()
      await work(nowMs - lastMs)
      lastMs = nowMs
    }
  }

  return {
    async run(signal) {
      board.setState('telemetryLogger', 'RUNNING')
      board.setMessage('telemetryLogger', 'Telemetry event logger thread started.')
      await folder.prepare()
      await Promise.all([
        every(intervalMs, intervalMs, signal, drain),
        every(intervalMs, intervalMs, signal, () => collect('status')),
        every(intervalMs, INTERVALS_PER_LOOK * intervalMs, signal, () => collect('log')),
        every(STATUS_INTERVAL_MS, STATUS_INTERVAL_MS, signal, tellStatus),
        sender.run(signal),
      ])
      board.setState('telemetryLogger', 'STOPPED')
    },
    async save() {
      const lost = await folder.save([...outgoing.take(), ...fresh.take()])
      if (lost.length > 0) counts.dropped('not_written', lost.length)
      if (lost.length > 0) log.warn(`${lost.length} telemetry events are lost: the disk did not take them`)
    },
    state: () => ({ ...counts.totals(), waiting: fresh.size + outgoing.size }),
    metrics: () => [
      byLabel(
        'gauge',
        'azure_proxy_agent_telemetry_events_queued',
        'Telemetry events in memory: fresh ones, and those on their way to the host.',
        'queue',
        { fresh: fresh.size, outgoing: outgoing.size },
      ),
      ...counts.metrics(),
    ],
  }
}
