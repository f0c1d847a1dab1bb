/**
 * Ends connections of other processes, by the kernel's interface for socket statistics.
 *
 *     nlmsghdr 16        length, type SOCK_DESTROY, flags REQUEST | ACK, sequence, port
 *     inet_diag_req_v2   family, protocol, 0, 0, states u32, then inet_diag_sockid:
 *       24               source and destination port, network byte order
 *       28, 44           source and destination address, 16 bytes each
 *       60, 64           interface, and a cookie of 8 bytes, all ones for "whichever"
 *     72
 *
 * Source: sock_diag(7); linux/inet_diag.h; kernel commit c1e64e298b8c, "net: diag: Support destroying TCP sockets".
 */

import { ENOENT, EOPNOTSUPP, errnoName } from './errno.ts'
import { Fd } from './fd.ts'
import { allocate, sysRecv, sysSend, sysSocket } from './libc.ts'
import type { TcpSocket } from './tcp-table.ts'

/** What became of a connection that was to be ended. */
export type Destruction =
  | { readonly kind: 'ended' }
  /** It had ended by itself. */
  | { readonly kind: 'gone' }
  /** It lives on; `because` says why, for people. */
  | { readonly kind: 'refused'; readonly because: string }

const AF_INET = 2
const AF_INET6 = 10
const AF_NETLINK = 16
const SOCK_RAW_CLOEXEC = 3 | 0o2000000
const NETLINK_SOCK_DIAG = 4
const SOCK_DESTROY = 21
const NLMSG_ERROR = 2
const NLM_F_REQUEST = 1
const NLM_F_ACK = 4
const IPPROTO_TCP = 6
const MSG_DONTWAIT = 0x40
const REQUEST_BYTES = 72
const MAPPED_PREFIX = Buffer.from('00000000000000000000ffff', 'hex')

/** Ends a TCP connection as a reset would: whoever holds it gets ECONNABORTED. Needs CAP_NET_ADMIN. Never throws. */
export function destroyTcpSocket(socket: TcpSocket): Destruction {
  const opened = sysSocket(AF_NETLINK, SOCK_RAW_CLOEXEC, NETLINK_SOCK_DIAG)
  if (opened < 0) return refused(`no netlink socket: ${errnoName(-opened)}`)
  using fd = new Fd(opened, 'netlink socket')
  const sent = sysSend(fd.number, makeRequest(socket), 0)
  if (sent < 0) return refused(errnoName(-sent))
  // The kernel answers before send(2) returns.
  const answer = allocate(4096)
  const received = sysRecv(fd.number, answer, MSG_DONTWAIT)
  if (received < 0) return refused(`no answer: ${errnoName(-received)}`)
  return readAnswer(answer.subarray(0, received))
}

function makeRequest({ isIpv6, local, remote }: TcpSocket): Buffer {
  const request = allocate(REQUEST_BYTES)
  request.writeUInt32LE(REQUEST_BYTES, 0)
  request.writeUInt16LE(SOCK_DESTROY, 4)
  request.writeUInt16LE(NLM_F_REQUEST | NLM_F_ACK, 6)
  request.writeUInt8(isIpv6 ? AF_INET6 : AF_INET, 16)
  request.writeUInt8(IPPROTO_TCP, 17)
  request.writeUInt32LE(0xffff_ffff, 20)
  request.writeUInt16BE(local.port, 24)
  request.writeUInt16BE(remote.port, 26)
  request.set(addressBytes(local.address, isIpv6), 28)
  request.set(addressBytes(remote.address, isIpv6), 44)
  request.fill(0xff, 64)
  return request
}

function addressBytes(address: string, isIpv6: boolean): Buffer {
  const bytes = Buffer.from(address.split('.').map(Number))
  return isIpv6 ? Buffer.concat([MAPPED_PREFIX, bytes]) : bytes
}

/** An answer is a header of 16 bytes and the negative errno, 0 for done. */
function readAnswer(answer: Buffer): Destruction {
  if (answer.length < 20 || answer.readUInt16LE(4) !== NLMSG_ERROR) return refused('no acknowledgement')
  const errno = -answer.readInt32LE(16)
  if (errno === 0) return { kind: 'ended' }
  if (errno === ENOENT) return { kind: 'gone' }
  return refused(errno === EOPNOTSUPP ? 'this kernel has no SOCK_DESTROY (CONFIG_INET_DIAG_DESTROY)' : errnoName(errno))
}

function refused(because: string): Destruction {
  return { kind: 'refused', because }
}
