/** A log that remembers what it was told, redaction and all left out. */

import type { Level, Log } from '../../src/base/log.ts'

export interface FakeLog extends Log {
  /** `Level message`, in the order of telling. */
  readonly lines: string[]
}

export function createFakeLog(): FakeLog {
  const lines: string[] = []
  const write = (level: Level, message: string) => {
    lines.push(`${level} ${message}`)
  }
  return {
    lines,
    isEnabled: () => true,
    write,
    error: (message) => write('Error', message),
    warn: (message) => write('Warn', message),
    info: (message) => write('Info', message),
    debug: (message) => write('Debug', message),
    trace: (message) => write('Trace', message),
  }
}
