import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createLog } from '../../src/base/log.ts'
import type { LogEvent } from '../../src/telemetry/event.ts'
import { createEventCounts } from '../../src/telemetry/event-counts.ts'
import { EventQueue } from '../../src/telemetry/event-queue.ts'
import { createEventSink } from '../../src/telemetry/event-sink.ts'
import { renderMetrics } from '../../src/telemetry/metrics.ts'
import { createFakeClock } from '../fakes/clock.ts'
import { createFakeLog } from '../fakes/log.ts'

function sink(capacity = 1000) {
  const clock = createFakeClock()
  const queue = new EventQueue(capacity)
  const counts = createEventCounts()
  const quiet = createFakeLog()
  const events = createEventSink({
    threshold: 'Info',
    writer: { version: '1.2.3', pid: 7 },
    monotonicMs: clock.monotonicMs,
    queue,
    counts,
    log: quiet,
  })
  const messages = () => (queue.take() as LogEvent[]).map(({ Message }) => Message)
  const dropped = (reason: string) =>
    Number(new RegExp(`reason="${reason}"} (\\d+)`).exec(renderMetrics(counts.metrics()))?.[1])
  return { clock, queue, quiet, log: createLog([events], clock.nowMs), messages, dropped }
}

test('lines at least as severe as the threshold become events, and say what they are about', () => {
  const { log, queue } = sink()
  log.warn('common')
  log.debug('not wanted')
  log.write('Error', 'named', { task: 'write_provision_state', operation: 'provision' })
  const events = queue.take() as LogEvent[]
  assert.deepEqual(
    events.map(({ EventLevel, Message, TaskName, OperationId }) => [EventLevel, Message, TaskName, OperationId]),
    [
      ['WARN', 'common', 'CommonLogger', 'ProxyAgent'],
      ['ERROR', 'named', 'write_provision_state', 'provision'],
    ],
  )
})

test('a line that comes with every poll is an event every 15 minutes, with the number of times', async () => {
  const { log, clock, messages, dropped } = sink()
  for (let poll = 0; poll < 1000; poll++) {
    log.warn('Failed to poll')
    await clock.advance(15_000)
  }
  // 1000 polls are 250 minutes.
  assert.deepEqual(messages(), [
    'Failed to poll',
    ...Array.from({ length: 16 }, () => 'Failed to poll (59 more since the last of these lines)'),
  ])
  assert.equal(dropped('repeated'), 1000 - 17)
})

test('one operation does not silence another', () => {
  const { log, messages } = sink()
  log.write('Warn', 'same', { task: 't', operation: 'a' })
  log.write('Warn', 'same', { task: 't', operation: 'b' })
  assert.deepEqual(messages(), ['same', 'same'])
})

test('lines that all differ are bounded, and leave room for other operations', () => {
  const { log, messages, dropped } = sink(10_000)
  for (let number = 0; number < 5000; number++) log.info(`line ${number}`)
  log.write('Warn', 'other', { task: 't', operation: 'other' })
  const told = messages()
  assert.equal(told.length, 502)
  assert.equal(told.at(-1), 'other')
  assert.equal(dropped('repeated'), 5000 - 501)
})

test('without room events are dropped, counted, and told once until there is room again', () => {
  const { log, quiet, messages, dropped } = sink(2)
  for (const text of ['a', 'b', 'c', 'd']) log.info(text)
  assert.deepEqual(messages(), ['a', 'b'])
  assert.deepEqual(quiet.lines, ['Warn Telemetry events are dropped: 2 wait already'])
  for (const text of ['e', 'f', 'g']) log.info(text)
  assert.equal(quiet.lines.length, 2)
  assert.equal(dropped('queue_full'), 3)
})
