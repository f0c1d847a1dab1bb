/**
 * Keeps the kernel's redirection what it should be: loaded and attached while the listener is there, and sending on
 * exactly the endpoints whose mode is not disabled.
 *
 * There is one desired state and one writer. It is compared with the kernel at every poll and whenever a part of it
 * changes; a difference that cannot be written is told and tried again.
 *
 * Where it fails closed, what the kernel redirects is left alone while the host has not spoken, and when the listener or
 * this process goes: whoever comes then is refused.
 */

import type { Clock } from '../base/clock.ts'
import { ENDPOINTS, type Endpoint, type EndpointName, type InetAddress } from '../base/endpoints.ts'
import { describeError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import type { Redirector } from '../ebpf/redirector.ts'

export interface RedirectionOptions {
  /** Loads and attaches. @throws when the kernel refuses; nothing stays attached. */
  readonly start: () => Redirector
  /** Descriptor of a listener that we accept from, or will in a moment; `undefined` while there is none. */
  readonly listener: () => number | undefined
  readonly clock: Clock
  readonly log: Log
  readonly events: {
    /** Attached and ready, or not any more; then `current()` is given up after this call. */
    onReady(isReady: boolean): void
    onMessage(message: string): void
    /** Connections to these are redirected since now; those opened before are not. */
    onRedirected(destinations: readonly InetAddress[]): void
  }
}

export interface Redirection {
  /** Loads and attaches, retrying for ever, and watches that it stays so. Resolves when `signal` is aborted. */
  run(signal: AbortSignal): Promise<void>
  /** Replaces the desired state and applies it. */
  setModes(modes: Readonly<Record<EndpointName, string>> | undefined): void
  setListenerReady(isReady: boolean): void
  /** Compares the kernel with the desired state and writes the differences. */
  reconcile(): void
  /** For the records of connections; also after `stop`, for those that were redirected before it. */
  current(): Redirector | undefined
  /** Ends redirection at once, unless it fails closed; the records that were made stay to be taken. */
  stop(): void
  /** Gives maps and programs back to the kernel. */
  release(): void
}

const FIRST_RETRY_MS = 100
const MAX_RETRY_MS = 30_000
const WATCH_INTERVAL_MS = 15_000

/** Makes the part; nothing is loaded before `run`. */
export function createRedirection(options: RedirectionOptions): Redirection {
  const { clock, log, events } = options
  let redirector: Redirector | undefined
  let modes: Readonly<Record<EndpointName, string>> | undefined
  let isListenerReady = false
  let lastFailure = ''
  let lastPinFailure = ''
  let isStopped = false

  /** @returns `undefined` when the kernel is to be left as it is. */
  const desired = (failClosed: boolean): readonly Endpoint[] | undefined => {
    const known = modes
    if (known === undefined) return failClosed ? undefined : []
    if (!isListenerReady && !failClosed) return []
    return ENDPOINTS.filter((endpoint) => known[endpoint.name] !== 'disabled')
  }
  const reconcile = () => {
    if (redirector === undefined || isStopped) return
    try {
      const descriptor = options.listener()
      if (descriptor !== undefined) redirector.admitListener(descriptor)
      const endpoints = desired(redirector.features.failClosed)
      const added = endpoints && redirector.reconcilePolicy(endpoints.map(({ address, port }) => ({ address, port })))
      lastFailure = ''
      if (added !== undefined && added.length > 0) events.onRedirected(added)
    } catch (error) {
      const failure = `Cannot apply the redirect policy: ${describeError(error)}`
      if (failure !== lastFailure) log.error(failure)
      lastFailure = failure
    }
  }
  const release = () => {
    redirector?.[Symbol.dispose]()
    redirector = undefined
  }
  /** @returns whether it is attached now. */
  const tryStart = () => {
    try {
      redirector = options.start()
    } catch (error) {
      events.onMessage(`Failed to start redirector: ${describeError(error)}`)
      return false
    }
    reconcile()
    events.onReady(true)
    return true
  }
  const restorePins = (running: Redirector) => {
    try {
      if (running.restorePins())
        log.warn('What keeps the redirection when the agent ends had been removed. It is back.')
      lastPinFailure = ''
    } catch (error) {
      const failure = `The redirection will not outlive the agent: ${describeError(error)}`
      if (failure !== lastPinFailure) log.error(failure)
      lastPinFailure = failure
    }
  }
  /** Sees to it that what was attached, pinned and written still is. */
  const watch = () => {
    if (redirector === undefined) return
    if (redirector.isAttached()) {
      restorePins(redirector)
      return reconcile()
    }
    log.error('The kernel no longer redirects: the links were removed by somebody else. Attaching again.')
    events.onReady(false)
    release()
  }

  return {
    async run(signal) {
      let retryMs = FIRST_RETRY_MS
      while (!signal.aborted && !isStopped) {
        watch()
        if (redirector !== undefined || tryStart()) {
          retryMs = FIRST_RETRY_MS
          await clock.sleep(WATCH_INTERVAL_MS, signal)
        } else {
          await clock.sleep(retryMs, signal)
          retryMs = Math.min(retryMs * 2, MAX_RETRY_MS)
        }
      }
    },
    setModes(next) {
      modes = next
      reconcile()
    },
    setListenerReady(isReady) {
      isListenerReady = isReady
      reconcile()
    },
    reconcile,
    current: () => redirector,
    stop() {
      isStopped = true
      redirector?.detach()
    },
    release,
  }
}
