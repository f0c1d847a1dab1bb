/**
 * The steps of a request, in the order of the contract. The first that gives an answer ends it; the last one forwards.
 *
 * Everything that can refuse runs before anything is dialled. Steps run synchronously where they can: most requests
 * wait only for the host.
 */

import { NOTIFY_HEADER, TIME_TICK_HEADER } from '../base/azure-headers.ts'
import { describeError } from '../base/errors.ts'
import type { Caller } from '../identity/caller.ts'
import {
  type Answer,
  BAD_REQUEST,
  CONTENT_TOO_LARGE,
  FORBIDDEN,
  INTERNAL_ERROR,
  jsonAnswer,
  METHOD_NOT_ALLOWED,
  MISDIRECTED,
  sendAnswer,
} from './answer.ts'
import { announcedBytes } from './body.ts'
import type { Exchange } from './exchange.ts'
import { forward } from './forward.ts'
import {
  hasAmbiguousHead,
  hasTraversal,
  hasValidCharacters,
  isAllowedMethod,
  MAX_SIGNED_BODY_BYTES,
  MAX_UPLOAD_BODY_BYTES,
} from './guards.ts'
import type { ProxyStages } from './stages.ts'

/** Gives an answer to end the request, `undefined` to go on. */
type Step = (exchange: Exchange, stages: ProxyStages) => Answer | undefined

let lastRequestId = 0

/** Steps that need no caller. */
const GUARDS: readonly Step[] = [
  refuseAmbiguousHead,
  refuseLargeBody,
  count,
  refuseMethod,
  refuseTarget,
  refuseTraversal,
  serveProvision,
  serveStatusWithoutCaller,
  requireDestination,
]

/** Handles one request to its end. Never rejects. */
export async function handleRequest(exchange: Exchange, stages: ProxyStages): Promise<void> {
  try {
    for (const step of GUARDS) {
      const answer = step(exchange, stages)
      if (answer !== undefined) return sendAnswer(exchange.response, answer)
    }
    const pending = exchange.connection.caller
    const caller = pending instanceof Promise ? await pending.catch(() => undefined) : pending
    if (caller === undefined) {
      stages.observer.finished(
        exchange,
        undefined,
        MISDIRECTED.status,
        'No claims found in the request, return!',
        'failed',
      )
      return sendAnswer(exchange.response, MISDIRECTED)
    }
    const answer = serveStatus(exchange, caller, stages) ?? authorise(exchange, caller, stages)
    if (answer !== undefined) return sendAnswer(exchange.response, answer)
    await forward(exchange, caller, stages)
  } catch (error) {
    stages.observer.failed(exchange, describeError(error))
    if (exchange.response.headersSent) exchange.request.socket.destroy()
    else sendAnswer(exchange.response, INTERNAL_ERROR)
  }
}

/** Number of requests counted since the start of the process. */
export function requestCount(): number {
  return lastRequestId
}

function refuseAmbiguousHead({ request, connection }: Exchange, { observer }: ProxyStages): Answer | undefined {
  if (!hasAmbiguousHead(request.rawHeaders)) return undefined
  observer.rejected(connection, 400, 'the request head frames its body or names its host more than once')
  return BAD_REQUEST
}

function refuseLargeBody({ request, isExempt, connection }: Exchange, { observer }: ProxyStages): Answer | undefined {
  const bytes = announcedBytes(request) ?? 0
  if (bytes <= (isExempt ? MAX_UPLOAD_BODY_BYTES : MAX_SIGNED_BODY_BYTES)) return undefined
  observer.rejected(connection, 413, `the request announces a body of ${bytes} bytes`)
  return CONTENT_TOO_LARGE
}

function count(exchange: Exchange, { observer }: ProxyStages): undefined {
  exchange.id = ++lastRequestId
  observer.started(exchange)
}

function refuseMethod(exchange: Exchange, { observer }: ProxyStages): Answer | undefined {
  if (isAllowedMethod(exchange.method)) return undefined
  observer.finished(exchange, undefined, 405, `Rejected unsupported HTTP method '${exchange.method}'`)
  return METHOD_NOT_ALLOWED
}

function refuseTarget(exchange: Exchange, { observer }: ProxyStages): Answer | undefined {
  if (hasValidCharacters(exchange.target)) return undefined
  observer.finished(exchange, undefined, 400, 'The request target has characters that a target may not have')
  return BAD_REQUEST
}

function refuseTraversal(exchange: Exchange, { observer }: ProxyStages): Answer | undefined {
  if (!hasTraversal(exchange.target.path)) return undefined
  observer.finished(exchange, undefined, 403, 'Traversal characters found in the request, return FORBIDDEN!')
  return FORBIDDEN
}

function isLocal({ rawTarget, target }: Exchange, path: string): boolean {
  return target.path === path && target.authority === undefined && (rawTarget === path || rawTarget === `${path}?`)
}

function serveProvision(exchange: Exchange, stages: ProxyStages): Answer | undefined {
  if (!isLocal(exchange, '/provision')) return undefined
  const { headers } = exchange.request
  if (headers.metadata === undefined) return refuseWithoutMetadata(exchange, stages)
  const tickText = headers[TIME_TICK_HEADER]
  const state = stages.provision({
    tick: typeof tickText === 'string' && /^[+-]?\d{1,39}$/.test(tickText) ? BigInt(tickText.replace('+', '')) : 0n,
    notify: headers[NOTIFY_HEADER] !== undefined,
  })
  const body = JSON.stringify({ finished: state.finished, errorMessage: state.errorMessage })
  stages.observer.note(exchange, 'Debug', `Provision state: ${body}`)
  return jsonAnswer(body)
}

const STATUS_PATH = '/gpa-aggregated-status'

function serveStatusWithoutCaller(exchange: Exchange, stages: ProxyStages): Answer | undefined {
  if (!isLocal(exchange, STATUS_PATH)) return undefined
  if (exchange.request.headers.metadata === undefined) return refuseWithoutMetadata(exchange, stages)
  if (exchange.connection.caller !== undefined) return undefined
  stages.observer.note(exchange, 'Warn', 'Status refused: the connection was not redirected, so the caller is unknown')
  return FORBIDDEN
}

function serveStatus(exchange: Exchange, caller: Caller, stages: ProxyStages): Answer | undefined {
  if (!isLocal(exchange, STATUS_PATH)) return undefined
  if (caller.elevated) return jsonAnswer(stages.statusJson())
  stages.observer.note(exchange, 'Warn', `Status refused: user '${caller.userName}' is not root`)
  return FORBIDDEN
}

function refuseWithoutMetadata(exchange: Exchange, { observer }: ProxyStages): Answer {
  observer.note(exchange, 'Warn', 'No Metadata header found in the request.')
  return BAD_REQUEST
}

function requireDestination(exchange: Exchange, { observer }: ProxyStages): Answer | undefined {
  const { destination, endpoint } = exchange.connection
  if (destination === undefined) {
    observer.finished(exchange, undefined, 421, 'No remote destination_ip found in the request, return!')
    return MISDIRECTED
  }
  if (endpoint !== undefined) return undefined
  observer.finished(exchange, undefined, 403, 'The destination is none of the guarded services')
  return FORBIDDEN
}

function authorise(exchange: Exchange, caller: Caller, stages: ProxyStages): Answer | undefined {
  const { connection, method, rawTarget } = exchange
  const endpoint = connection.endpoint
  if (endpoint === undefined) return FORBIDDEN
  const verdict = stages.decide(endpoint, caller, method, rawTarget)
  stages.observer.decided(exchange, caller, verdict)
  return verdict.outcome === 'forbidden' ? FORBIDDEN : undefined
}
