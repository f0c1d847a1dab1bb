/** What the agent arranges about its own process, and the namespaces it lives in. */

import { readFileSync, statSync } from 'node:fs'
import { errnoName } from './errno.ts'
import { allocate, sysAlarm, sysExit, sysPrctl, sysSetrlimit } from './libc.ts'
import { SyscallError } from './syscall-error.ts'

/** Source: asm-generic/resource.h; linux/prctl.h. */
const RLIMIT_CORE = 4
const RLIMIT_MEMLOCK = 8
const PR_SET_DUMPABLE = 4
const UNLIMITED = 0xffff_ffff_ffff_ffffn

/** The inode of the pid namespace that the machine booted with. Source: linux/proc_ns.h, PROC_PID_INIT_INO. */
export const INITIAL_PID_NAMESPACE = 0xefff_fffc

/** The inode of the initial user namespace. Source: linux/proc_ns.h, PROC_USER_INIT_INO. */
export const INITIAL_USER_NAMESPACE = 0xefff_fffd

export type NamespaceKind = 'cgroup' | 'ipc' | 'mnt' | 'net' | 'pid' | 'time' | 'user' | 'uts'

/**
 * Forbids core dumps of this process: the key that signs requests lives in its memory.
 * Two locks, since each has a hole: a core pattern that pipes to a program ignores RLIMIT_CORE, and the dumpable flag is
 * reset by an exec. Side effect of the second: other unprivileged processes can neither trace us nor read our /proc files.
 * @throws SyscallError code CORE_DUMPS_NOT_FORBIDDEN
 * Source: core(5), prctl(2) PR_SET_DUMPABLE, getrlimit(2).
 */
export function forbidCoreDumps(): void {
  const limited = setLimit(RLIMIT_CORE, 0n)
  if (limited < 0)
    throw processError('CORE_DUMPS_NOT_FORBIDDEN', 'setrlimit(RLIMIT_CORE)', -limited, 'forbid core dumps')
  const undumpable = sysPrctl(PR_SET_DUMPABLE, 0n)
  if (undumpable < 0)
    throw processError('CORE_DUMPS_NOT_FORBIDDEN', 'prctl(PR_SET_DUMPABLE)', -undumpable, 'forbid core dumps')
}

/**
 * Ends this process now. `process.exit` would first wait for the threads that do its file work, and one of these waits for
 * ever where a disk hangs, or a pipe that nobody reads.
 * Source: _exit(2); libuv documentation, uv_library_shutdown.
 */
export function exitNow(code: number): never {
  sysExit(code)
  throw new Error('the process goes on after _exit(2)')
}

/**
 * Has the kernel end this process by SIGALRM after so many seconds, whatever it does or waits for then.
 * Source: alarm(2).
 */
export function endWithin(seconds: number): void {
  sysAlarm(seconds)
}

/**
 * Lifts the limit on locked memory, under which kernels before 5.11 account maps and programs.
 * @returns whether it was lifted; without CAP_SYS_RESOURCE it stays, and the map creation that asked will fail again
 */
export function liftMemlockLimit(): boolean {
  return setLimit(RLIMIT_MEMLOCK, UNLIMITED) === 0
}

/**
 * Reads how many files this process may have open. The runtime has raised the limit as far as it may by itself.
 * @returns a whole number; infinity when there is no limit
 * Source: proc_pid_limits(5).
 */
export function readOpenFilesLimit(): number {
  const [, soft = ''] = /^Max open files\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'latin1')) ?? []
  return soft === 'unlimited' ? Number.POSITIVE_INFINITY : Number(soft)
}

/**
 * Reads the inode number that identifies a namespace of a process.
 * @param pid in the pid namespace of the mounted /proc; default: this process
 * @throws Error ENOENT when the process is gone or the kernel lacks that kind, EACCES when it may not be inspected
 * Source: namespaces(7).
 */
export function readNamespaceId(kind: NamespaceKind, pid: number | 'self' = 'self'): number {
  return statSync(`/proc/${pid}/ns/${kind}`).ino
}

function setLimit(resource: number, value: bigint): number {
  const limits = allocate(16)
  limits.writeBigUInt64LE(value, 0)
  limits.writeBigUInt64LE(value, 8)
  return sysSetrlimit(resource, limits)
}

function processError(code: string, command: string, errno: number, what: string): SyscallError {
  return new SyscallError(code, `Cannot ${what}: kernel answered ${errnoName(errno)}`, { command, errno })
}
