/** A line on the machine's serial console, for those who watch a boot from outside. Lost lines have no effect. */

import { close, constants, open, write } from 'node:fs'
import { isoMs } from '../base/dates.ts'
import { describeErrno } from '../base/errors.ts'
import { toSafeLine } from '../base/log.ts'

export type SerialConsole = (message: string) => void

export interface SerialConsoleOptions {
  /** Of the agent, three numbers. */
  readonly version: string
  readonly nowMs: () => number
  /** Is told that a line was lost, in the words that operators know. */
  readonly onLoss: (message: string) => void
  readonly path?: string
}

/** Makes the console. Each line opens the device anew, without waiting for it: a stalled line drops the message. */
export function createSerialConsole(options: SerialConsoleOptions): SerialConsole {
  const { version, nowMs, onLoss, path = '/dev/console' } = options
  const { O_WRONLY, O_NONBLOCK, O_NOCTTY } = constants
  return (message) => {
    const line = `${isoMs(nowMs())} azure-proxy-agent_${version}(${process.pid}) - ${toSafeLine(message)}\n`
    open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY, (openError, fd) => {
      if (openError !== null) return onLoss(`Failed to open serial console: ${reasonOf(openError)}`)
      write(fd, line, (writeError) => {
        if (writeError !== null) onLoss(`Failed to write to serial console: ${message} (${reasonOf(writeError)})`)
        close(fd, () => undefined)
      })
    })
  }
}

function reasonOf({ errno, message }: NodeJS.ErrnoException): string {
  return errno === undefined ? message : describeErrno(errno)
}
