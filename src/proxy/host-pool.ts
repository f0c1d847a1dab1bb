/**
 * Connections to one destination: idle ones are used again, the latest first; requests beyond the limit wait in turn.
 *
 * Hosts close idle connections without a word. So one that has been idle for a while is not used any more, and a request
 * that meets a closed one fails as stale: whoever sent it knows whether it may be sent again.
 */

import { type HostConnection, openHostConnection, type Waiting } from './host-connection.ts'
import type { HostAddress, HostAnswerHandler, HostClientOptions, HostExchange, HostRequest } from './host-exchange.ts'

export interface HostPool {
  send(request: HostRequest, body: Buffer | undefined, handler: HostAnswerHandler): HostExchange
  /** Ends all connections and the requests on them. */
  close(): void
}

/** Longest idleness of a connection that is used again. */
const MAX_IDLE_MS = 4000

/** How often times are looked at, while there is a connection. */
const CHECK_INTERVAL_MS = 1000

interface Queued {
  readonly request: HostRequest
  readonly body: Buffer | undefined
  readonly handler: HostAnswerHandler
  readonly sinceMs: number
  exchange: HostExchange | undefined
}

/** Makes a pool without connections. */
export function createHostPool(
  destination: HostAddress,
  options: HostClientOptions,
  monotonicMs: () => number = () => performance.now(),
): HostPool {
  const open = new Set<HostConnection>()
  const idle: HostConnection[] = []
  const queue = new Set<Queued>()
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

  const check = () => {
    const nowMs = monotonicMs()
    for (const connection of open) {
      const { ms, reason } = limits[connection.waiting.for]
      if (nowMs - connection.waiting.sinceMs >= ms) connection.fail(reason)
    }
    for (const queued of queue) {
      if (nowMs - queued.sinceMs < options.headTimeoutMs) continue
      queue.delete(queued)
      queued.handler.onError({ isConnected: false, isStale: false, reason: 'all connections to the host are busy' })
    }
    if (open.size === 0 && queue.size === 0) {
      clearInterval(timer)
      timer = undefined
    }
  }
  const start = (queued: Queued, connection: HostConnection) => {
    queued.exchange = connection.send(queued.request, queued.body, queued.handler)
  }
  const openFor = (queued: Queued) => {
    const connection = openHostConnection(destination, monotonicMs, {
      onIdle(free) {
        const [next] = queue
        if (next === undefined) return void idle.push(free)
        queue.delete(next)
        start(next, free)
      },
      onClosed(closed) {
        open.delete(closed)
        const at = idle.indexOf(closed)
        if (at !== -1) idle.splice(at, 1)
        const [next] = queue
        if (next === undefined || open.size >= options.maxConnections) return
        queue.delete(next)
        openFor(next)
      },
    })
    open.add(connection)
    timer ??= setInterval(check, intervalMs).unref()
    start(queued, connection)
  }
  return {
    send(request, body, handler) {
      const queued: Queued = { request, body, handler, sinceMs: monotonicMs(), exchange: undefined }
      const free = takeFresh(idle, monotonicMs())
      if (free !== undefined) start(queued, free)
      else if (open.size < options.maxConnections) openFor(queued)
      else queue.add(queued)
      return {
        resume: () => queued.exchange?.resume(),
        abort() {
          queue.delete(queued)
          queued.exchange?.abort()
        },
      }
    },
    close() {
      clearInterval(timer)
      timer = undefined
      for (const queued of queue) {
        queued.handler.onError({ isConnected: false, isStale: false, reason: 'the agent is stopping' })
      }
      queue.clear()
      for (const connection of [...open]) connection.fail('the agent is stopping')
    },
  }
}

/** Takes the connection used last, if it has not been idle for long; the others have been idle for longer. */
function takeFresh(idle: HostConnection[], nowMs: number): HostConnection | undefined {
  const latest = idle.at(-1)
  if (latest === undefined || nowMs - latest.waiting.sinceMs >= MAX_IDLE_MS) return undefined
  return idle.pop()
}
