/**
 * Describes the calling process into the record on the stack.
 *
 * What no offset is known for stays zero, which readers take as "not known". A NULL on the way (no mm, no exe_file)
 * leaves just that part zero. Nothing in here can fail the connect.
 */

import { and32, mov64, shiftRight64 } from '../asm/alu.ts'
import { FP, type Line, label, R0, R1, R2, R7, R8, R9 } from '../asm/instruction.ts'
import { call, jump, jumpLt32, jumpNe32 } from '../asm/jump.ts'
import { Double, load, stackAddress, store, Word } from '../asm/load-store.ts'
import type { KernelField, KernelFields, PidFields, VersionFields } from '../kernel-fields.ts'
import { COMM_BYTES, RECORD } from '../records.ts'
import type { PidView, ProgramOptions, TaskReader } from './program.ts'
import { STACK } from './stack.ts'
import { currentTask, followPointers, readField } from './task.ts'

/** How deep pid namespaces are followed. The kernel allows 32; containers in containers use three. */
const MAX_PID_LEVELS = 8

/** Tells whether records made with these fields lack the start time or the executable. */
export function isReduced(fields: KernelFields | undefined): boolean {
  return fields?.start === undefined || fields.executable === undefined
}

/**
 * Emits `selfKey = {tgid, start time}` of the calling process: what tells the agent from all others.
 *
 * Ledger:   r7 = current task · r8 = its group leader · r9 = the start time
 * Clobbers: r0 to r5, r7, r8, r9
 */
export function identifyCaller({ fields, taskReader }: Pick<ProgramOptions, 'fields' | 'taskReader'>): Line[] {
  const tgid: Line[] = [
    call('get_current_pid_tgid'), // r0 = tgid << 32 | pid, in the initial pid namespace
    shiftRight64(R0, 32),
    store(FP, STACK.selfKey, R0, Double), // selfKey.tgid = tgid, and the zero beside it
    store(FP, STACK.selfKey + 8, 0, Double), // selfKey.startTimeNs = 0, until known
  ]
  if (fields?.start === undefined) return tgid
  return [
    ...tgid,
    ...currentTask(taskReader, R7), // r7 = current
    ...followPointers(taskReader, R8, R7, [fields.start.groupLeader], 'start time done'), // r8 = current->group_leader
    ...readField(taskReader, R9, R8, fields.start.startBoottime), // r9 = r8->start_boottime
    store(FP, STACK.selfKey + 8, R9, Double), // selfKey.startTimeNs = r9
    label('start time done'),
  ]
}

/**
 * Emits the description of the caller.
 *
 * In:       the record on the stack, its caller part zeroed; selfKey
 * Out:      record.{pid, uid, gid, exeDevice, startTimeNs, exeInode, exeChanged*, exeSizeBytes, cgroupId, *Namespace, comm}
 * Ledger:   r7 = current task · r8 = the pointer being followed · r9 = a number on its way to the record
 * Clobbers: r0 to r5, r7, r8, r9
 */
export function describeCaller({ fields, taskReader, pidView }: ProgramOptions): Line[] {
  const numbers = numbersFromHelpers(pidView)
  if (fields === undefined) return numbers
  const { pid, executable, mountNamespace: mount, userNamespace: user } = fields
  const mountPath = mount && [mount.nsproxy, mount.mountNamespace, mount.inum]
  const userPath = user && [user.cred, user.userNamespace, user.inum]
  return [
    ...numbers,
    ...currentTask(taskReader, R7), // r7 = current
    ...(pid ? pidAndNamespace(taskReader, pid, pidView) : []),
    ...(executable ? readExecutable(taskReader, executable) : []),
    ...(mountPath ? namespaceNumber(taskReader, 'mount namespace', RECORD.mountNamespace, mountPath) : []),
    ...(userPath ? namespaceNumber(taskReader, 'user namespace', RECORD.userNamespace, userPath) : []),
  ]
}

/** Emits `r9 = level of the caller's pid namespace`, all ones when not known. Clobbers r0 to r5, r7, r8, r9. */
export function readPidLevel({ fields, taskReader }: Pick<ProgramOptions, 'fields' | 'taskReader'>): Line[] {
  if (fields?.pid === undefined) return [mov64(R9, -1)]
  return [
    mov64(R9, -1),
    ...currentTask(taskReader, R7), // r7 = current
    ...followPointers(taskReader, R8, R7, [fields.pid.groupLeader, fields.pid.threadPid], 'level done'),
    ...readField(taskReader, R9, R8, fields.pid.level), // r9 = leader's pid->level
    label('level done'),
  ]
}

/** What the kernel answers without knowing any struct: all of a reduced record. */
function numbersFromHelpers(pidView: PidView): Line[] {
  return [
    load(R1, FP, STACK.selfKey + 8, Double),
    store(FP, STACK.record + RECORD.startTimeNs, R1, Double), // record.startTimeNs = selfKey.startTimeNs
    ...(pidView.kind === 'initial' ? pidAsTheMachineCounts() : []),
    call('get_current_uid_gid'), // r0 = gid << 32 | uid: the uid is the low half
    store(FP, STACK.record + RECORD.uid, R0, Word), // record.uid = (u32) r0
    shiftRight64(R0, 32),
    store(FP, STACK.record + RECORD.gid, R0, Word), // record.gid = r0 >> 32
    call('get_current_cgroup_id'),
    store(FP, STACK.record + RECORD.cgroupId, R0, Double), // record.cgroupId = r0
    ...stackAddress(R1, STACK.record + RECORD.comm),
    mov64(R2, COMM_BYTES),
    call('get_current_comm'), // record.comm = current->comm
  ]
}

function pidAsTheMachineCounts(): Line[] {
  return [
    load(R1, FP, STACK.selfKey, Word),
    store(FP, STACK.record + RECORD.pid, R1, Word), // record.pid = selfKey.tgid
  ]
}

/**
 * `struct pid` holds one number per pid namespace that can see the process, from the initial one (0) down to its own
 * (`level`). The agent reads the number at its own level, provided that the namespace there is the agent's; the
 * process' own namespace is the one at `level`. An index cannot be computed in a typed pointer, so levels are unrolled.
 */
function pidAndNamespace(reader: TaskReader, fields: PidFields, pidView: PidView): Line[] {
  return [
    ...followPointers(reader, R8, R7, [fields.groupLeader, fields.threadPid], 'pid done'), // r8 = leader's struct pid
    ...(pidView.kind === 'child' ? pidInView(reader, fields, pidView) : []),
    ...readField(reader, R9, R8, fields.level), // r9 = pid->level
    ...ownNamespacePointer(reader, fields),
    jump('pid done'), // deeper than we follow
    label('pid namespace found'),
    ...readField(reader, R9, R8, fields.namespaceInum), // r9 = r8->ns.inum
    store(FP, STACK.record + RECORD.pidNamespace, R9, Word), // record.pidNamespace = r9
    label('pid done'),
  ]
}

/** `if (pid->level >= L && pid->numbers[L].ns->ns.inum == mine) record.pid = pid->numbers[L].nr`; keeps r8. */
function pidInView(reader: TaskReader, fields: PidFields, view: { level: number; namespace: number }): Line[] {
  const numbersNs = atIndex(fields.numbersNs, fields.stride, view.level)
  const numbersNr = atIndex(fields.numbersNr, fields.stride, view.level)
  if (!isReachable(reader, fields, view.level)) return []
  return [
    ...readField(reader, R9, R8, fields.level), // r9 = pid->level
    jumpLt32(R9, view.level, 'not in view'), // the process lives above the agent's namespace
    ...followPointers(reader, R9, R8, [numbersNs], 'not in view'), // r9 = pid->numbers[L].ns
    ...readField(reader, R9, R9, fields.namespaceInum), // r9 = r9->ns.inum
    jumpNe32(R9, view.namespace, 'not in view'), // the process lives beside it
    ...readField(reader, R9, R8, numbersNr), // r9 = pid->numbers[L].nr
    store(FP, STACK.record + RECORD.pid, R9, Word), // record.pid = r9
    label('not in view'),
  ]
}

/** `switch (r9) { case i: r8 = pid->numbers[i].ns; goto found; }` */
function ownNamespacePointer(reader: TaskReader, fields: PidFields): Line[] {
  const levels = Array.from({ length: MAX_PID_LEVELS }, (_, level) => level)
  return levels
    .filter((level) => isReachable(reader, fields, level))
    .flatMap((level) => [
      jumpNe32(R9, level, `not level ${level}`),
      ...followPointers(reader, R8, R8, [atIndex(fields.numbersNs, fields.stride, level)], 'pid done'),
      jump('pid namespace found'),
      label(`not level ${level}`),
    ])
}

/** A typed pointer may not be read past the declared end; before 6.5 the array was declared with one element. */
function isReachable(reader: TaskReader, fields: PidFields, level: number): boolean {
  return reader === 'helper' || fields.declaredLength === 0 || level < fields.declaredLength
}

function atIndex(field: KernelField, stride: number, index: number): KernelField {
  return { ...field, offset: field.offset + stride * index }
}

function readExecutable(reader: TaskReader, fields: NonNullable<KernelFields['executable']>): Line[] {
  const toInode = [fields.mm, fields.exeFile, fields.inode]
  return [
    ...followPointers(reader, R8, R7, toInode, 'executable done'), // r8 = current->mm->exe_file->f_inode
    ...readField(reader, R9, R8, fields.inodeNumber), // r9 = r8->i_ino
    store(FP, STACK.record + RECORD.exeInode, R9, Double), // record.exeInode = r9
    ...(fields.version ? readVersion(reader, fields.version) : []),
    ...followPointers(reader, R8, R8, [fields.superBlock], 'executable done'), // r8 = r8->i_sb
    ...readField(reader, R9, R8, fields.device), // r9 = r8->s_dev
    store(FP, STACK.record + RECORD.exeDevice, R9, Word), // record.exeDevice = r9
    label('executable done'),
  ]
}

/**
 * `record.exeChanged = {r8->i_ctime_sec, r8->i_ctime_nsec & 0x7fffffff}`, `record.exeSizeBytes = r8->i_size`. Since Linux 6.13
 * the kernel keeps a mark of its own in the highest bit. Source: include/linux/fs.h, I_CTIME_QUERIED.
 */
function readVersion(reader: TaskReader, { seconds, nanoseconds, size }: VersionFields): Line[] {
  return [
    ...readField(reader, R9, R8, seconds), // r9 = r8->i_ctime_sec
    store(FP, STACK.record + RECORD.exeChangedSeconds, R9, Double),
    ...readField(reader, R9, R8, nanoseconds), // r9 = r8->i_ctime_nsec
    and32(R9, 0x7fff_ffff),
    store(FP, STACK.record + RECORD.exeChangedNs, R9, Word),
    ...readField(reader, R9, R8, size), // r9 = r8->i_size
    store(FP, STACK.record + RECORD.exeSizeBytes, R9, Double),
  ]
}

/** `record[at] = current->a->b->inum`; the last field is the number, the ones before it are pointers. */
function namespaceNumber(reader: TaskReader, what: string, at: number, path: readonly KernelField[]): Line[] {
  const pointers = path.slice(0, -1)
  return [
    ...followPointers(reader, R8, R7, pointers, `${what} done`), // r8 = the namespace
    ...readField(reader, R9, R8, path.at(-1)!), // r9 = r8->ns.inum
    store(FP, STACK.record + at, R9, Word),
    label(`${what} done`),
  ]
}
