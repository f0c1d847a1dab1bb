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

/** Makes shares of `maxPerUser` connections, and of `maxTotal` for all users together. */
export function createShares(maxPerUser: number, maxTotal: number): Shares {
  /** The oldest connection of each user comes first. */
  const socketsOf = new Map<number | undefined, Set<Socket>>()
  let total = 0
  return {
    add(uid, socket) {
      const sockets = socketsOf.get(uid) ?? new Set()
      const isFull = sockets.size >= maxPerUser || total >= maxTotal
      if (isFull && uid !== undefined) return socket
      const [oldest] = isFull ? sockets : []
      if (isFull && oldest === undefined) return socket
      if (oldest !== undefined && sockets.delete(oldest)) total--
      sockets.add(socket)
      total++
      socketsOf.set(uid, sockets)
      socket.once('close', () => {
        if (sockets.delete(socket)) total--
        if (sockets.size === 0 && socketsOf.get(uid) === sockets) socketsOf.delete(uid)
      })
      return oldest
    },
  }
}
