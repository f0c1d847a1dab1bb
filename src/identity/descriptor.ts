/**
 * Descriptors that hold a file without opening it: they tell what it is and through which mount it was reached.
 *
 * Nothing here but `statFile()` asks the file system. That matters because a caller chooses where its executable lies: on a
 * file system of its own making (FUSE) or behind a server that is gone, a question may wait for ever, and all of the agent
 * with it.
 * Source: open(2), O_PATH; proc_pid_fdinfo(5).
 */

import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'

/** What tells a file from all others: `device` and `inode` as stat(2) gives them, when it last changed, and its size. */
export interface FileId {
  readonly inode: bigint
  readonly device: bigint
  /** Nanoseconds since the epoch. Only the kernel sets it, and only to now. */
  readonly changedAtNs: bigint
  readonly sizeBytes: bigint
}

export interface FileStat extends FileId {
  /** How many names it has; 0: it was removed. */
  readonly links: bigint
}

/** What the kernel itself knows of a descriptor. */
export interface DescriptorFacts {
  /** The number of a mount in mountinfo. No other mount gets it while the descriptor is open. */
  readonly mountId: number
  /** As the kernel counts; `undefined` before Linux 5.14, which does not tell. */
  readonly inode: bigint | undefined
}

/** Holds a file without reading it. */
export const O_PATH = 0o10000000

/** Holds the file `path` itself: a symbolic link at its end is not followed. @throws Error from open(2) */
export function holdFile(path: string): number {
  return openSync(path, O_PATH | constants.O_NOFOLLOW)
}

/** Reads what the kernel knows of the descriptor `fd` of ours. Never asks the file system. @throws Error from open(2) */
export function readDescriptor(fd: number): DescriptorFacts {
  const text = readStart(`/proc/self/fdinfo/${fd}`, 512).toString('latin1')
  const inode = /^ino:\s*(\d+)$/m.exec(text)?.[1]
  const mountId = /^mnt_id:\s*(\d+)$/m.exec(text)?.[1]
  return {
    mountId: mountId === undefined ? NO_MOUNT : Number(mountId),
    inode: inode === undefined ? undefined : BigInt(inode),
  }
}

/** The id of no mount. */
const NO_MOUNT = -1

/** Asks the file system about the file behind `fd`: only if it is known to be a local one. @throws Error from fstat(2) */
export function statFile(fd: number): FileStat {
  const { ino, dev, nlink, ctimeNs, size } = fstatSync(fd, { bigint: true })
  return { inode: ino, device: dev, links: nlink, changedAtNs: ctimeNs, sizeBytes: size }
}

/** Most of what is read is far smaller than what it may be. */
const SCRATCH = Buffer.allocUnsafeSlow(16 * 1024)

/**
 * Reads at most `maxBytes`, and 16 KiB, from the start of a file of /proc about one process or descriptor. One read is enough: the
 * kernel makes the whole text before it gives any of it.
 * @throws Error from open(2) or read(2)
 * Source: kernel fs/seq_file.c, `seq_read_iter()`; fs/proc/base.c, `get_mm_cmdline()`.
 */
export function readStart(path: string, maxBytes: number): Buffer {
  const fd = openSync(path, constants.O_RDONLY)
  try {
    return Buffer.from(SCRATCH.subarray(0, readSync(fd, SCRATCH, 0, Math.min(maxBytes, SCRATCH.length), null)))
  } finally {
    closeSync(fd)
  }
}

/** Gives what `read` gives; `undefined` when it throws, as for a process that is gone. */
export function attempt<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}
