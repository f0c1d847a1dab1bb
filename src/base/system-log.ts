/**
 * Lines for the journal: stdout for all levels but Error, stderr for Error, each with its syslog priority when systemd
 * reads them.
 *
 * `process.stdout` is never touched: on a socket it is asynchronous and loses lines at exit. A bounded queue is written
 * with fs.write, which waits for a stalled reader on a worker thread. Only when the process must end at once is the rest
 * written synchronously.
 * Source: sd-daemon(3) for the `<N>` prefix, systemd.exec(5) for JOURNAL_STREAM.
 */

import { fstatSync, write, writeSync } from 'node:fs'
import type { Level, LogSink } from './log.ts'

const PRIORITIES: Readonly<Record<Level, string>> = {
  Error: '<3>',
  Warn: '<4>',
  Info: '<6>',
  Debug: '<7>',
  Trace: '<7>',
}

/** Lines kept for a reader that does not read; what comes after is counted and told. */
const MAX_QUEUED_LINES = 2000
const MAX_QUEUED_CHARACTERS = 1024 * 1024

/** Pause before a stalled reader is tried again. */
const RETRY_MS = 50

const LINE_FEED = 0x0a

export interface SystemLog extends LogSink {
  /** Resolves when all that is queued was written or given up; never, while the reader is stalled. */
  flush(): Promise<void>
  /** Writes what is queued, synchronously and as far as the reader takes it. */
  flushSync(): void
  /** Number of lines lost so far because the reader stalled. */
  readonly dropped: number
}

/** What the sink calls of the world. */
export interface SystemLogEnv {
  /** May write less than all of `bytes`, even part of a character. */
  write(fd: number, bytes: Buffer, done: (error: NodeJS.ErrnoException | null, writtenBytes: number) => void): void
  /** The same, waiting for it. @throws NodeJS.ErrnoException */
  writeSync(fd: number, bytes: Buffer): number
  /** Value of JOURNAL_STREAM, `device:inode` of the journal's socket. */
  journalStream: string | undefined
  /** `device:inode` of an open descriptor. */
  identify(fd: number): string | undefined
}

export const systemLogEnv: SystemLogEnv = {
  write: (fd, bytes, done) => write(fd, bytes, done),
  writeSync: (fd, bytes) => writeSync(fd, bytes),
  journalStream: process.env.JOURNAL_STREAM,
  identify: (fd) => {
    try {
      const { dev, ino } = fstatSync(fd)
      return `${dev}:${ino}`
    } catch {
      return undefined
    }
  },
}

/** Makes the sink for descriptors 1 and 2. Lines are the bare message, so that existing queries find them. */
export function createSystemLog(threshold: Level, env: SystemLogEnv = systemLogEnv): SystemLog {
  const outputs = new Map([1, 2].map((fd) => [fd, createOutput(fd, env)]))
  return {
    threshold,
    write: (level, message) => outputs.get(level === 'Error' ? 2 : 1)?.push(level, message),
    flush: async () => {
      await Promise.all([...outputs.values()].map((output) => output.flush()))
    },
    flushSync: () => {
      for (const output of outputs.values()) output.flushSync()
    },
    get dropped() {
      return [...outputs.values()].reduce((sum, output) => sum + output.dropped(), 0)
    },
  }
}

function createOutput(fd: number, env: SystemLogEnv) {
  const hasPriorities = env.journalStream !== undefined && env.identify(fd) === env.journalStream
  let queue: string[] = []
  let queuedCharacters = 0
  let inFlight: Buffer | undefined
  /** Set while the reader is stalled and nothing is on its way. */
  let retry: NodeJS.Timeout | undefined
  let idle = Promise.withResolvers<void>()
  let dropped = 0
  let untold = 0

  /** A message of several lines, made by the agent, is one piece; each of its lines has the priority. */
  const line = (level: Level, message: string) =>
    hasPriorities ? `${PRIORITIES[level]}${message.replaceAll('\n', `\n${PRIORITIES[level]}`)}\n` : `${message}\n`
  const takeBytes = () => {
    if (untold > 0) {
      queue.push(line('Warn', `${untold} log lines were lost because the reader of this log is too slow`))
      untold = 0
    }
    const text = queue.join('')
    queue = []
    queuedCharacters = 0
    return Buffer.from(text, 'utf8')
  }
  const drain = () => {
    if (inFlight !== undefined) return
    if (queue.length > 0) return send(takeBytes())
    idle.resolve()
    idle = Promise.withResolvers()
  }
  const send = (bytes: Buffer) => {
    inFlight = bytes
    retry = undefined
    env.write(fd, bytes, (error, writtenBytes) => {
      if (error?.code === 'EAGAIN') {
        retry = setTimeout(() => send(bytes), RETRY_MS).unref()
        return
      }
      // Any other error, such as a closed pipe: nobody reads, so nothing is kept.
      if (error === null && writtenBytes < bytes.length) return send(bytes.subarray(writtenBytes))
      inFlight = undefined
      drain()
    })
  }
  return {
    push(level: Level, message: string) {
      if (queue.length >= MAX_QUEUED_LINES || queuedCharacters >= MAX_QUEUED_CHARACTERS) {
        dropped++
        untold++
        return
      }
      const text = line(level, message)
      queue.push(text)
      queuedCharacters += text.length
      drain()
    },
    flush() {
      return inFlight === undefined ? Promise.resolve() : idle.promise
    },
    flushSync() {
      // What is on its way on a worker thread is not written a second time; what waits to be tried again is.
      const waiting = retry === undefined ? undefined : inFlight
      clearTimeout(retry)
      let rest = Buffer.concat([waiting ?? Buffer.alloc(0), takeBytes()])
      try {
        while (rest.length > 0) rest = rest.subarray(env.writeSync(fd, rest))
      } catch {
        dropped += rest.filter((byte) => byte === LINE_FEED).length
      }
    },
    dropped: () => dropped,
  }
}
