/**
 * Waiting for a descriptor that Node has no class for, such as a map of the kernel, or handles otherwise, such as a listener,
 * on the event loop that Node runs.
 *
 * The loop is libuv's, whose functions are part of the runtime; a poll handle is what its own sockets are made of.
 */

import { errnoName } from './errno.ts'
import { uvWatchReadable } from './libc.ts'
import { SyscallError } from './syscall-error.ts'

/**
 * Calls `onReadable` each time the descriptor is readable, and again as long as it stays so. Does not keep the process alive.
 * @param fd must stay open until the watch is disposed
 * @param onReadable must not throw; what is more than a few lines belongs into `setImmediate()`
 * @throws SyscallError code DESCRIPTOR_NOT_WATCHED
 */
export function watchReadable(fd: number, onReadable: () => void): Disposable {
  const stop = uvWatchReadable(fd, onReadable)
  if (typeof stop === 'number') {
    const message = `Cannot watch descriptor ${fd}: the event loop answered ${errnoName(-stop)}`
    throw new SyscallError('DESCRIPTOR_NOT_WATCHED', message, { command: 'uv_poll_init', errno: -stop })
  }
  return { [Symbol.dispose]: stop }
}
