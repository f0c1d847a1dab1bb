/** Opens the logs of a run: agent log, connection log, system log. */

import { join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { createLog, type Log } from '../base/log.ts'
import { createRollingFile, type RollingFile } from '../base/rolling-file.ts'
import { createSystemLog } from '../base/system-log.ts'
import type { Config } from '../config/config.ts'
import { type ConnectionLog, createConnectionLog } from '../telemetry/connection-log.ts'

export interface Logs {
  readonly agent: Log
  readonly connection: ConnectionLog
  /** Entries lost so far, of each log. */
  dropped(): Readonly<Record<'agent' | 'connection' | 'system', number>>
  /** Writes what is buffered, waiting at most `timeoutMs` for a slow disk, and closes the files. */
  close(timeoutMs: number): Promise<void>
  /** Writes what is buffered, synchronously, when the process must end now. */
  flushSync(): void
}

/** Makes the logs that `config` asks for. Files are opened with their first line. */
export function openLogs(config: Config, clock: Clock): Logs {
  const system = createSystemLog(config.systemLogLevel)
  const file = (name: string): RollingFile | undefined =>
    config.logFolder === ''
      ? undefined
      : createRollingFile({ path: join(config.logFolder, name), threshold: config.fileLogLevel })
  const agentFile = file('ProxyAgent.log')
  const connectionFile = file('ProxyAgent.Connection.log')
  const files = [agentFile, connectionFile].filter((each) => each !== undefined)
  return {
    agent: createLog([system, ...(agentFile ? [agentFile] : [])], clock.nowMs),
    connection: createConnectionLog(connectionFile, system, clock.nowMs),
    dropped: () => ({
      agent: agentFile?.dropped ?? 0,
      connection: connectionFile?.dropped ?? 0,
      system: system.dropped,
    }),
    async close(timeoutMs) {
      await Promise.race([Promise.all(files.map((each) => each.close())), clock.sleep(timeoutMs)])
      system.flushSync()
    },
    flushSync() {
      for (const each of files) each.flushSync()
      system.flushSync()
    },
  }
}
