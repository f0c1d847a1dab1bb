/**
 * Bounds the memory of bodies that are read whole: each user has so much of it, and all but root together. Whoever asks for more
 * waits, and his body meanwhile waits with him; users take turns.
 */

export interface BodyBudget {
  /**
   * Asks for room for one body.
   * @param bytes what it may come to, at most what one user has
   * @param onRoom called when there is room, at once or later
   * @returns gives the room back, or the wish up: to be called once
   */
  take(uid: number, bytes: number, onRoom: () => void): () => void
}

export interface BodyBudgetOptions {
  readonly bytesPerUser: number
  readonly totalBytes: number
}

/** Of the largest bodies 40 for one user, which is more than his connections to the host carry. */
export const BODY_BUDGET_DEFAULTS: BodyBudgetOptions = {
  bytesPerUser: 4 * 1024 * 1024,
  totalBytes: 64 * 1024 * 1024,
}

interface Claim {
  readonly bytes: number
  readonly onRoom: () => void
}

interface User {
  heldBytes: number
  readonly waiting: Set<Claim>
}

/** Makes a budget of which nothing is taken. */
export function createBodyBudget({ bytesPerUser, totalBytes }: BodyBudgetOptions = BODY_BUDGET_DEFAULTS): BodyBudget {
  /** Those who have or want room. Of those who wait, the first is the next to be asked. */
  const users = new Map<number, User>()
  let heldBytes = 0
  const hasRoom = (user: User, bytes: number) =>
    user.heldBytes + bytes <= bytesPerUser && heldBytes + bytes <= totalBytes
  const hold = (user: User, bytes: number) => {
    user.heldBytes += bytes
    heldBytes += bytes
  }
  /** Gives room to those who wait, one of each user at a time. */
  const serve = () => {
    let isServed = true
    while (isServed) {
      isServed = false
      for (const [uid, user] of [...users]) {
        const [claim] = user.waiting
        if (claim === undefined || !hasRoom(user, claim.bytes)) continue
        isServed = true
        user.waiting.delete(claim)
        hold(user, claim.bytes)
        users.delete(uid)
        users.set(uid, user)
        claim.onRoom()
      }
    }
  }
  return {
    take(uid, bytes, onRoom) {
      if (uid === 0) {
        onRoom()
        return () => undefined
      }
      const user = users.get(uid) ?? { heldBytes: 0, waiting: new Set() }
      users.set(uid, user)
      const claim: Claim = { bytes, onRoom }
      // Who comes later does not go before those of the same user who wait.
      if (user.waiting.size > 0 || !hasRoom(user, bytes)) user.waiting.add(claim)
      else {
        hold(user, bytes)
        onRoom()
      }
      return () => {
        const hasWaited = user.waiting.delete(claim)
        if (!hasWaited) hold(user, -bytes)
        if (user.heldBytes === 0 && user.waiting.size === 0) users.delete(uid)
        serve()
      }
    },
  }
}
