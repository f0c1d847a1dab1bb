/** Writes the status document for those who read it from disk. */

import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { describeError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { replaceFile } from '../base/private-file.ts'
import { renderStatus, type StatusBoard } from '../telemetry/status.ts'
import { inTurns } from './turns.ts'

export interface StatusWriter {
  /** Writes now and then every `intervalMs`, until `signal` is aborted. */
  run(signal: AbortSignal): Promise<void>
  /** Writes once more. Never rejects. */
  write(): Promise<void>
}

/** Makes the writer of `<directory>/status.json`. */
export function createStatusWriter(
  directory: string,
  board: StatusBoard,
  clock: Clock,
  log: Log,
  intervalMs: number,
): StatusWriter {
  const path = join(directory, 'status.json')
  let lastFailure = ''
  const write = async () => {
    try {
      await mkdir(directory, { recursive: true, mode: 0o750 })
      await replaceFile(path, inTurns(renderStatus(board.document())), {
        mode: 0o640,
        temporaryPath: join(directory, 'status.tmp'),
      })
      board.setMessage('monitor', `Aggregate status written to status file: ${path}`)
      lastFailure = ''
    } catch (error) {
      const failure = `Error writing aggregate status to status file ${path}: ${describeError(error)}`
      if (failure !== lastFailure) log.error(failure)
      lastFailure = failure
      board.setMessage('monitor', failure)
    }
  }
  return {
    async run(signal) {
      while (!signal.aborted) {
        await write()
        await clock.sleep(intervalMs, signal)
      }
    },
    write,
  }
}
