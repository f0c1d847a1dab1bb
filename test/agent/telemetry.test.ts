import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { EventFolder } from '../../src/agent/event-folder.ts'
import { createTelemetry } from '../../src/agent/telemetry.ts'
import type { LogEvent, TelemetryEvent } from '../../src/telemetry/event.ts'
import { createEventCounts } from '../../src/telemetry/event-counts.ts'
import { EventQueue } from '../../src/telemetry/event-queue.ts'
import { renderMetrics } from '../../src/telemetry/metrics.ts'
import { paramValue, parseTelemetry, type TelemetryEvent as Received } from '../fabric/telemetry.ts'
import { createFakeClock } from '../fakes/clock.ts'
import { createFakeLog } from '../fakes/log.ts'
import { createBlankBoard } from '../fakes/status-board.ts'
import { lintMetrics } from '../telemetry/lint-metrics.ts'
import { logEvent, VM } from '../telemetry/vm.ts'

const MINUTE = 60_000

function make(t: TestContext) {
  const clock = createFakeClock()
  const log = createFakeLog()
  const counts = createEventCounts()
  const fresh = new EventQueue()
  const received: Received[] = []
  const saved: TelemetryEvent[][] = []
  const looked: [kind: string, atMs: number][] = []
  const startMs = clock.monotonicMs()
  const world = { isDiskFull: false, isKnown: true }
  const board = createBlankBoard(clock)
  const folder: EventFolder = {
    prepare: async () => undefined,
    save: async (events) => {
      if (world.isDiskFull) return [...events]
      if (events.length > 0) saved.push([...events])
      return []
    },
    collect: async (kind) => {
      looked.push([kind, clock.monotonicMs() - startMs])
      return 0
    },
  }
  const telemetry = createTelemetry({
    fresh,
    folder,
    counts,
    board,
    clock,
    log,
    writer: { version: '1.2.3', pid: 7 },
    metadata: { current: async () => (world.isKnown ? VM : undefined), expire: () => undefined },
    post: async (xml) => {
      const { events, problems } = parseTelemetry(Buffer.from(xml))
      assert.deepEqual(problems, [])
      received.push(...events)
      return { status: 200, retryAfter: undefined }
    },
    intervalMs: MINUTE,
  })
  const stopping = new AbortController()
  const running = telemetry.run(stopping.signal)
  const stop = async () => {
    stopping.abort()
    await running
  }
  t.after(stop)
  const push = (count: number) => {
    for (let number = 0; number < count; number++) fresh.push(logEvent({ Message: `${number}` }) as LogEvent)
  }
  const page = () => renderMetrics(telemetry.metrics())
  return { clock, fresh, received, saved, looked, world, board, telemetry, stop, push, page, log }
}

test('fresh events are sent a minute after the start, and then every minute', async (t) => {
  const { clock, push, received } = make(t)
  push(3)
  await clock.advance(MINUTE - 1)
  assert.equal(received.length, 0)
  await clock.advance(1)
  assert.equal(received.length, 3)
  push(2)
  await clock.advance(MINUTE)
  assert.equal(received.length, 5)
})

test('files are looked for a minute after the start, those of the status every minute, the others every five', async (t) => {
  const { clock, looked } = make(t)
  await clock.advance(12 * MINUTE)
  const of = (kind: string) => looked.filter(([each]) => each === kind).map(([, atMs]) => atMs / MINUTE)
  assert.deepEqual(of('log'), [1, 6, 11])
  assert.deepEqual(of('status'), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
})

test('every 15 minutes the host is told how the agent is', async (t) => {
  const { clock, received, board } = make(t)
  await clock.advance(15 * MINUTE)
  for (const module of ['keyKeeper', 'redirector', 'proxyServer'] as const) board.setState(module, 'RUNNING')
  await clock.advance(15 * MINUTE)
  const told = ['TaskName', 'OperationSuccess', 'Duration', 'Name', 'IsInternal', 'GAVersion']
  assert.deepEqual(
    received.map((event) => told.map((name) => paramValue(event, name))),
    ['False', 'True'].map((success) => ['loop_status', success, '900000', 'azure-proxy-agent', 'True', '1.2.3']),
  )
  assert.equal(JSON.parse(paramValue(received[1]!, 'Message') ?? '').telemetryLoggerStatus.status, 'RUNNING')
})

test('what finds no room on its way out goes to a file, and stays fresh when the disk does not take it', async (t) => {
  const { clock, push, saved, fresh, world } = make(t)
  world.isKnown = false
  push(1000)
  await clock.advance(MINUTE)
  push(10)
  await clock.advance(MINUTE)
  assert.deepEqual(
    saved.map((events) => events.length),
    [10],
  )
  world.isDiskFull = true
  push(20)
  await clock.advance(MINUTE)
  assert.equal(fresh.size, 20)
  world.isDiskFull = false
  await clock.advance(MINUTE)
  assert.deepEqual(
    saved.map((events) => events.length),
    [10, 20],
  )
})

test('save() writes all that was not sent, the oldest first, and counts what is lost', async (t) => {
  const { clock, push, saved, world, telemetry, stop, page, log } = make(t)
  world.isKnown = false
  push(2)
  await clock.advance(MINUTE)
  push(1)
  await stop()
  await telemetry.save()
  assert.deepEqual(
    saved[0]?.map((event) => (event as LogEvent).Message),
    ['0', '1', '0'],
  )
  await telemetry.save()
  assert.equal(saved.length, 1)
  world.isDiskFull = true
  push(4)
  await telemetry.save()
  assert.match(page(), /dropped_total\{reason="not_written"\} 4\n/)
  assert.deepEqual(telemetry.state(), { sent: 0, waiting: 0, lost: 4 })
  assert.match(log.lines.at(-1) ?? '', /^Warn 4 telemetry events are lost/)
})

test('the status shows whether telemetry runs', async (t) => {
  const { board, stop, clock } = make(t)
  await clock.settle()
  assert.equal(board.state('telemetryLogger'), 'RUNNING')
  assert.equal(board.message('telemetryLogger'), 'Telemetry event logger thread started.')
  await stop()
  assert.equal(board.state('telemetryLogger'), 'STOPPED')
})

test('the metrics are well formed and say what waits', async (t) => {
  const { push, page } = make(t)
  push(3)
  assert.deepEqual(lintMetrics(page()), [])
  assert.match(page(), /^azure_proxy_agent_telemetry_events_queued\{queue="fresh"\} 3$/m)
  assert.match(page(), /^azure_proxy_agent_telemetry_events_queued\{queue="outgoing"\} 0$/m)
})
