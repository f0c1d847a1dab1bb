/** Attaches programs to a cgroup by bpf_link, and explains a refusal by what is attached there already. */

import { constants, fstatSync, openSync } from 'node:fs'
import { dirname } from 'node:path'
import { AgentError } from '../base/errors.ts'
import { BpfAttr, bpf, bpfError, NAME_BYTES, readInfo, readName, tryBpf } from '../sys/bpf.ts'
import { EPERM, errnoName } from '../sys/errno.ts'
import { Fd } from '../sys/fd.ts'
import { allocate } from '../sys/libc.ts'
import { SyscallError } from '../sys/syscall-error.ts'
import { ATTACH_TYPES, type AttachType } from './programs/program.ts'

/** Offsets in `union bpf_attr`. Source: linux/bpf.h. */
const LINK_CREATE = { progFd: 0, targetFd: 4, attachType: 8, bytes: 16 } as const
const LINK_UPDATE = { linkFd: 0, newProgFd: 4, bytes: 16 } as const
const QUERY = { targetFd: 0, attachType: 4, attachFlags: 12, progIds: 16, progCnt: 24, bytes: 32 } as const
const BY_ID = { id: 0, bytes: 12 } as const

/** `struct bpf_link_info` of a cgroup link; `struct bpf_prog_info` up to the name. */
const LINK_INFO = { type: 0, cgroupId: 16, attachType: 24, bytes: 32 } as const

const PROG_INFO = { name: 64, bytes: 64 + NAME_BYTES } as const

/** Source: linux/bpf.h, BPF_LINK_TYPE_CGROUP. */
const LINK_TYPE_CGROUP = 3

/** The kernel attaches at most this many programs of one type to one cgroup. Source: linux/bpf-cgroup-defs.h. */
const MAX_PROGRAMS = 64

/** What is attached somewhere: `multi` lets others join, the other two do not. */
export interface Attached {
  readonly mode: 'exclusive' | 'override' | 'multi'
  /** `name (id)`; only the id where the kernel does not let us look. */
  readonly programs: readonly string[]
}

/**
 * Opens a cgroup2 directory, as a target.
 * @throws AgentError code CGROUP_NOT_OPENED
 */
export function openCgroup(path: string): Fd {
  try {
    return new Fd(openSync(path, constants.O_RDONLY | constants.O_DIRECTORY), `cgroup ${path}`)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new AgentError('CGROUP_NOT_OPENED', `Cannot open cgroup ${path}: ${code}`, { path }, { cause })
  }
}

/**
 * Attaches a program to a cgroup and everything below it. The link is "multi": other programs may be attached
 * beside it. The program runs until the returned descriptor is closed, at the latest when this process dies.
 * @throws SyscallError code BPF_ATTACH_FAILED; for EPERM the message names who is in the way
 * Source: kernel commit af6eea57437a, bpf_link for cgroups, 5.7.
 */
export function attachToCgroup(program: Fd, type: AttachType, cgroup: Fd, cgroupPath: string): Fd {
  const attr = new BpfAttr(LINK_CREATE.bytes)
    .u32(LINK_CREATE.progFd, program.number)
    .u32(LINK_CREATE.targetFd, cgroup.number)
    .u32(LINK_CREATE.attachType, ATTACH_TYPES[type])
  const result = tryBpf('BPF_LINK_CREATE', attr)
  if (result >= 0) return new Fd(result, `link of ${program.label}`)
  throw attachError(program, type, cgroupPath, -result)
}

/**
 * Tells whether a link still attaches its program: it stops doing so when the cgroup is removed or somebody
 * with the right to do so detaches it. A closed descriptor attaches nothing.
 */
export function isLinkAttached(link: Fd): boolean {
  if (link.isClosed) return false
  const info = allocate(LINK_INFO.bytes)
  return readInfo(link, info) === 0 && info.readBigUInt64LE(LINK_INFO.cgroupId) !== 0n
}

/** Tells whether a link attaches something to this very cgroup, at this very hook. */
export function isLinkOf(link: Fd, type: AttachType, cgroup: Fd): boolean {
  const info = allocate(LINK_INFO.bytes)
  if (readInfo(link, info) < 0 || info.readUInt32LE(LINK_INFO.type) !== LINK_TYPE_CGROUP) return false
  // The id of a cgroup is the inode number of its directory.
  const { ino } = fstatSync(cgroup.number, { bigint: true })
  return (
    info.readBigUInt64LE(LINK_INFO.cgroupId) === ino && info.readUInt32LE(LINK_INFO.attachType) === ATTACH_TYPES[type]
  )
}

/**
 * Puts another program behind a link, in one step: each connect meets the one or the other.
 * The kernel takes any program of the type: that the hook is the right one is the caller's to see, by `isLinkOf()`.
 * @throws SyscallError code BPF_CALL_FAILED
 * Source: kernel commit 0c991ebc8c69, bpf_link update for cgroups, 5.7.
 */
export function updateLink(link: Fd, program: Fd): void {
  const attr = new BpfAttr(LINK_UPDATE.bytes)
    .u32(LINK_UPDATE.linkFd, link.number)
    .u32(LINK_UPDATE.newProgFd, program.number)
  bpf('BPF_LINK_UPDATE', attr, `put ${program.label} behind ${link.label}`)
}

/** Lists what is attached to a cgroup itself. @throws SyscallError code BPF_CALL_FAILED */
export function queryAttached(cgroup: Fd, type: AttachType): Attached {
  const ids = allocate(4 * MAX_PROGRAMS)
  const attr = new BpfAttr(QUERY.bytes)
    .u32(QUERY.targetFd, cgroup.number)
    .u32(QUERY.attachType, ATTACH_TYPES[type])
    .pointer(QUERY.progIds, ids)
    .u32(QUERY.progCnt, MAX_PROGRAMS)
  bpf('BPF_PROG_QUERY', attr, `list programs on ${cgroup.label}`)
  const flags = attr.bytes.readUInt32LE(QUERY.attachFlags)
  const count = attr.bytes.readUInt32LE(QUERY.progCnt)
  const programs = Array.from({ length: count }, (_, index) => describeProgram(ids.readUInt32LE(4 * index)))
  return { mode: flags === 2 ? 'multi' : flags === 1 ? 'override' : 'exclusive', programs }
}

/** `name (id)`, or the bare id when the kernel does not let us look: naming others needs CAP_SYS_ADMIN. */
function describeProgram(id: number): string {
  const result = tryBpf('BPF_PROG_GET_FD_BY_ID', new BpfAttr(BY_ID.bytes).u32(BY_ID.id, id))
  if (result < 0) return `program ${id}`
  using program = new Fd(result, `program ${id}`)
  const info = allocate(PROG_INFO.bytes)
  if (readInfo(program, info) < 0) return `program ${id}`
  const name = readName(info, PROG_INFO.name)
  return name === '' ? `program ${id}` : `${name} (${id})`
}

/**
 * EPERM has two causes: no privilege, or a program attached exclusively here or (exclusively) above.
 * In the second case the message says which program and where.
 */
function attachError(program: Fd, type: AttachType, cgroupPath: string, errno: number): SyscallError {
  const what = `attach ${program.label} to ${cgroupPath}`
  if (errno !== EPERM) return bpfError('BPF_LINK_CREATE', errno, what, 'BPF_ATTACH_FAILED')
  const obstacle = findObstacle(type, cgroupPath)
  if (obstacle === undefined) return bpfError('BPF_LINK_CREATE', errno, what, 'BPF_ATTACH_FAILED')
  const { path, mode, programs } = obstacle
  const where = `${programs.join(', ')} at ${path} (${mode})`
  return new SyscallError(
    'BPF_ATTACH_FAILED',
    `Cannot ${what}: kernel answered ${errnoName(errno)}, because another program claims the hook: ${where}`,
    {
      command: 'BPF_LINK_CREATE',
      errno,
      hint: 'attach that program with BPF_F_ALLOW_MULTI or by a link, or remove it',
    },
    { inTheWay: where },
  )
}

/** Walks up from the cgroup to the first one with a program that admits no other. */
function findObstacle(type: AttachType, cgroupPath: string): (Attached & { path: string }) | undefined {
  for (let path = cgroupPath; path !== dirname(path); path = dirname(path)) {
    const attached = tryQuery(type, path)
    if (attached === undefined) return undefined // above the mount point, or not allowed to look
    if (attached.programs.length > 0 && attached.mode !== 'multi') return { ...attached, path }
  }
  return undefined
}

function tryQuery(type: AttachType, path: string): Attached | undefined {
  try {
    using cgroup = openCgroup(path)
    return queryAttached(cgroup, type)
  } catch (error) {
    if (error instanceof AgentError) return undefined
    throw error
  }
}
