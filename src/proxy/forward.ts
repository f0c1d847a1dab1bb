/** The last step: the allowed request goes to the host, signed; its answer comes back as a stream. */

import { AUTHORIZATION_HEADER, claimsValue } from '../base/azure-headers.ts'
import type { Caller } from '../identity/caller.ts'
import { type Answer, BAD_GATEWAY, BAD_REQUEST, CONTENT_TOO_LARGE, SERVICE_UNAVAILABLE, sendAnswer } from './answer.ts'
import { announcedBytes, awaitsContinue, BodyTooLargeError, hasBody, limitBody, readBody } from './body.ts'
import type { Exchange } from './exchange.ts'
import { MAX_SIGNED_BODY_BYTES, MAX_UPLOAD_BODY_BYTES } from './guards.ts'
import { toClientHeaders, toHostHeaders } from './headers.ts'
import type { HostClientError, HostExchange, HostRequest } from './host-client.ts'
import type { ProxyStages } from './stages.ts'

/** Methods that may be sent a second time when a pooled connection turns out to be closed. */
const REPEATABLE: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS'])

/** The host's word for a signature it does not accept. */
const UNAUTHORIZED = 401

/** Stands in summaries for the status of a request whose client did not wait for one. */
const CLIENT_GONE = 499

/** Sends the request to the host and its answer to the client. Resolves when both are done or given up. */
export async function forward(exchange: Exchange, caller: Caller, stages: ProxyStages): Promise<void> {
  const { request, response, target, isExempt } = exchange
  if (!target.withoutFragment.startsWith('/') && target.scheme?.toLowerCase() !== 'http') {
    // `*` and authority forms mean nothing to the services behind us, and the pool cannot write them.
    stages.observer.finished(exchange, caller, 400, 'The request target is neither a path nor an absolute URL')
    return sendAnswer(response, BAD_REQUEST)
  }
  if (awaitsContinue(request)) response.writeContinue()
  if (isExempt) {
    const upload = streamedRequest(exchange, caller, stages)
    return carry(exchange, caller, stages, () => upload)
  }

  const result = await readBody(request, MAX_SIGNED_BODY_BYTES)
  if (result.kind === 'broken') {
    stages.observer.finished(exchange, caller, 400, 'The client went away before the end of its request')
    return
  }
  if (result.kind === 'too-large') {
    stages.observer.finished(exchange, caller, 413, `The body is larger than ${MAX_SIGNED_BODY_BYTES} bytes`)
    return sendAnswer(response, CONTENT_TOO_LARGE)
  }
  await carry(exchange, caller, stages, () => signedRequest(exchange, caller, stages, result.body))
}

function signedRequest(exchange: Exchange, caller: Caller, stages: ProxyStages, body: Buffer): HostRequest {
  const { request, method, target, connection } = exchange
  const headers = toHostHeaders(request.rawHeaders, {
    claims: claimsValue(caller.elevated),
    date: stages.httpDate(),
    defaultHost: connection.destination?.address ?? '',
    bodyBytes: body.length,
    method,
  })
  const authorization = stages.authorize({ method, path: target.path, query: target.query, headers, body })
  if (authorization !== undefined) headers.push(AUTHORIZATION_HEADER, authorization)
  return { method, target: target.withoutFragment, headers, authorization, body }
}

function streamedRequest(exchange: Exchange, caller: Caller, stages: ProxyStages): HostRequest {
  const { request, method, target, connection } = exchange
  const headers = toHostHeaders(request.rawHeaders, {
    claims: claimsValue(caller.elevated),
    date: stages.httpDate(),
    defaultHost: connection.destination?.address ?? '',
    bodyBytes: announcedBytes(request),
    method,
  })
  const body = hasBody(request) ? limitBody(request, MAX_UPLOAD_BODY_BYTES) : undefined
  return { method, target: target.withoutFragment, headers, authorization: undefined, body }
}

/**
 * Sends the request, and a second time when the first certainly did nothing: a safe one that met a connection which the
 * host had given up, and one that the host refused because its key was replaced while it was on its way.
 * @param make builds the request and signs it with the key of the moment.
 */
async function carry(exchange: Exchange, caller: Caller, stages: ProxyStages, make: () => HostRequest): Promise<void> {
  const request = make()
  let outcome = await attempt(exchange, caller, stages, request, true)
  if (outcome.kind === 'refused') outcome = await attempt(exchange, caller, stages, make(), false)
  else if (
    outcome.kind === 'failed' &&
    outcome.error.isStale &&
    REPEATABLE.has(request.method) &&
    isReplayable(request)
  )
    outcome = await attempt(exchange, caller, stages, request, false)
  if (outcome.kind !== 'failed') return
  const { error } = outcome
  const answer = answerFor(error, request)
  const detail = error.isConnected
    ? `Failed to send request to host: Failed to send request to ${exchange.rawTarget}: ${error.reason}`
    : `Failed to send request to host: Host connection error: ${error.reason}`
  stages.observer.finished(exchange, caller, answer.status, detail)
  sendAnswer(exchange.response, answer)
}

function answerFor(error: HostClientError, request: HostRequest): Answer {
  const stream = request.body
  if (stream !== undefined && !Buffer.isBuffer(stream) && stream.errored instanceof BodyTooLargeError)
    return CONTENT_TOO_LARGE
  return error.isConnected ? SERVICE_UNAVAILABLE : BAD_GATEWAY
}

function isReplayable({ body }: HostRequest): boolean {
  return body === undefined || Buffer.isBuffer(body)
}

/** How one try ended. After `failed` and `refused` nothing of an answer went to the client yet. */
type Outcome =
  | { readonly kind: 'over' }
  | { readonly kind: 'failed'; readonly error: HostClientError }
  | { readonly kind: 'refused' }

const OVER: Outcome = { kind: 'over' }

/** One try. @param isFirst whether a refusal for a replaced key may be answered by another try. */
function attempt(
  exchange: Exchange,
  caller: Caller,
  stages: ProxyStages,
  request: HostRequest,
  isFirst: boolean,
): Promise<Outcome> {
  const { request: received, response, connection } = exchange
  const { observer, hostClient } = stages
  return new Promise((resolve) => {
    let status = 0
    let held: { readonly headers: string[]; chunk: Buffer | undefined } | undefined
    let host: HostExchange | undefined
    const onClose = () => {
      if (response.writableFinished) return
      host?.abort()
      observer.finished(exchange, caller, status || CLIENT_GONE, 'The client went away before the end of the answer')
      resolve(OVER)
    }
    // It may have left while names were looked up.
    if (received.socket.destroyed) return onClose()
    const onDrain = () => host?.resume()
    const end = (outcome: Outcome) => {
      received.socket.off('close', onClose)
      response.off('drain', onDrain)
      resolve(outcome)
    }
    /** Writes the head, held back until it is known whether head and body fit one write. @returns false: wait for drain. */
    const flushHead = () => {
      if (held === undefined || response.destroyed) return true
      const { headers, chunk } = held
      held = undefined
      response.writeHead(status, headers)
      return chunk === undefined || response.write(chunk)
    }
    received.socket.on('close', onClose)
    response.on('drain', onDrain)
    const destination = connection.destination as { address: string; port: number }
    host = hostClient.send(destination, request, {
      onHead(hostStatus, rawHeaders) {
        const isUnaccepted = isFirst && hostStatus === UNAUTHORIZED && request.authorization !== undefined
        const renewal = isUnaccepted ? stages.keyAfter(request.authorization) : undefined
        if (renewal !== undefined) {
          host?.abort()
          void renewal.then(() => end({ kind: 'refused' }))
          return
        }
        status = hostStatus
        held = { headers: toClientHeaders(rawHeaders), chunk: undefined }
        setImmediate(flushHead)
      },
      onData(chunk) {
        if (held !== undefined && held.chunk === undefined) {
          held.chunk = Buffer.from(chunk)
          return true
        }
        flushHead()
        return response.write(Buffer.from(chunk))
      },
      onEnd() {
        if (held !== undefined) {
          const { headers, chunk } = held
          held = undefined
          response.writeHead(status, headers)
          response.end(chunk)
        } else response.end()
        // The host may answer an upload before its end: what is still to come has nowhere to go, and the client waits.
        if (!received.complete) {
          received.unpipe()
          received.resume()
        }
        observer.finished(exchange, caller, status, '')
        end(OVER)
      },
      onError(error) {
        if (status === 0) return end({ kind: 'failed', error })
        // The head is out, or about to be: a broken body must not look complete, also where its end is the connection's.
        observer.finished(exchange, caller, status, `The answer of the host broke off: ${error.reason}`)
        end(OVER)
        received.socket.resetAndDestroy()
      },
    })
  })
}
