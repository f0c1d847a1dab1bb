/**
 * The way to the service manager: a datagram socket that a unix address names. `node:dgram` has none of that kind.
 *
 * Source: sd_notify(3); unix(7), `struct sockaddr_un`.
 */

import { errnoName } from './errno.ts'
import { Fd } from './fd.ts'
import { addressOf, allocate, sysSendmsg, sysSendto, sysSocket } from './libc.ts'
import { SOCK_CLOEXEC, SOCK_DGRAM, SOL_SOCKET, socketError } from './socket.ts'

const AF_UNIX = 1
const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000

/**
 * `struct msghdr` and `struct cmsghdr` with one descriptor, on 64-bit machines.
 * Source: socket.h; unix(7), SCM_RIGHTS.
 */
const MSGHDR = { name: 0, nameLength: 8, iov: 16, iovLength: 24, control: 32, controlLength: 40, bytes: 56 } as const
const CMSGHDR = { length: 0, level: 8, type: 12, data: 16, bytes: 24 } as const
const SCM_RIGHTS = 1

/** `sun_path` has 108 bytes; a path ends in a zero, an abstract name does not. */
const MAX_PATH_BYTES = 107

export interface NotifySocket extends Disposable {
  /**
   * Sends one message, or gives it up: never waits, and no reader who has gone raises a signal.
   * @returns why it was given up, `undefined` when it was taken
   */
  send(text: string): string | undefined
  /** As `send()`, with a copy of a descriptor. */
  sendWithDescriptor(text: string, descriptor: number): string | undefined
}

/**
 * Opens a socket for messages to `address`: an absolute path, or `@` and an abstract name.
 * @throws SyscallError code NOTIFY_SOCKET_FAILED; RangeError when the address is of no kind we know
 */
export function openNotifySocket(address: string): NotifySocket {
  const sockaddr = encodeUnixAddress(address)
  const number = sysSocket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)
  if (number < 0) throw socketError('socket(AF_UNIX, SOCK_DGRAM)', -number, 'open a socket', 'NOTIFY_SOCKET_FAILED')
  const fd = new Fd(number, 'notify socket')
  return {
    send(text) {
      const bytes = allocate(Buffer.byteLength(text))
      bytes.write(text, 'utf8')
      const result = sysSendto(fd.number, bytes, MSG_DONTWAIT | MSG_NOSIGNAL, sockaddr)
      return result < 0 ? errnoName(-result) : undefined
    },
    sendWithDescriptor(text, descriptor) {
      const { header, keep } = makeMessage(sockaddr, Buffer.from(text, 'utf8'), descriptor)
      const result = sysSendmsg(fd.number, header, MSG_DONTWAIT | MSG_NOSIGNAL, keep)
      return result < 0 ? errnoName(-result) : undefined
    },
    [Symbol.dispose]: () => fd.close(),
  }
}

/** Puts address, text and descriptor into one `struct msghdr`. @returns it, and the memory it points to */
function makeMessage(sockaddr: Buffer, text: Buffer, descriptor: number): { header: Buffer; keep: Buffer[] } {
  const bytes = allocate(text.length)
  text.copy(bytes)
  const iov = allocate(16)
  iov.writeBigUInt64LE(addressOf(bytes), 0)
  iov.writeBigUInt64LE(BigInt(bytes.length), 8)
  const control = allocate(CMSGHDR.bytes)
  control.writeBigUInt64LE(BigInt(CMSGHDR.data + 4), CMSGHDR.length)
  control.writeInt32LE(SOL_SOCKET, CMSGHDR.level)
  control.writeInt32LE(SCM_RIGHTS, CMSGHDR.type)
  control.writeInt32LE(descriptor, CMSGHDR.data)
  const header = allocate(MSGHDR.bytes)
  header.writeBigUInt64LE(addressOf(sockaddr), MSGHDR.name)
  header.writeUInt32LE(sockaddr.length, MSGHDR.nameLength)
  header.writeBigUInt64LE(addressOf(iov), MSGHDR.iov)
  header.writeBigUInt64LE(1n, MSGHDR.iovLength)
  header.writeBigUInt64LE(addressOf(control), MSGHDR.control)
  header.writeBigUInt64LE(BigInt(control.length), MSGHDR.controlLength)
  return { header, keep: [sockaddr, bytes, iov, control] }
}

/** `{family u16, path}`, as long as the path: the length is part of an abstract name. */
function encodeUnixAddress(address: string): Buffer {
  const path = Buffer.from(address, 'utf8')
  const isAbstract = address.startsWith('@')
  if (!isAbstract && !address.startsWith('/')) {
    throw new RangeError(`'${address}' is neither a path nor the name of an abstract socket`)
  }
  if (path.length > MAX_PATH_BYTES) throw new RangeError(`'${address}' is longer than ${MAX_PATH_BYTES} bytes`)
  if (isAbstract) path[0] = 0
  const sockaddr = allocate(2 + path.length + (isAbstract ? 0 : 1))
  sockaddr.writeUInt16LE(AF_UNIX, 0)
  sockaddr.set(path, 2)
  return sockaddr
}
