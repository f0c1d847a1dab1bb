/**
 * One logger for all parts: a message, its level, and the sinks that want it.
 *
 * A sink never throws and never blocks: losing a line is better than losing a request. Every message is redacted and
 * freed of control characters here, once, so that no caller can forge a line and no part has to remember to.
 */

import { redactSecrets } from './redact.ts'
import { cutUtf8, escapeControls } from './text.ts'

/** From most to least severe. */
export const LEVELS = ['Error', 'Warn', 'Info', 'Debug', 'Trace'] as const
export type Level = (typeof LEVELS)[number]

/** What a line is about, for sinks that sort by it: telemetry does, files do not. */
export interface LogOrigin {
  readonly task: string
  readonly operation: string
}

/** Where lines go. `threshold` is the least severe level it wants. */
export interface LogSink {
  readonly threshold: Level
  write(level: Level, message: string, epochMs: number, origin?: LogOrigin): void
}

export interface Log {
  /** Reports whether any sink wants `level`, so that hot paths build no text for nobody. */
  isEnabled(level: Level): boolean
  write(level: Level, message: string, origin?: LogOrigin): void
  error(message: string): void
  warn(message: string): void
  info(message: string): void
  debug(message: string): void
  trace(message: string): void
}

/** Longest message in bytes; one request head plus four arguments fit. */
export const MAX_LINE_BYTES = 16 * 1024

/** Makes a logger that fans out to `sinks`. `nowMs` gives the wall clock. */
export function createLog(sinks: readonly LogSink[], nowMs: () => number): Log {
  const ranks = sinks.map((sink) => LEVELS.indexOf(sink.threshold))
  const widest = Math.max(-1, ...ranks)
  const write = (level: Level, message: string, origin?: LogOrigin) => {
    const rank = LEVELS.indexOf(level)
    if (rank > widest) return
    const safe = toSafeLine(message)
    const epochMs = nowMs()
    for (let i = 0; i < sinks.length; i++) {
      if (rank <= (ranks[i] as number)) (sinks[i] as LogSink).write(level, safe, epochMs, origin)
    }
  }
  return {
    isEnabled: (level) => LEVELS.indexOf(level) <= widest,
    write,
    error: (message) => write('Error', message),
    warn: (message) => write('Warn', message),
    info: (message) => write('Info', message),
    debug: (message) => write('Debug', message),
    trace: (message) => write('Trace', message),
  }
}

/** Makes one line of `message` that holds no secret, no control character and not too much. */
export function toSafeLine(message: string): string {
  // Cut last: half a secret no longer looks like one.
  return cutUtf8(escapeControls(redactSecrets(message)), MAX_LINE_BYTES, '...')
}

/** Tells whether a sink with `threshold` wants `level`. */
export function isWanted(level: Level, threshold: Level): boolean {
  return LEVELS.indexOf(level) <= LEVELS.indexOf(threshold)
}

/** Reads a level name, ignoring case. @returns `undefined` for anything that is not one of `LEVELS`. */
export function parseLevel(text: string): Level | undefined {
  const lower = text.toLowerCase()
  return LEVELS.find((level) => level.toLowerCase() === lower)
}
