/**
 * Connections to one destination: idle ones are used again, the latest first; requests beyond the limits wait, and users take
 * turns. What one user makes the host slow with costs his own requests their place and nobody else's.
 *
 * Hosts close idle connections without a word. So one that has been idle for a while is not used any more, and a request
 * that meets a closed one fails as stale: whoever sent it knows whether it may be sent again.
 */

import type { InetAddress } from '../base/endpoints.ts'
import { type HostConnection, openHostConnection, type Waiting } from './host-connection.ts'
import type { HostAnswerHandler, HostClientOptions, HostExchange, HostOrder, HostRequest } from './host-exchange.ts'

export interface HostPool {
  send(order: HostOrder, handler: HostAnswerHandler): HostExchange
  /** Ends all connections and the requests on them. */
  close(): void
}

/** Longest idleness of a connection that is used again. */
const MAX_IDLE_MS = 4000

/** How often times are looked at, while there is a connection. */
const CHECK_INTERVAL_MS = 1000

/** What one user has of the connections, and waits for. */
interface User {
  readonly uid: number
  inUse: number
  readonly waiting: Set<Queued>
}

/** One who wants an answer. */
class Queued implements HostExchange {
  readonly user: User
  readonly order: HostOrder
  readonly handler: HostAnswerHandler
  readonly sinceMs: number
  /** `undefined` while it waits for one. */
  connection: HostConnection | undefined
  readonly #stopWaiting: (queued: Queued) => void

  constructor(
    user: User,
    order: HostOrder,
    handler: HostAnswerHandler,
    sinceMs: number,
    stopWaiting: (queued: Queued) => void,
  ) {
    this.user = user
    this.order = order
    this.handler = handler
    this.sinceMs = sinceMs
    this.#stopWaiting = stopWaiting
  }

  resume(): void {
    this.connection?.resume(this.handler)
  }

  abort(): void {
    if (this.connection === undefined) this.#stopWaiting(this)
    else this.connection.abort(this.handler)
  }
}

/** A connection, and for whom it works; `undefined`: for nobody. */
interface Slot {
  readonly connection: HostConnection
  user: User | undefined
}

/** Makes a pool without connections. */
export function createHostPool(
  destination: InetAddress,
  options: HostClientOptions,
  monotonicMs: () => number = () => performance.now(),
): HostPool {
  const open = new Set<Slot>()
  const idle: Slot[] = []
  /** Those who have or want a connection. Of those who wait, the first is the next to be served. */
  const users = new Map<number, User>()
  /** Connections that work for others than root. */
  let shared = 0
  let timer: NodeJS.Timeout | undefined
  const limits: Readonly<Record<Waiting['for'], { readonly ms: number; readonly reason: string }>> = {
    connection: { ms: options.connectTimeoutMs, reason: 'the host did not accept the connection in time' },
    head: { ms: options.headTimeoutMs, reason: 'the host did not answer in time' },
    body: { ms: options.bodyTimeoutMs, reason: 'the host stopped in the middle of its answer' },
    request: { ms: MAX_IDLE_MS, reason: 'idle' },
    // How long a client may take is the listener's to limit.
    client: { ms: Number.POSITIVE_INFINITY, reason: '' },
  }
  const intervalMs = Math.max(
    10,
    Math.min(CHECK_INTERVAL_MS, options.connectTimeoutMs / 4, options.headTimeoutMs / 4, options.bodyTimeoutMs / 4),
  )

  const userOf = (uid: number): User => {
    let user = users.get(uid)
    if (user === undefined) {
      user = { uid, inUse: 0, waiting: new Set() }
      users.set(uid, user)
    }
    return user
  }
  const forget = (user: User) => {
    if (user.inUse === 0 && user.waiting.size === 0) users.delete(user.uid)
  }
  const mayHaveMore = ({ uid, inUse }: User) =>
    uid === 0 ||
    (inUse < options.maxConnectionsPerUser && shared < options.maxConnections - options.reservedConnections)

  /** Takes the order whose turn it is. Its user goes to the end of the line. */
  const takeNext = (): Queued | undefined => {
    for (const user of users.values()) {
      const [next] = user.waiting
      if (next === undefined || !mayHaveMore(user)) continue
      user.waiting.delete(next)
      users.delete(user.uid)
      users.set(user.uid, user)
      return next
    }
    return undefined
  }
  const check = () => {
    const nowMs = monotonicMs()
    for (const { connection } of open) {
      const { ms, reason } = limits[connection.waiting.for]
      if (nowMs - connection.waiting.sinceMs >= ms) connection.fail(reason)
    }
    for (const user of users.values()) {
      for (const queued of user.waiting) {
        if (nowMs - queued.sinceMs < options.headTimeoutMs) break
        giveUp(queued, 'all connections to the host are busy')
      }
    }
    if (open.size === 0 && users.size === 0) {
      clearInterval(timer)
      timer = undefined
    }
  }
  const stopWaiting = (queued: Queued) => {
    if (queued.user.waiting.delete(queued)) forget(queued.user)
  }
  const giveUp = (queued: Queued, reason: string) => {
    stopWaiting(queued)
    queued.handler.onError({ isConnected: false, isStale: false, reason })
  }
  /** @returns `undefined` when the request cannot be made, which its handler knows then */
  const make = ({ order, handler, user }: Queued): HostRequest | undefined => {
    try {
      return order.make()
    } catch (error) {
      forget(user)
      handler.onUnmade(error)
      return undefined
    }
  }
  const start = (queued: Queued, request: HostRequest, slot: Slot) => {
    const { user } = queued
    slot.user = user
    user.inUse++
    if (user.uid !== 0) shared++
    queued.connection = slot.connection
    slot.connection.send(request, queued.handler)
  }
  /** The connection works for nobody any more. */
  const release = (slot: Slot) => {
    const { user } = slot
    if (user === undefined) return
    slot.user = undefined
    user.inUse--
    if (user.uid !== 0) shared--
    forget(user)
  }
  /** Gives the order a connection, or makes it wait for one. @returns false: it was over before it began */
  const serve = (queued: Queued): boolean => {
    const free = takeFresh(idle, monotonicMs())
    if (free === undefined && open.size >= options.maxConnections) {
      queued.user.waiting.add(queued)
      return true
    }
    const request = make(queued)
    if (request !== undefined) start(queued, request, free ?? openSlot())
    else if (free !== undefined) idle.push(free)
    return request !== undefined
  }
  /** Gives connections that have come free to those who wait. */
  const serveNext = () => {
    for (let next = takeNext(); next !== undefined && !serve(next); next = takeNext()) {}
  }
  const openSlot = (): Slot => {
    const connection = openHostConnection(destination, monotonicMs, {
      onIdle() {
        release(slot)
        idle.push(slot)
        serveNext()
      },
      onClosed() {
        release(slot)
        open.delete(slot)
        const at = idle.indexOf(slot)
        if (at !== -1) idle.splice(at, 1)
        serveNext()
      },
    })
    const slot: Slot = { connection, user: undefined }
    open.add(slot)
    timer ??= setInterval(check, intervalMs).unref()
    return slot
  }
  return {
    send(order, handler) {
      const user = userOf(order.uid)
      const queued = new Queued(user, order, handler, monotonicMs(), stopWaiting)
      if (mayHaveMore(user)) serve(queued)
      else user.waiting.add(queued)
      return queued
    },
    close() {
      clearInterval(timer)
      timer = undefined
      for (const user of [...users.values()])
        for (const queued of [...user.waiting]) giveUp(queued, 'the agent is stopping')
      for (const { connection } of [...open]) connection.fail('the agent is stopping')
    },
  }
}

/** Takes the connection used last, if it has not been idle for long; the others have been idle for longer. */
function takeFresh(idle: Slot[], nowMs: number): Slot | undefined {
  const latest = idle.at(-1)
  if (latest === undefined || nowMs - latest.connection.waiting.sinceMs >= MAX_IDLE_MS) return undefined
  return idle.pop()
}
