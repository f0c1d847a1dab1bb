/** Keeps the listener bound: retries for ever, tells who is in the way, starts over when it is lost. */

import type { Clock } from '../base/clock.ts'
import { LISTENER } from '../base/endpoints.ts'
import { AgentError, describeError } from '../base/errors.ts'
import type { ProxyServer } from '../proxy/server.ts'

export interface ListenerOptions {
  /** Makes a server that is not bound yet. */
  readonly create: () => ProxyServer
  /** Descriptor of a listener that a process before this one left; tried first, and once. */
  readonly inherited?: number | undefined
  /** Says which process holds the port; `undefined` when that cannot be found out. */
  readonly describeHolder: (port: number) => string | undefined
  /** Tells whether the socket under this descriptor still listens. */
  readonly isListening: (descriptor: number) => boolean
  readonly clock: Clock
  readonly events: {
    onReady(server: ProxyServer): void
    /** Not bound, or not any more; told once for each reason. */
    onLost(message: string): void
    /** What was inherited cannot be used; one of our own is bound instead. */
    onDisinherited(message: string): void
  }
}

const FIRST_RETRY_MS = 1000
const MAX_RETRY_MS = 30_000

/** How often a listener is looked at: a second net, should the kernel not tell that its socket was destroyed. */
const LOOK_INTERVAL_MS = 5000

/** Requests in flight on a listener that was lost may end. */
const LOST_GRACE_MS = 30_000

/** Binds and keeps bound until `signal` is aborted. */
export async function keepListening(options: ListenerOptions, signal: AbortSignal): Promise<void> {
  const { clock, events } = options
  let retryMs = FIRST_RETRY_MS
  let lastFailure = ''
  let { inherited } = options
  while (!signal.aborted) {
    const server = options.create()
    const descriptor = inherited
    inherited = undefined
    try {
      await server.listen(LISTENER.address, LISTENER.port, descriptor)
    } catch (error) {
      if (descriptor !== undefined) {
        events.onDisinherited(describeError(error))
        continue
      }
      const isTaken = error instanceof AgentError && error.facts.errno === 'EADDRINUSE'
      const holder = isTaken ? options.describeHolder(LISTENER.port) : undefined
      const reason = error instanceof AgentError ? error.message : describeError(error)
      const failure = reason + (holder === undefined ? '' : `: the port is taken by ${holder}`)
      if (failure !== lastFailure) events.onLost(failure)
      lastFailure = failure
      await clock.sleep(retryMs, signal)
      retryMs = Math.min(retryMs * 2, MAX_RETRY_MS)
      continue
    }
    retryMs = FIRST_RETRY_MS
    lastFailure = ''
    events.onReady(server)
    const isOver = new AbortController()
    void server.closed.then(() => isOver.abort())
    await untilDeaf(server, options, AbortSignal.any([signal, isOver.signal]))
    if (signal.aborted) return
    events.onLost('The proxy listener was closed')
    void server.close(LOST_GRACE_MS)
  }
}

/** Resolves when the socket of a listener does not listen any more, or `signal` is aborted. */
async function untilDeaf(
  server: ProxyServer,
  { clock, isListening }: ListenerOptions,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    await clock.sleep(LOOK_INTERVAL_MS, signal)
    const descriptor = server.descriptor()
    if (signal.aborted || descriptor === undefined || !isListening(descriptor)) return
  }
}
