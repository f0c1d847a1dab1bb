/**
 * The steps of a request, in the order of the contract. The first that gives an answer ends it; the last one forwards.
 *
 * Everything that can refuse runs before anything is dialled. Steps run synchronously where they can: most requests
 * wait only for the host.
 */

import { NOTIFY_HEADER, TIME_TICK_HEADER } from '../base/azure-headers.ts'
import { SELF_PROBE } from '../base/endpoints.ts'
import type { Caller } from '../identity/caller.ts'
import {
  type Answer,
  BAD_REQUEST,
  CONTENT_TOO_LARGE,
  DONE,
  FORBIDDEN,
  jsonAnswer,
  METHOD_NOT_ALLOWED,
  MISDIRECTED,
  SERVICE_UNAVAILABLE,
  sendAnswer,
  unsupportedMethod,
} from './answer.ts'
import type { Exchange } from './exchange.ts'
import { failExchange } from './fault.ts'
import { forward } from './forward.ts'
import {
  hasTraversal,
  hasValidCharacters,
  isAllowedMethod,
  MAX_SIGNED_BODY_BYTES,
  MAX_UPLOAD_BODY_BYTES,
} from './guards.ts'
import { findHeader } from './http1/request-reader.ts'
import type { ProxyStages } from './stages.ts'

/** Gives an answer to end the request, `undefined` to go on. */
type Step = (exchange: Exchange, stages: ProxyStages) => Answer | undefined

/** Steps that need no caller. */
const BEFORE_CALLER: readonly Step[] = [
  refuseLargeBody,
  serveSelfProbe,
  count,
  refuseMethod,
  refuseTarget,
  refuseTraversal,
  serveProvision,
  serveStatusWithoutCaller,
  requireDestination,
]

/**
 * Handles one request to its end. Never throws. What can be done at once is: most requests wait for nobody but the host.
 */
export function handleRequest(exchange: Exchange, stages: ProxyStages): void {
  try {
    for (const step of BEFORE_CALLER) {
      const answer = step(exchange, stages)
      if (answer !== undefined) return void sendAnswer(exchange.turn, answer)
    }
    const { caller } = exchange.connection
    if (!(caller instanceof Promise)) return void handleKnown(exchange, caller, stages)
    caller.then(
      (known) => handleKnown(exchange, known, stages),
      () => handleKnown(exchange, undefined, stages),
    )
  } catch (error) {
    failExchange(exchange, stages, error)
  }
}

/** The steps that need a caller. Never throws. */
function handleKnown(exchange: Exchange, caller: Caller | undefined, stages: ProxyStages): void {
  try {
    if (caller === undefined) {
      stages.observer.finished(exchange, undefined, 421, 'No claims found in the request, return!', 'failed')
      return void sendAnswer(exchange.turn, MISDIRECTED)
    }
    const answer =
      serveStatus(exchange, caller, stages) ??
      requireRules(exchange, caller, stages) ??
      authorise(exchange, caller, stages)
    if (answer !== undefined) return void sendAnswer(exchange.turn, answer)
    forward(exchange, caller, stages)
  } catch (error) {
    failExchange(exchange, stages, error)
  }
}

function refuseLargeBody({ turn, isExempt, connection }: Exchange, { observer }: ProxyStages): Answer | undefined {
  const bytes = turn.head.bodyBytes ?? 0
  if (bytes <= (isExempt ? MAX_UPLOAD_BODY_BYTES : MAX_SIGNED_BODY_BYTES)) return undefined
  observer.rejected(connection, 413, `the request announces a body of ${bytes} bytes`)
  return CONTENT_TOO_LARGE
}

/** Not counted and not told: the agent asks itself, day and night. What others ask there goes on to its refusal. */
function serveSelfProbe({ connection, rawTarget }: Exchange, stages: ProxyStages): Answer | undefined {
  const { destination } = connection
  const isThere = destination?.address === SELF_PROBE.address && destination.port === SELF_PROBE.port
  return isThere && stages.isSelfProbe(rawTarget) ? DONE : undefined
}

function count(exchange: Exchange, { observer, nextRequestId }: ProxyStages): undefined {
  exchange.id = nextRequestId()
  observer.started(exchange)
}

function refuseMethod(exchange: Exchange, { observer }: ProxyStages): Answer | undefined {
  if (isAllowedMethod(exchange.method)) return undefined
  observer.finished(exchange, undefined, 405, unsupportedMethod(exchange.method))
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

function isLocal({ target }: Exchange, path: string): boolean {
  return target.withoutFragment === path || target.withoutFragment === `${path}?`
}

/** The header by which a client says that it knows what it talks to. */
const METADATA_HEADER = 'metadata'

function hasHeader({ turn }: Exchange, lowerName: string): boolean {
  return findHeader(turn.head.rawHeaders, lowerName) !== undefined
}

function serveProvision(exchange: Exchange, stages: ProxyStages): Answer | undefined {
  if (!isLocal(exchange, '/provision')) return undefined
  if (!hasHeader(exchange, METADATA_HEADER)) return refuseWithoutMetadata(exchange, stages)
  const tickText = findHeader(exchange.turn.head.rawHeaders, TIME_TICK_HEADER)
  const state = stages.provision({
    tick: tickText === undefined ? 0n : parseTick(tickText),
    notify: hasHeader(exchange, NOTIFY_HEADER),
  })
  const body = JSON.stringify({ finished: state.finished, errorMessage: state.errorMessage })
  stages.observer.note(exchange, 'Debug', `Provision state: ${body}`)
  return served(exchange, undefined, stages, jsonAnswer(body))
}

/** Reads a signed decimal number of 128 bits; whatever is not one counts as 0. */
function parseTick(text: string): bigint {
  if (!/^[+-]?\d{1,64}$/.test(text)) return 0n
  const tick = BigInt(text.replace('+', ''))
  return BigInt.asIntN(128, tick) === tick ? tick : 0n
}

/** Ends what is told of a request that the agent answers itself. */
function served(
  exchange: Exchange,
  caller: Caller | undefined,
  { observer }: ProxyStages,
  answer: Answer,
  complaint?: string,
): Answer {
  observer.served(exchange, caller, answer.status, complaint)
  return answer
}

const STATUS_PATH = '/gpa-aggregated-status'

function serveStatusWithoutCaller(exchange: Exchange, stages: ProxyStages): Answer | undefined {
  if (!isLocal(exchange, STATUS_PATH)) return undefined
  if (!hasHeader(exchange, METADATA_HEADER)) return refuseWithoutMetadata(exchange, stages)
  if (exchange.connection.caller !== undefined) return undefined
  const complaint = 'Status refused: the connection was not redirected, so the caller is unknown'
  return served(exchange, undefined, stages, FORBIDDEN, complaint)
}

function serveStatus(exchange: Exchange, caller: Caller, stages: ProxyStages): Answer | undefined {
  if (!isLocal(exchange, STATUS_PATH)) return undefined
  if (caller.elevated) return served(exchange, caller, stages, jsonAnswer(stages.statusJson()))
  return served(exchange, caller, stages, FORBIDDEN, 'Status refused: the caller is not root')
}

function refuseWithoutMetadata(exchange: Exchange, stages: ProxyStages): Answer {
  const { caller } = exchange.connection
  const known = caller instanceof Promise ? undefined : caller
  return served(exchange, known, stages, BAD_REQUEST, 'No Metadata header found in the request.')
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

/** No rules are not the host's rules: what it would deny must not pass before it has spoken. */
function requireRules(exchange: Exchange, caller: Caller, { isReady, observer }: ProxyStages): Answer | undefined {
  if (isReady()) return undefined
  observer.finished(exchange, caller, 503, 'The host has not said yet who may ask what')
  return SERVICE_UNAVAILABLE
}

function authorise(exchange: Exchange, caller: Caller, stages: ProxyStages): Answer | undefined {
  const { connection, method, rawTarget } = exchange
  const endpoint = connection.endpoint
  if (endpoint === undefined) return FORBIDDEN
  const verdict = stages.decide(endpoint, caller, method, rawTarget)
  stages.observer.decided(exchange, caller, verdict)
  return verdict.outcome === 'forbidden' ? FORBIDDEN : undefined
}
