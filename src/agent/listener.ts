/** Keeps the listener bound: retries for ever, tells who is in the way, starts over when it is lost. */

import { aborted, type Clock } from '../base/clock.ts'
import { LISTENER } from '../base/endpoints.ts'
import { AgentError, describeError } from '../base/errors.ts'
import type { ProxyServer } from '../proxy/server.ts'

export interface ListenerOptions {
  /** Makes a server that is not bound yet. */
  readonly create: () => ProxyServer
  /** Says which process holds the port; `undefined` when that cannot be found out. */
  readonly describeHolder: (port: number) => string | undefined
  readonly clock: Clock
  readonly events: {
    onReady(server: ProxyServer): void
    /** Not bound, or not any more; told once for each reason. */
    onLost(message: string): void
  }
}

const FIRST_RETRY_MS = 1000
const MAX_RETRY_MS = 30_000

/** Binds and keeps bound until `signal` is aborted. */
export async function keepListening(options: ListenerOptions, signal: AbortSignal): Promise<void> {
  const { clock, events } = options
  let retryMs = FIRST_RETRY_MS
  let lastFailure = ''
  while (!signal.aborted) {
    const server = options.create()
    try {
      await server.listen(LISTENER.address, LISTENER.port)
    } catch (error) {
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
    await Promise.race([server.closed, aborted(signal)])
    if (!signal.aborted) events.onLost('The proxy listener was closed')
  }
}
