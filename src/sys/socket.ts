/** What the kernel tells about a socket by its descriptor, and datagram sockets. */

import type { Server, Socket } from 'node:net'
import { AgentError } from '../base/errors.ts'
import { ENOPROTOOPT, errnoName } from './errno.ts'
import { Fd } from './fd.ts'
import { allocate, sysConnect, sysGetsockopt, sysSocket } from './libc.ts'
import { SyscallError } from './syscall-error.ts'

/** The same on x86-64 and aarch64. Source: asm-generic/socket.h. */
export const SOL_SOCKET = 1
const SO_PEERCRED = 17
const SO_ACCEPTCONN = 30
const SO_NETNS_COOKIE = 71

/** Source: linux/in.h IPPROTO_TCP; linux/tcp.h TCP_INFO, whose first byte is `tcpi_state`. */
export const IPPROTO_TCP = 6
const TCP_INFO = 11

/** Filled and read within one call. */
const STATE = allocate(1)

/** Source: net/tcp_states.h. In both the peer's address and port are taken by this very socket. */
const TCP_ESTABLISHED = 1
const TCP_CLOSE_WAIT = 8

export const AF_INET = 2
/** Source: bits/socket.h. */
export const SOCK_DGRAM = 2
export const SOCK_CLOEXEC = 0o2000000
export const SOCK_NONBLOCK = 0o4000

/**
 * Reads the cookie of the network namespace that a socket belongs to: never reused while the machine runs,
 * and the same number that programs get from `bpf_get_netns_cookie()`.
 * @throws SyscallError code SOCKET_OPTION_FAILED; ENOPROTOOPT before Linux 5.14
 * Source: kernel commit e8b9eab99232, SO_NETNS_COOKIE.
 */
export function readNetnsCookie(fd: number): bigint {
  return readCookie(fd, SO_NETNS_COOKIE, 'SO_NETNS_COOKIE')
}

/** As `readNetnsCookie()`, but answers `undefined` where the kernel is too old to tell. */
export function findNetnsCookie(fd: number): bigint | undefined {
  try {
    return readNetnsCookie(fd)
  } catch (error) {
    if (error instanceof SyscallError && error.errno === ENOPROTOOPT) return undefined
    throw error
  }
}

/** As `findNetnsCookie()`, of the namespace that this process opens sockets in. */
export function findOwnNetnsCookie(): bigint | undefined {
  using socket = openDatagramSocket()
  return findNetnsCookie(socket.number)
}

/**
 * Finds the descriptor under a listening server or a connected socket.
 * Node keeps it in a private handle; a test pins that it is still there in the Node version we ship.
 * @throws AgentError code SOCKET_HAS_NO_FD when it is not bound, closed, or not a kernel socket
 */
export function fdOfSocket(socket: Server | Socket): number {
  const fd = (socket as { _handle?: { fd?: number } | null })._handle?.fd
  if (fd === undefined || fd < 0)
    throw new AgentError('SOCKET_HAS_NO_FD', 'Cannot find the descriptor: not an open socket')
  return fd
}

/**
 * Tells whether an accepted TCP socket still is the other end of its peer: established, or half closed by the peer.
 *
 * The race it closes: what a connection is known by, the peer's address and port, belongs to it only as long as it lives.
 * Between accept and the moment something is looked up by that name, a reset may end it and another process may connect
 * from the same port. A socket that has ended never lives again, and while it lives nobody else can finish a handshake
 * with the listener under that name. So look up first and ask then: `true` proves that what was found is about this
 * connection, and what is found before `false` is somebody else's, to be dropped. Asked before the lookup it proves nothing.
 *
 * @param fd of a socket that `accept(2)` gave and we have not shut down
 * @returns `false` also when the kernel does not say: the guard then says no
 * Source: tcp(7) TCP_INFO; kernel net/ipv4/tcp.c, `tcp_get_info()`.
 */
export function isConnected(fd: number): boolean {
  if (sysGetsockopt(fd, IPPROTO_TCP, TCP_INFO, STATE) < 0) return false
  const state = STATE[0]
  return state === TCP_ESTABLISHED || state === TCP_CLOSE_WAIT
}

/**
 * Tells whether a socket still listens. One that somebody has destroyed, as `ss --kill` does, does not.
 * @throws SyscallError code SOCKET_OPTION_FAILED
 * Source: socket(7) SO_ACCEPTCONN; kernel net/ipv4/tcp.c, `tcp_abort()`.
 */
export function isListening(fd: number): boolean {
  return readOption(fd, SO_ACCEPTCONN, 'SO_ACCEPTCONN', 4).readInt32LE() !== 0
}

/** Who connected to a unix socket, as of connect(2), in the numbers of our own namespaces. */
export interface PeerCredentials {
  /** 0 when the peer is not visible in our pid namespace. */
  readonly pid: number
  /** The overflow id, 65534 as a rule, when our user namespace has no number for it. */
  readonly uid: number
  readonly gid: number
}

/**
 * Reads who connected to a unix socket.
 * @param fd of the accepted socket
 * @throws SyscallError code SOCKET_OPTION_FAILED
 * Source: unix(7) SO_PEERCRED, `struct ucred`.
 */
export function readPeerCredentials(fd: number): PeerCredentials {
  const value = readOption(fd, SO_PEERCRED, 'SO_PEERCRED', 12)
  return { pid: value.readInt32LE(0), uid: value.readUInt32LE(4), gid: value.readUInt32LE(8) }
}

/** Opens an IPv4 datagram socket. Connecting it chooses a peer and runs cgroup hooks, but sends nothing. */
export function openDatagramSocket(): Fd {
  const fd = sysSocket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)
  if (fd < 0) throw socketError('socket(AF_INET, SOCK_DGRAM)', -fd, 'open a datagram socket')
  return new Fd(fd, 'datagram socket')
}

/**
 * Connects a socket to an IPv4 peer.
 * @param addressBytes 4 bytes in network order
 * @param port host byte order
 * @throws SyscallError code SOCKET_CONNECT_FAILED
 */
export function connectSocket(fd: number, addressBytes: Uint8Array, port: number): void {
  const result = sysConnect(fd, inetAddress(addressBytes, port))
  if (result < 0) throw socketError('connect', -result, 'connect a datagram socket', 'SOCKET_CONNECT_FAILED')
}

/** Size of a `struct sockaddr_in`. */
export const INET_ADDRESS_BYTES = 16

/**
 * Fills a `struct sockaddr_in`.
 * @param addressBytes 4 bytes in network order
 * @param port host byte order
 * Source: ip(7).
 */
export function inetAddress(addressBytes: ArrayLike<number>, port: number): Buffer {
  const address = allocate(INET_ADDRESS_BYTES)
  address.writeUInt16LE(AF_INET, 0)
  address.writeUInt16BE(port, 2)
  address.set(addressBytes, 4)
  return address
}

function readCookie(fd: number, option: number, name: string): bigint {
  return readOption(fd, option, name, 8).readBigUInt64LE()
}

function readOption(fd: number, option: number, name: string, sizeBytes: number): Buffer {
  const value = allocate(sizeBytes)
  const result = sysGetsockopt(fd, SOL_SOCKET, option, value)
  if (result < 0)
    throw socketError(`getsockopt(${name})`, -result, `read ${name} of descriptor ${fd}`, 'SOCKET_OPTION_FAILED')
  return value
}

/** Makes the error for a refused call on a socket. */
export function socketError(command: string, errno: number, what: string, code = 'SOCKET_FAILED'): SyscallError {
  const hint = errno === ENOPROTOOPT ? 'this kernel is older than the option' : undefined
  return new SyscallError(code, `Cannot ${what}: kernel answered ${errnoName(errno)}`, { command, errno, hint })
}
