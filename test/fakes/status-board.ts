/** A status board that nobody has written on, of a service without requests. */

import type { Clock } from '../../src/base/clock.ts'
import { createConnectionSummary } from '../../src/telemetry/connection-summary.ts'
import { createStatusBoard, type StatusBoard } from '../../src/telemetry/status.ts'
import { createFakeLog } from './log.ts'

export function createBlankBoard(clock: Clock): StatusBoard {
  const summary = createConnectionSummary(clock.monotonicMs)
  return createStatusBoard({
    version: '1.2.3',
    log: createFakeLog(),
    nowMs: clock.nowMs,
    requestCount: () => 0,
    normal: summary,
    denied: summary,
  })
}
