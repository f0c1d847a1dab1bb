/** Opens the logs of a run: agent log, connection log, system log, and the events that lines become. */

import { join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { createLog, type Log, type LogSink, toSafeLine } from '../base/log.ts'
import { createRollingFile, type RollingFile } from '../base/rolling-file.ts'
import { createSystemLog } from '../base/system-log.ts'
import type { Config } from '../config/config.ts'
import { type ConnectionLog, createConnectionLog } from '../telemetry/connection-log.ts'
import type { Writer } from '../telemetry/event.ts'
import { createEventCounts, type EventCounts } from '../telemetry/event-counts.ts'
import { EventQueue } from '../telemetry/event-queue.ts'
import { createEventSink } from '../telemetry/event-sink.ts'
import { limitRepeats } from './repeats.ts'

export interface Logs {
  readonly agent: Log
  readonly connection: ConnectionLog
  /** The agent log without telemetry: for those whose lines would become what they are about. */
  readonly quiet: Log
  /** Lines that became telemetry events. */
  readonly events: EventQueue
  readonly eventCounts: EventCounts
  /** Tells standard error alone what the files cannot tell of themselves. */
  tellSystem(message: string): void
  /** Entries lost so far, of each log. */
  dropped(): Readonly<Record<'agent' | 'connection' | 'system', number>>
  /** Writes what is buffered, waiting at most `timeoutMs` for a slow disk or reader, and closes the files. */
  close(timeoutMs: number): Promise<void>
  /** Writes what is buffered, synchronously and however long that takes, when the process must end now. */
  flushSync(): void
}

/** Makes the logs that `config` asks for. Files are opened with their first line. */
export function openLogs(config: Config, writer: Writer, clock: Clock): Logs {
  const system = createSystemLog(config.systemLogLevel)
  const tellSystem = (message: string) => system.write('Error', toSafeLine(message), clock.nowMs())
  const file = (name: string): RollingFile | undefined =>
    config.logFolder === ''
      ? undefined
      : createRollingFile({
          path: join(config.logFolder, name),
          threshold: config.fileLogLevel,
          onLoss: (reason) => tellSystem(`Error writing to log: ${reason}`),
        })
  const agentFile = file('ProxyAgent.log')
  const connectionFile = file('ProxyAgent.Connection.log')
  const files = [agentFile, connectionFile].filter((each) => each !== undefined)
  const sinks = (agentFile ? [system, agentFile] : [system]).map(
    (sink): LogSink => limitRepeats(sink, clock.monotonicMs),
  )
  const quiet = createLog(sinks, clock.nowMs)
  const events = new EventQueue()
  const eventCounts = createEventCounts()
  const threshold = config.eventLogLevel
  const eventSink =
    threshold &&
    createEventSink({
      threshold,
      writer,
      monotonicMs: clock.monotonicMs,
      queue: events,
      counts: eventCounts,
      log: quiet,
    })
  return {
    agent: eventSink ? createLog([...sinks, eventSink], clock.nowMs) : quiet,
    connection: createConnectionLog({
      file: connectionFile,
      systemLog: system,
      nowMs: clock.nowMs,
      events: eventSink,
      traceClock: config.enableHttpProxyTrace ? () => performance.now() : undefined,
    }),
    quiet,
    events,
    eventCounts,
    tellSystem,
    dropped: () => ({
      agent: agentFile?.dropped ?? 0,
      connection: connectionFile?.dropped ?? 0,
      system: system.dropped,
    }),
    async close(timeoutMs) {
      const closing = [...files.map((each) => each.close()), system.flush()]
      await Promise.race([Promise.all(closing), clock.sleep(timeoutMs)])
    },
    flushSync() {
      for (const each of files) each.flushSync()
      system.flushSync()
    },
  }
}
