/**
 * Calls into the libc of this process, with errno read before anything else can run.
 *
 * The one file that imports `node:ffi`. Three rules hold for every call in here:
 * - results are `int32`: a returned BigInt would be an allocation, an allocation may collect garbage,
 *   and the collector's own system calls overwrite errno between the call and its reading;
 * - errno is read through a view that was made earlier, in the expression after the call;
 * - memory whose address sits inside another buffer is held in `borrowed` until the call has returned:
 *   the optimiser may otherwise drop a buffer after its last mention, while the kernel still writes to it.
 *
 * Failures come back as `-errno`, the kernel's own convention, because probes treat a failure as an answer.
 * Calls block the event loop; nothing here waits for a network.
 */

import { dlopen, getRawPointer, toArrayBuffer } from 'node:ffi'
import { AgentError } from '../base/errors.ts'

/** Numbers of syscall(2) where libc has no wrapper. Source: asm/unistd_64.h, asm-generic/unistd.h. */
const BPF_NUMBER: Readonly<Record<string, number>> = { x64: 321, arm64: 280 }

const borrowed = new Set<Uint8Array>()

interface Libc {
  readonly functions: ReturnType<typeof openLibc>
  readonly errno: Int32Array
  readonly bpfNumber: number
}

let opened: Libc | undefined

/**
 * Allocates zeroed memory that stays where it is, outside the JavaScript heap, for structs the kernel reads or writes.
 * @param sizeBytes more than 0
 */
export function allocate(sizeBytes: number): Buffer<ArrayBuffer> {
  return Buffer.from(new ArrayBuffer(sizeBytes))
}

/** Tells the address of `memory`. The caller keeps `memory` reachable for as long as the address is used. */
export function addressOf(memory: Uint8Array): bigint {
  return getRawPointer(memory)
}

/**
 * Calls bpf(2).
 * @param attr the filled `union bpf_attr`
 * @param keep every buffer whose address is written inside `attr`
 * @returns a file descriptor or 0, or `-errno`
 */
export function sysBpf(command: number, attr: Buffer, keep: readonly Uint8Array[]): number {
  const { functions, errno, bpfNumber } = libc()
  for (const memory of keep) borrowed.add(memory)
  try {
    const result = functions.syscall(bpfNumber, command, attr, attr.length)
    return result === -1 ? -errno[0]! : result
  } finally {
    for (const memory of keep) borrowed.delete(memory)
  }
}

/** Calls getsockopt(2): fills `value`, whose length is the expected one. Answers 0 or `-errno`. */
export function sysGetsockopt(fd: number, level: number, option: number, value: Buffer): number {
  const { functions, errno } = libc()
  const length = allocate(4)
  length.writeUInt32LE(value.length)
  const result = functions.getsockopt(fd, level, option, value, length)
  return result === -1 ? -errno[0]! : result
}

/** Calls socket(2). Answers a file descriptor or `-errno`. */
export function sysSocket(family: number, type: number, protocol: number): number {
  const { functions, errno } = libc()
  const result = functions.socket(family, type, protocol)
  return result === -1 ? -errno[0]! : result
}

/** Calls connect(2) with a filled `struct sockaddr_*`. Answers 0 or `-errno`. */
export function sysConnect(fd: number, address: Buffer): number {
  const { functions, errno } = libc()
  const result = functions.connect(fd, address, address.length)
  return result === -1 ? -errno[0]! : result
}

/** Calls send(2). Answers how many bytes, or `-errno`. */
export function sysSend(fd: number, bytes: Buffer, flags: number): number {
  const { functions, errno } = libc()
  const result = functions.send(fd, bytes, BigInt(bytes.length), flags)
  return result === -1 ? -errno[0]! : result
}

/** Calls recv(2): fills `into` from its start. Answers how many bytes, or `-errno`. */
export function sysRecv(fd: number, into: Buffer, flags: number): number {
  const { functions, errno } = libc()
  const result = functions.recv(fd, into, BigInt(into.length), flags)
  return result === -1 ? -errno[0]! : result
}

/**
 * Calls sendto(2) with a filled `struct sockaddr_*`.
 * @param flags `MSG_*`
 * @returns how many bytes were taken, or `-errno`
 */
export function sysSendto(fd: number, bytes: Buffer, flags: number, address: Buffer): number {
  const { functions, errno } = libc()
  const result = functions.sendto(fd, bytes, BigInt(bytes.length), flags, address, address.length)
  return result === -1 ? -errno[0]! : result
}

/** Calls flock(2). @param operation `LOCK_*` @returns 0, or `-errno` */
export function sysFlock(fd: number, operation: number): number {
  const { functions, errno } = libc()
  const result = functions.flock(fd, operation)
  return result === -1 ? -errno[0]! : result
}

/** Calls prctl(2) with one argument; the other three are zero, as newer options demand. Answers 0 or `-errno`. */
export function sysPrctl(option: number, argument: bigint): number {
  const { functions, errno } = libc()
  const result = functions.prctl(option, argument, 0n, 0n, 0n)
  return result === -1 ? -errno[0]! : result
}

/** Calls setrlimit(2) with a filled `struct rlimit`: soft and hard limit, 8 bytes each. Answers 0 or `-errno`. */
export function sysSetrlimit(resource: number, limits: Buffer): number {
  const { functions, errno } = libc()
  const result = functions.setrlimit(resource, limits)
  return result === -1 ? -errno[0]! : result
}

/** errno is per thread, and so is this module: a worker that imports it opens its own view. */
function libc(): Libc {
  if (opened !== undefined) return opened
  const bpfNumber = BPF_NUMBER[process.arch]
  if (bpfNumber === undefined) {
    throw new AgentError('BPF_NO_SYSCALL_NUMBER', `Cannot call bpf(2): no syscall number for ${process.arch}`)
  }
  const functions = openLibc()
  const errno = new Int32Array(toArrayBuffer(functions.__errno_location(), 4, false))
  opened = { functions, errno, bpfNumber }
  return opened
}

function openLibc() {
  return dlopen(null, {
    __errno_location: { arguments: [], return: 'pointer' },
    syscall: { arguments: ['int32', 'int32', 'buffer', 'uint32'], return: 'int32' },
    getsockopt: { arguments: ['int32', 'int32', 'int32', 'buffer', 'buffer'], return: 'int32' },
    socket: { arguments: ['int32', 'int32', 'int32'], return: 'int32' },
    connect: { arguments: ['int32', 'buffer', 'uint32'], return: 'int32' },
    send: { arguments: ['int32', 'buffer', 'uint64', 'int32'], return: 'int32' },
    recv: { arguments: ['int32', 'buffer', 'uint64', 'int32'], return: 'int32' },
    sendto: { arguments: ['int32', 'buffer', 'uint64', 'int32', 'buffer', 'uint32'], return: 'int32' },
    flock: { arguments: ['int32', 'int32'], return: 'int32' },
    prctl: { arguments: ['int32', 'uint64', 'uint64', 'uint64', 'uint64'], return: 'int32' },
    setrlimit: { arguments: ['int32', 'buffer'], return: 'int32' },
  }).functions
}
