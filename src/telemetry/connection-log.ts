/**
 * The connection log: lines of one request are kept together and written when the request ends.
 *
 * Each line also goes to the system log and to telemetry at once. A request of which nothing was said at the file's level
 * costs nothing and leaves nothing. While requests are traced, every line of a request also goes into one entry of the
 * system log.
 */

import { isoMs } from '../base/dates.ts'
import { isWanted, type Level, type LogOrigin, type LogSink, MAX_LINE_BYTES, toSafeLine } from '../base/log.ts'
import { formatLogLine, type RollingFile } from '../base/rolling-file.ts'
import { boundedJson, type FlatRecord } from './bounded-json.ts'
import { MAX_MESSAGE_BYTES } from './event.ts'
import type { RequestFacts } from './request-facts.ts'

export interface ConnectionLog {
  /** Tells whether anybody wants lines of `level`. */
  isEnabled(level: Level): boolean
  /** Adds a line about `request`; its id is 0 for lines about the connection. */
  write(request: RequestFacts, level: Level, message: string): void
  /** The same for a message of our own words, numbers and guids, in which there is nothing to hide. */
  writeOwn(request: RequestFacts, level: Level, message: string): void
  /** Writes a summary record as JSON, at once: it stands alone, without the ids of a request. */
  record(summary: FlatRecord): void
  /** Writes the lines of `request` to the file. */
  end(request: RequestFacts): void
}

export interface ConnectionLogOptions {
  /** `undefined`: no file is kept. */
  readonly file: RollingFile | undefined
  readonly systemLog: LogSink
  readonly nowMs: () => number
  /** Takes lines for telemetry, without the numbers in front. */
  readonly events?: LogSink | undefined
  /** Traces requests. The clock of `RequestFacts.startedAtMs`. */
  readonly traceClock?: (() => number) | undefined
}

const LAST_LINE = '------------------------ ConnectionLogger is dropped ------------------------'

/** Lines kept for one request; a request says fewer than twenty. */
const MAX_LINES = 100

/** Messages remembered with what was made of them, and the longest of these. */
const MAX_KNOWN = 256
const MAX_KNOWN_LENGTH = 2048

/** What a line is about that does not say it, in telemetry; and a record. */
const COMMON: LogOrigin = { task: 'ConnectionLogger', operation: 'proxy_server' }
const RECORD: LogOrigin = { task: 'log_connection_summary', operation: 'proxy_server' }

/** What was said of one request so far. */
interface Group {
  text: string
  lines: number
  /** For the record of the system log. */
  readonly trace: string[]
}

/** Makes the log. */
export function createConnectionLog(options: ConnectionLogOptions): ConnectionLog {
  const { file, systemLog, nowMs, events, traceClock } = options
  const groups = new WeakMap<RequestFacts, Group>()
  const isForFile = (level: Level) => file !== undefined && isWanted(level, file.threshold)
  const isForSystem = (level: Level) => isWanted(level, systemLog.threshold)
  const isForEvents = (level: Level) => events !== undefined && isWanted(level, events.threshold)
  const isTraced = traceClock !== undefined && isForSystem('Warn')
  const isEnabled = (level: Level) => isTraced || isForFile(level) || isForSystem(level) || isForEvents(level)

  /** Claims, decisions and requests are mostly those of a moment ago: to look for secrets costs more than all the rest. */
  const known = new Map<string, string>()
  const toSafe = (message: string) => {
    if (message.length > MAX_KNOWN_LENGTH) return toSafeLine(message)
    const before = known.get(message)
    if (before !== undefined) return before
    const safe = toSafeLine(message)
    if (known.size >= MAX_KNOWN) known.clear()
    known.set(message, safe)
    return safe
  }
  const groupOf = (request: RequestFacts) => {
    const present = groups.get(request)
    if (present !== undefined) return present
    const group: Group = { text: '', lines: 0, trace: [] }
    groups.set(request, group)
    return group
  }
  const add = (request: RequestFacts, level: Level, safe: string) => {
    const epochMs = nowMs()
    const line = prefix(request) + safe
    if (isForSystem(level)) systemLog.write(level, line, epochMs)
    if (isForEvents(level)) events?.write(level, safe, epochMs, COMMON)
    if (isForFile(level)) {
      const group = groupOf(request)
      if (group.lines++ < MAX_LINES) group.text += formatLogLine(level, line, epochMs)
    }
    if (isTraced && request.id !== 0) {
      const { trace } = groupOf(request)
      const sinceMs = Math.max(0, Math.round(traceClock() - request.startedAtMs))
      if (trace.length < MAX_LINES) trace.push(`[${request.id}] - ${sinceMs} - ${isoMs(epochMs)} - ${safe}`)
    }
  }
  return {
    isEnabled,
    write(request, level, message) {
      if (isEnabled(level)) add(request, level, toSafe(message))
    },
    writeOwn(request, level, message) {
      if (isEnabled(level)) add(request, level, message)
    },
    record(summary) {
      const epochMs = nowMs()
      if (isForEvents('Info')) events?.write('Info', boundedJson(summary, MAX_MESSAGE_BYTES), epochMs, RECORD)
      if (!isForFile('Info') && !isForSystem('Info')) return
      const line = boundedJson(summary, MAX_LINE_BYTES)
      if (isForSystem('Info')) systemLog.write('Info', line, epochMs)
      if (isForFile('Info')) file?.write('Info', line, epochMs)
    },
    end(request) {
      const group = groups.get(request)
      if (group === undefined) return
      groups.delete(request)
      const { text, trace } = group
      const epochMs = nowMs()
      if (trace.length > 0) systemLog.write('Warn', trace.join('\n'), epochMs)
      if (text === '') return
      file?.append(isForFile('Info') ? text + formatLogLine('Info', prefix(request) + LAST_LINE, epochMs) : text)
    },
  }
}

function prefix({ id, connection }: RequestFacts): string {
  return `${id}[${connection.id}] - `
}
