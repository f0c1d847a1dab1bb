import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  constants,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { createRollingFile, formatLogLine, type RollingFileOptions } from '../../src/base/rolling-file.ts'
import { temporaryFolder } from '../fakes/temporary-folder.ts'

const NAME = 'ProxyAgent.log'
const ARCHIVE = /^ProxyAgent\.log\.\d{4}-\d{2}-\d{2}T\d{2}\.\d{2}\.\d{2}\.\d{3}-\d{19}\.log$/
const LOST = /\[WARN\] {4}(\d+) log entries were lost: the disk did not take them\n/

function setUp(t: TestContext, changes: Partial<RollingFileOptions> = {}) {
  const folder = join(temporaryFolder(t), 'logs')
  const path = join(folder, NAME)
  const losses: string[] = []
  const onLoss = (reason: string) => void losses.push(reason)
  const log = createRollingFile({ path, threshold: 'Info', flushIntervalMs: 60_000, onLoss, ...changes })
  t.after(() => log.close())
  return {
    folder,
    path,
    log,
    losses,
    /** Appends each text and waits for the disk after each. */
    async add(...texts: string[]) {
      for (const text of texts) {
        log.append(text)
        await log.flush()
      }
    },
    text: () => readFileSync(path, 'utf8'),
    archives: () =>
      readdirSync(folder)
        .filter((name) => ARCHIVE.test(name))
        .sort(),
  }
}

describe('formatLogLine()', () => {
  test('has a header of 34 characters', () => {
    const epochMs = Date.UTC(2026, 0, 2, 3, 4, 5, 678)
    for (const [level, line] of [
      ['Info', '2026-01-02T03:04:05.678 [INFO]    hello\n'],
      ['Error', '2026-01-02T03:04:05.678 [ERROR]   hello\n'],
      ['Trace', '2026-01-02T03:04:05.678 [TRACE]   hello\n'],
    ] as const) {
      assert.equal(formatLogLine(level, 'hello', epochMs), line)
      assert.equal(line.indexOf('hello'), 34)
    }
  })
})

describe('createRollingFile() writes', () => {
  test('nothing and makes nothing before the first line', async (t) => {
    const { folder, log } = setUp(t)
    await log.flush()
    log.flushSync()
    assert.ok(!existsSync(folder))
  })

  test('lines in their order, after those that are there', async (t) => {
    const { folder, path, log, text } = setUp(t)
    mkdirSync(folder)
    writeFileSync(path, 'old\n')
    log.write('Warn', 'hello', Date.UTC(2026, 0, 2))
    for (let i = 0; i < 100; i++) {
      log.append(`${i}\n`)
      if (i % 7 === 0) void log.flush()
    }
    await log.flush()
    const numbers = Array.from({ length: 100 }, (_, i) => `${i}\n`).join('')
    assert.equal(text(), `old\n2026-01-02T00:00:00.000 [WARN]    hello\n${numbers}`)
  })

  test('by itself after the flush interval', async (t) => {
    const { path, log } = setUp(t, { flushIntervalMs: 10 })
    log.append('a\n')
    for (let i = 0; !existsSync(path) || readFileSync(path, 'utf8') === ''; i++) {
      assert.ok(i < 200)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    assert.equal(readFileSync(path, 'utf8'), 'a\n')
  })

  test('a file of mode 0640 in a folder of mode 0750, whatever the umask allows', async (t) => {
    const old = process.umask(0)
    t.after(() => process.umask(old))
    const { folder, path, add } = setUp(t)
    await add('a\n')
    assert.equal(statSync(path).mode & 0o7777, 0o640)
    assert.equal(statSync(folder).mode & 0o7777, 0o750)
  })

  test('what is buffered at the end of the process, also when no line was written before', async (t) => {
    const { log, add, text } = setUp(t)
    log.append('early \u00e9\n')
    log.flushSync()
    assert.equal(text(), 'early \u00e9\n')
    await add('a\n')
    log.append('late\n')
    log.flushSync()
    assert.equal(text(), 'early \u00e9\na\nlate\n')
  })

  test('what is buffered when it is closed', async (t) => {
    const { log, text } = setUp(t)
    log.append('a\n')
    await log.close()
    assert.equal(text(), 'a\n')
  })
})

describe('createRollingFile() rotates', () => {
  test('before the write that finds the file full, so that one write may go over', async (t) => {
    const { folder, add, text, archives } = setUp(t, { maxBytes: 10 })
    await add('12345\n', '7890123\n', 'new\n')
    assert.equal(text(), 'new\n')
    assert.equal(archives().length, 1)
    assert.equal(readFileSync(join(folder, archives()[0] as string), 'utf8'), '12345\n7890123\n')
  })

  test('and keeps the newest files, the current one counted', async (t) => {
    const { folder, add, text, archives } = setUp(t, { maxBytes: 2, maxFiles: 3 })
    await add('1\n', '2\n', '3\n', '4\n', '5\n', '6\n')
    assert.equal(text(), '6\n')
    const kept = archives().map((name) => readFileSync(join(folder, name), 'utf8'))
    assert.deepEqual(kept, ['4\n', '5\n'])
  })

  test('a file that was full when it was opened', async (t) => {
    const { folder, path, add, text, archives } = setUp(t, { maxBytes: 2 })
    mkdirSync(folder)
    writeFileSync(path, 'of an earlier run\n')
    await add('new\n')
    assert.equal(text(), 'new\n')
    assert.equal(archives().length, 1)
  })

  test('and deletes only names of its own archives', async (t) => {
    const stamp = '2020-01-02T03.04.05.678-1577934245678901234'
    const strangers = [
      `${NAME}.bak`,
      `${NAME}.1`,
      `${NAME}.${stamp}.log.gz`,
      `${NAME}.${stamp}.txt`,
      `${NAME}.x.${stamp}.log`,
      `${NAME}.2020-01-02.log`,
      `ProxyAgent.Connection.log.${stamp}.log`,
      `x${NAME}.${stamp}.log`,
    ]
    const { folder, add } = setUp(t, { maxBytes: 2, maxFiles: 2 })
    mkdirSync(folder)
    for (const name of [...strangers, `${NAME}.${stamp}.log`]) writeFileSync(join(folder, name), '')
    await add('1\n', '2\n', '3\n')
    const names = readdirSync(folder)
    assert.deepEqual(names.filter((name) => strangers.includes(name)).sort(), strangers.sort())
    assert.equal(names.length, strangers.length + 2)
  })

  test('in the order of time, also when the clock was set back in between', async (t) => {
    const { folder, add, archives } = setUp(t, { maxBytes: 2, maxFiles: 3 })
    mkdirSync(folder)
    for (const day of ['02', '03']) {
      const ns = BigInt(Date.UTC(2099, 0, Number(day), 3, 4, 5, 678)) * 1_000_000n
      writeFileSync(join(folder, `${NAME}.2099-01-${day}T03.04.05.678-${ns}.log`), `old ${day}\n`)
    }
    await add('1\n', '2\n', '3\n')
    const kept = archives().map((name) => readFileSync(join(folder, name), 'utf8'))
    assert.deepEqual(kept, ['1\n', '2\n'], 'what was written last is kept')
  })

  test('a file that has another name, and leaves alone what that is', async (t) => {
    const { folder, path, log, add, text, archives } = setUp(t)
    mkdirSync(folder)
    writeFileSync(join(folder, 'victim'), 'precious\n')
    linkSync(join(folder, 'victim'), path)
    await add('1\n')
    assert.equal(readFileSync(join(folder, 'victim'), 'utf8'), 'precious\n')
    assert.equal(text(), '1\n')
    assert.equal(archives().length, 1)
    assert.equal(log.dropped, 0)
  })

  test('without losing a line when an old archive cannot be deleted', async (t) => {
    const { folder, log, add, text } = setUp(t, { maxBytes: 2, maxFiles: 2 })
    mkdirSync(join(folder, `${NAME}.2020-01-02T03.04.05.678-1577934245678901234.log`), { recursive: true })
    await add('1\n', '2\n', '3\n')
    assert.equal(text(), '3\n')
    assert.equal(log.dropped, 0)
  })
})

describe('createRollingFile() goes on', () => {
  test('in a new file when the old one was moved away, without a signal', async (t) => {
    const { path, add, text } = setUp(t)
    await add('1\n')
    renameSync(path, `${path}.1`)
    await add('2\n')
    assert.equal(text(), '2\n')
    assert.equal(readFileSync(`${path}.1`, 'utf8'), '1\n')
  })

  test('in a new folder when all was removed', async (t) => {
    const { folder, add, text } = setUp(t)
    await add('1\n')
    rmSync(folder, { recursive: true })
    await add('2\n')
    assert.equal(text(), '2\n')
  })

  test('in the file that another process put in its place', async (t) => {
    const { path, add, text } = setUp(t)
    await add('1\n')
    rmSync(path)
    writeFileSync(path, 'other\n')
    await add('2\n')
    assert.equal(text(), 'other\n2\n')
  })

  test('without following a link, and tells what that cost once the link is gone', async (t) => {
    const { folder, path, log, add, text } = setUp(t)
    await add('1\n')
    rmSync(path)
    writeFileSync(join(folder, 'victim'), 'precious')
    symlinkSync(join(folder, 'victim'), path)
    await add('2\n', '3\n')
    assert.equal(readFileSync(join(folder, 'victim'), 'utf8'), 'precious')
    assert.equal(log.dropped, 2)
    rmSync(path)
    await add('4\n')
    assert.equal(LOST.exec(text())?.[1], '2')
    assert.match(text(), /^4\n/)
  })

  test('without waiting for the reader of a pipe, and without writing to it', async (t) => {
    const { folder, path, log, losses, add } = setUp(t)
    mkdirSync(folder)
    execFileSync('mkfifo', [path])
    await add('1\n')
    const reader = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
    t.after(() => closeSync(reader))
    await add('2\n')
    log.append('3\n')
    log.flushSync()
    assert.equal(log.dropped, 3)
    assert.throws(() => readSync(reader, Buffer.alloc(10)), { code: 'EAGAIN' })
    assert.match(String(losses[0]), /ENXIO/)
  })
})

describe('createRollingFile() loses lines', () => {
  test('when the disk does not take them, tells why once, and keeps count over several failures', async (t) => {
    const { folder, log, losses, add, text } = setUp(t)
    writeFileSync(folder, 'a file where the folder should be')
    log.append('1\n')
    await add('2\n', '3\n')
    log.append('4\n')
    log.flushSync()
    assert.equal(log.dropped, 4)
    assert.equal(losses.length, 1)
    assert.match(String(losses[0]), /(EEXIST|ENOTDIR)/)
    rmSync(folder)
    await add('5\n', '6\n')
    assert.equal(LOST.exec(text())?.[1], '4')
    assert.deepEqual(
      text()
        .replace(/^.*\[WARN\].*\n/m, '')
        .split('\n'),
      ['5', '6', ''],
    )
  })

  test('when the buffer is full, and tells how many', async (t) => {
    const { log, losses, text } = setUp(t, { maxBufferedBytes: 10 })
    // Bytes count, not characters: three of these fit.
    for (let i = 0; i < 7; i++) log.append('\u20ac')
    assert.equal(log.dropped, 4)
    assert.deepEqual(losses, ['the disk is slower than the lines come'])
    await log.flush()
    assert.match(text(), /^\u20ac{3}/)
    assert.equal(LOST.exec(text())?.[1], '4')
    log.append('x\n')
    await log.flush()
    assert.match(text(), /x\n$/)
    assert.equal(log.dropped, 4)
  })
})
