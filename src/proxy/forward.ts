/** The last step: the allowed request goes to the host, signed; its answer comes back as a stream. */

import { AUTHORIZATION_HEADER, claimsValue } from '../base/azure-headers.ts'
import type { Caller } from '../identity/caller.ts'
import {
  type Answer,
  BAD_GATEWAY,
  BAD_REQUEST,
  CONTENT_TOO_LARGE,
  REQUEST_TIMEOUT,
  SERVICE_UNAVAILABLE,
  sendAnswer,
  TOO_MUCH_OVERHEAD,
} from './answer.ts'
import type { Exchange } from './exchange.ts'
import { failExchange } from './fault.ts'
import { MAX_SIGNED_BODY_BYTES, MAX_UPLOAD_BODY_BYTES } from './guards.ts'
import { toClientHeaders, toHostHeaders } from './headers.ts'
import type { HostClientError, HostExchange, HostOrder, HostRequest } from './host-exchange.ts'
import { BodyError, type BodyFault, type ClientWatcher } from './http1/server-connection.ts'
import type { ProxyStages } from './stages.ts'

/** Methods that may be sent a second time when a pooled connection turns out to be closed. */
const REPEATABLE: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS'])

/** The host's word for a signature it does not accept. */
const UNAUTHORIZED = 401

/** Stands in summaries for the status of a request whose client did not wait for one. */
const CLIENT_GONE = 499

const NO_BODY = Buffer.alloc(0)

/** Sends the request to the host and its answer to the client. Resolves when the request is on its way. */
export async function forward(exchange: Exchange, caller: Caller, stages: ProxyStages): Promise<void> {
  const { turn, target, isExempt } = exchange
  if (!target.withoutFragment.startsWith('/') && target.scheme?.toLowerCase() !== 'http') {
    // `*` and authority forms mean nothing to the services behind us.
    stages.observer.finished(exchange, caller, 400, 'The request target is neither a path nor an absolute URL')
    return void sendAnswer(turn, BAD_REQUEST)
  }
  const { uid } = caller
  const signed = (body: Buffer) => () => signedRequest(exchange, caller, stages, body)
  const unsigned = () => unsignedRequest(exchange, caller, stages)
  if (turn.head.bodyBytes === 0) {
    return carry(exchange, caller, stages, { uid, upload: undefined, make: isExempt ? unsigned : signed(NO_BODY) })
  }
  if (isExempt) {
    turn.invite()
    return carry(exchange, caller, stages, { uid, upload: turn.streamBody(MAX_UPLOAD_BODY_BYTES), make: unsigned })
  }
  await room(exchange, caller, stages)
  turn.invite()
  const result = await turn.readBody(MAX_SIGNED_BODY_BYTES)
  if (result.kind === 'whole') {
    return carry(exchange, caller, stages, { uid, upload: undefined, make: signed(result.body) })
  }
  const { answer, detail } = BODY_FAULTS[result.kind]
  stages.observer.finished(exchange, caller, answer.status, detail)
  sendAnswer(turn, answer)
}

/** Waits until there is room for the body of the request, which is kept until the request is over. */
function room({ turn }: Exchange, { uid }: Caller, { bodyBudget }: ProxyStages): Promise<void> {
  return new Promise((resolve) => {
    const giveBack = bodyBudget.take(uid, turn.head.bodyBytes ?? MAX_SIGNED_BODY_BYTES, resolve)
    turn.whenOver(() => {
      giveBack()
      resolve()
    })
  })
}

/** What becomes of a request whose body did not come whole. */
const BODY_FAULTS: Readonly<Record<BodyFault | 'too-large', { readonly answer: Answer; readonly detail: string }>> = {
  'too-large': {
    answer: CONTENT_TOO_LARGE,
    detail: `The body is larger than ${MAX_SIGNED_BODY_BYTES} bytes`,
  },
  malformed: { answer: BAD_REQUEST, detail: 'The chunked body of the request is malformed' },
  overhead: { answer: TOO_MUCH_OVERHEAD, detail: 'The chunked body has too many extensions or trailers' },
  late: { answer: REQUEST_TIMEOUT, detail: 'The body of the request did not arrive in time' },
  gone: { answer: BAD_REQUEST, detail: 'The client went away before the end of its request' },
}

function signedRequest(exchange: Exchange, caller: Caller, stages: ProxyStages, body: Buffer): HostRequest {
  const { method, target } = exchange
  const headers = headersToHost(exchange, caller, stages, body.length)
  const authorization = stages.authorize({ method, path: target.path, query: target.query, headers, body })
  if (authorization !== undefined) headers.push(AUTHORIZATION_HEADER, authorization)
  return { method, target: target.withoutFragment, headers, authorization, body }
}

function unsignedRequest(exchange: Exchange, caller: Caller, stages: ProxyStages): HostRequest {
  const { method, target, turn } = exchange
  const headers = headersToHost(exchange, caller, stages, turn.head.bodyBytes)
  return { method, target: target.withoutFragment, headers, authorization: undefined, body: undefined }
}

function headersToHost(
  { turn, method, connection }: Exchange,
  caller: Caller,
  stages: ProxyStages,
  bodyBytes: number | undefined,
): string[] {
  return toHostHeaders(turn.head.rawHeaders, {
    claims: claimsValue(caller.elevated),
    date: stages.httpDate(),
    defaultHost: connection.destination?.address ?? '',
    bodyBytes,
    method,
  })
}

/**
 * Sends the request, and a second time when the first certainly did nothing: a safe one that met a connection which the
 * host had given up, and one that the host refused because its key was replaced while it was on its way.
 */
function carry(exchange: Exchange, caller: Caller, stages: ProxyStages, order: HostOrder): void {
  const giveUp = (error: HostClientError) => {
    const answer = answerFor(error, order)
    const detail = error.isConnected
      ? `Failed to send request to host: Failed to send request to ${exchange.rawTarget}: ${error.reason}`
      : `Failed to send request to host: Host connection error: ${error.reason}`
    stages.observer.finished(exchange, caller, answer.status, detail)
    sendAnswer(exchange.turn, answer)
  }
  const again = () => attempt(exchange, caller, stages, order, { onRefused: undefined, onFailed: giveUp })
  attempt(exchange, caller, stages, order, {
    onRefused: again,
    onFailed(error) {
      if (error.isStale && REPEATABLE.has(exchange.method) && order.upload === undefined) again()
      else giveUp(error)
    },
  })
}

function answerFor(error: HostClientError, { upload }: HostOrder): Answer {
  const fault = upload?.errored
  if (fault instanceof BodyError) return BODY_FAULTS[fault.kind].answer
  return error.isConnected ? SERVICE_UNAVAILABLE : BAD_GATEWAY
}

/** `undefined` when nobody knows before it has come. */
function bodyBytesOf({ body }: HostRequest): number | undefined {
  return body === undefined ? 0 : Buffer.isBuffer(body) ? body.length : undefined
}

/** What to do when a try ends before anything of an answer went to the client. */
interface Otherwise {
  /** The host refused the signature, and there is another key now; `undefined`: that is its answer. */
  readonly onRefused: (() => void) | undefined
  readonly onFailed: (error: HostClientError) => void
}

/** One try. */
function attempt(
  exchange: Exchange,
  caller: Caller,
  stages: ProxyStages,
  order: HostOrder,
  otherwise: Otherwise,
): void {
  const { turn, connection } = exchange
  const { observer, hostClient } = stages
  let status = 0
  let authorization: string | undefined
  let host: HostExchange | undefined
  const client: ClientWatcher = {
    onGone() {
      host?.abort()
      observer.finished(exchange, caller, status || CLIENT_GONE, 'The client went away before the end of the answer')
    },
    onDrain: () => host?.resume(),
  }
  // It may have left while its body was read, or names were looked up.
  if (turn.isGone) return void client.onGone()
  turn.watch(client)
  const destination = connection.destination as { address: string; port: number }
  let sentAtMs = 0
  const make = () => {
    const request = order.make()
    authorization = request.authorization
    sentAtMs = observer.nowMs()
    observer.sent(exchange, bodyBytesOf(request), authorization)
    return request
  }
  host = hostClient.send(
    destination,
    { uid: order.uid, upload: order.upload, make },
    {
      onUnmade(error) {
        turn.watch(undefined)
        failExchange(exchange, stages, error)
      },
      onHead(hostStatus, rawHeaders) {
        observer.hostAnswered(exchange, hostStatus, sentAtMs)
        const isUnaccepted = hostStatus === UNAUTHORIZED && otherwise.onRefused !== undefined
        const renewal = isUnaccepted && authorization !== undefined ? stages.keyAfter(authorization) : undefined
        if (renewal !== undefined) {
          host?.abort()
          turn.watch(undefined)
          void renewal.then(otherwise.onRefused)
          return
        }
        status = hostStatus
        turn.begin(status, toClientHeaders(rawHeaders))
      },
      onData: (chunk) => turn.write(chunk),
      onPause: () => turn.flush(),
      onEnd() {
        observer.finished(exchange, caller, status, '')
        turn.end()
      },
      onError(error) {
        turn.watch(undefined)
        if (status === 0) return void otherwise.onFailed(error)
        // A broken body must not look complete, also where its end is the connection's.
        observer.finished(exchange, caller, status, `The answer of the host broke off: ${error.reason}`)
        turn.break()
      },
    },
  )
}
