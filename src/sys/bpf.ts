/**
 * bpf(2): one system call, many commands, one argument union.
 *
 * `BpfAttr` fills the union by offset, as `linux/bpf.h` lays it out, and remembers each buffer whose address it
 * wrote. `tryBpf()` answers `-errno` for callers to whom a failure is news; `bpf()` throws for the others.
 *
 * Source: bpf(2); include/uapi/linux/bpf.h, `union bpf_attr`, `enum bpf_cmd`.
 */

import { EAGAIN, EINTR, errnoName } from './errno.ts'
import type { Fd } from './fd.ts'
import { addressOf, allocate, sysBpf } from './libc.ts'
import { SyscallError } from './syscall-error.ts'

/** The commands we use, by the kernel's names. */
export const BPF_COMMANDS = {
  BPF_MAP_CREATE: 0,
  BPF_MAP_LOOKUP_ELEM: 1,
  BPF_MAP_UPDATE_ELEM: 2,
  BPF_MAP_DELETE_ELEM: 3,
  BPF_MAP_GET_NEXT_KEY: 4,
  BPF_PROG_LOAD: 5,
  BPF_OBJ_PIN: 6,
  BPF_OBJ_GET: 7,
  BPF_PROG_TEST_RUN: 10,
  BPF_PROG_GET_FD_BY_ID: 13,
  BPF_OBJ_GET_INFO_BY_FD: 15,
  BPF_PROG_QUERY: 16,
  BPF_BTF_LOAD: 18,
  BPF_MAP_LOOKUP_AND_DELETE_ELEM: 21,
  BPF_LINK_CREATE: 28,
  BPF_LINK_UPDATE: 29,
} as const

export type BpfCommand = keyof typeof BPF_COMMANDS

/** Signals do not come that often; the kernel's own library tries five times. */
const MAX_ATTEMPTS = 10

/** One `union bpf_attr` being filled. Unwritten bytes stay zero, which the kernel reads as "not given". */
export class BpfAttr {
  readonly bytes: Buffer
  readonly #kept = new Map<number, Uint8Array>()

  /** @param sizeBytes up to the end of the last field the command knows; older kernels refuse non-zero bytes they do not know */
  constructor(sizeBytes: number) {
    this.bytes = allocate(sizeBytes)
  }

  /** Writes a 32-bit field. */
  u32(offset: number, value: number): this {
    this.bytes.writeUInt32LE(value, offset)
    return this
  }

  /** Writes the address of `memory`, and keeps `memory` alive as long as this object. */
  pointer(offset: number, memory: Uint8Array): this {
    this.bytes.writeBigUInt64LE(addressOf(memory), offset)
    this.#kept.set(offset, memory)
    return this
  }

  /** Writes a name: at most 15 characters of `[A-Za-z0-9_.]`, zero-terminated; the kernel refuses others. */
  name(offset: number, value: string): this {
    this.bytes.write(value.slice(0, 15), offset, 'latin1')
    return this
  }

  /** The buffers whose addresses are written inside. */
  get kept(): readonly Uint8Array[] {
    return [...this.#kept.values()]
  }
}

/**
 * Runs one command. Answers a file descriptor or 0, or `-errno`.
 * The kernel leaves long work, such as verifying a program, when a signal waits for the thread, and says EAGAIN or
 * EINTR; the signal is delivered on the way back, so that a later attempt gets through.
 */
export function tryBpf(command: BpfCommand, attr: BpfAttr): number {
  for (let attempt = 1; ; attempt += 1) {
    const result = sysBpf(BPF_COMMANDS[command], attr.bytes, attr.kept)
    if ((result !== -EAGAIN && result !== -EINTR) || attempt === MAX_ATTEMPTS) return result
  }
}

/**
 * Runs one command that has to succeed.
 * @param what finishes "Cannot …": `create map "policy"`
 * @throws SyscallError code BPF_CALL_FAILED, with a hint where the errno has a usual cause
 */
export function bpf(command: BpfCommand, attr: BpfAttr, what: string): number {
  const result = tryBpf(command, attr)
  if (result < 0) throw bpfError(command, -result, what)
  return result
}

/** Offsets in `union bpf_attr` for BPF_OBJ_GET_INFO_BY_FD. Source: linux/bpf.h. */
const INFO = { bpfFd: 0, infoLen: 4, info: 8, bytes: 16 } as const

/**
 * Asks for what the kernel tells about a map, a program or a link; which `struct bpf_*_info` it is depends on `object`.
 * @param info zeroed; as much as fits is filled in
 * @returns 0 or `-errno`
 */
export function readInfo(object: Fd, info: Buffer): number {
  const attr = new BpfAttr(INFO.bytes)
    .u32(INFO.bpfFd, object.number)
    .u32(INFO.infoLen, info.length)
    .pointer(INFO.info, info)
  return tryBpf('BPF_OBJ_GET_INFO_BY_FD', attr)
}

/** `BPF_OBJ_NAME_LEN`. Source: linux/bpf.h. */
export const NAME_BYTES = 16

/** Reads a name that the kernel wrote: as far as a zero, or as long as it may be. */
export function readName(info: Buffer, offset: number): string {
  return info.toString('latin1', offset, offset + NAME_BYTES).replace(/\0.*$/s, '')
}

/** Makes the error for a refused command; `code` where callers tell failures apart. */
export function bpfError(command: BpfCommand, errno: number, what: string, code = 'BPF_CALL_FAILED'): SyscallError {
  const message = `Cannot ${what}: kernel answered ${errnoName(errno)}`
  return new SyscallError(code, message, { command, errno, hint: USUAL_CAUSES[errnoName(errno)] })
}

const USUAL_CAUSES: Readonly<Record<string, string>> = {
  EPERM: 'needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON in the initial user namespace',
  ENOSYS: 'this kernel was built without the bpf system call, or a seccomp filter hides it',
  ENOMEM: 'the kernel has no memory left for this object',
  E2BIG: 'too many entries, or a field that this kernel does not know',
}
