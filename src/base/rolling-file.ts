/**
 * A log file that keeps itself small: buffered appends, a size limit, a number of archives.
 *
 * The descriptor stays open; it is opened anew when the file was moved, removed or replaced. Nothing here blocks the
 * event loop or throws: what cannot be written is counted and told in the next line that can be.
 */

import { constants, mkdirSync, openSync, writeSync } from 'node:fs'
import { type FileHandle, lstat, mkdir, open, readdir, rename, unlink } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { unixNanoseconds } from './clock.ts'
import { fileStamp, isoMs } from './dates.ts'
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

const HEADER_WIDTH = 34

/** Renders a line as support tools parse it: time, level, padding to 34 characters, message. */
export function formatLogLine(level: Level, message: string, epochMs: number): string {
  return `${`${isoMs(epochMs)} [${level.toUpperCase()}]`.padEnd(HEADER_WIDTH)}${message}\n`
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
  let timer: NodeJS.Timeout | undefined
  let working: Promise<void> = Promise.resolve()
  let queued = false

  /** Takes what is buffered, with a word about what was lost before it. */
  const take = () => {
    const count = parts.length
    const told = count > 0 ? untold : 0
    if (told > 0) {
      parts.push(formatLogLine('Warn', `${told} log entries were lost: the disk did not take them`, Date.now()))
    }
    const text = parts.join('')
    parts = []
    bufferedBytes = 0
    untold -= told
    return { text, count, told }
  }
  const giveUp = ({ count, told }: { readonly count: number; readonly told: number }) => {
    dropped += count
    untold += count + told
  }

  const writeOut = async () => {
    queued = false
    const taken = take()
    if (taken.text === '') return
    try {
      const file = await current()
      const bytes = Buffer.from(taken.text, 'utf8')
      await file.appendFile(bytes)
      sizeBytes += bytes.length
    } catch {
      giveUp(taken)
      await release()
    }
  }

  const current = async () => {
    if (handle !== undefined && !(await isStillThere(handle, path))) await release()
    if (handle !== undefined && sizeBytes >= maxBytes) {
      await release()
      await archive(path, maxFiles)
    }
    if (handle === undefined) {
      await mkdir(dirname(path), { recursive: true, mode: DIRECTORY_MODE })
      handle = await open(path, OPEN_FLAGS, FILE_MODE)
      const stat = await handle.stat()
      sizeBytes = stat.size
      if (sizeBytes >= maxBytes) return await current()
    }
    return handle
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
      const taken = take()
      if (taken.text === '') return
      try {
        writeAllSync(handle?.fd ?? openNowSync(path), Buffer.from(taken.text, 'utf8'))
      } catch {
        giveUp(taken)
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

const DIRECTORY_MODE = 0o750
const FILE_MODE = 0o640
const { O_APPEND, O_CREAT, O_WRONLY, O_NOFOLLOW, O_NONBLOCK } = constants
const OPEN_FLAGS = O_APPEND | O_CREAT | O_WRONLY | O_NOFOLLOW | O_NONBLOCK

/** Opens the log at the end of a process that ends before it wrote a line. The end of the process closes it. */
function openNowSync(path: string): number {
  mkdirSync(dirname(path), { recursive: true, mode: DIRECTORY_MODE })
  return openSync(path, OPEN_FLAGS, FILE_MODE)
}

function writeAllSync(fd: number, bytes: Buffer): void {
  for (let offset = 0; offset < bytes.length; ) offset += writeSync(fd, bytes, offset)
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
  await rename(path, `${path}.${fileStamp(Date.now(), unixNanoseconds())}.log`)
  const name = basename(path)
  const archives = (await readdir(dirname(path)))
    .filter((entry) => entry.startsWith(`${name}.`) && ARCHIVE_SUFFIX.test(entry.slice(name.length + 1)))
    .sort()
  for (const old of archives.slice(0, Math.max(0, archives.length - (maxFiles - 1)))) {
    // What cannot be removed must not cost the lines that wait to be written.
    await unlink(join(dirname(path), old)).catch(() => undefined)
  }
}

const ARCHIVE_SUFFIX = /^\d{4}-\d{2}-\d{2}T\d{2}\.\d{2}\.\d{2}\.\d{1,9}-\d{1,20}\.log$/
