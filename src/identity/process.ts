/**
 * Reads a process through a directory descriptor of /proc, so that all answers are about one process.
 *
 * A descriptor of /proc/PID stays tied to the process it was opened for: when that one is gone, reads through it fail
 * with ESRCH even if the pid was given to another. So open once, read all, compare with what the kernel recorded.
 * Source: proc(5), proc_pid_stat(5).
 */

import { closeSync, constants, fstatSync, openSync, readFileSync, readlinkSync, readSync, statSync } from 'node:fs'

/** What tells a file from all others: `device` and `inode` as stat(2) gives them. */
export interface FileId {
  readonly inode: bigint
  readonly device: bigint
}

/** The executable of a process. */
export interface Executable extends FileId {
  readonly path: string
}

/** An open view of one process. Every read gives `undefined` when the process is gone or may not be read. */
export interface ProcessView extends Disposable {
  /** Start time in clock ticks since boot (CLOCK_BOOTTIME). */
  startTicks(): bigint | undefined
  executable(): Executable | undefined
  /** Arguments separated and ended by NUL, the first 8 KiB of them; empty for a zombie. */
  commandLine(): Buffer | undefined
}

export interface ProcReader {
  /** @returns `undefined` when there is no such process. The view must be disposed. */
  open(pid: number): ProcessView | undefined
  /** The host's own files of the name `path`: as process 1 sees it, and as the agent does. */
  hostFiles(path: string): FileId[]
}

/** Namespaces by their inode numbers; 0 when unreadable, which equals none. */
export interface HostNamespaces {
  /** Of process 1. A service manager may give the agent a mount namespace of its own over the same files. */
  readonly hostMount: number
  readonly ownMount: number
  readonly ownPid: number
}

/** Opens a file without reading it: enough to learn what it is. Source: open(2), O_PATH. */
const O_PATH = 0o10000000

/** A caller may have megabytes of arguments, and would have us read them for each connection. */
const MAX_COMMAND_LINE_BYTES = 8192

/** Reads /proc of the running kernel. */
export const procReader: ProcReader = {
  open(pid) {
    if (pid <= 0) return undefined
    let fd: number
    try {
      fd = openSync(`/proc/${pid}`, constants.O_RDONLY | constants.O_DIRECTORY)
    } catch {
      return undefined
    }
    const base = `/proc/self/fd/${fd}`
    return {
      startTicks: () => attempt(() => parseStartTicks(readFileSync(`${base}/stat`, 'latin1'))),
      executable: () =>
        attempt(() => {
          // One descriptor for path and inode: two reads of the link could see two programs, one exec apart.
          const exe = openSync(`${base}/exe`, O_PATH)
          try {
            const { ino, dev } = fstatSync(exe, { bigint: true })
            return { path: readlinkSync(`/proc/self/fd/${exe}`), inode: ino, device: dev }
          } finally {
            closeSync(exe)
          }
        }),
      commandLine: () => attempt(() => readStart(`${base}/cmdline`, MAX_COMMAND_LINE_BYTES)),
      [Symbol.dispose]: () => closeSync(fd),
    }
  },
  hostFiles: (path) =>
    [`/proc/1/root${path}`, path].flatMap((name) => {
      const stat = attempt(() => statSync(name, { bigint: true }))
      return stat === undefined ? [] : [{ inode: stat.ino, device: stat.dev }]
    }),
}

/** Reads the namespaces that decide what a path and a pid mean here. None changes while we live. */
export function readHostNamespaces(): HostNamespaces {
  const read = (link: string) => attempt(() => parseNamespace(readlinkSync(link))) ?? 0
  return {
    hostMount: read('/proc/1/ns/mnt'),
    ownMount: read('/proc/self/ns/mnt'),
    ownPid: read('/proc/self/ns/pid'),
  }
}

/**
 * Reads field 22 of a stat line. The command name may hold blanks and parentheses: fields are counted from the last one.
 * @returns `undefined` when the line is not of the known form.
 */
export function parseStartTicks(stat: string): bigint | undefined {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const field = fields[19]
  return field !== undefined && /^\d+$/.test(field) ? BigInt(field) : undefined
}

/** Reads the inode number out of `mnt:[4026531841]`. */
export function parseNamespace(link: string): number | undefined {
  const match = /^\w+:\[(\d+)\]$/.exec(link)
  return match === null ? undefined : Number(match[1])
}

/** Reads at most `maxBytes` from the start of a file. */
function readStart(path: string, maxBytes: number): Buffer {
  const fd = openSync(path, constants.O_RDONLY)
  try {
    const bytes = Buffer.alloc(maxBytes)
    let length = 0
    for (let read = -1; read !== 0 && length < maxBytes; length += read) {
      read = readSync(fd, bytes, length, maxBytes - length, null)
    }
    return bytes.subarray(0, length)
  } finally {
    closeSync(fd)
  }
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}
