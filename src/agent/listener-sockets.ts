/** The sockets that the proxy listens on, from the kernel. */

import { closeSync } from 'node:fs'
import { ipv4Bytes } from '../ebpf/records.ts'
import type { ListenerSockets } from '../proxy/acceptor.ts'
import { watchReadable } from '../sys/readable-watch.ts'
import { SyscallError } from '../sys/syscall-error.ts'
import { acceptConnection, bindAndListen, boundTo, openTcpSocket, setNoDelay } from '../sys/tcp-listener.ts'

export const LISTENER_SOCKETS: ListenerSockets = {
  listen(address, port, backlog) {
    try {
      using undo = new DisposableStack()
      const socket = undo.use(openTcpSocket())
      bindAndListen(socket.number, ipv4Bytes(address), port, backlog)
      undo.move()
      return socket.number
    } catch (error) {
      if (error instanceof SyscallError) return -error.errno
      throw error
    }
  },
  boundTo,
  accept: acceptConnection,
  watch(fd, onReadable) {
    // Here, since all listeners come by, also those that were handed over or made in another namespace.
    setNoDelay(fd)
    return watchReadable(fd, onReadable)
  },
  close: closeSync,
}
