/**
 * Bounds the connections of one user, so that nobody takes the places, or the memory, of all others.
 *
 * Who has his share gets no more: he may close some. Connections of which nobody knows the user have one share together
 * and are answered at once, so there the oldest makes room: whoever comes is heard.
 */

import type { Socket } from 'node:net'

export interface Shares {
  /**
   * Counts a connection until it closes.
   * @param uid `undefined`: nobody knows
   * @returns the connection to give up for it, which may be itself; `undefined` while there is room
   */
  add(uid: number | undefined, socket: Socket): Socket | undefined
}

/** Makes shares of `maxPerUser` connections. */
export function createShares(maxPerUser: number): Shares {
  /** The oldest connection of each user comes first. */
  const socketsOf = new Map<number | undefined, Set<Socket>>()
  return {
    add(uid, socket) {
      const sockets = socketsOf.get(uid) ?? new Set()
      const isFull = sockets.size >= maxPerUser
      if (isFull && uid !== undefined) return socket
      const [oldest] = isFull ? sockets : []
      if (oldest !== undefined) sockets.delete(oldest)
      sockets.add(socket)
      socketsOf.set(uid, sockets)
      socket.once('close', () => {
        sockets.delete(socket)
        if (sockets.size === 0 && socketsOf.get(uid) === sockets) socketsOf.delete(uid)
      })
      return oldest
    },
  }
}
