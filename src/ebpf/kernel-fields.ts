/**
 * Where this kernel keeps what a record is made of: the offsets that get baked into the programs as constants.
 *
 * The fields come in groups that are used together. A group of which one member is missing is left out whole and
 * named in `missing`; the others are not touched by that.
 */

import { type Btf, BtfError, type BtfMember } from './btf.ts'

/** One field to read: `size` bytes at `offset`. */
export interface KernelField {
  readonly offset: number
  readonly size: 1 | 2 | 4 | 8
}

/** The start of a process: `task->group_leader->start_boottime`. */
export interface StartFields {
  readonly groupLeader: KernelField
  readonly startBoottime: KernelField
}

/** Its numbers: `task->group_leader->thread_pid->{level, numbers[i].{nr, ns->ns.inum}}`. */
export interface PidFields {
  readonly groupLeader: KernelField
  readonly threadPid: KernelField
  readonly level: KernelField
  /** Of element 0; element i is `stride` bytes further for each i. */
  readonly numbersNr: KernelField
  readonly numbersNs: KernelField
  readonly stride: number
  /** What the type says: 0 = flexible, 1 = the old way to write that. */
  readonly declaredLength: number
  readonly namespaceInum: KernelField
}

/** Its program: `task->mm->exe_file->f_inode->{i_ino, i_sb->s_dev}`. */
export interface ExecutableFields {
  readonly mm: KernelField
  readonly exeFile: KernelField
  readonly inode: KernelField
  readonly inodeNumber: KernelField
  readonly superBlock: KernelField
  readonly device: KernelField
  /** `undefined` where this kernel keeps it in another way. */
  readonly version?: VersionFields | undefined
}

/** What tells one inode from another of the same number: when it was last changed, and its size. */
export interface VersionFields {
  readonly seconds: KernelField
  readonly nanoseconds: KernelField
  readonly size: KernelField
}

/** `task->nsproxy->mnt_ns->ns.inum`. */
export interface MountNamespaceFields {
  readonly nsproxy: KernelField
  readonly mountNamespace: KernelField
  readonly inum: KernelField
}

/** `task->cred->user_ns->ns.inum`. */
export interface UserNamespaceFields {
  readonly cred: KernelField
  readonly userNamespace: KernelField
  readonly inum: KernelField
}

/** What was found; an absent group means this kernel does not have it where we look. */
export interface KernelFields {
  readonly start?: StartFields | undefined
  readonly pid?: PidFields | undefined
  readonly executable?: ExecutableFields | undefined
  readonly mountNamespace?: MountNamespaceFields | undefined
  readonly userNamespace?: UserNamespaceFields | undefined
}

/** Looks all groups up. `missing` says for each absent group which member was not found. */
export function readKernelFields(btf: Btf): { fields: KernelFields; missing: string[] } {
  const missing: string[] = []
  const field = (struct: string, ...path: string[]) => toField(btf.member(struct, ...path), [struct, ...path].join('.'))
  const group = <Group>(name: string, read: () => Group): Group | undefined => {
    try {
      return read()
    } catch (error) {
      if (!(error instanceof BtfError)) throw error
      missing.push(`${name}: ${error.message}`)
      return undefined
    }
  }
  const fields: KernelFields = {
    start: group('start time', () => ({
      groupLeader: field('task_struct', 'group_leader'),
      startBoottime: field('task_struct', 'start_boottime'),
    })),
    pid: group('pid', () => readPidFields(btf, field)),
    executable: group('executable', () => ({
      mm: field('task_struct', 'mm'),
      exeFile: field('mm_struct', 'exe_file'),
      inode: field('file', 'f_inode'),
      inodeNumber: field('inode', 'i_ino'),
      superBlock: field('inode', 'i_sb'),
      device: field('super_block', 's_dev'),
      version: readVersionFields(field, missing),
    })),
    mountNamespace: group('mount namespace', () => ({
      nsproxy: field('task_struct', 'nsproxy'),
      mountNamespace: field('nsproxy', 'mnt_ns'),
      inum: field('mnt_namespace', 'ns', 'inum'),
    })),
    userNamespace: group('user namespace', () => ({
      cred: field('task_struct', 'cred'),
      userNamespace: field('cred', 'user_ns'),
      inum: field('user_namespace', 'ns', 'inum'),
    })),
  }
  return { fields, missing }
}

/** Where the change time of an inode is: since Linux 6.11, 6.6, and before. */
const CHANGE_TIMES: readonly (readonly [seconds: readonly string[], nanoseconds: readonly string[]])[] = [
  [['i_ctime_sec'], ['i_ctime_nsec']],
  [
    ['__i_ctime', 'tv_sec'],
    ['__i_ctime', 'tv_nsec'],
  ],
  [
    ['i_ctime', 'tv_sec'],
    ['i_ctime', 'tv_nsec'],
  ],
]

function readVersionFields(
  field: (struct: string, ...path: string[]) => KernelField,
  missing: string[],
): VersionFields | undefined {
  for (const [seconds, nanoseconds] of CHANGE_TIMES) {
    try {
      const [time, fraction] = [field('inode', ...seconds), field('inode', ...nanoseconds)]
      return { seconds: time, nanoseconds: fraction, size: field('inode', 'i_size') }
    } catch (error) {
      if (!(error instanceof BtfError) || error.code !== 'BTF_NO_MEMBER') throw error
      // Another kernel's names: the next may be this one's.
    }
  }
  missing.push(
    'change time of executables: rules on executables match nothing on btrfs and on overlays of file systems',
  )
  return undefined
}

function readPidFields(btf: Btf, field: (struct: string, ...path: string[]) => KernelField): PidFields {
  const { array } = btf.member('pid', 'numbers')
  if (array === undefined) throw new BtfError('BTF_NO_MEMBER', 'Cannot use pid.numbers: it is not an array')
  return {
    groupLeader: field('task_struct', 'group_leader'),
    threadPid: field('task_struct', 'thread_pid'),
    level: field('pid', 'level'),
    numbersNr: field('pid', 'numbers', 'nr'),
    numbersNs: field('pid', 'numbers', 'ns'),
    stride: array.elementBytes,
    declaredLength: array.length,
    namespaceInum: field('pid_namespace', 'ns', 'inum'),
  }
}

/** A program loads 1, 2, 4 or 8 bytes at a 16-bit offset; anything else is not the field we know. */
function toField(member: BtfMember, what: string): KernelField {
  const { offsetBytes, sizeBytes } = member
  if ((sizeBytes !== 1 && sizeBytes !== 2 && sizeBytes !== 4 && sizeBytes !== 8) || offsetBytes > 0x7fff) {
    throw new BtfError('BTF_NO_MEMBER', `Cannot use ${what}: ${sizeBytes} bytes at offset ${offsetBytes}`)
  }
  return { offset: offsetBytes, size: sizeBytes }
}
