import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Level, LogSink } from '../../src/base/log.ts'
import { formatLogLine, type RollingFile } from '../../src/base/rolling-file.ts'
import { createConnectionLog } from '../../src/telemetry/connection-log.ts'
import type { RequestFacts } from '../../src/telemetry/request-facts.ts'

const NOW_MS = Date.UTC(2026, 0, 2, 3, 4, 5, 678)

const request = (id: number, connection = 9): RequestFacts => ({
  connection: { id: connection, peer: { address: '127.0.0.1', port: 40112 }, destination: undefined },
  id,
  method: 'GET',
  rawTarget: '/x',
  startedAtMs: 0,
})

function fakeFile(threshold: Level): RollingFile & { appended: string[] } {
  const appended: string[] = []
  return {
    appended,
    threshold,
    append: (text) => void appended.push(text),
    write: (level, message, epochMs) => void appended.push(formatLogLine(level, message, epochMs)),
    flush: async () => undefined,
    flushSync: () => undefined,
    close: async () => undefined,
    dropped: 0,
  }
}

function fakeSink(threshold: Level): LogSink & { lines: string[] } {
  const lines: string[] = []
  return { lines, threshold, write: (level, message, epochMs) => void lines.push(`${level} ${message} ${epochMs}`) }
}

const log = (fileLevel: Level | undefined, systemLevel: Level) => {
  const file = fileLevel === undefined ? undefined : fakeFile(fileLevel)
  const system = fakeSink(systemLevel)
  const options = { file, systemLog: system, nowMs: () => NOW_MS }
  return { file, system, log: createConnectionLog(options) }
}

test('end() appends the lines of a request in one piece, in the format of the contract', () => {
  const { file, log: connectionLog } = log('Trace', 'Error')
  const [first, second] = [request(12), request(13)]
  connectionLog.write(first, 'Trace', 'Got request')
  connectionLog.write(second, 'Info', 'in between')
  connectionLog.write(first, 'Warn', 'odd')
  assert.deepEqual(file?.appended, [])
  connectionLog.end(first)
  assert.deepEqual(file?.appended, [
    [
      '2026-01-02T03:04:05.678 [TRACE]   12[9] - Got request',
      '2026-01-02T03:04:05.678 [WARN]    12[9] - odd',
      '2026-01-02T03:04:05.678 [INFO]    12[9] - ------------------------ ConnectionLogger is dropped ------------------------',
      '',
    ].join('\n'),
  ])
  connectionLog.end(second)
  assert.equal(file?.appended.length, 2)
})

test('write() shows id 0 for lines about a connection', () => {
  const { file, log: connectionLog } = log('Info', 'Error')
  const line = request(0, 3)
  connectionLog.write(line, 'Info', 'x')
  connectionLog.end(line)
  assert.match(file?.appended[0] ?? '', /^2026-01-02T03:04:05\.678 \[INFO\] {4}0\[3\] - x\n/)
})

test('write() tells the system log at once what it wants, and nothing else', () => {
  const { file, system, log: connectionLog } = log('Info', 'Warn')
  const one = request(1)
  connectionLog.write(one, 'Warn', 'w')
  connectionLog.write(one, 'Info', 'i')
  connectionLog.write(one, 'Trace', 't')
  assert.deepEqual(system.lines, [`Warn 1[9] - w ${NOW_MS}`])
  connectionLog.end(one)
  assert.deepEqual(
    file?.appended[0]?.split('\n').map((line) => line.slice(24, 34).trim()),
    ['[WARN]', '[INFO]', '[INFO]', ''],
  )
})

test('end() leaves nothing when nothing was said, or said before', () => {
  const { file, log: connectionLog } = log('Info', 'Error')
  const one = request(1)
  connectionLog.end(one)
  connectionLog.write(one, 'Debug', 'not wanted')
  connectionLog.end(one)
  assert.deepEqual(file?.appended, [])
  connectionLog.write(one, 'Info', 'wanted')
  connectionLog.end(one)
  connectionLog.end(one)
  assert.equal(file?.appended.length, 1)
})

test('end() has no last line in a file that wants only warnings', () => {
  const { file, log: connectionLog } = log('Warn', 'Error')
  const one = request(1)
  connectionLog.write(one, 'Warn', 'w')
  connectionLog.end(one)
  assert.deepEqual(file?.appended, ['2026-01-02T03:04:05.678 [WARN]    1[9] - w\n'])
})

test('write() makes one line of what a caller tries to forge, and no secret', () => {
  const { file, system, log: connectionLog } = log('Info', 'Info')
  const one = request(1)
  connectionLog.write(one, 'Info', 'a\n2026-01-02T03:04:05.678 [ERROR] forged\u001b[2J /x?sig=SECRET&y')
  connectionLog.end(one)
  const text = `${file?.appended[0]} ${system.lines[0]}`
  assert.equal(file?.appended[0]?.split('\n').length, 3)
  assert.match(text, /a\\x0a2026/)
  assert.match(text, /\\x1b\[2J/)
  assert.doesNotMatch(text, /SECRET/)
})

test('write() keeps a bounded number of lines for one request', () => {
  const { file, log: connectionLog } = log('Info', 'Error')
  const one = request(1)
  for (let i = 0; i < 10_000; i++) connectionLog.write(one, 'Info', `${i}`)
  connectionLog.end(one)
  assert.equal(file?.appended[0]?.split('\n').length, 102)
})

test('isEnabled() asks both places', () => {
  const { log: both } = log('Info', 'Debug')
  assert.deepEqual(
    (['Info', 'Debug', 'Trace'] as const).map((level) => both.isEnabled(level)),
    [true, true, false],
  )
  const { log: noFile } = log(undefined, 'Error')
  assert.deepEqual(
    (['Error', 'Warn'] as const).map((level) => noFile.isEnabled(level)),
    [true, false],
  )
})

test('write() tells telemetry the message alone, and what it is about', () => {
  const told: unknown[] = []
  const events: LogSink = { threshold: 'Info', write: (...args) => void told.push(args) }
  const connectionLog = createConnectionLog({
    file: undefined,
    systemLog: fakeSink('Error'),
    nowMs: () => NOW_MS,
    events,
  })
  assert.equal(connectionLog.isEnabled('Info'), true)
  connectionLog.write(request(12), 'Info', 'pwd=hunter2')
  connectionLog.write(request(12), 'Debug', 'not wanted')
  connectionLog.record({})
  assert.deepEqual(told, [
    ['Info', 'pwd=[REDACTED]', NOW_MS, { task: 'ConnectionLogger', operation: 'proxy_server' }],
    ['Info', '{}', NOW_MS, { task: 'log_connection_summary', operation: 'proxy_server' }],
  ])
})

test('a traced request is one entry of the system log, whatever the levels of its lines', () => {
  const system = fakeSink('Warn')
  let nowMs = 100
  const connectionLog = createConnectionLog({
    file: undefined,
    systemLog: system,
    nowMs: () => NOW_MS,
    traceClock: () => nowMs,
  })
  const traced = { ...request(12), startedAtMs: 100 }
  assert.equal(connectionLog.isEnabled('Trace'), true)
  connectionLog.write(traced, 'Trace', 'Got request')
  connectionLog.write(request(0), 'Trace', 'about the connection')
  nowMs = 123.4
  connectionLog.write(traced, 'Info', 'a\nforged line, sig=secret')
  assert.deepEqual(system.lines, [])
  for (const each of [traced, traced, request(0), request(13)]) connectionLog.end(each)
  const time = '2026-01-02T03:04:05.678'
  assert.deepEqual(system.lines, [
    `Warn [12] - 0 - ${time} - Got request\n[12] - 23 - ${time} - a\\x0aforged line, sig=[REDACTED] ${NOW_MS}`,
  ])
})

test('nothing is traced where nobody would read it', () => {
  const system = fakeSink('Error')
  const connectionLog = createConnectionLog({
    file: undefined,
    systemLog: system,
    nowMs: () => NOW_MS,
    traceClock: () => 0,
  })
  assert.equal(connectionLog.isEnabled('Trace'), false)
  connectionLog.write(request(12), 'Trace', 'x')
  connectionLog.end(request(12))
  assert.deepEqual(system.lines, [])
})

test('record() writes a bare JSON line at once, to the file and to the system log, as each wants Info', () => {
  const summary = { id: 12, url: '/x?sig=SECRET&y', processFullPath: '/tmp/\u009b\u202e' }
  for (const [fileLevel, systemLevel, files, systems] of [
    ['Info', 'Error', 1, 0],
    ['Trace', 'Info', 1, 1],
    ['Warn', 'Info', 0, 1],
    ['Error', 'Error', 0, 0],
  ] as const) {
    const { file, system, log: connectionLog } = log(fileLevel, systemLevel)
    connectionLog.record(summary)
    assert.deepEqual([file?.appended.length, system.lines.length], [files, systems])
    for (const line of file?.appended ?? []) {
      assert.match(line, /^2026-01-02T03:04:05\.678 \[INFO\] {4}\{/)
      assert.deepEqual(JSON.parse(line.slice(34)), {
        id: 12,
        url: '/x?sig=[REDACTED]&y',
        processFullPath: '/tmp/\u009b\u202e',
      })
      assert.match(line, /\\u009b\\u202e/, 'shown, and still JSON')
    }
  }
})

test('record() is JSON everywhere, also where there is less room', () => {
  const told: string[] = []
  const events: LogSink = { threshold: 'Info', write: (_, message) => void told.push(message) }
  const { file, system } = log('Info', 'Info')
  const connectionLog = createConnectionLog({ file, systemLog: system, nowMs: () => NOW_MS, events })
  connectionLog.record({ id: 12, errorDetails: '"'.repeat(9000), userGroups: Array(3000).fill('"group"') })
  const [line = ''] = file?.appended ?? []
  const limits = [
    [line.slice(34).trimEnd(), 16 * 1024],
    [/^Info (.*) \d+$/.exec(system.lines[0] ?? '')?.[1] ?? '', 16 * 1024],
    [told[0] ?? '', 4096],
  ] as const
  for (const [text, maxBytes] of limits) {
    assert.ok(text.length > maxBytes / 4 && text.length <= maxBytes, `${text.length} bytes`)
    assert.equal(JSON.parse(text).id, 12)
  }
})

test('write() hides the secret of a message that comes again, and of those after it', () => {
  const { file, log: connectionLog } = log('Trace', 'Error')
  for (let i = 0; i < 600; i++) {
    connectionLog.write(request(i + 1), 'Trace', `GET /?sig=secret${i % 300}&x`)
    connectionLog.write(request(i + 1), 'Trace', 'GET /?sig=secret&y')
    connectionLog.write(request(i + 1), 'Trace', `${'x'.repeat(3000)} pwd=hunter2`)
  }
  const asked = request(1)
  connectionLog.write(asked, 'Trace', 'GET /?sig=secret&y')
  connectionLog.write(asked, 'Trace', 'GET /?sig=secret7&x')
  connectionLog.end(asked)
  const text = file?.appended.join('') ?? ''
  assert.doesNotMatch(text, /secret/)
  assert.match(text, /GET \/\?sig=\[REDACTED\]&y\n.*GET \/\?sig=\[REDACTED\]&x\n/)
})
