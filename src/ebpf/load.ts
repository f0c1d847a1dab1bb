/** Loads programs into the kernel, and tells why the verifier said no. */

import { BpfAttr, bpfError, tryBpf } from '../sys/bpf.ts'
import { ENOSPC, EPERM, errnoName } from '../sys/errno.ts'
import { Fd } from '../sys/fd.ts'
import { allocate } from '../sys/libc.ts'
import { liftMemlockLimit } from '../sys/process.ts'
import { SyscallError } from '../sys/syscall-error.ts'
import { SLOT_BYTES, withMaps } from './asm/assemble.ts'
import type { KernelMap } from './maps.ts'
import { ATTACH_TYPES, PROGRAM_TYPES, type ProgramSpec } from './programs/program.ts'

/** Offsets in `union bpf_attr` for BPF_PROG_LOAD. Source: linux/bpf.h. */
const LOAD = {
  progType: 0,
  insnCnt: 4,
  insns: 8,
  license: 16,
  logLevel: 24,
  logSize: 28,
  logBuf: 32,
  progFlags: 44,
  progName: 48,
  expectedAttachType: 68,
  bytes: 72,
} as const

/** Source: linux/bpf.h, BPF_F_SLEEPABLE. */
const SLEEPABLE = 1 << 4

/** Reading kernel memory is reserved for programs under a licence that goes with the GPL. */
const LICENSE = 'Dual MIT/GPL'

const FIRST_LOG_BYTES = 256 * 1024
const MAX_LOG_BYTES = 16 * 1024 * 1024

/** The kernel refused a program. `log` is all the verifier said; the message holds its last words. */
export class VerifierError extends SyscallError {
  override name = 'VerifierError'
  readonly log: string

  constructor(program: string, errno: number, log: string) {
    const summary = summarize(log)
    const message = `Cannot load program "${program}": kernel answered ${errnoName(errno)}${summary && `: ${summary}`}`
    super('BPF_PROG_LOAD_FAILED', message, { command: 'BPF_PROG_LOAD', errno, hint: HINTS[errnoName(errno)] })
    this.log = log
  }
}

/**
 * Loads one program.
 * The verifier's log is asked for only after a refusal: writing it makes every load slower.
 * @param maps every map the program names; a program that names another one is a fault of ours
 * @throws VerifierError when the verifier refused it; SyscallError code BPF_PROG_LOAD_FAILED when it was not reached
 */
export function loadProgram(spec: ProgramSpec, maps: ReadonlyMap<string, KernelMap>): Fd {
  const code = nativeCopy(withMaps(spec.code, (name) => fdOfMap(maps, name)))
  const attr = () => loadAttr(spec, code)
  let result = tryBpf('BPF_PROG_LOAD', attr())
  // Before 5.11 programs count as locked memory; EPERM is how that limit speaks.
  if (result === -EPERM && liftMemlockLimit()) result = tryBpf('BPF_PROG_LOAD', attr())
  if (result >= 0) return new Fd(result, `program "${spec.name}"`)
  const log = readVerifierLog(attr)
  if (log === '') throw bpfError('BPF_PROG_LOAD', -result, `load program "${spec.name}"`, 'BPF_PROG_LOAD_FAILED')
  throw new VerifierError(spec.name, -result, log)
}

/** Loads once more to hear why; the kernel answers ENOSPC when the log does not fit. */
function readVerifierLog(attr: () => BpfAttr): string {
  for (let size = FIRST_LOG_BYTES; size <= MAX_LOG_BYTES; size *= 8) {
    const log = allocate(size)
    const result = tryBpf(
      'BPF_PROG_LOAD',
      attr().u32(LOAD.logLevel, 1).u32(LOAD.logSize, size).pointer(LOAD.logBuf, log),
    )
    if (result >= 0) new Fd(result, 'program').close() // it loads now: there is nothing to explain
    if (result !== -ENOSPC || size * 8 > MAX_LOG_BYTES) return log.toString('latin1', 0, log.indexOf(0))
  }
  return ''
}

function loadAttr(spec: ProgramSpec, code: Buffer): BpfAttr {
  const license = nativeCopy(Buffer.from(`${LICENSE}\0`, 'latin1'))
  return new BpfAttr(LOAD.bytes)
    .u32(LOAD.progType, PROGRAM_TYPES[spec.type])
    .u32(LOAD.insnCnt, code.length / SLOT_BYTES)
    .pointer(LOAD.insns, code)
    .pointer(LOAD.license, license)
    .u32(LOAD.progFlags, spec.sleepable ? SLEEPABLE : 0)
    .name(LOAD.progName, spec.name)
    .u32(LOAD.expectedAttachType, spec.attachType === undefined ? 0 : ATTACH_TYPES[spec.attachType])
}

function fdOfMap(maps: ReadonlyMap<string, KernelMap>, name: string): number {
  const map = maps.get(name)
  if (map === undefined) throw new RangeError(`Cannot load: the program names map "${name}", which was not given`)
  return map.fd
}

function nativeCopy(bytes: Buffer): Buffer {
  const copy = allocate(bytes.length)
  bytes.copy(copy)
  return copy
}

/** The verifier ends with statistics; the line before them says what was wrong. */
function summarize(log: string): string {
  const lines = log
    .split('\n')
    .filter((line) => line !== '' && !/^(processed|verification time|stack depth|mark_)/.test(line))
  return lines.at(-1)?.trim() ?? ''
}

const HINTS: Readonly<Record<string, string>> = {
  EACCES: 'the verifier refuses what the program does; its log is on the error',
  EINVAL: 'this kernel lacks a helper or an instruction that the program uses',
  EPERM: 'needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON in the initial user namespace',
}
