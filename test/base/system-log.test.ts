import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { describe, test } from 'node:test'
import type { Level } from '../../src/base/log.ts'
import { createSystemLog, type SystemLogEnv } from '../../src/base/system-log.ts'

type Done = (error: NodeJS.ErrnoException | null, writtenBytes: number) => void

/** Descriptors whose writes wait until the test completes them. */
function createFakeEnv(changes: Partial<SystemLogEnv> = {}) {
  const pending: { readonly fd: number; readonly bytes: Buffer; readonly done: Done }[] = []
  const written: Record<number, Buffer> = { 1: Buffer.alloc(0), 2: Buffer.alloc(0) }
  const take = (fd: number, bytes: Buffer) => {
    written[fd] = Buffer.concat([written[fd] as Buffer, bytes])
  }
  const env: SystemLogEnv = {
    write: (fd, bytes, done) => pending.push({ fd, bytes, done }),
    writeSync: (fd, bytes) => {
      take(fd, bytes)
      return bytes.length
    },
    journalStream: undefined,
    identify: (fd) => `8:${fd}`,
    ...changes,
  }
  return {
    env,
    pending,
    text: (fd: number) => (written[fd] as Buffer).toString('utf8'),
    /** Lets the oldest write take at most `maxBytes`. */
    complete(maxBytes = Number.POSITIVE_INFINITY) {
      const { fd, bytes, done } = pending.shift() as (typeof pending)[number]
      const part = bytes.subarray(0, maxBytes)
      take(fd, part)
      done(null, part.length)
    },
    fail(code: string) {
      pending.shift()?.done(Object.assign(new Error(code), { code }), 0)
    },
  }
}

const ALL: readonly Level[] = ['Error', 'Warn', 'Info', 'Debug', 'Trace']

describe('createSystemLog() writes', () => {
  test('bare lines, errors to standard error', () => {
    const { env, complete, text, pending } = createFakeEnv()
    const log = createSystemLog('Trace', env)
    for (const level of ALL) log.write(level, `a ${level}`, 0)
    while (pending.length > 0) complete()
    assert.equal(text(1), 'a Warn\na Info\na Debug\na Trace\n')
    assert.equal(text(2), 'a Error\n')
  })

  for (const [situation, journalStream, out, err] of [
    ['only to the descriptor that is the journal', '8:1', '<4>w\n<6>i\n<7>d\n<7>t\n', 'e\n'],
    ['only to standard error when that alone is the journal', '8:2', 'w\ni\nd\nt\n', '<3>e\n'],
    ['to none when the journal is elsewhere', '8:99', 'w\ni\nd\nt\n', 'e\n'],
    ['to none without a journal', undefined, 'w\ni\nd\nt\n', 'e\n'],
  ] as const) {
    test(`priorities ${situation}`, () => {
      const { env, complete, text, pending } = createFakeEnv({ journalStream })
      const log = createSystemLog('Trace', env)
      for (const level of ALL) log.write(level, (level[0] as string).toLowerCase(), 0)
      while (pending.length > 0) complete()
      assert.deepEqual([text(1), text(2)], [out, err])
    })
  }

  test('the priority before each line of a message that has several', () => {
    const { env, complete, text } = createFakeEnv({ journalStream: '8:1' })
    createSystemLog('Info', env).write('Warn', 'a\nb', 0)
    complete()
    assert.equal(text(1), '<4>a\n<4>b\n')
  })

  test('one piece at a time, what comes meanwhile together', () => {
    const { env, complete, pending, text } = createFakeEnv()
    const log = createSystemLog('Info', env)
    for (const message of ['1', '2', '3']) log.write('Info', message, 0)
    assert.equal(pending.length, 1)
    complete()
    assert.equal(pending.length, 1)
    complete()
    assert.equal(pending.length, 0)
    assert.equal(text(1), '1\n2\n3\n')
  })

  test('the rest after any part, even inside a character', () => {
    for (let size = 1; size < 12; size++) {
      const { env, complete, pending, text } = createFakeEnv()
      const log = createSystemLog('Info', env)
      log.write('Info', 'a\u00e9\u20ac\u{1f600}', 0)
      log.write('Info', 'next', 0)
      while (pending.length > 0) complete(size)
      assert.equal(text(1), 'a\u00e9\u20ac\u{1f600}\nnext\n')
    }
  })
})

describe('createSystemLog() with a reader that', () => {
  test('stalls: tries again, in order', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const { env, complete, fail, pending, text } = createFakeEnv()
    const log = createSystemLog('Info', env)
    log.write('Info', '1', 0)
    fail('EAGAIN')
    log.write('Info', '2', 0)
    assert.equal(pending.length, 0)
    t.mock.timers.tick(50)
    fail('EAGAIN')
    t.mock.timers.tick(50)
    while (pending.length > 0) complete()
    assert.equal(text(1), '1\n2\n')
    assert.equal(log.dropped, 0)
  })

  test('went away: drops what was on its way and goes on', () => {
    const { env, complete, fail, pending, text } = createFakeEnv()
    const log = createSystemLog('Info', env)
    log.write('Info', '1', 0)
    log.write('Info', '2', 0)
    fail('EPIPE')
    while (pending.length > 0) complete()
    assert.equal(text(1), '2\n')
  })

  test('is slow: keeps 2000 lines, then drops and tells how many', () => {
    const { env, complete, pending, text } = createFakeEnv()
    const log = createSystemLog('Info', env)
    for (let i = 0; i < 2011; i++) log.write('Info', String(i), 0)
    assert.equal(log.dropped, 10)
    while (pending.length > 0) complete()
    const lines = text(1).split('\n')
    assert.equal(lines.at(-3), '2000')
    assert.equal(lines.at(-2), '10 log lines were lost because the reader of this log is too slow')
    log.write('Info', 'next', 0)
    complete()
    assert.match(text(1), /too slow\nnext\n$/)
  })

  test('is slow: keeps a megabyte, however few lines that is', () => {
    const { env } = createFakeEnv()
    const log = createSystemLog('Info', env)
    for (let i = 0; i < 100; i++) log.write('Info', 'x'.repeat(16 * 1024), 0)
    // One was on its way at once, 64 fill the megabyte.
    assert.equal(log.dropped, 100 - 1 - 64)
  })

  test('is slow on one descriptor does not hold up the other', () => {
    const { env, pending } = createFakeEnv()
    const log = createSystemLog('Info', env)
    log.write('Info', '1', 0)
    log.write('Error', '2', 0)
    assert.deepEqual(
      pending.map(({ fd }) => fd),
      [1, 2],
    )
  })
})

describe('flush()', () => {
  test('resolves when all is written, and at once when there is nothing', async () => {
    const { env, complete, pending } = createFakeEnv()
    const log = createSystemLog('Info', env)
    await log.flush()
    for (const message of ['1', '2']) log.write('Info', message, 0)
    let isDone = false
    const flushed = log.flush().then(() => {
      isDone = true
    })
    complete()
    await Promise.resolve()
    assert.deepEqual([isDone, pending.length], [false, 1])
    complete()
    await flushed
  })

  test('resolves when nobody reads any more', async () => {
    const { env, fail } = createFakeEnv()
    const log = createSystemLog('Info', env)
    log.write('Info', '1', 0)
    const flushed = log.flush()
    fail('EPIPE')
    await flushed
  })
})

describe('flushSync()', () => {
  test('writes what is queued, and not again what is on its way', () => {
    const { env, complete, text } = createFakeEnv()
    const log = createSystemLog('Info', env)
    for (const message of ['1', '2', '3']) log.write('Info', message, 0)
    log.write('Error', 'e', 0)
    log.flushSync()
    assert.equal(text(1), '2\n3\n')
    complete()
    assert.equal(text(1), '2\n3\n1\n')
  })

  test('writes what waits to be tried again', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const { env, fail, pending, text } = createFakeEnv()
    const log = createSystemLog('Info', env)
    log.write('Info', '1', 0)
    fail('EAGAIN')
    log.write('Info', '2', 0)
    log.flushSync()
    assert.equal(text(1), '1\n2\n')
    t.mock.timers.tick(1000)
    assert.deepEqual(pending, [])
  })

  test('goes on after a part, and counts the lines that nobody took', () => {
    const taken: string[] = []
    const { env } = createFakeEnv({
      writeSync: (_, bytes) => {
        if (taken.length === 3) throw Object.assign(new Error('EAGAIN'), { code: 'EAGAIN' })
        taken.push(bytes.toString('utf8', 0, 2))
        return 2
      },
    })
    const log = createSystemLog('Info', env)
    for (const message of ['in flight', '1', '2', '3', '4', '5']) log.write('Info', message, 0)
    log.flushSync()
    assert.deepEqual(taken, ['1\n', '2\n', '3\n'])
    assert.equal(log.dropped, 2)
  })

  test('writes nothing when there is nothing', () => {
    const { env } = createFakeEnv({ writeSync: () => assert.fail('nothing was logged') })
    createSystemLog('Info', env).flushSync()
  })
})

describe('the real descriptors', () => {
  test('get every line, also those logged just before the process ends', () => {
    const module = new URL('../../src/base/system-log.ts', import.meta.url).href
    const script = `
      import { createSystemLog } from '${module}'
      const log = createSystemLog('Info')
      for (let i = 0; i < 1500; i++) log.write('Info', 'line ' + i + ' ' + '\\u20ac'.repeat(100), 0)
      setTimeout(() => { log.write('Info', 'last', 0); log.flushSync(); process.exit(0) }, 200)`
    const options = { encoding: 'utf8', env: {} } as const
    const lines = execFileSync(process.execPath, ['--input-type=module', '-e', script], options).split('\n')
    assert.equal(lines.length, 1502)
    assert.equal(lines[1499], `line 1499 ${'\u20ac'.repeat(100)}`)
    assert.equal(lines[1500], 'last')
  })
})
