/**
 * Opening a listener in another network namespace, for connections that never leave it.
 *
 * A socket belongs to the namespace of the thread that made it, for good; everything that is done with it later may be done from
 * anywhere. So this thread goes there for a few system calls and comes back, and nothing else runs on it meanwhile: no
 * JavaScript of others, no new thread, no child. A thread that cannot come back ends the process, since every socket it made
 * from then on would be in the wrong place.
 *
 * Source: setns(2), network_namespaces(7), ioctl_ns(2).
 */

import { fstatSync, openSync, readdirSync, readlinkSync } from 'node:fs'
import { AgentError } from '../base/errors.ts'
import { EPERM, errnoName } from './errno.ts'
import { Fd } from './fd.ts'
import { allocate, sysIoctl, sysSetns } from './libc.ts'
import { isListening, readNetnsCookie } from './socket.ts'
import { SyscallError } from './syscall-error.ts'
import { bindAndListen, openTcpSocket } from './tcp-listener.ts'

/** Source: linux/sched.h, linux/nsfs.h, linux/sockios.h, net/if.h. */
const CLONE_NEWNET = 0x4000_0000
const NS_GET_USERNS = 0xb701
const NS_GET_OWNER_UID = 0xb704
const SIOCGIFFLAGS = 0x8913
const SIOCGSKNS = 0x894c
const IFF_UP = 1
const IFNAMSIZ = 16
const IFREQ_BYTES = 40

/** A network namespace, held: it lives as long as the descriptor. */
export interface NetworkNamespace extends Disposable {
  /** As in /proc/PID/ns; another namespace may get it when this one is gone. */
  readonly inode: number
  /** Who made the user namespace that it belongs to; 0 for those of the initial one. */
  readonly ownerUid: number
  /**
   * Makes a socket there that listens on a loopback address.
   * @param addressBytes 4 bytes in network order
   * @param port host byte order
   * @param expectedCookie of the namespace that is meant; before anything is bound it is compared
   * @throws SyscallError code NETNS_NOT_ENTERED or LISTEN_REFUSED; AgentError code NETNS_IS_ANOTHER or NETNS_LOOPBACK_DOWN
   */
  listen(addressBytes: ArrayLike<number>, port: number, backlog: number, expectedCookie: bigint): Fd
}

/**
 * Opens the network namespace of a process or thread.
 * @param path such as /proc/PID/ns/net
 * @throws AgentError code NETNS_NOT_OPENED
 */
export function openNetworkNamespace(path: string): NetworkNamespace {
  return hold(open(path))
}

/**
 * Opens the network namespace that a listener belongs to.
 * @param expectedCookie of the namespace that is meant
 * @throws AgentError code NETNS_NOT_OPENED, also when it does not listen; NETNS_IS_ANOTHER; SyscallError
 * Source: kernel net/socket.c, `open_related_ns()` for SIOCGSKNS, 4.10.
 */
export function openNetworkNamespaceOf(socket: number, expectedCookie: bigint): NetworkNamespace {
  if (!isListening(socket)) throw new AgentError('NETNS_NOT_OPENED', 'Cannot use a socket: it does not listen')
  if (readNetnsCookie(socket) !== expectedCookie) {
    throw new AgentError('NETNS_IS_ANOTHER', 'Cannot use a listener: it is in another network namespace')
  }
  const result = sysIoctl(socket, SIOCGSKNS, allocate(4))
  if (result >= 0) return hold(new Fd(result, 'network namespace of a socket'))
  const message = `Cannot open the network namespace of a socket: kernel answered ${errnoName(-result)}`
  throw new AgentError('NETNS_NOT_OPENED', message)
}

/** Tells the inode of the network namespace of a process; `undefined` when it has gone, or may not be inspected. */
export function findNetworkNamespaceId(pid: number): number | undefined {
  try {
    return Number(/^net:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/ns/net`))?.[1])
  } catch {
    return undefined
  }
}

/** Lists the processes that /proc shows. */
export function listProcesses(): number[] {
  return readdirSync('/proc').map(Number).filter(Number.isInteger)
}

function hold(target: Fd): NetworkNamespace {
  return {
    inode: fstatSync(target.number).ino,
    ownerUid: readOwner(target),
    listen: (addressBytes, port, backlog, expectedCookie) =>
      inside(target, () => listen(addressBytes, port, backlog, expectedCookie)),
    [Symbol.dispose]: () => target.close(),
  }
}

function open(path: string): Fd {
  try {
    return new Fd(openSync(path, 'r'), path)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    throw new AgentError('NETNS_NOT_OPENED', `Cannot open ${path}: ${code}`, { path }, { cause })
  }
}

/** Of a namespace whose owner cannot be seen nobody is known to be the owner: it counts as that of the overflow user. */
function readOwner(target: Fd): number {
  const none = allocate(4)
  const result = sysIoctl(target.number, NS_GET_USERNS, none)
  if (result < 0) return UNKNOWN_OWNER
  using owner = new Fd(result, 'user namespace')
  const uid = allocate(4)
  return sysIoctl(owner.number, NS_GET_OWNER_UID, uid) < 0 ? UNKNOWN_OWNER : uid.readUInt32LE()
}

const UNKNOWN_OWNER = 65_534

function inside<T>(target: Fd, action: () => T): T {
  using home = open('/proc/thread-self/ns/net')
  const entered = sysSetns(target.number, CLONE_NEWNET)
  if (entered < 0) {
    const hint = entered === -EPERM ? ' (needs CAP_SYS_ADMIN)' : ''
    const message = `Cannot enter ${target.label}: kernel answered ${errnoName(-entered)}${hint}`
    throw new SyscallError('NETNS_NOT_ENTERED', message, { command: 'setns', errno: -entered })
  }
  try {
    return action()
  } finally {
    if (sysSetns(home.number, CLONE_NEWNET) < 0) process.abort()
  }
}

function listen(addressBytes: ArrayLike<number>, port: number, backlog: number, expectedCookie: bigint): Fd {
  using undo = new DisposableStack()
  const socket = undo.use(openTcpSocket())
  if (readNetnsCookie(socket.number) !== expectedCookie) {
    throw new AgentError('NETNS_IS_ANOTHER', 'Cannot listen: the process is in another network namespace by now')
  }
  if (!isLoopbackUp(socket))
    throw new AgentError('NETNS_LOOPBACK_DOWN', 'Cannot listen: the loopback interface is down')
  bindAndListen(socket.number, addressBytes, port, backlog)
  undo.move()
  return socket
}

/** On an interface that is down one can listen as long as its address is there, but nothing arrives. Source: netdevice(7). */
function isLoopbackUp(socket: Fd): boolean {
  const request = allocate(IFREQ_BYTES)
  request.write('lo')
  if (sysIoctl(socket.number, SIOCGIFFLAGS, request) < 0) return false
  return (request.readUInt16LE(IFNAMSIZ) & IFF_UP) !== 0
}
