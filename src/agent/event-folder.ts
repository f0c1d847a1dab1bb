/**
 * Event files: where telemetry waits when memory is full or the agent ends, and where other components leave theirs.
 *
 *   1767323045678901000.json              an array of log events, nanoseconds since the epoch in the name
 *   extension_1767323045678901000.json    one status event
 *
 * Files are taken oldest first and deleted once all their events have found room in the queue; the number of our own is
 * bounded, and the oldest makes room. Other agents may write here: links are not followed, sizes are bounded, and what is
 * not valid is deleted, unless it may be half written still.
 */

import { constants } from 'node:fs'
import { type FileHandle, mkdir, open, opendir, stat, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { type Clock, unixNanoseconds } from '../base/clock.ts'
import { describeError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { replaceFile } from '../base/private-file.ts'
import {
  isStatusEvent,
  type LogEvent,
  readLogEvent,
  readStatusEvent,
  type StatusEvent,
  type TelemetryEvent,
} from '../telemetry/event.ts'
import type { EventCounts } from '../telemetry/event-counts.ts'
import type { EventQueue } from '../telemetry/event-queue.ts'
import { type Slice, splitJsonArray } from '../telemetry/split-events.ts'
import { createTurns } from './turns.ts'

/** Which files: of log events, or of one status event each. */
export type FileKind = 'log' | 'status'

export interface EventFolder {
  /** Makes the directory and removes what an earlier run left half written. Never rejects. */
  prepare(): Promise<void>
  /** Writes events to files, log events together. Never rejects. @returns those that the disk did not take */
  save(events: readonly TelemetryEvent[]): Promise<TelemetryEvent[]>
  /** Moves events from files to `queue` as far as there is room. Never rejects. @returns how many */
  collect(kind: FileKind, queue: EventQueue): Promise<number>
}

export interface EventFolderOptions {
  readonly directory: string
  /** Files of log events that are kept. */
  readonly maxLogFiles: number
  readonly clock: Pick<Clock, 'nowMs'>
  readonly counts: EventCounts
  /** Its lines must not become telemetry: they would fill what they complain about. */
  readonly log: Log
}

/** Log events in one file, and status events in as many. */
const MAX_EVENTS_PER_FILE = 1000
const MAX_STATUS_FILES = 1000

/** Names looked at: more than these are for later. */
const MAX_NAMES = 10_000

const MAX_FILE_BYTES = 10 * 1024 * 1024

/** Longest text of one event: parsing takes a millisecond, and what is longer fits into no payload anyway. */
const MAX_EVENT_BYTES = 256 * 1024

/** A file that is not valid may be a file that is being written. */
const WRITING_MS = 60_000

/** A temporary file that nobody will rename any more. */
const ABANDONED_MS = 60 * 60 * 1000

const NAMES: Readonly<Record<FileKind, RegExp>> = { log: /^[0-9]+\.json$/, status: /^extension_[0-9]+\.json$/ }
const TEMPORARY_NAME = /^(?:extension_)?[0-9]+\.tmp$/

const DIRECTORY_MODE = 0o750
const FILE_MODE = 0o640

/** Makes the keeper of `directory`. Nothing is touched before it is asked. */
export function createEventFolder(options: EventFolderOptions): EventFolder {
  const { directory, maxLogFiles, clock, counts, log } = options
  const turn = createTurns()
  /** Events not taken yet of files that are there still, by name: those in front. */
  const left = new Map<string, number>()
  let lastNs = 0n
  let lastFailure = ''

  const tell = (failure: string) => {
    if (failure !== lastFailure) log.warn(failure)
    lastFailure = failure
  }
  /** Names must differ and sort by age, also when the wall clock stands still or is set back. */
  const nextName = () => {
    const ns = unixNanoseconds()
    lastNs = ns > lastNs ? ns : lastNs + 1n
    return String(lastNs)
  }
  const makeDirectory = () => mkdir(directory, { recursive: true, mode: DIRECTORY_MODE })
  const list = (kind: FileKind) => listFiles(directory, NAMES[kind])
  const write = async (prefix: string, text: Iterable<string>) => {
    const path = join(directory, prefix + nextName())
    await replaceFile(`${path}.json`, text, { mode: FILE_MODE, temporaryPath: `${path}.tmp` })
  }
  const remove = async (name: string) => {
    try {
      await unlink(join(directory, name))
      left.delete(name)
    } catch (error) {
      // Its events were taken: they shall not come again with every look.
      left.set(name, 0)
      tell(`Cannot remove the event file ${join(directory, name)}: ${describeError(error)}`)
    }
  }
  const discard = async (name: string, reason: 'too_large' | 'invalid') => {
    counts.dropped(reason)
    log.warn(
      `The event file ${join(directory, name)} is removed unread: ${reason === 'invalid' ? 'it is not valid' : 'it is too large'}`,
    )
    await remove(name)
  }

  const saveLogs = async (events: readonly LogEvent[]) => {
    if (maxLogFiles === 0) return counts.dropped('too_many_files', events.length)
    const names = await list('log')
    for (const name of names.slice(0, Math.max(0, names.length - (maxLogFiles - 1)))) {
      counts.dropped('too_many_files', await countEvents(name))
      await remove(name)
    }
    await write('', renderLogs(events))
  }
  const saveStatus = async (event: StatusEvent) => {
    if ((await list('status')).length >= MAX_STATUS_FILES) return counts.dropped('too_many_files')
    await write('extension_', [JSON.stringify(event, null, 2)])
  }
  const countEvents = async (name: string) => {
    const { bytes } = await readEventFile(join(directory, name)).catch(() => NO_FILE)
    return left.get(name) ?? (bytes && (await splitJsonArray(bytes, turn))?.length) ?? 1
  }

  /** Takes events of one file, the last one first. @returns how many were queued */
  const takeLogs = async (name: string, bytes: Buffer, isNew: boolean, queue: EventQueue) => {
    const slices = await splitJsonArray(bytes, turn)
    if (slices === undefined) {
      if (!isNew) await discard(name, 'invalid')
      return 0
    }
    let queued = 0
    let rest = Math.min(left.get(name) ?? slices.length, slices.length)
    for (; rest > 0 && queue.size < queue.capacity; rest--) {
      const event = readElement(bytes, slices[rest - 1] as Slice, readLogEvent)
      if (typeof event === 'string') counts.dropped(event)
      else if (queue.push(event)) queued++
      await turn()
    }
    if (rest === 0) await remove(name)
    else left.set(name, rest)
    return queued
  }
  const takeStatus = async (name: string, bytes: Buffer, isNew: boolean, queue: EventQueue) => {
    const event = readElement(bytes, { start: 0, end: bytes.length }, readStatusEvent)
    if (typeof event === 'string') {
      if (!isNew || event === 'too_large') await discard(name, event)
      return 0
    }
    if (!queue.push(event)) return 0
    await remove(name)
    return 1
  }
  const take = async (kind: FileKind, name: string, queue: EventQueue) => {
    const { bytes, mtimeMs } = await readEventFile(join(directory, name))
    if (bytes === undefined) {
      await discard(name, 'too_large')
      return 0
    }
    const isNew = Math.abs(clock.nowMs() - mtimeMs) < WRITING_MS
    return await (kind === 'log' ? takeLogs : takeStatus)(name, bytes, isNew, queue)
  }

  return {
    async prepare() {
      try {
        await makeDirectory()
        for (const name of await listFiles(directory, TEMPORARY_NAME)) {
          const { mtimeMs } = await stat(join(directory, name))
          if (clock.nowMs() - mtimeMs > ABANDONED_MS) await unlink(join(directory, name))
        }
      } catch (error) {
        tell(`Cannot prepare the event folder ${directory}: ${describeError(error)}`)
      }
    },
    async save(events) {
      const logs = events.filter((event) => !isStatusEvent(event))
      const chunks: (readonly TelemetryEvent[])[] = events.filter(isStatusEvent).map((event) => [event])
      for (let at = 0; at < logs.length; at += MAX_EVENTS_PER_FILE)
        chunks.push(logs.slice(at, at + MAX_EVENTS_PER_FILE))
      const lost: TelemetryEvent[] = []
      for (const chunk of chunks) {
        try {
          await makeDirectory()
          const first = chunk[0] as TelemetryEvent
          if (isStatusEvent(first)) await saveStatus(first)
          else await saveLogs(chunk as readonly LogEvent[])
          lastFailure = ''
        } catch (error) {
          tell(`Cannot write telemetry events to ${directory}: ${describeError(error)}`)
          lost.push(...chunk)
        }
      }
      return lost
    },
    async collect(kind, queue) {
      const complain = (error: unknown) => {
        tell(`Cannot read the event files in ${directory}: ${describeError(error)}`)
        return []
      }
      let queued = 0
      for (const name of await list(kind).catch(complain)) {
        if (queue.size >= queue.capacity) break
        if (left.get(name) === 0) continue
        try {
          queued += await take(kind, name, queue)
        } catch (error) {
          if (!isGone(error)) complain(error)
        }
      }
      return queued
    },
  }
}

/** Lists regular files by name, ascending; none when there is no such directory. */
async function listFiles(directory: string, pattern: RegExp): Promise<string[]> {
  const names: string[] = []
  try {
    for await (const entry of await opendir(directory)) {
      if (entry.isFile() && pattern.test(entry.name)) names.push(entry.name)
      if (names.length >= MAX_NAMES) break
    }
  } catch (error) {
    if (!isGone(error)) throw error
  }
  return names.sort()
}

interface EventFile {
  /** `undefined` when there are too many. */
  readonly bytes: Buffer | undefined
  readonly mtimeMs: number
}

const NO_FILE: EventFile = { bytes: undefined, mtimeMs: 0 }

/** Reads a file that may be anybody's. @throws NodeJS.ErrnoException */
async function readEventFile(path: string): Promise<EventFile> {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants
  const file: FileHandle = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
  try {
    const { size, mtimeMs } = await file.stat()
    if (size > MAX_FILE_BYTES) return { bytes: undefined, mtimeMs }
    const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(size), 0, size, 0)
    return { bytes: buffer.subarray(0, bytesRead), mtimeMs }
  } finally {
    await file.close()
  }
}

/** Reads one event. @returns why it is none, otherwise */
function readElement<Event>(
  bytes: Buffer,
  { start, end }: Slice,
  read: (value: unknown) => Event | undefined,
): Event | 'too_large' | 'invalid' {
  if (end - start > MAX_EVENT_BYTES) return 'too_large'
  try {
    return read(JSON.parse(bytes.toString('utf8', start, end).replace(/^\ufeff/, ''))) ?? 'invalid'
  } catch {
    return 'invalid'
  }
}

/** Renders a file of log events as `JSON.stringify` would, with an indent of two, but event by event. */
function* renderLogs(events: readonly LogEvent[]): Generator<string> {
  let before = '['
  for (const event of events) {
    yield `${before}\n  ${JSON.stringify(event, null, 2).replaceAll('\n', '\n  ')}`
    before = ','
  }
  yield '\n]\n'
}

/** A file that is gone, or a link in its place, is no news. */
function isGone(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException
  return code === 'ENOENT' || code === 'ELOOP'
}
