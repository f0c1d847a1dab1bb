/**
 * Calls into the libc of this process and into the event loop's library, with errno read before anything else can run.
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

import { dlopen, getCurrentEventLoop, getRawPointer, toArrayBuffer } from 'node:ffi'
import { AgentError } from '../base/errors.ts'

/** Numbers of syscall(2) where libc has no wrapper. Source: asm/unistd_64.h, asm-generic/unistd.h. */
const BPF_NUMBER: Readonly<Record<string, number>> = { x64: 321, arm64: 280 }

const borrowed = new Set<Uint8Array>()

const MAP_FAILED = 0xffff_ffff_ffff_ffffn

/** Source: uv.h, `uv_handle_type` and `enum uv_poll_event`; in the order of UV_HANDLE_TYPE_MAP. */
const UV_POLL = 8
const UV_READABLE = 1

interface Libc {
  readonly functions: ReturnType<typeof openLibc>['functions']
  readonly library: ReturnType<typeof openLibc>['lib']
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

/** A `socklen_t` that goes in and comes out. No call is made while another is. */
const LENGTH = allocate(4)

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
  LENGTH.writeUInt32LE(value.length)
  const result = functions.getsockopt(fd, level, option, value, LENGTH)
  return result === -1 ? -errno[0]! : result
}

/** Calls getsockname(2): fills `address`. Answers 0 or `-errno`. */
export function sysGetsockname(fd: number, address: Buffer): number {
  const { functions, errno } = libc()
  LENGTH.writeUInt32LE(address.length)
  const result = functions.getsockname(fd, address, LENGTH)
  return result === -1 ? -errno[0]! : result
}

/** Calls socket(2). Answers a file descriptor or `-errno`. */
export function sysSocket(family: number, type: number, protocol: number): number {
  const { functions, errno } = libc()
  const result = functions.socket(family, type, protocol)
  return result === -1 ? -errno[0]! : result
}

/** Calls accept4(2): fills `peer` with the peer's address. Answers a file descriptor or `-errno`. */
export function sysAccept4(fd: number, peer: Buffer, flags: number): number {
  const { functions, errno } = libc()
  LENGTH.writeUInt32LE(peer.length)
  const result = functions.accept4(fd, peer, LENGTH, flags)
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

/**
 * Calls sendmsg(2) with a filled `struct msghdr`.
 * @param keep every buffer whose address is written inside
 * @returns how many bytes were taken, or `-errno`
 */
export function sysSendmsg(fd: number, header: Buffer, flags: number, keep: readonly Uint8Array[]): number {
  const { functions, errno } = libc()
  for (const memory of keep) borrowed.add(memory)
  try {
    const result = functions.sendmsg(fd, header, flags)
    return result === -1 ? -errno[0]! : result
  } finally {
    for (const memory of keep) borrowed.delete(memory)
  }
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

/**
 * Calls setns(2): moves the calling thread, and no other, into a namespace. Answers 0 or `-errno`.
 * @param kind `CLONE_NEW*` of what `fd` must be
 */
export function sysSetns(fd: number, kind: number): number {
  const { functions, errno } = libc()
  const result = functions.setns(fd, kind)
  return result === -1 ? -errno[0]! : result
}

/** Calls setsockopt(2). Answers 0 or `-errno`. */
export function sysSetsockopt(fd: number, level: number, option: number, value: Buffer): number {
  const { functions, errno } = libc()
  const result = functions.setsockopt(fd, level, option, value, value.length)
  return result === -1 ? -errno[0]! : result
}

/** Calls bind(2) with a filled `struct sockaddr_*`. Answers 0 or `-errno`. */
export function sysBind(fd: number, address: Buffer): number {
  const { functions, errno } = libc()
  const result = functions.bind(fd, address, address.length)
  return result === -1 ? -errno[0]! : result
}

/** Calls listen(2). Answers 0 or `-errno`. */
export function sysListen(fd: number, backlog: number): number {
  const { functions, errno } = libc()
  const result = functions.listen(fd, backlog)
  return result === -1 ? -errno[0]! : result
}

/** Calls ioctl(2) with a pointer to `argument`. Answers what the request answers, or `-errno`. */
export function sysIoctl(fd: number, request: number, argument: Buffer): number {
  const { functions, errno } = libc()
  const result = functions.ioctl(fd, BigInt(request), argument)
  return result === -1 ? -errno[0]! : result
}

/** Tells the size of a page of memory, which on arm64 can be 64 KiB. */
export function sysPageSize(): number {
  return libc().functions.getpagesize()
}

/**
 * Calls mmap(2); the kernel chooses the address. Not for frequent use: a BigInt comes back.
 * @returns the memory, valid until `sysMunmap()`, or `-errno`
 */
export function sysMmap(
  sizeBytes: number,
  protection: number,
  flags: number,
  fd: number,
  offset: number,
): { readonly address: bigint; readonly buffer: ArrayBuffer } | number {
  const { functions, errno } = libc()
  const address = functions.mmap(0n, BigInt(sizeBytes), protection, flags, fd, BigInt(offset))
  if (address === MAP_FAILED) return -errno[0]!
  return { address, buffer: toArrayBuffer(address, sizeBytes, false) }
}

/** Calls munmap(2); buffers over that memory must not be used any more. Answers 0 or `-errno`. */
export function sysMunmap(address: bigint, sizeBytes: number): number {
  const { functions, errno } = libc()
  const result = functions.munmap(address, BigInt(sizeBytes))
  return result === -1 ? -errno[0]! : result
}

/**
 * Calls `onReadable` from the event loop of this thread each time the descriptor is readable; the loop does not stay alive
 * for it. `onReadable` runs outside of what Node does around its own callbacks: it must not throw.
 * @returns what stops it, or `-errno`
 * Source: libuv's uv_poll_t. The loop keeps using the handle's memory until it has told that the handle is closed.
 */
export function uvWatchReadable(fd: number, onReadable: () => void): (() => void) | number {
  const { functions, library } = libc()
  const handle = allocate(Number(functions.uv_handle_size(UV_POLL)))
  const refused = functions.uv_poll_init(getCurrentEventLoop(), handle, fd)
  if (refused < 0) return refused
  borrowed.add(handle)
  const readable = library.registerCallback({ arguments: ['pointer', 'int32', 'int32'], return: 'void' }, onReadable)
  const closed = library.registerCallback({ arguments: ['pointer'], return: 'void' }, () => {
    borrowed.delete(handle)
    setImmediate(() => {
      for (const callback of [readable, closed]) library.unregisterCallback(callback)
    })
  })
  let isOpen = true
  const stop = () => {
    if (isOpen) functions.uv_close(handle, closed)
    isOpen = false
  }
  functions.uv_unref(handle)
  const started = functions.uv_poll_start(handle, UV_READABLE, readable)
  if (started === 0) return stop
  stop()
  return started
}

/** Calls mallopt(3). Failures have no effect but more memory in use. */
export function sysMallopt(parameter: number, value: number): void {
  libc().functions.mallopt(parameter, value)
}

/** Calls malloc_trim(3). @param padBytes what to keep at the top of the heap */
export function sysMallocTrim(padBytes: bigint): void {
  libc().functions.malloc_trim(padBytes)
}

/** Calls madvise(2). @param address a page's, as is the end @returns 0, or `-errno` */
export function sysMadvise(address: bigint, sizeBytes: bigint, advice: number): number {
  const { functions, errno } = libc()
  const result = functions.madvise(address, sizeBytes, advice)
  return result === -1 ? -errno[0]! : result
}

/** Calls alarm(2). @param seconds 0 takes an earlier one back */
export function sysAlarm(seconds: number): void {
  libc().functions.alarm(seconds)
}

/** Calls _exit(2), which ends all threads and does not return. */
export function sysExit(code: number): void {
  libc().functions._exit(code)
}

/** errno is per thread, and so is this module: a worker that imports it opens its own view. */
function libc(): Libc {
  if (opened !== undefined) return opened
  const bpfNumber = BPF_NUMBER[process.arch]
  if (bpfNumber === undefined) {
    throw new AgentError('BPF_NO_SYSCALL_NUMBER', `Cannot call bpf(2): no syscall number for ${process.arch}`)
  }
  const { functions, lib: library } = openLibc()
  const errno = new Int32Array(toArrayBuffer(functions.__errno_location(), 4, false))
  opened = { functions, library, errno, bpfNumber }
  return opened
}

function openLibc() {
  return dlopen(null, {
    __errno_location: { arguments: [], return: 'pointer' },
    syscall: { arguments: ['int32', 'int32', 'buffer', 'uint32'], return: 'int32' },
    getsockopt: { arguments: ['int32', 'int32', 'int32', 'buffer', 'buffer'], return: 'int32' },
    socket: { arguments: ['int32', 'int32', 'int32'], return: 'int32' },
    getsockname: { arguments: ['int32', 'buffer', 'buffer'], return: 'int32' },
    accept4: { arguments: ['int32', 'buffer', 'buffer', 'int32'], return: 'int32' },
    connect: { arguments: ['int32', 'buffer', 'uint32'], return: 'int32' },
    send: { arguments: ['int32', 'buffer', 'uint64', 'int32'], return: 'int32' },
    recv: { arguments: ['int32', 'buffer', 'uint64', 'int32'], return: 'int32' },
    sendto: { arguments: ['int32', 'buffer', 'uint64', 'int32', 'buffer', 'uint32'], return: 'int32' },
    sendmsg: { arguments: ['int32', 'buffer', 'int32'], return: 'int32' },
    flock: { arguments: ['int32', 'int32'], return: 'int32' },
    prctl: { arguments: ['int32', 'uint64', 'uint64', 'uint64', 'uint64'], return: 'int32' },
    mallopt: { arguments: ['int32', 'int32'], return: 'int32' },
    malloc_trim: { arguments: ['uint64'], return: 'int32' },
    madvise: { arguments: ['uint64', 'uint64', 'int32'], return: 'int32' },
    alarm: { arguments: ['uint32'], return: 'uint32' },
    _exit: { arguments: ['int32'], return: 'void' },
    setrlimit: { arguments: ['int32', 'buffer'], return: 'int32' },
    setns: { arguments: ['int32', 'int32'], return: 'int32' },
    setsockopt: { arguments: ['int32', 'int32', 'int32', 'buffer', 'uint32'], return: 'int32' },
    bind: { arguments: ['int32', 'buffer', 'uint32'], return: 'int32' },
    listen: { arguments: ['int32', 'int32'], return: 'int32' },
    ioctl: { arguments: ['int32', 'uint64', 'buffer'], return: 'int32' },
    getpagesize: { arguments: [], return: 'int32' },
    mmap: { arguments: ['uint64', 'uint64', 'int32', 'int32', 'int32', 'int64'], return: 'uint64' },
    munmap: { arguments: ['uint64', 'uint64'], return: 'int32' },
    uv_handle_size: { arguments: ['int32'], return: 'uint64' },
    uv_poll_init: { arguments: ['pointer', 'buffer', 'int32'], return: 'int32' },
    uv_poll_start: { arguments: ['buffer', 'int32', 'pointer'], return: 'int32' },
    uv_unref: { arguments: ['buffer'], return: 'void' },
    uv_close: { arguments: ['buffer', 'pointer'], return: 'void' },
  })
}
