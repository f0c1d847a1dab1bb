/** What is known of this kernel before anything is loaded: what it can do, and where it keeps what we read. */

import { readFileSync } from 'node:fs'
import { readNamespaceId } from '../sys/process.ts'
import { BtfError, parseBtf } from './btf.ts'
import { type KernelFields, readKernelFields } from './kernel-fields.ts'
import type { OwnIdentity } from './own-identity.ts'
import { KERNEL_PROBES, type KernelProbes, type Probe } from './probe.ts'
import type { PendingStore, TaskReader } from './programs/program.ts'

/** What `startRedirector()` looks at besides the kernel's bpf(2). */
export interface RedirectorEnv {
  /** The kernel's types; `undefined` when it does not tell. */
  readonly readBtf: () => Uint8Array | undefined
  /** Inode of the pid namespace of this process. */
  readonly pidNamespace: () => number
  /** How many CPUs the kernel may ever have: per-CPU maps hold a value for each. */
  readonly possibleCpus: () => number
  readonly probes: KernelProbes
  readonly ownIdentityWays: readonly OwnIdentity['way'][]
}

export const REAL_REDIRECTOR_ENV: RedirectorEnv = {
  readBtf: () => readIfThere('/sys/kernel/btf/vmlinux'),
  pidNamespace: () => readNamespaceId('pid'),
  possibleCpus: () => countCpus(readFileSync('/sys/devices/system/cpu/possible', 'latin1')),
  probes: KERNEL_PROBES,
  ownIdentityWays: ['run', 'connect'],
}

/** What is known of it. */
export interface KernelView {
  readonly fields: KernelFields | undefined
  /** In order of preference; the last one, `undefined`, is without BTF. */
  readonly readers: readonly (TaskReader | undefined)[]
  readonly pendingStore: PendingStore
  readonly atomicTake: boolean
  readonly sockopsNetns: boolean
  readonly hasBell: boolean
  readonly lacking: string[]
}

/** Looks at the kernel. What it lacks is named in `lacking`. */
export function examineKernel(env: RedirectorEnv): KernelView {
  const lacking: string[] = []
  const has = (probe: () => Probe, without: string): boolean => {
    const result = probe()
    if (result.answer === 'yes') return true
    lacking.push(`${without} (${result.answer === 'no' ? 'unsupported' : 'could not tell'}: ${result.because})`)
    return false
  }
  const fields = readFields(env, lacking)
  return {
    fields,
    readers: [...(fields === undefined ? [] : usableReaders(env.probes, lacking)), undefined],
    pendingStore: has(env.probes.haveSocketStorage, 'callers are remembered in a shared table') ? 'storage' : 'lru',
    atomicTake: has(env.probes.haveAtomicTake, 'records are taken in two steps'),
    sockopsNetns: has(env.probes.haveSockopsNetns, 'stale records are cleared only by remembered connects'),
    hasBell: has(env.probes.haveRingBuffer, 'namespaces that want a listener are looked for'),
    lacking,
  }
}

/** The typed way is only asked for when the other one is missing: it is the second choice. */
function usableReaders(probes: KernelProbes, lacking: string[]): TaskReader[] {
  const helper = probes.haveTaskReads()
  const direct = probes.haveTypedTask()
  if (helper.answer !== 'yes' && direct.answer !== 'yes') {
    lacking.push(`no caller details, records are reduced (${helper.because}; ${direct.because})`)
  }
  return [
    ...(helper.answer === 'yes' ? ['helper' as const] : []),
    ...(direct.answer === 'yes' ? ['direct' as const] : []),
  ]
}

/** The file is 5 MB and is let go of when this returns. */
function readFields(env: RedirectorEnv, lacking: string[]): KernelFields | undefined {
  const file = env.readBtf()
  if (file === undefined) {
    lacking.push('no caller details, records are reduced (the kernel does not tell its types)')
    return undefined
  }
  try {
    const { fields, missing } = readKernelFields(parseBtf(file))
    lacking.push(...missing.map((what) => `no ${what}`))
    return fields
  } catch (error) {
    if (!(error instanceof BtfError)) throw error
    lacking.push(`no caller details, records are reduced (${error.message})`)
    return undefined
  }
}

/** Counts the CPUs in the kernel's list of ranges: `0-3,8` are five. Per-CPU maps hold that many values, without gaps. */
export function countCpus(list: string): number {
  const ranges = list
    .trim()
    .split(',')
    .map((range) => range.split('-').map(Number))
  return ranges.reduce((sum, [first = 0, last = first]) => sum + last - first + 1, 0)
}

function readIfThere(path: string): Uint8Array | undefined {
  try {
    return readFileSync(path)
  } catch {
    return undefined // no BTF in this kernel, or /sys not mounted: records are reduced, which is named
  }
}
