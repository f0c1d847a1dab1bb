/**
 * Accepts the connections of a socket that listens: all that wait, whenever the kernel tells of one.
 *
 * The runtime's own listener takes one connection a round of the event loop: whoever has opened many, and makes rounds long,
 * would make all behind him wait for as many rounds. And it closes what it has no descriptors or memory for, which here
 * waits in the queue of the kernel.
 */

import { getSystemErrorName } from 'node:util'
import type { InetAddress } from '../base/endpoints.ts'

/** The kernel's sockets, as far as listeners need them. Refusals are `-errno`. */
export interface ListenerSockets {
  /** Opens a socket that listens. @returns its descriptor, or a refusal */
  listen(address: string, port: number, backlog: number): number
  /** Where a descriptor is bound. @throws when it is no socket */
  boundTo(fd: number): InetAddress
  /**
   * Accepts a connection that waits, whose socket does not block and sends without delay.
   * @returns `undefined` when none waits, or a refusal; `peer` is `undefined` when the connection has ended already
   */
  accept(fd: number): { readonly fd: number; readonly peer: InetAddress | undefined } | number | undefined
  /**
   * Calls `onReadable` each time a connection waits; nothing may throw there. From then on accepting does not block.
   * @throws when that cannot be had
   */
  watch(fd: number, onReadable: () => void): Disposable
  close(fd: number): void
}

export interface AcceptorEvents {
  /** @param fd the taker's from then on @param peer where it comes from; `undefined`: it has ended already */
  onConnection(fd: number, peer: InetAddress | undefined): void
  /** Nothing can be accepted for a while. @param errno negative */
  onRefused(errno: number): void
  /** The socket does not listen any more, as after `ss --kill`, or cannot be watched. Nothing more comes. */
  onLost(): void
}

/** How many are accepted before others have their turn. Each takes some system calls to know who it is. */
const MAX_ACCEPTED_AT_ONCE = 128

/** How long nothing is accepted when descriptors or memory are short. */
const FIRST_REST_MS = 10
const MAX_REST_MS = 1000

/** What accept(2) says of the connection, not of the listener. Source: accept(2), "Error handling", and its list of errors. */
const OF_THE_CONNECTION: ReadonlySet<string> = new Set([
  'ECONNABORTED',
  'EHOSTDOWN',
  'EHOSTUNREACH',
  'EINTR',
  'ENETDOWN',
  'ENETUNREACH',
  'ENONET',
  'ENOPROTOOPT',
  'EOPNOTSUPP',
  'EPERM',
  'EPROTO',
  'ETIMEDOUT',
])

/** What accept(2) says of a socket that does not listen. */
const NOT_LISTENING = 'EINVAL'

/**
 * Starts accepting.
 * @param fd of a socket that listens; stays the caller's
 * @returns ends it
 * @throws what `sockets.watch()` throws
 */
export function startAccepting(fd: number, sockets: ListenerSockets, events: AcceptorEvents): Disposable {
  let isOver = false
  let isScheduled = false
  let watch: Disposable | undefined
  let restMs = 0
  let timer: NodeJS.Timeout | undefined

  const stop = () => {
    isOver = true
    clearTimeout(timer)
    watch?.[Symbol.dispose]()
  }
  const lose = () => {
    stop()
    events.onLost()
  }
  const start = () => {
    watch = sockets.watch(fd, () => {
      // Called by the loop itself: here is no turn of ours, and what is promised would not be done behind it.
      if (!isScheduled) setImmediate(accept)
      isScheduled = true
    })
  }
  const rest = (errno: number) => {
    if (restMs === 0) events.onRefused(errno)
    restMs = Math.min(Math.max(2 * restMs, FIRST_REST_MS), MAX_REST_MS)
    watch?.[Symbol.dispose]()
    watch = undefined
    timer = setTimeout(() => {
      try {
        start()
      } catch {
        lose()
      }
    }, restMs)
  }
  const accept = () => {
    isScheduled = false
    let taken = 0
    for (let left = MAX_ACCEPTED_AT_ONCE; left > 0 && !isOver; left--) {
      const accepted = sockets.accept(fd)
      if (accepted === undefined) return
      if (typeof accepted === 'object') {
        taken++
        restMs = 0
        events.onConnection(accepted.fd, accepted.peer)
        continue
      }
      const name = getSystemErrorName(accepted)
      if (name === NOT_LISTENING) return lose()
      // A kernel that refuses and leaves what waits in its place would have us ask for ever.
      if (!OF_THE_CONNECTION.has(name) || (left === 1 && taken === 0)) return rest(accepted)
    }
  }
  start()
  return { [Symbol.dispose]: stop }
}
