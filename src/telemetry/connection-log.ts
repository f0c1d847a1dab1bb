/**
 * The connection log: lines of one request are kept together and written when the request ends.
 *
 * Each line also goes to the system log and to telemetry at once. A request of which nothing was said at the file's level
 * costs nothing and leaves nothing. While requests are traced, every line of a request also goes into one entry of the
 * system log.
 */

import { isoMs } from '../base/dates.ts'
import { isWanted, type Level, type LogOrigin, type LogSink, toSafeLine } from '../base/log.ts'
import { formatLogLine, type RollingFile } from '../base/rolling-file.ts'
import type { RequestFacts } from './request-facts.ts'

export interface ConnectionLog {
  /** Tells whether anybody wants lines of `level`. */
  isEnabled(level: Level): boolean
  /** Adds a line about `request`; its id is 0 for lines about the connection. */
  write(request: RequestFacts, level: Level, message: string, origin?: LogOrigin): void
  /** Writes the lines of `request` to the file. */
  end(request: RequestFacts): void
}

const LAST_LINE = '------------------------ ConnectionLogger is dropped ------------------------'

/** Lines kept for one request; a request says fewer than twenty. */
const MAX_LINES = 100

/** What a line is about that does not say it, in telemetry. */
const COMMON: LogOrigin = { task: 'ConnectionLogger', operation: 'proxy_server' }

export interface ConnectionLogExtras {
  /** Takes lines for telemetry, without the numbers in front. */
  readonly events?: LogSink | undefined
  /** Traces requests. The clock of `RequestFacts.startedAtMs`. */
  readonly traceClock?: (() => number) | undefined
}

/** Makes the log. @param file `undefined`: no file is kept. */
export function createConnectionLog(
  file: RollingFile | undefined,
  systemLog: LogSink,
  nowMs: () => number,
  { events, traceClock }: ConnectionLogExtras = {},
): ConnectionLog {
  const groups = new WeakMap<RequestFacts, string[]>()
  const traces = new WeakMap<RequestFacts, string[]>()
  const isForFile = (level: Level) => file !== undefined && isWanted(level, file.threshold)
  const isForSystem = (level: Level) => isWanted(level, systemLog.threshold)
  const isForEvents = (level: Level) => events !== undefined && isWanted(level, events.threshold)
  const isTraced = traceClock !== undefined && isForSystem('Warn')
  const isEnabled = (level: Level) => isTraced || isForFile(level) || isForSystem(level) || isForEvents(level)
  const add = (to: WeakMap<RequestFacts, string[]>, request: RequestFacts, line: string) => {
    let lines = to.get(request)
    if (lines === undefined) {
      lines = []
      to.set(request, lines)
    }
    if (lines.length < MAX_LINES) lines.push(line)
  }
  const trace = (request: RequestFacts, message: string, epochMs: number, clock: () => number) => {
    const elapsedMs = Math.max(0, Math.round(clock() - request.startedAtMs))
    add(traces, request, `[${request.id}] - ${elapsedMs} - ${isoMs(epochMs)} - ${message}`)
  }
  return {
    isEnabled,
    write(request, level, message, origin = COMMON) {
      if (!isEnabled(level)) return
      const safe = toSafeLine(message)
      const epochMs = nowMs()
      if (isForSystem(level)) systemLog.write(level, prefix(request) + safe, epochMs)
      if (isForEvents(level)) events?.write(level, safe, epochMs, origin)
      if (isForFile(level)) add(groups, request, formatLogLine(level, prefix(request) + safe, epochMs))
      if (isTraced && request.id !== 0) trace(request, safe, epochMs, traceClock)
    },
    end(request) {
      const traced = traces.get(request)
      traces.delete(request)
      if (traced !== undefined) systemLog.write('Warn', traced.join('\n'), nowMs())
      const lines = groups.get(request)
      if (lines === undefined) return
      if (isForFile('Info')) lines.push(formatLogLine('Info', prefix(request) + LAST_LINE, nowMs()))
      groups.delete(request)
      file?.append(lines.join(''))
    },
  }
}

function prefix({ id, connection }: RequestFacts): string {
  return `${id}[${connection.id}] - `
}
