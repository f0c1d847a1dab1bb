/**
 * Reads a process through a directory descriptor of /proc, so that all answers are about one process.
 *
 * A descriptor of /proc/PID stays tied to the process it was opened for: when that one is gone, reads through it fail
 * with ESRCH even if the pid was given to another. So open once, read all, compare with what the kernel recorded.
 * Source: proc(5), proc_pid_stat(5).
 */

import { closeSync, constants, openSync, readlinkSync } from 'node:fs'
import type { Mount } from '../sys/mountinfo.ts'
import {
  attempt,
  type DescriptorFacts,
  type FileStat,
  O_PATH,
  readDescriptor,
  readStart,
  statFile,
} from './descriptor.ts'
import { type HostFiles, hostFiles, readMountsIfThere } from './host-files.ts'

/** The executable of a process, held until the view is disposed: all is about one file, whatever the process does. */
export interface Executable extends DescriptorFacts {
  /** Its path as the kernel spells it now: in the mount namespace it was started in, perhaps marked as deleted. */
  path(): string | undefined
  /** Asks the file system, which may wait for a server or for a user's program: only if it is known to be local. */
  stat(): FileStat | undefined
  /** Opens it for reading, which may wait likewise. @returns a descriptor that the caller closes */
  open(): number | undefined
}

/** An open view of one process. Every read gives `undefined` when the process is gone or may not be read. */
export interface ProcessView extends Disposable {
  /** Start time in clock ticks since boot (CLOCK_BOOTTIME). */
  startTicks(): bigint | undefined
  executable(): Executable | undefined
  /** The mounts that the process sees. Ends early where the table cannot be read. */
  mounts(): Iterable<Mount>
  /** Content of its /proc/PID/cgroup. */
  cgroup(): string | undefined
  /** Arguments separated and ended by NUL, the first 8 KiB of them; empty for a zombie. */
  commandLine(): Buffer | undefined
}

export interface ProcReader {
  /** @returns `undefined` when there is no such process. The view must be disposed. */
  open(pid: number): ProcessView | undefined
  readonly host: HostFiles
}

/** Namespaces by their inode numbers; 0 when unreadable, which equals none. */
export interface HostNamespaces {
  /** Of process 1. A service manager may give the agent a mount namespace of its own over the same files. */
  readonly hostMount: number
  readonly ownMount: number
  readonly ownPid: number
}

/** A caller may have megabytes of arguments, and would have us read them for each connection. */
const MAX_COMMAND_LINE_BYTES = 8192

/** A line for each hierarchy of cgroups, some fifteen, each with a path. */
const MAX_CGROUP_BYTES = 16_384

/** 52 numbers of at most 21 characters and a name of at most 64: field 22 is within. */
const MAX_STAT_BYTES = 2048

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
    const held = [fd]
    return {
      startTicks: () => attempt(() => parseStartTicks(readStart(`${base}/stat`, MAX_STAT_BYTES).toString('latin1'))),
      executable: () =>
        attempt(() => {
          // One descriptor for all that is asked: two looks at the link could see two programs, one exec apart.
          const exe = openSync(`${base}/exe`, O_PATH)
          held.push(exe)
          // Once closed, the number may be that of any file.
          const whileHeld = <T>(read: () => T) => (held.includes(exe) ? attempt(read) : undefined)
          return {
            ...readDescriptor(exe),
            path: () => whileHeld(() => readlinkSync(`/proc/self/fd/${exe}`)),
            stat: () => whileHeld(() => statFile(exe)),
            open: () => whileHeld(() => openSync(`/proc/self/fd/${exe}`, constants.O_RDONLY)),
          }
        }),
      mounts: () => readMountsIfThere(`${base}/mountinfo`),
      cgroup: () => attempt(() => readStart(`${base}/cgroup`, MAX_CGROUP_BYTES).toString('utf8')),
      commandLine: () => attempt(() => readStart(`${base}/cmdline`, MAX_COMMAND_LINE_BYTES)),
      [Symbol.dispose]: () => {
        for (const descriptor of held.splice(0)) closeSync(descriptor)
      },
    }
  },
  host: hostFiles,
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
