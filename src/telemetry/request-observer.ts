/** Sees every request of the proxy and tells it: connection log, summaries, counters. Never on the answer's time. */

import { STATUS_CODES } from 'node:http'
import { findEndpoint } from '../base/endpoints.ts'
import type { Level } from '../base/log.ts'
import { cutUtf8 } from '../base/text.ts'
import type { Caller } from '../identity/caller.ts'
import type { Verdict } from '../rules/decide.ts'
import type { ConnectionLog } from './connection-log.ts'
import type { ConnectionSummary } from './connection-summary.ts'
import type { ConnectionFacts, RequestFacts } from './request-facts.ts'
import { createToldLately } from './told-lately.ts'

export interface RequestObserver {
  /** A connection was accepted; `doubt` says why it is not attributed. */
  connected(connection: ConnectionFacts, doubt: string | undefined): void
  /** A request was refused before it was counted: unparsable, or larger than any request may be. */
  rejected(connection: ConnectionFacts, status: number, detail: string): void
  started(request: RequestFacts): void
  /** Adds a line about the request. */
  note(request: RequestFacts, level: Level, message: string): void
  /** The rules have spoken. Audits and denials are counted as failed. */
  decided(request: RequestFacts, caller: Caller, verdict: Verdict): void
  /** The request is over. @param list `failed` when it is to be counted among the failed authentications instead. */
  finished(
    request: RequestFacts,
    caller: Caller | undefined,
    status: number,
    detail: string,
    list?: 'normal' | 'failed',
  ): void
  /** The agent answered by itself, as one of its own endpoints: nothing is summarised. */
  served(request: RequestFacts, caller: Caller | undefined, status: number): void
  /** The listener reported a fault that it survives, such as a connection it could not accept. */
  listenerFailed(reason: string): void
  /** The request ended by a fault of our own. */
  failed(request: RequestFacts, reason: string): void
}

export interface RequestObserverOptions {
  readonly log: ConnectionLog
  readonly normal: ConnectionSummary
  readonly denied: ConnectionSummary
  readonly monotonicMs: () => number
  /** Renders the reason of a verdict for the log. */
  readonly describeVerdict: (verdict: Verdict) => string
  /** Renders the line that log queries look for when the two matchers disagree. */
  readonly formatDivergence: (divergence: NonNullable<Verdict['divergence']>) => string
  /** Renders the claims of a caller as JSON. */
  readonly claimsJson: (caller: Caller) => string
}

const MAX_DETAIL_BYTES = 4096

/** Direct connections are told once a minute: any local user can make as many as he likes. */
const DIRECT_CONNECTION_INTERVAL_MS = 60_000

/** A client asks the same for a long time: one line about a disagreement in 15 minutes, and not of everything. */
const DIVERGENCE_INTERVAL_MS = 15 * 60 * 1000
const MAX_DIVERGENCES = 1000

/** What stands for the caller of a request that has none. */
const NOBODY = { userName: 'empty', groups: [], exePath: 'empty', commandLine: 'empty' } as const

/** Stands in lines that are about the listener. */
const NO_CONNECTION: ConnectionFacts = { id: 0, peer: { address: '', port: 0 }, destination: undefined }

/** Makes the observer. */
export function createRequestObserver(options: RequestObserverOptions): RequestObserver {
  const { log, normal, denied, monotonicMs } = options
  const divergences = createToldLately(monotonicMs, DIVERGENCE_INTERVAL_MS, MAX_DIVERGENCES)
  let directToldMs = Number.NEGATIVE_INFINITY
  let directUntold = 0

  const record = (
    list: ConnectionSummary,
    request: RequestFacts,
    caller: Caller | undefined,
    status: number,
    detail: string,
  ) => {
    const { peer, destination } = request.connection
    const who = caller ?? NOBODY
    const key = {
      userName: who.userName,
      clientAddress: peer.address,
      address: destination?.address ?? 'None',
      port: destination?.port ?? 0,
      processFullPath: who.exePath ?? '',
      processCmdLine: who.commandLine,
      responseStatus: `${status} ${STATUS_CODES[status] ?? ''}`.trimEnd(),
    }
    if (!list.add(key, who.groups)) return false
    const summary = {
      id: request.id,
      method: request.method,
      url: request.rawTarget,
      clientIp: peer.address,
      clientPort: peer.port,
      ip: key.address,
      port: key.port,
      userId: caller?.uid ?? 0,
      userName: key.userName,
      userGroups: who.groups,
      processFullPath: key.processFullPath,
      processCmdLine: key.processCmdLine,
      runAsElevated: caller?.elevated ?? false,
      responseStatus: key.responseStatus,
      elapsedTime: Math.round(monotonicMs() - request.startedAtMs),
      errorDetails: cutUtf8(detail, MAX_DETAIL_BYTES),
    }
    log.write(request, 'Info', JSON.stringify(summary))
    return true
  }

  return {
    connected(connection, doubt) {
      if (doubt === undefined) return
      directUntold++
      const now = monotonicMs()
      if (now - directToldMs < DIRECT_CONNECTION_INTERVAL_MS) return
      const others = directUntold > 1 ? ` (${directUntold - 1} more since the last of these lines)` : ''
      directToldMs = now
      directUntold = 0
      const request = connectionLine(connection, now)
      const { address, port } = connection.peer
      log.write(request, 'Warn', `Failed to find audit entry with client_source_port '${port}' with error: ${doubt}`)
      log.write(request, 'Warn', `Client ${address}:${port} may have connected to the listener directly${others}`)
      log.end(request)
    },
    rejected(connection, status, detail) {
      const request = connectionLine(connection, monotonicMs())
      // Any local user can send as much nonsense as he likes: the first in 15 minutes is told, the others are counted.
      const isNew = record(normal, request, undefined, status, detail)
      const { address, port } = connection.peer
      log.write(request, isNew ? 'Warn' : 'Debug', `Answered ${status} to ${address}:${port}: ${detail}`)
      log.end(request)
    },
    started(request) {
      if (!log.isEnabled('Trace')) return
      const { peer, destination } = request.connection
      const from = `${peer.address}:${peer.port}`
      log.write(request, 'Trace', `Got request from ${from} for ${request.method} ${request.rawTarget}`)
      log.write(
        request,
        'Trace',
        `Request destination: ${destination ? `${destination.address}:${destination.port}` : 'None'}`,
      )
    },
    note: (request, level, message) => log.write(request, level, message),
    decided(request, caller, verdict) {
      if (log.isEnabled('Trace')) {
        log.write(request, 'Trace', `Use claims: ${options.claimsJson(caller)}`)
        if (caller.doubt !== undefined) log.write(request, 'Trace', `The executable is unknown: ${caller.doubt}`)
        log.write(request, 'Trace', `Decision: ${options.describeVerdict(verdict)}`)
      }
      if (verdict.divergence !== undefined) {
        const line = options.formatDivergence(verdict.divergence)
        log.write(request, divergences.isNews(line) ? 'Warn' : 'Debug', line)
      }
      if (verdict.outcome === 'ok') return
      const isNew = record(denied, request, caller, 403, 'Authorize failed')
      if (verdict.outcome === 'audit') {
        const { destination } = request.connection
        const title = destination && findEndpoint(destination.address, destination.port)?.title
        const what = `${title} request ${request.rawTarget} denied in audit mode, continue forward the request`
        log.write(request, 'Info', isNew ? `${what}: ${options.describeVerdict(verdict)}` : what)
        return
      }
      // Clients repeat denied requests for a long time: the reason is told once in 15 minutes, as the summary is.
      log.write(request, isNew ? 'Info' : 'Debug', `Request denied: ${options.describeVerdict(verdict)}`)
      record(normal, request, caller, 403, `Block unauthorized request: ${options.claimsJson(caller)}`)
      log.end(request)
    },
    finished(request, caller, status, detail, list = 'normal') {
      record(list === 'normal' ? normal : denied, request, caller, status, detail)
      if (detail !== '' && log.isEnabled('Debug')) log.write(request, 'Debug', `${status}: ${detail}`)
      if (log.isEnabled('Trace')) log.write(request, 'Trace', `Answered ${status}`)
      log.end(request)
    },
    served(request, caller, status) {
      if (log.isEnabled('Trace'))
        log.write(request, 'Trace', `Answered ${status} to ${caller?.userName ?? 'nobody known'}`)
      log.end(request)
    },
    listenerFailed(reason) {
      const request = connectionLine(NO_CONNECTION, monotonicMs())
      log.write(request, 'Error', `The listener reports: ${reason}`)
      log.end(request)
    },
    failed(request, reason) {
      log.write(request, 'Error', `Request failed by a fault of the agent: ${reason}`)
      record(normal, request, undefined, 500, reason)
      log.end(request)
    },
  }
}

/** A stand-in for lines that are about a connection. */
function connectionLine(connection: ConnectionFacts, startedAtMs: number): RequestFacts {
  return { connection, id: 0, method: '', rawTarget: '', startedAtMs }
}
