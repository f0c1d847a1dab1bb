/**
 * Bounds the connections of one user, so that nobody takes the places, or the memory, of all others.
 *
 * Who has his share gets no more: he may close some. When all users together have all, whoever has the most makes room for those
 * who have less. Connections of which nobody knows the user have one share together and are answered at once, so there the
 * oldest makes room: whoever comes is heard.
 */

import type { Socket } from 'node:net'

/** A connection to give up. */
export interface Surplus {
  readonly uid: number | undefined
  readonly socket: Socket
}

export interface Shares {
  /**
   * Counts a connection until it closes.
   * @param uid `undefined`: nobody knows
   * @returns the connection to give up for it, which may be itself; `undefined` while there is room
   */
  add(uid: number | undefined, socket: Socket): Surplus | undefined
}

/** Makes shares of `maxPerUser` connections, and of `maxTotal` for all users together. */
export function createShares(maxPerUser: number, maxTotal: number): Shares {
  /** The oldest connection of each user comes first. */
  const socketsOf = new Map<number | undefined, Set<Socket>>()
  let total = 0

  /** Whose oldest connection makes room for one of `uid`. @returns `undefined` when nobody's does */
  const findGiver = (uid: number | undefined, count: number): number | undefined | 'nobody' => {
    if (count >= maxPerUser) return uid === undefined ? uid : 'nobody'
    let giver: number | undefined | 'nobody' = uid === undefined && count > 0 ? uid : 'nobody'
    // Who has one more than the newcomer will have is no better off than he.
    let most = count + 1
    for (const [other, { size }] of socketsOf) {
      if (size <= most) continue
      most = size
      giver = other
    }
    return giver
  }
  const count = (uid: number | undefined, sockets: Set<Socket>, socket: Socket) => {
    sockets.add(socket)
    total++
    socketsOf.set(uid, sockets)
    socket.once('close', () => {
      if (sockets.delete(socket)) total--
      if (sockets.size === 0 && socketsOf.get(uid) === sockets) socketsOf.delete(uid)
    })
  }
  return {
    add(uid, socket) {
      const sockets = socketsOf.get(uid) ?? new Set()
      if (sockets.size < maxPerUser && total < maxTotal) {
        count(uid, sockets, socket)
        return undefined
      }
      const giver = findGiver(uid, sockets.size)
      const givers = giver === 'nobody' ? undefined : socketsOf.get(giver)
      const [oldest] = givers ?? []
      if (giver === 'nobody' || oldest === undefined) return { uid, socket }
      givers?.delete(oldest)
      total--
      count(uid, sockets, socket)
      return { uid: giver, socket: oldest }
    },
  }
}
