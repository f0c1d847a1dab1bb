/** A line on the machine's serial console, for those who watch a boot from outside. Lost lines have no effect. */

import { close, constants, open, write } from 'node:fs'
import { isoMs } from '../base/dates.ts'
import { toSafeLine } from '../base/log.ts'

export type SerialConsole = (message: string) => void

/** Makes the console. Each line opens the device anew, without waiting for it: a stalled line drops the message. */
export function createSerialConsole(version: string, nowMs: () => number, path = '/dev/console'): SerialConsole {
  const { O_WRONLY, O_NONBLOCK, O_NOCTTY } = constants
  return (message) => {
    const line = `${isoMs(nowMs())} azure-proxy-agent_${version}(${process.pid}) - ${toSafeLine(message.trimEnd())}\n`
    open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY, (openError, fd) => {
      if (openError !== null) return
      write(fd, line, () => close(fd, () => undefined))
    })
  }
}
