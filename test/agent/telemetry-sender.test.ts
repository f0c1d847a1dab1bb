import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { createTelemetrySender, type PostTelemetry } from '../../src/agent/telemetry-sender.ts'
import { AgentError } from '../../src/base/errors.ts'
import type { LogEvent } from '../../src/telemetry/event.ts'
import { createEventCounts } from '../../src/telemetry/event-counts.ts'
import { EventQueue } from '../../src/telemetry/event-queue.ts'
import { renderMetrics } from '../../src/telemetry/metrics.ts'
import type { VmFacts } from '../../src/telemetry/vm-facts.ts'
import { paramValue, parseTelemetry } from '../fabric/telemetry.ts'
import { createFakeClock } from '../fakes/clock.ts'
import { createFakeLog } from '../fakes/log.ts'
import { logEvent, VM } from '../telemetry/vm.ts'

type Answer = number | 'silence' | { readonly status: number; readonly retryAfter: string }

function make(t: TestContext, answers: readonly Answer[] = []) {
  const clock = createFakeClock()
  const queue = new EventQueue()
  const log = createFakeLog()
  const counts = createEventCounts()
  const posts: { atMs: number; texts: (string | undefined)[]; sizeBytes: number }[] = []
  const stopping = new AbortController()
  const vm: { facts: VmFacts | undefined; asked: number; expired: number } = { facts: VM, asked: 0, expired: 0 }
  const startMs = clock.monotonicMs()
  const post: PostTelemetry = async (xml) => {
    const { events, problems } = parseTelemetry(Buffer.from(xml))
    assert.deepEqual(problems, [])
    const answer = answers[posts.length] ?? 200
    const texts = events.map((event) => paramValue(event, 'Context1'))
    posts.push({ atMs: clock.monotonicMs() - startMs, texts, sizeBytes: Buffer.byteLength(xml) })
    if (answer === 'silence') throw new AgentError('HOST_CALL_FAILED', 'no complete answer')
    return typeof answer === 'number' ? { status: answer, retryAfter: undefined } : answer
  }
  const sender = createTelemetrySender({
    queue,
    counts,
    clock,
    log,
    post,
    random: () => 1,
    metadata: {
      current: async () => {
        vm.asked++
        return vm.facts
      },
      expire: () => void vm.expired++,
    },
  })
  const running = sender.run(stopping.signal)
  t.after(async () => {
    stopping.abort()
    await running
  })
  return {
    clock,
    queue,
    log,
    posts,
    vm,
    sender,
    stopping,
    running,
    push: (...texts: string[]) => {
      for (const Message of texts) assert.ok(queue.push(logEvent({ Message }) as LogEvent))
      sender.notify()
    },
    value: (sample: string) => {
      const lines = renderMetrics(counts.metrics()).split('\n')
      return Number(
        lines
          .find((line) => line.startsWith(`${sample} `))
          ?.split(' ')
          .at(-1),
      )
    },
  }
}

const DROPPED = 'azure_proxy_agent_telemetry_events_dropped_total'
const times = (posts: readonly { atMs: number }[]) => posts.map(({ atMs }) => atMs)

test('what is queued is sent at once when told, in one payload, in order', async (t) => {
  const { clock, queue, posts, push, value } = make(t)
  await clock.settle()
  assert.deepEqual(posts, [])
  push('a', 'b', 'c')
  await clock.settle()
  assert.deepEqual(
    posts.map(({ texts }) => texts),
    [['a', 'b', 'c']],
  )
  assert.deepEqual([queue.size, value('azure_proxy_agent_telemetry_events_sent_total')], [0, 3])
})

test('many events go in payloads below 64 KiB, not more than ten in 15 seconds, none lost, none twice', async (t) => {
  const { clock, posts, push } = make(t)
  const texts = Array.from({ length: 1000 }, (_, number) => `${number} ${'"'.repeat(200)}`)
  push(...texts)
  // Work in pieces takes turns of the real event loop.
  while (posts.flatMap((post) => post.texts).length < texts.length) await clock.advance(500)
  assert.deepEqual(
    posts.flatMap((post) => post.texts),
    texts,
  )
  assert.ok(posts.every(({ sizeBytes }) => sizeBytes < 65_536))
  assert.ok(
    posts.slice(0, -1).every(({ sizeBytes }) => sizeBytes > 60_000),
    'payloads are filled',
  )
  const at = times(posts)
  for (let i = 10; i < at.length; i++) assert.ok((at[i] as number) - (at[i - 10] as number) >= 15_000)
})

const PASSING: readonly Answer[] = [500, 503, 408, 429, 302, 'silence']
for (const answer of PASSING) {
  test(`${answer} is tried again with growing pauses, the same events`, async (t) => {
    const { clock, posts, push, value } = make(t, [answer, answer, answer, answer])
    push('a')
    await clock.advance(200_000)
    assert.deepEqual(times(posts), [0, 10_000, 30_000, 70_000, 150_000])
    assert.ok(posts.every(({ texts }) => texts.join() === 'a'))
    assert.equal(value('azure_proxy_agent_telemetry_events_sent_total'), 1)
    assert.equal(value('azure_proxy_agent_telemetry_posts_total{result="failed"}'), 4)
  })
}

test('after five attempts the payload is dropped, and the next one has its turn', async (t) => {
  const { clock, posts, push, value, log } = make(t, [500, 500, 500, 500, 500])
  push('a', 'b')
  await clock.advance(160_000)
  assert.equal(posts.length, 5)
  assert.equal(value(`${DROPPED}{reason="not_taken"}`), 2)
  assert.deepEqual(log.lines.slice(0, 2), [
    'Warn Failed to send telemetry: the host answered 500',
    'Warn 2 telemetry events are dropped after 5 attempt(s): the host answered 500',
  ])
  push('c')
  await clock.advance(10_000)
  assert.deepEqual(posts.at(-1)?.texts, ['c'])
})

for (const status of [400, 401, 403, 404, 410, 413]) {
  test(`${status} is not tried again, and makes us ask anew who we are`, async (t) => {
    const { clock, posts, push, vm, value } = make(t, [status])
    push('a')
    await clock.advance(600_000)
    assert.deepEqual([posts.length, vm.expired, value(`${DROPPED}{reason="refused"}`)], [1, 1, 1])
  })
}

test('the pause that the host asks for is kept, within five minutes', async (t) => {
  const date = new Date(Date.UTC(2025, 3, 23, 12, 2)).toUTCString()
  const rows = [
    ['60', 60_000],
    [date, 120_000],
    ['99999999', 300_000],
    ['soon', 10_000],
    ['-5', 10_000],
  ] as const
  for (const [retryAfter, pauseMs] of rows) {
    const { clock, posts, push } = make(t, [{ status: 503, retryAfter }])
    push('a')
    await clock.advance(400_000)
    assert.deepEqual(times(posts), [0, pauseMs], retryAfter)
  }
})

test('as long as it is not known who we are nothing is sent, and nothing lost', async (t) => {
  const { clock, queue, posts, push, vm, sender } = make(t)
  vm.facts = undefined
  push('a')
  await clock.advance(600_000)
  assert.deepEqual([posts.length, queue.size, vm.asked], [0, 1, 1])
  vm.facts = VM
  sender.notify()
  await clock.settle()
  assert.deepEqual(
    posts.map(({ texts }) => texts),
    [['a']],
  )
})

test('without events nobody is asked who we are', async (t) => {
  const { clock, sender, vm } = make(t)
  sender.notify()
  await clock.settle()
  assert.equal(vm.asked, 0)
})

test('an event for which there is no room in any payload is dropped, counted and told, others are sent', async (t) => {
  const { clock, queue, posts, push, value, log } = make(t)
  queue.push(logEvent({ Message: 'before' }) as LogEvent)
  queue.push(logEvent({ OperationId: '"'.repeat(20_000) }) as LogEvent)
  push('after')
  await clock.advance(60_000)
  assert.deepEqual(
    posts.flatMap(({ texts }) => texts),
    ['before', 'after'],
  )
  assert.equal(value(`${DROPPED}{reason="too_large"}`), 1)
  assert.match(log.lines.join(), /^Warn A telemetry event of \d+ bytes is dropped/)
})

test('told to stop it stops within a pause, and what was not sent is queued again, in front', async (t) => {
  const { clock, queue, posts, push, stopping, running, value } = make(t, [500])
  push('a', 'b')
  await clock.settle()
  push('c')
  stopping.abort()
  await running
  assert.equal(posts.length, 1)
  assert.deepEqual(
    queue.take().map((event) => (event as LogEvent).Message),
    ['a', 'b', 'c'],
  )
  assert.equal(value(`${DROPPED}{reason="not_taken"}`), 0)
})

test('a failure is told once, and its end', async (t) => {
  const { clock, push, log } = make(t, ['silence', 'silence', 'silence'])
  push('a')
  await clock.advance(100_000)
  assert.deepEqual(log.lines, [
    'Warn Failed to send telemetry: no complete answer',
    'Info Telemetry is taken again after: no complete answer',
  ])
})
