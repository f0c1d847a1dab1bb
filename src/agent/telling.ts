/** All that the agent says: logs, status board, serial console, request observer. */

import { type Clock, processAgeMs } from '../base/clock.ts'
import type { Log } from '../base/log.ts'
import type { Config } from '../config/config.ts'
import { claimsJson } from '../identity/caller.ts'
import { describeVerdict } from '../rules/describe.ts'
import { formatDivergence } from '../rules/divergence.ts'
import { createConnectionSummary } from '../telemetry/connection-summary.ts'
import { createRequestObserver, type RequestObserver } from '../telemetry/request-observer.ts'
import { createSerialConsole, type SerialConsole } from '../telemetry/serial-console.ts'
import { createStatusBoard, type ModuleName, type StatusBoard } from '../telemetry/status.ts'
import { type Logs, openLogs } from './logs.ts'

export interface Telling {
  readonly logs: Logs
  readonly log: Log
  readonly board: StatusBoard
  readonly console: SerialConsole
  readonly observer: RequestObserver
  /** Numbers requests from 1; the status document shows the last number. */
  nextRequestId(): number
  /** Tells a step of start-up everywhere: log, console, status of `module`. */
  milestone(module: ModuleName, message: string, elapsedMs?: number): void
}

/** Opens everything that `config` asks for. Files are made with their first line. */
export function createTelling(config: Config, version: string, clock: Clock): Telling {
  const logs = openLogs(config, clock)
  const log = logs.agent
  const console = createSerialConsole(version, clock.nowMs)
  const normal = createConnectionSummary(clock.monotonicMs)
  const denied = createConnectionSummary(clock.monotonicMs)
  let requests = 0
  const requestCount = () => requests
  const board = createStatusBoard({ version, log, nowMs: clock.nowMs, requestCount, normal, denied })
  const observer = createRequestObserver({
    log: logs.connection,
    normal,
    denied,
    monotonicMs: () => performance.now(),
    describeVerdict,
    formatDivergence,
    claimsJson,
  })
  return {
    logs,
    log,
    board,
    console,
    observer,
    nextRequestId: () => ++requests,
    milestone(module, message, elapsedMs = processAgeMs()) {
      log.info(JSON.stringify({ elapsed: elapsedMs, message }))
      console(`${message} - ${elapsedMs}`)
      board.setMessage(module, `${message} - ${elapsedMs}`)
    },
  }
}
