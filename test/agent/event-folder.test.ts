import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { createEventFolder } from '../../src/agent/event-folder.ts'
import type { LogEvent, TelemetryEvent } from '../../src/telemetry/event.ts'
import { createEventCounts } from '../../src/telemetry/event-counts.ts'
import { EventQueue } from '../../src/telemetry/event-queue.ts'
import { renderMetrics } from '../../src/telemetry/metrics.ts'
import { createFakeClock } from '../fakes/clock.ts'
import { createFakeLog } from '../fakes/log.ts'
import { temporaryFolder } from '../fakes/temporary-folder.ts'
import { logEvent, statusEvent } from '../telemetry/vm.ts'

function make(t: TestContext, { maxLogFiles = 30, capacity = 1000 } = {}) {
  const directory = join(temporaryFolder(t), 'log', 'events')
  const counts = createEventCounts()
  const log = createFakeLog()
  const clock = createFakeClock(Date.now())
  const queue = new EventQueue(capacity)
  return {
    directory,
    log,
    queue,
    clock,
    folder: createEventFolder({ directory, maxLogFiles, clock, counts, log }),
    names: () => readdirSync(directory).sort(),
    put: (name: string, content: unknown, ageMs = 3_600_000 * 2) => {
      mkdirSync(directory, { recursive: true })
      const path = join(directory, name)
      writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content))
      const atSeconds = (Date.now() - ageMs) / 1000
      utimesSync(path, atSeconds, atSeconds)
    },
    dropped: (reason: string) =>
      Number(new RegExp(`reason="${reason}"} (\\d+)`).exec(renderMetrics(counts.metrics()))?.[1]),
    messages: () => queue.take().map((event) => ('Message' in event ? event.Message : event.operation_status.message)),
  }
}

/** A disk that is full, or takes nothing at all, is played by a mount. */
const MOUNTING = { skip: process.getuid?.() === 0 ? false : 'needs root, to mount a file system' }

const numbered = (count: number, prefix = '') =>
  Array.from({ length: count }, (_, number) => logEvent({ Message: `${prefix}${number}` }) as LogEvent)

test('save() writes log events to one private file, as an array that people can read', async (t) => {
  const { folder, names, directory } = make(t)
  assert.deepEqual(await folder.save(numbered(2)), [])
  const [name = '', ...more] = names()
  assert.match(name, /^\d{19}\.json$/)
  assert.deepEqual(more, [])
  const text = readFileSync(join(directory, name), 'utf8')
  assert.equal(text, `${JSON.stringify(numbered(2), null, 2)}\n`)
  assert.equal(statSync(join(directory, name)).mode & 0o777, 0o640)
  assert.equal(statSync(directory).mode & 0o777, 0o750)
})

test('save() writes each status event to a file of its own, and nothing for nothing', async (t) => {
  const { folder, names, directory } = make(t)
  await folder.save([])
  assert.equal(existsSync(directory), false)
  await folder.save([statusEvent(), logEvent(), statusEvent()] as TelemetryEvent[])
  assert.deepEqual(
    names().map((name) => name.replace(/\d{19}/, 'N')),
    ['N.json', 'extension_N.json', 'extension_N.json'],
  )
  const text = readFileSync(join(directory, names().at(-1) as string), 'utf8')
  assert.equal(text, JSON.stringify(statusEvent(), null, 2))
})

test('save() puts at most a thousand events into a file', async (t) => {
  const { folder, names, directory } = make(t)
  await folder.save(numbered(2500))
  const lengths = names().map((name) => (JSON.parse(readFileSync(join(directory, name), 'utf8')) as object[]).length)
  assert.deepEqual(lengths, [1000, 1000, 500])
})

test('save() keeps the newest files, and counts what the oldest held', async (t) => {
  const { folder, names, put, dropped } = make(t, { maxLogFiles: 3 })
  put('1000000000000000001.json', numbered(7))
  put('1000000000000000002.json', 'not an array')
  put('other.json', 'kept')
  put('3.txt', 'kept')
  await folder.save(numbered(1))
  assert.equal(dropped('too_many_files'), 0)
  await folder.save(numbered(2))
  assert.equal(dropped('too_many_files'), 7)
  await folder.save(numbered(3))
  assert.equal(dropped('too_many_files'), 8)
  const [first = ''] = names()
  await folder.save(numbered(4))
  assert.equal(dropped('too_many_files'), 9)
  assert.equal(names().includes(first), false)
  assert.deepEqual(
    names().filter((name) => !/^\d{19}\.json$/.test(name)),
    ['3.txt', 'other.json'],
  )
  assert.equal(names().length, 5)
})

test('save() writes nothing where no file may be', async (t) => {
  const { folder, names, dropped } = make(t, { maxLogFiles: 0 })
  assert.deepEqual(await folder.save(numbered(4)), [])
  assert.deepEqual([names(), dropped('too_many_files')], [[], 4])
})

test('save() drops a status event beyond a thousand files', async (t) => {
  const { folder, put, names, dropped } = make(t)
  for (let number = 0; number < 1000; number++) put(`extension_${number}.json`, '{}')
  assert.deepEqual(await folder.save([statusEvent()]), [])
  assert.deepEqual([names().length, dropped('too_many_files')], [1000, 1])
})

test('save() gives back what the disk does not take, tells it once, and leaves no half file', MOUNTING, async (t) => {
  const { folder, directory, names, log } = make(t)
  mkdirSync(directory, { recursive: true })
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16k', 'apa-test', directory])
  try {
    const events = numbered(500)
    assert.deepEqual(await folder.save(events), events)
    assert.deepEqual(await folder.save(events), events)
    assert.deepEqual(names(), [])
    assert.equal(log.lines.length, 1)
    assert.match(String(log.lines[0]), /^Warn Cannot write telemetry events to .*ENOSPC/)
    assert.deepEqual(await folder.save(numbered(1)), [])
  } finally {
    execFileSync('umount', [directory])
  }
})

test('a file in place of the folder costs nothing but the events', async (t) => {
  const { folder, directory, queue, log } = make(t)
  mkdirSync(join(directory, '..'), { recursive: true })
  writeFileSync(directory, 'in the way')
  await folder.prepare()
  assert.equal(await folder.collect('log', queue), 0)
  assert.equal((await folder.save(numbered(3))).length, 3)
  assert.equal(readFileSync(directory, 'utf8'), 'in the way')
  assert.ok(log.lines.every((line) => line.startsWith('Warn ')))
  rmSync(directory)
  assert.deepEqual(await folder.save(numbered(3)), [])
})

test('prepare() removes what was left half written long ago', async (t) => {
  const { folder, names, put } = make(t)
  put('1.tmp', 'old')
  put('extension_2.tmp', 'old')
  put('3.tmp', 'new', 1000)
  put('x.tmp', 'not ours')
  await folder.prepare()
  assert.deepEqual(names(), ['3.tmp', 'x.tmp'])
})

test('collect() takes files by age, their events from the last one on, and deletes them', async (t) => {
  const { folder, queue, put, names, messages } = make(t)
  put('20.json', numbered(2, 'b'))
  put('10.json', `\ufeff${JSON.stringify(numbered(2, 'a'), null, 2)}\n`)
  put('extension_5.json', statusEvent())
  assert.equal(await folder.collect('log', queue), 4)
  assert.deepEqual(messages(), ['a1', 'a0', 'b1', 'b0'])
  assert.deepEqual(names(), ['extension_5.json'])
  assert.equal(await folder.collect('status', queue), 1)
  assert.deepEqual(messages(), ['{"version":"1.0.45"}'])
  assert.deepEqual(names(), [])
})

test('collect() leaves for later what finds no room, and takes no event twice', async (t) => {
  const { folder, queue, put, names, messages } = make(t, { capacity: 3 })
  put('1.json', numbered(4, 'a'))
  put('2.json', numbered(3, 'b'))
  put('extension_1.json', statusEvent())
  assert.equal(await folder.collect('log', queue), 3)
  assert.equal(await folder.collect('status', queue), 0)
  assert.deepEqual(messages(), ['a3', 'a2', 'a1'])
  assert.deepEqual(names(), ['1.json', '2.json', 'extension_1.json'])
  assert.equal(await folder.collect('log', queue), 3)
  assert.deepEqual(messages(), ['a0', 'b2', 'b1'])
  assert.deepEqual(names(), ['2.json', 'extension_1.json'])
  assert.equal(await folder.collect('status', queue), 1)
  assert.equal(await folder.collect('log', queue), 1)
  assert.deepEqual(names(), [])
})

test('collect() does not send again and again what it cannot delete', MOUNTING, async (t) => {
  const { folder, queue, put, directory, messages, log } = make(t)
  put('1.json', numbered(1))
  // Root may write in spite of modes; not in spite of this.
  execFileSync('mount', ['--bind', directory, directory])
  execFileSync('mount', ['-o', 'remount,bind,ro', directory])
  try {
    assert.equal(await folder.collect('log', queue), 1)
    assert.equal(await folder.collect('log', queue), 0)
    assert.deepEqual(messages(), ['0'])
    assert.match(log.lines.join('\n'), /^Warn Cannot remove the event file .*EROFS.*$/)
  } finally {
    execFileSync('umount', [directory])
  }
})

const ODD: readonly (readonly [situation: string, content: unknown, reason: string, count: number])[] = [
  ['half a file', '[{"EventLevel":', 'invalid', 1],
  ['an object in place of an array', logEvent(), 'invalid', 1],
  ['an element that is no event', [{ EventLevel: 'INFO' }, logEvent({ Message: 'good' }), 7], 'invalid', 2],
  ['an element that is no JSON', `[{"a": oops}, ${JSON.stringify(logEvent({ Message: 'good' }))}]`, 'invalid', 1],
  [
    'an event that is too long',
    [logEvent({ Message: 'x'.repeat(300_000) }), logEvent({ Message: 'good' })],
    'too_large',
    1,
  ],
  ['a file that is too large', `[${' '.repeat(11 * 1024 * 1024)}]`, 'too_large', 1],
]
for (const [situation, content, reason, count] of ODD) {
  test(`collect() deletes and counts ${situation}, and takes what is good`, async (t) => {
    const { folder, queue, put, names, messages, dropped } = make(t)
    put('1.json', content)
    put('2.json', [logEvent({ Message: 'next' })])
    await folder.collect('log', queue)
    assert.deepEqual(messages(), JSON.stringify(content).includes('good') ? ['good', 'next'] : ['next'])
    assert.deepEqual([names(), dropped(reason)], [[], count])
  })
}

test('collect() leaves a young file that is not valid: it may be half written', async (t) => {
  const { folder, queue, put, names, clock } = make(t)
  put('1.json', '[{"EventLevel":', 1000)
  put('extension_1.json', '{', 1000)
  for (const kind of ['log', 'status'] as const) assert.equal(await folder.collect(kind, queue), 0)
  assert.equal(names().length, 2)
  clock.stepWall(61_000)
  for (const kind of ['log', 'status'] as const) assert.equal(await folder.collect(kind, queue), 0)
  assert.deepEqual(names(), [])
})

test('collect() follows no link, and waits for no pipe', async (t) => {
  const { folder, queue, directory, names, put, clock, log } = make(t)
  put('good.txt', [logEvent()])
  symlinkSync(join(directory, 'good.txt'), join(directory, '1.json'))
  execFileSync('mkfifo', [join(directory, '2.json')])
  mkdirSync(join(directory, '3.json'))
  chmodSync(directory, 0o777)
  clock.stepWall(600_000)
  assert.equal(await folder.collect('log', queue), 0)
  assert.deepEqual(names(), ['1.json', '2.json', '3.json', 'good.txt'])
  assert.deepEqual(log.lines, [])
})

test('collect() finds nothing where there is no folder', async (t) => {
  const { folder, queue, log } = make(t)
  assert.equal(await folder.collect('log', queue), 0)
  assert.deepEqual(log.lines, [])
})
