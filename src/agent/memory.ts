/** How much memory the agent takes, told in the log as often as the status is written. */

import { readFile } from 'node:fs/promises'
import type { Clock } from '../base/clock.ts'
import { describeError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'

/** Well above what the runtime takes with all connections open: more is a fault. */
const LIMIT_MB = 512

/** Tells now and then every `intervalMs`, until `signal` is aborted. */
export async function watchMemory(
  clock: Clock,
  log: Log,
  intervalMs: number,
  signal: AbortSignal,
  read: () => Promise<string> = () => readFile('/proc/self/status', 'latin1'),
): Promise<void> {
  while (!signal.aborted) {
    try {
      tell(await read(), log)
    } catch (error) {
      log.warn(`Cannot read the memory usage of this process: ${describeError(error)}`)
    }
    await clock.sleep(intervalMs, signal)
  }
}

/** Source: proc_pid_status(5), VmRSS and VmHWM, in kB. */
function tell(status: string, log: Log): void {
  const megabytes = (name: string) =>
    Math.floor(Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1]) / 1024)
  const now = megabytes('VmRSS')
  log.info(`Current process memory usage: ${now} MB`)
  log.info(`Current process peak memory usage: ${megabytes('VmHWM')} MB`)
  if (now > LIMIT_MB) log.warn(`Current process memory usage ${now} MB exceeds the limit of ${LIMIT_MB} MB.`)
}
