/** Sockets that listen for TCP connections on an IPv4 address, and the connections that wait at them. */

import type { InetAddress } from '../base/endpoints.ts'
import { EAGAIN, errnoName } from './errno.ts'
import { Fd } from './fd.ts'
import { allocate, sysAccept4, sysBind, sysGetsockname, sysListen, sysSetsockopt, sysSocket } from './libc.ts'
import {
  AF_INET,
  INET_ADDRESS_BYTES,
  IPPROTO_TCP,
  inetAddress,
  isConnected,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOL_SOCKET,
  socketError,
} from './socket.ts'
import { SyscallError } from './syscall-error.ts'

/** Source: bits/socket_type.h; asm-generic/socket.h; linux/tcp.h. */
const SOCK_STREAM = 1
const SO_REUSEADDR = 2
const TCP_NODELAY = 1

/** A connection that was accepted. */
export interface Accepted {
  /** The caller's from then on; it does not block. */
  readonly fd: number
  /** Where it comes from; `undefined`: it has ended already, and another may come from there by now. */
  readonly peer: InetAddress | undefined
}

/** Opens a TCP socket of the namespace that the calling thread is in. @throws SyscallError code LISTEN_REFUSED */
export function openTcpSocket(): Fd {
  return new Fd(check('socket', sysSocket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)), 'listener')
}

/**
 * Makes a socket listen.
 * @param addressBytes 4 bytes in network order
 * @param port host byte order; 0: any
 * @throws SyscallError code LISTEN_REFUSED
 * Source: ip(7), listen(2).
 */
export function bindAndListen(fd: number, addressBytes: ArrayLike<number>, port: number, backlog: number): void {
  // A connection that lingers from an earlier listener must not keep the port.
  check('setsockopt(SO_REUSEADDR)', sysSetsockopt(fd, SOL_SOCKET, SO_REUSEADDR, YES))
  check('bind', sysBind(fd, inetAddress(addressBytes, port)))
  check('listen', sysListen(fd, backlog))
}

/**
 * Lets all connections that a listener accepts from now on send without delay.
 * Source: tcp(7) TCP_NODELAY; kernel net/core/sock.c, `sk_clone_lock()`: a connection begins as a copy of its listener.
 * @throws SyscallError code LISTEN_REFUSED
 */
export function setNoDelay(listener: number): void {
  check('setsockopt(TCP_NODELAY)', sysSetsockopt(listener, IPPROTO_TCP, TCP_NODELAY, YES))
}

/** Tells where a socket is bound. @throws SyscallError code SOCKET_FAILED */
export function boundTo(fd: number): InetAddress {
  const result = sysGetsockname(fd, ADDRESS)
  if (result < 0) throw socketError('getsockname', -result, `tell where descriptor ${fd} is bound`)
  return decodeAddress()
}

/**
 * Accepts a connection that waits at a listener which does not block.
 * @returns `undefined` when none waits; `-errno` when it cannot be had
 * Source: accept4(2).
 */
export function acceptConnection(listener: number): Accepted | number | undefined {
  const fd = sysAccept4(listener, ADDRESS, SOCK_NONBLOCK | SOCK_CLOEXEC)
  if (fd < 0) return fd === -EAGAIN ? undefined : fd
  return { fd, peer: isConnected(fd) ? decodeAddress() : undefined }
}

/** Where the kernel writes addresses: read before the next call. */
const ADDRESS = allocate(INET_ADDRESS_BYTES)

const YES = allocate(4)
YES.writeUInt32LE(1)

function decodeAddress(): InetAddress {
  return { address: `${ADDRESS[4]}.${ADDRESS[5]}.${ADDRESS[6]}.${ADDRESS[7]}`, port: ADDRESS.readUInt16BE(2) }
}

function check(command: string, result: number): number {
  if (result >= 0) return result
  const message = `Cannot listen: ${command} answered ${errnoName(-result)}`
  throw new SyscallError('LISTEN_REFUSED', message, { command, errno: -result })
}
