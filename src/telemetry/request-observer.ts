/**
 * Sees every request of the proxy and tells it: connection log, summaries, counters. Never on the answer's time.
 *
 * Whatever a caller can cause at will is told at most once in 15 minutes for each user and kind, with the number of
 * times it happened since, a direct connection once a minute: otherwise he could wash the lines of others out of
 * the log. At Debug everything is told.
 */

import { STATUS_CODES } from 'node:http'
import { type Endpoint, findEndpoint } from '../base/endpoints.ts'
import type { Level } from '../base/log.ts'
import { redactSecrets } from '../base/redact.ts'
import { cutList, cutUtf8, MAX_GROUPS_BYTES, MAX_PATH_BYTES } from '../base/text.ts'
import type { Caller } from '../identity/caller.ts'
import type { Verdict } from '../rules/decide.ts'
import type { ConnectionLog } from './connection-log.ts'
import type { ConnectionSummary } from './connection-summary.ts'
import type { Denials } from './denials.ts'
import type { ConnectionFacts, RequestFacts } from './request-facts.ts'
import type { MeasuredEndpoint, RequestMetrics } from './request-metrics.ts'
import { createToldLately } from './told-lately.ts'

export interface RequestObserver {
  /** A connection was accepted; `doubt` says why it is not attributed. */
  connected(connection: ConnectionFacts, doubt: string | undefined): void
  /** A connection was closed unheard: its client had left already, or had too many others. */
  dismissed(connection: ConnectionFacts, user: string | undefined, reason: string): void
  /** A request was refused before it was counted: unparsable, or larger than any request may be. */
  rejected(connection: ConnectionFacts, status: number, detail: string): void
  started(request: RequestFacts): void
  /** The clock of `RequestFacts.startedAtMs`. */
  nowMs(): number
  /**
   * The request goes to the host.
   * @param bodyBytes `undefined`: as many as come
   * @param authorization scheme, key guid and signature, of which the guid is told; `undefined`: it goes unsigned
   */
  sent(request: RequestFacts, bodyBytes: number | undefined, authorization: string | undefined): void
  /** The head of the host's answer came. @param sentAtMs when the request was sent */
  hostAnswered(request: RequestFacts, status: number, sentAtMs: number): void
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
  /**
   * The agent answered by itself, as one of its own endpoints: nothing is summarised.
   * @param complaint why it refused; a fixed sentence, without words of the caller
   */
  served(request: RequestFacts, caller: Caller | undefined, status: number, complaint?: string): void
  /** The listener reported a fault that it survives, such as a connection it could not accept. */
  listenerFailed(reason: string): void
  /** The request ended by a fault of our own. */
  failed(request: RequestFacts, reason: string): void
}

export interface RequestObserverOptions {
  readonly log: ConnectionLog
  readonly normal: ConnectionSummary
  readonly denied: ConnectionSummary
  readonly metrics: RequestMetrics
  readonly denials: Denials
  readonly monotonicMs: () => number
  /** Renders the reason of a verdict for the log. */
  readonly describeVerdict: (verdict: Verdict) => string
  /** Renders the line that log queries look for when the two matchers disagree. */
  readonly formatDivergence: (divergence: NonNullable<Verdict['divergence']>) => string
  /** Renders the claims of a caller as JSON. */
  readonly claimsJson: (caller: Caller) => string
}

const MAX_DETAIL_BYTES = 4096

/** How often a client is told of that connects directly: he may be looked for, while requests tell of themselves. */
const DIRECT_CLIENTS = { intervalMs: 60_000, maxTextsPerGroup: 20, maxGroups: 1 }

/** Lines that are the same so far count as the same. */
const MAX_KIND_BYTES = 512

/** Longest target in a record and in an audit line: tokens are asked for with some hundred bytes. */
const MAX_TARGET_BYTES = 2048

/** Longest path of an executable: who makes directories can make them deep. */

/** What stands for the caller of a request that has none. */
const NOBODY = { userName: 'empty', groups: [], exePath: 'empty', commandLine: 'empty' } as const

/** Stand for a user where there is no caller: nobody knows who, or he has not been looked up. */
const DIRECT_USER = 'direct'
const UNKNOWN_USER = 'unknown'

/** Stands in lines that are about the listener. */
const NO_CONNECTION: ConnectionFacts = { id: 0, peer: { address: '', port: 0 }, destination: undefined }

/** Makes the observer. */
export function createRequestObserver(options: RequestObserverOptions): RequestObserver {
  const { log, normal, denied, metrics, denials, monotonicMs } = options
  const toldLately = createToldLately(monotonicMs)
  const toldClients = createToldLately(monotonicMs, DIRECT_CLIENTS)
  /** One connection asks many times, and its caller stays the same. */
  const claims = new WeakMap<Caller, string>()

  /** Writes a line a caller can cause at will: at `level` when it is news of `user`, at Debug otherwise. */
  const tell = (request: RequestFacts, user: string, level: Level, message: string) => {
    const untold = toldLately.ask(user, cutUtf8(message, MAX_KIND_BYTES))
    log.write(request, untold === undefined ? 'Debug' : level, message + more(untold))
  }
  const measure = (request: RequestFacts, status: number, endpoint: MeasuredEndpoint = nameOf(request.connection)) =>
    metrics.answered(endpoint, status, (monotonicMs() - request.startedAtMs) / 1000)
  const claimsOf = (caller: Caller) => {
    const known = claims.get(caller)
    if (known !== undefined) return known
    const json = options.claimsJson(caller)
    claims.set(caller, json)
    return json
  }
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
      processFullPath: cutUtf8(who.exePath ?? '', MAX_PATH_BYTES, '...'),
      processCmdLine: who.commandLine,
      responseStatus: withReason(status),
    }
    if (!list.add(key, who.groups)) return false
    const summary = {
      id: request.id,
      method: request.method,
      url: shortTarget(request),
      clientIp: peer.address,
      clientPort: peer.port,
      ip: key.address,
      port: key.port,
      userId: caller?.uid ?? 0,
      userName: key.userName,
      userGroups: cutList(who.groups, MAX_GROUPS_BYTES),
      processFullPath: key.processFullPath,
      processCmdLine: key.processCmdLine,
      runAsElevated: caller?.elevated ?? false,
      responseStatus: key.responseStatus,
      elapsedTime: Math.round(monotonicMs() - request.startedAtMs),
      // Cut last, here as in the target: half a secret no longer looks like one.
      errorDetails: cutUtf8(redactSecrets(detail), MAX_DETAIL_BYTES),
    }
    log.record(summary)
    return true
  }

  return {
    connected(connection, doubt) {
      if (doubt === undefined) return
      const untold = toldClients.ask(DIRECT_USER, connection.peer.address)
      const level = untold === undefined ? 'Debug' : 'Warn'
      if (!log.isEnabled(level)) return
      const request = connectionLine(connection, monotonicMs())
      const { address, port } = connection.peer
      log.write(request, level, `Failed to find audit entry with client_source_port '${port}' with error: ${doubt}`)
      const what = `Client ${address}:${port} may have connected to the listener directly`
      log.write(request, level, what + more(untold))
      log.end(request)
    },
    dismissed(connection, user, reason) {
      const request = connectionLine(connection, monotonicMs())
      tell(request, user ?? userOf(connection), 'Info', reason)
      log.end(request)
    },
    rejected(connection, status, detail) {
      const request = connectionLine(connection, monotonicMs())
      metrics.answered(nameOf(connection), status, undefined)
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
      if (destination !== undefined)
        log.writeOwn(request, 'Trace', `Use lookup value:${destination.address}:${destination.port}.`)
    },
    nowMs: monotonicMs,
    sent(request, bodyBytes, authorization) {
      if (!log.isEnabled('Trace')) return
      log.writeOwn(request, 'Trace', `Request body length: ${bodyBytes ?? 'as it comes'}.`)
      const header = authorization && `Added authorization header, key ${authorization.split(' ')[1]}.`
      log.writeOwn(request, 'Trace', header ?? 'No authorization header is added.')
    },
    hostAnswered(request, status, sentAtMs) {
      if (log.isEnabled('Trace')) log.writeOwn(request, 'Trace', `Received response from host: ${withReason(status)}.`)
      const endpoint = endpointOf(request.connection)
      if (endpoint !== undefined) metrics.hostAnswered(endpoint.name, (monotonicMs() - sentAtMs) / 1000)
    },
    note: (request, level, message) => log.write(request, level, message),
    decided(request, caller, verdict) {
      const endpoint = endpointOf(request.connection)
      if (endpoint !== undefined) {
        metrics.decided(endpoint.name, verdict, caller.doubt === undefined)
        if (verdict.outcome !== 'ok') denials.add(endpoint.name, request.method, request.rawTarget, caller, verdict)
      }
      if (log.isEnabled('Trace')) {
        log.write(request, 'Trace', `Use claims: ${claimsOf(caller)}`)
        if (caller.doubt !== undefined) log.write(request, 'Trace', `The executable is unknown: ${caller.doubt}`)
        log.write(request, 'Trace', `Decision: ${options.describeVerdict(verdict)}`)
      }
      if (verdict.divergence !== undefined) {
        // Log queries know the form of this line: no count is added.
        const line = options.formatDivergence(verdict.divergence)
        const isNews = toldLately.ask(caller.userName, cutUtf8(line, MAX_KIND_BYTES)) !== undefined
        log.write(request, isNews ? 'Warn' : 'Debug', line)
      }
      if (verdict.outcome === 'ok') return
      const isNew = record(denied, request, caller, 403, 'Authorize failed')
      if (verdict.outcome === 'audit') {
        const what = `${endpoint?.title} request ${shortTarget(request)} denied in audit mode, continue forward the request`
        if (isNew) log.write(request, 'Info', `${what}: ${options.describeVerdict(verdict)}`)
        else log.write(request, 'Debug', what)
        return
      }
      // Clients repeat denied requests for a long time: the reason is told once in 15 minutes, as the summary is.
      log.write(request, isNew ? 'Info' : 'Debug', `Request denied: ${options.describeVerdict(verdict)}`)
      measure(request, 403)
      record(normal, request, caller, 403, `Block unauthorized request: ${claimsOf(caller)}`)
      log.end(request)
    },
    finished(request, caller, status, detail, list = 'normal') {
      measure(request, status)
      record(list === 'normal' ? normal : denied, request, caller, status, detail)
      if (detail !== '' && log.isEnabled('Debug')) log.write(request, 'Debug', `${status}: ${detail}`)
      if (log.isEnabled('Trace'))
        log.writeOwn(request, 'Trace', `Http connection finished with status code: ${withReason(status)}.`)
      log.end(request)
    },
    served(request, caller, status, complaint) {
      measure(request, status, 'local')
      const user = caller?.userName ?? userOf(request.connection)
      if (complaint !== undefined) tell(request, user, 'Warn', `Answered ${status} to user '${user}': ${complaint}`)
      if (log.isEnabled('Trace')) log.write(request, 'Trace', `Answered ${status} to ${user}`)
      log.end(request)
    },
    listenerFailed(reason) {
      const request = connectionLine(NO_CONNECTION, monotonicMs())
      tell(request, DIRECT_USER, 'Error', `The listener reports: ${reason}`)
      log.end(request)
    },
    failed(request, reason) {
      tell(request, userOf(request.connection), 'Error', `Request failed by a fault of the agent: ${reason}`)
      measure(request, 500)
      record(normal, request, undefined, 500, reason)
      log.end(request)
    },
  }
}

/** Names the guarded service that a connection was going to. */
function endpointOf({ destination }: ConnectionFacts): Endpoint | undefined {
  return destination && findEndpoint(destination.address, destination.port)
}

function nameOf(connection: ConnectionFacts): MeasuredEndpoint {
  return endpointOf(connection)?.name ?? 'none'
}

/** Says how often a line came untold. */
function more(untold = 0): string {
  return untold === 0 ? '' : ` (${untold} more since the last of these lines)`
}

/** Names who may have caused a line about a connection whose caller is not looked up. */
function userOf({ destination }: ConnectionFacts): string {
  return destination === undefined ? DIRECT_USER : UNKNOWN_USER
}

/** Renders a status as `200 OK`. */
function withReason(status: number): string {
  return `${status} ${STATUS_CODES[status] ?? ''}`.trimEnd()
}

function shortTarget({ rawTarget }: RequestFacts): string {
  return cutUtf8(redactSecrets(rawTarget), MAX_TARGET_BYTES, '...')
}

/** A stand-in for lines that are about a connection. */
function connectionLine(connection: ConnectionFacts, startedAtMs: number): RequestFacts {
  return { connection, id: 0, method: '', rawTarget: '', startedAtMs }
}
