/**
 * The connection log: lines of one request are kept together and written when the request ends.
 *
 * Each line also goes to the system log at once. A request of which nothing was said at the file's level costs nothing
 * and leaves nothing.
 */

import { isWanted, type Level, type LogSink, toSafeLine } from '../base/log.ts'
import { formatLogLine, type RollingFile } from '../base/rolling-file.ts'
import type { RequestFacts } from './request-facts.ts'

export interface ConnectionLog {
  /** Tells whether anybody wants lines of `level`. */
  isEnabled(level: Level): boolean
  /** Adds a line about `request`; its id is 0 for lines about the connection. */
  write(request: RequestFacts, level: Level, message: string): void
  /** Writes the lines of `request` to the file. */
  end(request: RequestFacts): void
}

const LAST_LINE = '------------------------ ConnectionLogger is dropped ------------------------'

/** Lines kept for one request; a request says fewer than twenty. */
const MAX_LINES = 100

/** Makes the log. @param file `undefined`: no file is kept. */
export function createConnectionLog(
  file: RollingFile | undefined,
  systemLog: LogSink,
  nowMs: () => number,
): ConnectionLog {
  const groups = new WeakMap<RequestFacts, string[]>()
  const isForFile = (level: Level) => file !== undefined && isWanted(level, file.threshold)
  const isForSystem = (level: Level) => isWanted(level, systemLog.threshold)
  const add = (request: RequestFacts, level: Level, message: string, epochMs: number) => {
    let lines = groups.get(request)
    if (lines === undefined) {
      lines = []
      groups.set(request, lines)
    }
    if (lines.length < MAX_LINES) lines.push(formatLogLine(level, prefix(request) + message, epochMs))
  }
  return {
    isEnabled: (level) => isForFile(level) || isForSystem(level),
    write(request, level, message) {
      if (!isForFile(level) && !isForSystem(level)) return
      const safe = toSafeLine(message)
      const epochMs = nowMs()
      if (isForSystem(level)) systemLog.write(level, prefix(request) + safe, epochMs)
      if (isForFile(level)) add(request, level, safe, epochMs)
    },
    end(request) {
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
