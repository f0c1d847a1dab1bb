import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { createStatusWriter } from '../../src/agent/status-writer.ts'
import { createFakeClock } from '../fakes/clock.ts'
import { createFakeLog } from '../fakes/log.ts'
import { createBlankBoard } from '../fakes/status-board.ts'
import { temporaryFolder } from '../fakes/temporary-folder.ts'

function writer(t: TestContext, directory = join(temporaryFolder(t), 'log', 'agent')) {
  const clock = createFakeClock()
  const log = createFakeLog()
  const board = createBlankBoard(clock)
  const path = join(directory, 'status.json')
  return { clock, log, board, directory, path, writer: createStatusWriter(directory, board, clock, log, 60_000) }
}

const mode = (path: string) => (statSync(path).mode & 0o777).toString(8)

test('write() makes folder and file for root and its group, indented by two', async (t) => {
  const { writer: status, board, directory, path } = writer(t)
  await status.write()
  assert.equal(mode(path), '640')
  assert.equal(mode(directory), '750')
  const text = readFileSync(path, 'utf8')
  assert.equal(text, JSON.stringify(JSON.parse(text), null, 2))
  assert.equal(JSON.parse(text).proxyAgentStatus.version, '1.2.3')
  assert.deepEqual(readdirSync(directory), ['status.json'])
  assert.equal(board.message('monitor'), `Aggregate status written to status file: ${path}`)
})

test('write() takes the wide mode from a file of an earlier version', async (t) => {
  const { writer: status, directory, path } = writer(t)
  mkdirSync(directory, { recursive: true })
  writeFileSync(path, 'old', { mode: 0o644 })
  writeFileSync(join(directory, 'status.tmp'), 'half', { mode: 0o666 })
  await status.write()
  assert.equal(mode(path), '640')
  assert.deepEqual(readdirSync(directory), ['status.json'])
})

test('write() replaces a link and leaves its target alone', async (t) => {
  const { writer: status, directory, path } = writer(t)
  const outside = temporaryFolder(t)
  writeFileSync(join(outside, 'victim'), 'kept')
  mkdirSync(directory, { recursive: true })
  symlinkSync(join(outside, 'victim'), join(directory, 'status.tmp'))
  symlinkSync(join(outside, 'victim'), path)
  await status.write()
  assert.equal(readFileSync(join(outside, 'victim'), 'utf8'), 'kept')
  assert.match(readFileSync(path, 'utf8'), /^\{/)
})

test('write() tells a failure once, shows it, and tells the next one after a success', async (t) => {
  const { writer: status, log, board, directory, path } = writer(t)
  mkdirSync(join(directory, '..'), { recursive: true })
  writeFileSync(directory, 'a file where the folder should be')
  await status.write()
  await status.write()
  assert.equal(log.lines.length, 1)
  assert.match(
    String(log.lines[0]),
    /^Error Error writing aggregate status to status file .*status\.json: .*(ENOTDIR|EEXIST)/,
  )
  assert.match(board.message('monitor'), /^Error writing aggregate status/)
  rmSync(directory)
  await status.write()
  assert.equal(board.message('monitor'), `Aggregate status written to status file: ${path}`)
  rmSync(directory, { recursive: true })
  writeFileSync(directory, '')
  await status.write()
  assert.equal(log.lines.length, 2)
})

test('run() writes at once, then every minute, until its signal is aborted', async (t) => {
  const { writer: status, clock, path } = writer(t)
  const stopping = new AbortController()
  const running = status.run(stopping.signal)
  const written = async () => {
    // The file system answers in its own time: wait until the writer sleeps again.
    while (clock.sleeping.length === 0) await clock.settle()
    return JSON.parse(readFileSync(path, 'utf8')).timestamp
  }
  assert.equal(await written(), '2025-04-23T12:00:00.000')
  assert.deepEqual(clock.sleeping, [60_000])
  await clock.advance(60_000)
  assert.equal(await written(), '2025-04-23T12:01:00.000')
  stopping.abort()
  await running
  assert.deepEqual(clock.sleeping, [])
})

test('write() lets others work between the callers it writes down', async (t) => {
  const { writer: status, board, path } = writer(t)
  const line = { userName: 'x'.repeat(5000), ip: '', port: 0, processCmdLine: '', responseStatus: '', count: 1 }
  let inThisTurn = 0
  let most = 0
  const toJSON = () => {
    most = Math.max(most, ++inThisTurn)
    return line
  }
  const entries = Array.from({ length: 2000 }, () => ({ ...line, userGroups: [], processFullPath: '', toJSON }))
  const blank = board.document()
  board.document = () => ({ ...blank, proxyConnectionSummary: entries })
  let isDone = false
  const turn = () => {
    inThisTurn = 0
    if (!isDone) setImmediate(turn)
  }
  setImmediate(turn)
  await status.write()
  isDone = true
  assert.equal(JSON.parse(readFileSync(path, 'utf8')).proxyConnectionSummary.length, 2000)
  assert.ok(most <= 200, `${most} of 2000 callers are rendered in one turn of the event loop`)
})
