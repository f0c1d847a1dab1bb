/**
 * The host's own files and mounts: as process 1 sees them, and as the agent does, whom a service manager may have given a
 * mount namespace of its own over the same files.
 *
 * The paths asked for are chosen by callers, and any user may put links on the way to one, so a look never follows a link
 * and never leaves the mounts that it was told are safe.
 */

import { closeSync, constants, openSync } from 'node:fs'
import { type Mount, readMounts } from '../sys/mountinfo.ts'
import { attempt, type FileId, holdFile, O_PATH, readDescriptor, statFile } from './descriptor.ts'

/** Whose view of the machine: that of process 1, or the agent's. */
export type Viewpoint = 'host' | 'agent'

export interface HostFiles {
  /**
   * Goes through the mounts, that of the root directory first, the others read as far as somebody asks. One may come twice.
   * Ends early where the table cannot be read.
   */
  mounts(viewpoint: Viewpoint): Iterable<Mount>
  /**
   * Looks for the file at `path`.
   * @param isSafe whether the file system behind a mount id may be asked
   * @returns `undefined` when there is none, when a link or an unsafe mount is on the way, or when the way is too long
   */
  fileAt(viewpoint: Viewpoint, path: string, isSafe: (mountId: number) => boolean): FileId | undefined
}

const ROOT: Readonly<Record<Viewpoint, string>> = { host: '/proc/1/root', agent: '/' }
const TABLE: Readonly<Record<Viewpoint, string>> = { host: '/proc/1/mountinfo', agent: '/proc/self/mountinfo' }

/** Each step costs some 20 µs of everybody's time. */
const MAX_STEPS = 32

/** Reads the running system. */
export const hostFiles: HostFiles = {
  *mounts(viewpoint) {
    const root = rootMount(viewpoint)
    if (root !== undefined) yield root
    yield* readMountsIfThere(TABLE[viewpoint])
  },
  fileAt(viewpoint, path, isSafe) {
    const names = path.split('/').slice(1)
    if (!path.startsWith('/') || names.length > MAX_STEPS || names.some((name) => /^\.{0,2}$/.test(name)))
      return undefined
    return attempt(() => walk(ROOT[viewpoint], names, isSafe))
  },
}

/** The mounts of the two roots, as they were found first. */
const ROOT_MOUNTS = new Map<Viewpoint, Mount>()

/**
 * Finds the mount that a view's root directory is on, which has most executables. Looked for once: the descriptor is never
 * closed, so that the mount, and its number, stay what they are; the table costs some 50 µs.
 */
function rootMount(viewpoint: Viewpoint): Mount | undefined {
  const known = ROOT_MOUNTS.get(viewpoint)
  if (known !== undefined) return known
  return attempt(() => {
    const fd = openSync(ROOT[viewpoint], O_PATH | constants.O_DIRECTORY)
    const { mountId } = readDescriptor(fd)
    for (const mount of readMountsIfThere(TABLE[viewpoint])) {
      if (mount.id !== mountId || mount.mountPoint !== '/') continue
      ROOT_MOUNTS.set(viewpoint, mount)
      return mount
    }
    closeSync(fd)
    return undefined
  })
}

/** Reads a table of mounts as far as somebody asks. Without its table a view proves nothing: it ends. */
export function* readMountsIfThere(path: string): Generator<Mount, void> {
  try {
    yield* readMounts(path)
  } catch {
    // see above
  }
}

/**
 * Goes down one name at a time, holding each directory, and asks where it stands before it takes the next step: a user can
 * mount a file system of his own over a directory of his own between two looks at the table.
 */
function walk(root: string, names: readonly string[], isSafe: (mountId: number) => boolean): FileId | undefined {
  let fd = openSync(root, O_PATH | constants.O_DIRECTORY)
  try {
    for (const name of names) {
      if (!isSafe(readDescriptor(fd).mountId)) return undefined
      // From a link that is held, not followed, there is no way on: ENOTDIR.
      const next = holdFile(`/proc/self/fd/${fd}/${name}`)
      closeSync(fd)
      fd = next
    }
    return isSafe(readDescriptor(fd).mountId) ? statFile(fd) : undefined
  } finally {
    closeSync(fd)
  }
}
