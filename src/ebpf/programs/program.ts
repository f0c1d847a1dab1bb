/** What a program is before any kernel has seen it: its kind, its lines, and the names of the maps it uses. */

import type { InetAddress } from '../../base/endpoints.ts'
import { type Assembled, assemble } from '../asm/assemble.ts'
import type { Line } from '../asm/instruction.ts'
import type { KernelFields } from '../kernel-fields.ts'

/** Source: include/uapi/linux/bpf.h, `enum bpf_prog_type`. */
export const PROGRAM_TYPES = { CGROUP_SKB: 8, SOCK_OPS: 13, CGROUP_SOCK_ADDR: 18, SYSCALL: 31 } as const

/** Source: include/uapi/linux/bpf.h, `enum bpf_attach_type`. */
export const ATTACH_TYPES = {
  CGROUP_INET_EGRESS: 1,
  CGROUP_SOCK_OPS: 3,
  CGROUP_INET4_CONNECT: 10,
  CGROUP_INET6_CONNECT: 11,
} as const

export type AttachType = keyof typeof ATTACH_TYPES

/** A program, ready to be loaded anywhere. */
export interface ProgramSpec {
  /** At most 15 characters: the kernel shows it to administrators. */
  readonly name: string
  readonly type: keyof typeof PROGRAM_TYPES
  /** Absent for a program that is only run, never attached. */
  readonly attachType?: AttachType | undefined
  /** Sleepable programs run in process context; the SYSCALL type demands it. */
  readonly sleepable: boolean
  readonly code: Assembled
}

/**
 * How fields of kernel structs are read.
 * `helper`: through `bpf_probe_read_kernel` (5.8), which a fault cannot hurt and no type change can confuse;
 * `direct`: plain loads through typed pointers (5.15), the only way under lockdown=confidentiality.
 */
export type TaskReader = 'helper' | 'direct'

/** Where connect leaves a record for the moment the source port is known. */
export type PendingStore = 'storage' | 'lru'

/**
 * How a caller's pid is told in the numbers of the agent's /proc.
 * `initial`: as the machine counts; `child`: the agent lives `level` pid namespaces deep, in the one with that inode;
 * `unknown`: not at all, records say 0.
 */
export type PidView =
  | { readonly kind: 'initial' }
  | { readonly kind: 'child'; readonly level: number; readonly namespace: number }
  | { readonly kind: 'unknown' }

/**
 * What happens to connects to guarded destinations from network namespaces without a listener.
 * `direct`: they are left alone; `deny`: they fail with EPERM; `ask`: they fail, and the agent is told that somebody
 * wants a listener there; `hold`: the same, but the SYN is held back until it is there.
 */
export type OtherNetns = 'direct' | 'deny' | 'ask' | 'hold'

/** What the programs are built for: everything in which two kernels may differ. */
export interface ProgramOptions {
  /** Absent: no BTF, records are reduced. */
  readonly fields?: KernelFields | undefined
  readonly taskReader: TaskReader
  readonly pendingStore: PendingStore
  readonly pidView: PidView
  /** Whether sock_ops programs may ask for the network namespace (5.15). */
  readonly sockopsNetns: boolean
  /**
   * Whether connects are sent on only to a listener that the agent has marked, and refused when there is none: for programs
   * that outlive the agent, whose port anybody could take meanwhile. Needs socket storage.
   */
  readonly checksListener?: boolean | undefined
  readonly otherNetns: OtherNetns
  /** Where listeners are opened in namespaces that ask: dotted address, port in host byte order. */
  readonly listener: InetAddress
  /** Whether the agent can be woken by `bell`; otherwise it looks by itself. */
  readonly hasBell: boolean
}

/** Assembles lines into a spec. */
export function defineProgram(spec: Omit<ProgramSpec, 'code' | 'sleepable'>, lines: readonly Line[]): ProgramSpec {
  return { ...spec, sleepable: spec.type === 'SYSCALL', code: assemble(lines) }
}
