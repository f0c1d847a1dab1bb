/**
 * A log file that keeps itself small: buffered appends, a size limit, a number of archives.
 *
 * The descriptor stays open; it is opened anew when the file was moved, removed or replaced. Nothing here blocks the
 * event loop or throws: what cannot be written is counted and told in the next line that can be. Links are not followed,
 * and a file that has another name becomes an archive, so that nobody else's file grows.
 */

import { constants, fstatSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { type FileHandle, lstat, mkdir, open, readdir, rename, unlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { unixNanoseconds } from './clock.ts'
import { fileStamp, isoMs } from './dates.ts'
import { describeError } from './errors.ts'
import type { Level, LogSink } from './log.ts'

export interface RollingFileOptions {
  /** Absolute path; the directory is made with mode 0750 when it is missing. */
  readonly path: string
  readonly threshold: Level
  /** Size at which the file becomes an archive, checked before each write. Default 10 MiB. */
  readonly maxBytes?: number
  /** Files kept, the current one included. Default 5. */
  readonly maxFiles?: number
  /** Longest time a line waits in memory. Default 200 ms. */
  readonly flushIntervalMs?: number
  /** Bytes kept in memory while the disk does not take them; later lines are dropped and counted. Default 1 MiB. */
  readonly maxBufferedBytes?: number
  /** Is told why lines are being lost: with the first of them, and at most once a minute. */
  readonly onLoss?: (reason: string) => void
}

export interface RollingFile extends LogSink {
  /** Adds `text` as it is; it must end with a line feed. */
  append(text: string): void
  /** Resolves when all that was appended before is on its way to the disk, or was given up. */
  flush(): Promise<void>
  /** Writes what is buffered, synchronously, for the end of the process. */
  flushSync(): void
  close(): Promise<void>
  /** Number of lines or groups lost so far. */
  readonly dropped: number
}

/** What stands between time and message: the header has 34 characters, 23 of them are the time. */
const LEVEL_COLUMNS: Readonly<Record<Level, string>> = {
  Error: ' [ERROR]   ',
  Warn: ' [WARN]    ',
  Info: ' [INFO]    ',
  Debug: ' [DEBUG]   ',
  Trace: ' [TRACE]   ',
}

/** The time rendered last: lines come many to a millisecond. */
let lastTime = { epochMs: Number.NaN, text: '' }

/** Renders a line as support tools parse it: time, level, padding to 34 characters, message. */
export function formatLogLine(level: Level, message: string, epochMs: number): string {
  if (lastTime.epochMs !== epochMs) lastTime = { epochMs, text: isoMs(epochMs) }
  return `${lastTime.text}${LEVEL_COLUMNS[level]}${message}\n`
}

/** Opens the log lazily: nothing is touched before the first line. */
export function createRollingFile(options: RollingFileOptions): RollingFile {
  const { path, threshold } = options
  const maxBytes = options.maxBytes ?? 10 * 1024 * 1024
  const maxFiles = options.maxFiles ?? 5
  const flushIntervalMs = options.flushIntervalMs ?? 200
  const maxBufferedBytes = options.maxBufferedBytes ?? 1024 * 1024
  let parts: string[] = []
  let bufferedBytes = 0
  let dropped = 0
  let untold = 0
  let handle: FileHandle | undefined
  let sizeBytes = 0
  /** Whether what was written last ended inside a line, for want of room. */
  let isLineCut = false
  let complainedAtMs = Number.NEGATIVE_INFINITY
  let timer: NodeJS.Timeout | undefined
  let working: Promise<void> = Promise.resolve()
  let queued = false

  /** Takes what is buffered, with a word about what was lost before it. */
  const take = (): Batch => {
    const told = parts.length > 0 ? untold : 0
    if (told > 0) {
      parts.push(formatLogLine('Warn', `${told} log entries were lost: the disk did not take them`, Date.now()))
    }
    const batch = { entries: parts, told, bytes: Buffer.from((isLineCut ? '\n' : '') + parts.join(''), 'utf8') }
    parts = []
    bufferedBytes = 0
    untold -= told
    return batch
  }
  /** Counts what is lost of a batch of which the disk took `writtenBytes`. */
  const giveUp = ({ entries, told, bytes }: Batch, writtenBytes: number, error: unknown) => {
    if (writtenBytes > 0) isLineCut = bytes[writtenBytes - 1] !== LINE_FEED
    const end = bytes.length - writtenBytes
    let restBytes = 0
    let lost = 0
    for (let i = entries.length - 1; i >= 0 && restBytes < end; i--, lost++) {
      restBytes += Buffer.byteLength(entries[i] as string)
    }
    // The word about earlier losses is the last of the entries, and lost with any of them.
    const isToldLost = told > 0 && lost > 0
    dropped += lost - (isToldLost ? 1 : 0)
    untold += lost - (isToldLost ? 1 : 0) + (isToldLost ? told : 0)
    complain(describeError(error))
  }
  const complain = (reason: string) => {
    if (performance.now() - complainedAtMs < COMPLAINT_INTERVAL_MS) return
    complainedAtMs = performance.now()
    options.onLoss?.(reason)
  }

  const writeOut = async () => {
    queued = false
    if (parts.length === 0) return
    let file: FileHandle
    try {
      file = await current()
    } catch (error) {
      giveUp(take(), 0, error)
      return await release()
    }
    // Taken no sooner: what waits for a slow disk to open its file can still be written at the end of the process.
    const batch = take()
    const { bytes } = batch
    let writtenBytes = 0
    try {
      while (writtenBytes < bytes.length) writtenBytes += (await file.write(bytes, writtenBytes)).bytesWritten
      isLineCut = false
    } catch (error) {
      giveUp(batch, writtenBytes, error)
      await release()
    }
    sizeBytes += writtenBytes
  }

  const current = async (): Promise<FileHandle> => {
    if (handle !== undefined && !(await isStillThere(handle, path))) await release()
    if (handle !== undefined && sizeBytes >= maxBytes) {
      await release()
      await archive(path, maxFiles)
    }
    if (handle !== undefined) return handle
    await mkdir(dirname(path), { recursive: true, mode: DIRECTORY_MODE })
    handle = await open(path, OPEN_FLAGS, FILE_MODE)
    const stat = await handle.stat()
    if (!stat.isFile()) throw new Error(`${path} is not a regular file`)
    sizeBytes = stat.nlink > 1 ? Number.POSITIVE_INFINITY : stat.size
    return sizeBytes >= maxBytes ? current() : handle
  }

  const release = async () => {
    const old = handle
    handle = undefined
    await old?.close().catch(() => undefined)
  }

  const flush = () => {
    clearTimeout(timer)
    timer = undefined
    if (!queued) {
      queued = true
      working = working.then(writeOut)
    }
    return working
  }

  const append = (text: string) => {
    const textBytes = Buffer.byteLength(text)
    if (bufferedBytes + textBytes > maxBufferedBytes) {
      dropped++
      untold++
      complain('the disk is slower than the lines come')
      return
    }
    parts.push(text)
    bufferedBytes += textBytes
    if (bufferedBytes > maxBufferedBytes / 4) void flush()
    else timer ??= setTimeout(() => void flush(), flushIntervalMs).unref()
  }

  return {
    threshold,
    write: (level, message, epochMs) => append(formatLogLine(level, message, epochMs)),
    append,
    flush,
    flushSync: () => {
      if (parts.length === 0) return
      const batch = take()
      let writtenBytes = 0
      try {
        const fd = handle?.fd ?? openNowSync(path)
        while (writtenBytes < batch.bytes.length) writtenBytes += writeSync(fd, batch.bytes, writtenBytes)
      } catch (error) {
        giveUp(batch, writtenBytes, error)
      }
    },
    close: async () => {
      await flush()
      await release()
    },
    get dropped() {
      return dropped
    },
  }
}

/** What goes to the disk in one piece. */
interface Batch {
  readonly entries: readonly string[]
  /** How many lost ones its last entry tells of; 0: it has no such entry. */
  readonly told: number
  readonly bytes: Buffer
}

const LINE_FEED = 0x0a
const COMPLAINT_INTERVAL_MS = 60_000
const DIRECTORY_MODE = 0o750
const FILE_MODE = 0o640
const { O_APPEND, O_CREAT, O_WRONLY, O_NOFOLLOW, O_NONBLOCK } = constants
const OPEN_FLAGS = O_APPEND | O_CREAT | O_WRONLY | O_NOFOLLOW | O_NONBLOCK

/** Opens the log at the end of a process that ends before it wrote a line. The end of the process closes it. */
function openNowSync(path: string): number {
  mkdirSync(dirname(path), { recursive: true, mode: DIRECTORY_MODE })
  const fd = openSync(path, OPEN_FLAGS, FILE_MODE)
  const stat = fstatSync(fd)
  if (!stat.isFile() || stat.nlink > 1) throw new Error(`${path} is not a regular file, or has another name`)
  return fd
}

/** Tells whether `path` still names the open file; a file moved away or removed does not get another line. */
async function isStillThere(handle: FileHandle, path: string): Promise<boolean> {
  try {
    const [named, opened] = await Promise.all([lstat(path), handle.stat()])
    return named.ino === opened.ino && named.dev === opened.dev
  } catch {
    return false
  }
}

/** Renames the file to its archive name and removes the oldest archives. Only names of exactly that form are touched. */
async function archive(path: string, maxFiles: number): Promise<void> {
  const name = basename(path)
  const archives = (await readdir(dirname(path)))
    .filter((entry) => entry.startsWith(`${name}.`) && ARCHIVE_SUFFIX.test(entry.slice(name.length + 1)))
    .sort()
  const newest = `${path}.${stampAfter(archives.at(-1))}.log`
  await rename(path, newest)
  archives.push(basename(newest))
  for (const old of archives.slice(0, Math.max(0, archives.length - (maxFiles - 1)))) {
    // What cannot be removed must not cost the lines that wait to be written.
    await unlink(join(dirname(path), old)).catch(() => undefined)
  }
}

/** Stamps an archive with the time, and after `previous` when the clock was set back: the oldest are the first to go. */
function stampAfter(previous: string | undefined): string {
  const nowNs = unixNanoseconds()
  const lastNs = BigInt(/-(\d{1,20})\.log$/.exec(previous ?? '')?.[1] ?? 0)
  const ns = nowNs > lastNs ? nowNs : lastNs + 1n
  return fileStamp(Number(ns / 1_000_000n), ns)
}

const ARCHIVE_SUFFIX = /^\d{4}-\d{2}-\d{2}T\d{2}\.\d{2}\.\d{2}\.\d{1,9}-\d{1,20}\.log$/
