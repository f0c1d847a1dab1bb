/**
 * Watches the names in one directory, so that an edit counts at once and not with the next poll.
 *
 * It is a convenience: inotify may be used up, the directory may not be there yet, or may be replaced by another. Whoever uses
 * it looks by himself from time to time, and calls `ensure` then.
 * Source: inotify(7).
 */

import { type FSWatcher, watch } from 'node:fs'
import { lstat } from 'node:fs/promises'
import { basename } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { describeError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'

export interface DirectoryWatch {
  /** Sees to it that the directory which bears the name now is the one that is watched. Never rejects; hangs with its disk. */
  ensure(): Promise<void>
  close(): void
}

export interface DirectoryWatchOptions {
  readonly directory: string
  /** Names below the directory that matter; others, such as what editors leave, do not. */
  readonly names: readonly string[]
  readonly clock: Clock
  readonly log: Log
  /** Something happened to one of the names, or to the directory. Told once for all that happens within `SETTLE_MS`. */
  onChange(): void
}

/** Saving a file is a handful of events; the last of them is what should be read. */
const SETTLE_MS = 50

/** Makes the watch. Nothing is watched before `ensure`. */
export function createDirectoryWatch({
  directory,
  names,
  clock,
  log,
  onChange,
}: DirectoryWatchOptions): DirectoryWatch {
  let watcher: FSWatcher | undefined
  let watched = ''
  let isSettling = false
  let isClosed = false
  let lastComplaint = ''
  /** The look at the name that is running: calls share it, so that they do not pile up where the disk hangs. */
  let ensuring: Promise<void> | undefined

  const complain = (error: unknown) => {
    const complaint = `Changes in '${directory}' are seen with the next poll only: ${describeError(error)}`
    if (complaint !== lastComplaint) log.warn(complaint)
    lastComplaint = complaint
  }
  const drop = () => {
    watcher?.close()
    watcher = undefined
    watched = ''
  }
  const settle = async () => {
    if (isSettling) return
    isSettling = true
    await clock.sleep(SETTLE_MS)
    isSettling = false
    if (isClosed) return
    await ensure()
    onChange()
  }
  const start = () => {
    const started = watch(directory, { persistent: false }, (_event, name) => {
      if (name === null || names.includes(name) || name === basename(directory)) void settle()
    })
    started.on('error', (error) => {
      if (started === watcher) drop()
      complain(error)
    })
    watcher = started
  }
  const follow = async () => {
    try {
      const { dev, ino } = await lstat(directory)
      const found = `${dev}:${ino}`
      if (isClosed || found === watched) return
      drop()
      start()
      watched = found
      lastComplaint = ''
    } catch (error) {
      drop()
      complain(error)
    }
  }
  const ensure = () => {
    ensuring ??= follow().finally(() => {
      ensuring = undefined
    })
    return ensuring
  }
  return {
    ensure,
    close() {
      isClosed = true
      drop()
    },
  }
}
