/**
 * The way to the service manager: a datagram socket that a unix address names. `node:dgram` has none of that kind.
 *
 * Source: sd_notify(3); unix(7), `struct sockaddr_un`.
 */

import { errnoName } from './errno.ts'
import { Fd } from './fd.ts'
import { allocate, sysSendto, sysSocket } from './libc.ts'
import { SOCK_CLOEXEC, SOCK_DGRAM, socketError } from './socket.ts'

const AF_UNIX = 1
const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000

/** `sun_path` has 108 bytes; a path ends in a zero, an abstract name does not. */
const MAX_PATH_BYTES = 107

export interface NotifySocket extends Disposable {
  /**
   * Sends one message, or gives it up: never waits, and no reader who has gone raises a signal.
   * @returns why it was given up, `undefined` when it was taken
   */
  send(text: string): string | undefined
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
    [Symbol.dispose]: () => fd.close(),
  }
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
