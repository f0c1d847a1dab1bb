/**
 * What this kernel can do, found by trying: version numbers say little where vendors port features back.
 *
 * Each probe has three answers. `no` is proven by an errno that only a kernel without the feature gives;
 * `unknown` is everything else, such as EPERM. Doubt counts as `no` for those who choose: the feature then is left
 * unused, and its absence is named.
 */

import { BpfAttr, tryBpf } from '../sys/bpf.ts'
import { EINVAL, ENOENT, ENOTSUPP, EOPNOTSUPP, errnoName } from '../sys/errno.ts'
import { SyscallError } from '../sys/syscall-error.ts'
import { mov64 } from './asm/alu.ts'
import { FP, type Line, label, R0, R1, R2, R3, R4, R6 } from './asm/instruction.ts'
import { call, exit, type Helper, jumpEq64 } from './asm/jump.ts'
import { Double, load, loadMap, stackAddress, store } from './asm/load-store.ts'
import { loadProgram } from './load.ts'
import { createMap, type KernelMap } from './maps.ts'
import { SOCK_ADDR, SOCK_OPS } from './programs/context.ts'
import { BELL_MAP, mapSpecs } from './programs/maps.ts'
import { type AttachType, defineProgram, type ProgramSpec } from './programs/program.ts'

/** An answer, and for the last two the reason. */
export type Probe = { readonly answer: 'yes' } | { readonly answer: 'no' | 'unknown'; readonly because: string }

/** The probes that `startRedirector()` runs; tests put other answers in their place. */
export interface KernelProbes {
  readonly haveSocketStorage: () => Probe
  readonly haveTaskReads: () => Probe
  readonly haveTypedTask: () => Probe
  readonly haveSockopsNetns: () => Probe
  readonly haveAtomicTake: () => Probe
  readonly haveRingBuffer: () => Probe
}

const YES: Probe = { answer: 'yes' }

/**
 * Tells whether connect and sock_ops programs may keep data with a socket.
 * EINVAL from either load, or from the creation of the map, proves that they may not.
 * Source: kernel commit 6ac99e8f23d4 (map, 5.2); in connect programs with the getsockopt series of 5.8.
 */
export function haveSocketStorage(): Probe {
  return asProbe('sk_storage_get', () => {
    using pending = createMap(mapSpecs('storage').pending)
    const maps = new Map([['pending', pending]])
    tryLoad(touchStorage('CGROUP_INET4_CONNECT', SOCK_ADDR.sk), maps)
    tryLoad(touchStorage('CGROUP_SOCK_OPS', SOCK_OPS.sk), maps)
  })
}

/**
 * Tells whether connect programs may read kernel memory through the helper: `get_current_task`, `probe_read_kernel`.
 * EINVAL proves that they may not: an older kernel, or lockdown=confidentiality.
 * Source: kernel commit f470378c75c9, 5.8; security/security.c, LOCKDOWN_BPF_READ_KERNEL.
 */
export function haveTaskReads(): Probe {
  return asProbe('probe_read_kernel', () => {
    tryLoad(
      probeProgram('CGROUP_INET4_CONNECT', [
        call('get_current_task'),
        mov64(R3, R0),
        ...stackAddress(R1, -8),
        mov64(R2, 8),
        call('probe_read_kernel'),
      ]),
    )
  })
}

/**
 * Tells whether connect programs get a typed pointer to the current task.
 * Source: kernel commit a396eda5517a, 5.15.
 */
export function haveTypedTask(): Probe {
  return haveHelper('CGROUP_INET4_CONNECT', 'get_current_task_btf', [])
}

/** Tells whether sock_ops programs may ask for the network namespace. Source: 5.15, with commit fab60e29fcc6. */
export function haveSockopsNetns(): Probe {
  return haveHelper('CGROUP_SOCK_OPS', 'get_netns_cookie', [mov64(R1, R6)])
}

/**
 * Tells whether an entry of a hash map can be read and deleted in one step, by trying it on an empty map.
 * ENOENT means that the operation was carried out; EINVAL, EOPNOTSUPP and ENOTSUPP that it does not exist.
 * Source: kernel commit 3e87f192b405, 5.14.
 */
export function haveAtomicTake(): Probe {
  try {
    using map = createMap({ ...mapSpecs('lru').connections, maxEntries: 16 })
    const attr = new BpfAttr(32)
      .u32(0, map.fd)
      .pointer(8, Buffer.alloc(map.spec.keyBytes))
      .pointer(16, Buffer.alloc(map.spec.valueBytes))
    const result = tryBpf('BPF_MAP_LOOKUP_AND_DELETE_ELEM', attr)
    if (result === -ENOENT) return YES
    const answer = [-EINVAL, -EOPNOTSUPP, -ENOTSUPP].includes(result) ? 'no' : 'unknown'
    return { answer, because: `BPF_MAP_LOOKUP_AND_DELETE_ELEM answered ${errnoName(-result)}` }
  } catch (error) {
    return explain('BPF_MAP_LOOKUP_AND_DELETE_ELEM', error)
  }
}

/** Tells whether there are ring buffers. EINVAL proves that there are none. Source: kernel commit 457f44363a88, 5.8. */
export function haveRingBuffer(): Probe {
  try {
    createMap(BELL_MAP)[Symbol.dispose]()
    return YES
  } catch (error) {
    return explain('BPF_MAP_TYPE_RINGBUF', error)
  }
}

/** The real probes. */
export const KERNEL_PROBES: KernelProbes = {
  haveSocketStorage,
  haveTaskReads,
  haveTypedTask,
  haveSockopsNetns,
  haveAtomicTake,
  haveRingBuffer,
}

function haveHelper(attachType: AttachType, helper: Helper, setup: readonly Line[]): Probe {
  return asProbe(helper, () => tryLoad(probeProgram(attachType, [...setup, call(helper)])))
}

/** `body; return 1`, with r6 = ctx. */
function probeProgram(attachType: AttachType, body: readonly Line[]): ProgramSpec {
  const type = attachType === 'CGROUP_SOCK_OPS' ? 'SOCK_OPS' : 'CGROUP_SOCK_ADDR'
  return defineProgram({ name: 'apa_probe', type, attachType }, [
    mov64(R6, R1),
    store(FP, -8, 0, Double),
    ...body,
    label('done'),
    mov64(R0, 1),
    exit(),
  ])
}

function touchStorage(attachType: AttachType, skAt: number): ProgramSpec {
  return probeProgram(attachType, [
    load(R2, R6, skAt, Double),
    jumpEq64(R2, 0, 'done'),
    loadMap(R1, 'pending'),
    mov64(R3, 0),
    mov64(R4, 1),
    call('sk_storage_get'),
    load(R2, R6, skAt, Double),
    jumpEq64(R2, 0, 'done'),
    loadMap(R1, 'pending'),
    call('sk_storage_delete'),
  ])
}

/** A program that does nothing has to load first, or a refusal proves nothing about the feature. */
function tryLoad(spec: ProgramSpec, maps: ReadonlyMap<string, KernelMap> = new Map()): void {
  loadProgram(probeProgram(spec.attachType!, []), maps).close()
  try {
    loadProgram(spec, maps).close()
  } catch (error) {
    throw new FeatureRefused(error)
  }
}

/** Marks a refusal of the feature itself, as opposed to one of programs at large. */
class FeatureRefused extends Error {
  override name = 'FeatureRefused'

  constructor(cause: unknown) {
    super('feature refused', { cause })
  }
}

function asProbe(feature: string, attempt: () => void): Probe {
  try {
    attempt()
    return YES
  } catch (error) {
    return explain(feature, error)
  }
}

function explain(feature: string, error: unknown): Probe {
  const cause = error instanceof FeatureRefused ? error.cause : error
  if (!(cause instanceof SyscallError)) throw cause
  const proven = cause.errno === EINVAL && (error instanceof FeatureRefused || cause.code === 'BPF_MAP_CREATE_FAILED')
  return { answer: proven ? 'no' : 'unknown', because: `${feature}: ${cause.message}` }
}
