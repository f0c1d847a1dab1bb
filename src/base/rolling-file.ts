/**
 * A log file that keeps itself small: buffered appends, a size limit, a number of archives.
 *
 * The descriptor stays open; it is opened anew when the file was moved, removed or replaced. Nothing here blocks the
 * event loop or throws: what cannot be written is counted and told in the next line that can be.
 */

import { constants, writeSync } from 'node:fs'
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

  const takeText = () => {
    if (untold > 0 && parts.length > 0) {
      parts.push(formatLogLine('Warn', `${untold} log entries were lost: the disk did not take them`, Date.now()))
      untold = 0
    }
    const text = parts.join('')
    parts = []
    bufferedBytes = 0
    return text
  }

  const writeOut = async () => {
    queued = false
    const count = parts.length
    const text = takeText()
    if (text === '') return
    try {
      const file = await current()
      const bytes = Buffer.from(text, 'utf8')
      await file.appendFile(bytes)
      sizeBytes += bytes.length
    } catch {
      dropped += count
      untold += count
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
      await mkdir(dirname(path), { recursive: true, mode: 0o750 })
      const { O_APPEND, O_CREAT, O_WRONLY, O_NOFOLLOW, O_NONBLOCK } = constants
      handle = await open(path, O_APPEND | O_CREAT | O_WRONLY | O_NOFOLLOW | O_NONBLOCK, 0o640)
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
    if (bufferedBytes + text.length > maxBufferedBytes) {
      dropped++
      untold++
      return
    }
    parts.push(text)
    bufferedBytes += text.length
    if (bufferedBytes > maxBufferedBytes / 4) void flush()
    else timer ??= setTimeout(() => void flush(), flushIntervalMs).unref()
  }

  return {
    threshold,
    write: (level, message, epochMs) => append(formatLogLine(level, message, epochMs)),
    append,
    flush,
    flushSync: () => {
      const text = takeText()
      if (text === '' || handle === undefined) return
      try {
        writeSync(handle.fd, text)
      } catch {
        dropped++
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
    await unlink(join(dirname(path), old))
  }
}

const ARCHIVE_SUFFIX = /^\d{4}-\d{2}-\d{2}T\d{2}\.\d{2}\.\d{2}\.\d{1,9}-\d{1,20}\.log$/
