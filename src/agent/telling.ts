/** All that the agent says: logs, status board, serial console, request observer. */

import { type Clock, processAgeMs } from '../base/clock.ts'
import type { Log } from '../base/log.ts'
import type { Config } from '../config/config.ts'
import { claimsJson } from '../identity/caller.ts'
import { describeVerdict } from '../rules/describe.ts'
import { formatDivergence } from '../rules/divergence.ts'
import { createConnectionSummary } from '../telemetry/connection-summary.ts'
import { createDenials, type Denials } from '../telemetry/denials.ts'
import { createRequestMetrics, type RequestMetrics } from '../telemetry/request-metrics.ts'
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
  readonly metrics: RequestMetrics
  readonly denials: Denials
  /** Numbers requests from 1; the status document shows the last number. */
  nextRequestId(): number
  requestCount(): number
  /** Tells a step of start-up everywhere: log, console, status of `module`. */
  milestone(module: ModuleName, message: string, elapsedMs?: number): void
}

/** Names of the modules in telemetry. */
const OPERATIONS: Readonly<Record<ModuleName, string>> = {
  keyKeeper: 'key_keeper',
  redirector: 'redirector',
  proxyServer: 'proxy_server',
  telemetryLogger: 'event_logger',
  monitor: 'proxy_agent_status',
}

/** Opens everything that `config` asks for. Files are made with their first line. */
export function createTelling(config: Config, version: string, clock: Clock): Telling {
  const logs = openLogs(config, { version, pid: process.pid }, clock)
  const log = logs.agent
  const console = createSerialConsole({ version, nowMs: clock.nowMs, onLoss: logs.tellSystem })
  const normal = createConnectionSummary(clock.monotonicMs)
  const denied = createConnectionSummary(clock.monotonicMs)
  let requests = 0
  const requestCount = () => requests
  const board = createStatusBoard({ version, log, nowMs: clock.nowMs, requestCount, normal, denied })
  const metrics = createRequestMetrics()
  const denials = createDenials(clock.nowMs, describeVerdict)
  const observer = createRequestObserver({
    log: logs.connection,
    normal,
    denied,
    metrics,
    denials,
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
    metrics,
    denials,
    nextRequestId: () => ++requests,
    requestCount,
    milestone(module, message, elapsedMs = processAgeMs()) {
      const origin = { task: 'start', operation: OPERATIONS[module] }
      // The blank behind the comma is part of the contract.
      log.write('Info', `{"elapsed":${elapsedMs}, "message":${JSON.stringify(message)}}`, origin)
      console(`${message} - ${elapsedMs}`)
      board.setMessage(module, `${message} - ${elapsedMs}`)
    },
  }
}
