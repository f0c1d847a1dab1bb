/**
 * Being woken by a program: a ring buffer that is never read, only emptied.
 *
 *     page 0   consumer position u64, ours to write
 *     page 1   producer position u64, the kernel's
 *
 * The kernel wakes those who wait for the map to be readable when it is not empty; setting the one position to the other
 * empties it. Source: kernel kernel/bpf/ringbuf.c, `struct bpf_ringbuf`, `ringbuf_map_poll_kern()`.
 */

import { MappedMemory } from '../sys/mapped-memory.ts'
import { watchReadable } from '../sys/readable-watch.ts'
import type { KernelMap } from './maps.ts'

/**
 * Calls `onRing` after each ring, or once after several; first empties the ring, so that what rings meanwhile rings again.
 * @throws SyscallError when the memory cannot be mapped, or the descriptor not be waited for
 */
export function watchBell(bell: KernelMap, onRing: () => void): Disposable {
  using undo = new DisposableStack()
  const consumer = undo.use(MappedMemory.map(bell.fd, 0, 'writable'))
  const producer = undo.use(MappedMemory.map(bell.fd, 1, 'readable'))
  const consumed = new BigUint64Array(consumer.buffer, 0, 1)
  const produced = new BigUint64Array(producer.buffer, 0, 1)
  const empty = () => Atomics.store(consumed, 0, Atomics.load(produced, 0))
  undo.use(
    watchReadable(bell.fd, () => {
      empty()
      setImmediate(onRing)
    }),
  )
  return undo.move()
}
