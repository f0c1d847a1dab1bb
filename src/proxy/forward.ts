/** The last step: the allowed request goes to the host, signed; its answer comes back as a stream. */

import type { Readable } from 'node:stream'
import { AUTHORIZATION_HEADER, claimsValue } from '../base/azure-headers.ts'
import type { InetAddress } from '../base/endpoints.ts'
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
import type { HostAnswerHandler, HostClientError, HostExchange, HostOrder, HostRequest } from './host-exchange.ts'
import { BodyError, type BodyFault, type ClientWatcher } from './http1/server-connection.ts'
import type { ProxyStages } from './stages.ts'

/** Methods that may be sent a second time when a pooled connection turns out to be closed. */
const REPEATABLE: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS'])

/** The host's word for a signature it does not accept. */
const UNAUTHORIZED = 401

/** Stands in summaries for the status of a request whose client did not wait for one. */
const CLIENT_GONE = 499

/** What follows the head of a request: nothing, a body that is signed with it, or a stream that nobody signs. */
interface Load {
  readonly upload: Readable | undefined
  /** `undefined`: the request goes unsigned. */
  readonly signedBody: Buffer | undefined
}

const NOTHING: Load = { upload: undefined, signedBody: Buffer.alloc(0) }
const NOTHING_UNSIGNED: Load = { upload: undefined, signedBody: undefined }

/** Sends the request to the host and its answer to the client. @throws when the request cannot be sent */
export function forward(exchange: Exchange, caller: Caller, stages: ProxyStages): void {
  const { turn, target, isExempt } = exchange
  if (!target.withoutFragment.startsWith('/') && target.scheme?.toLowerCase() !== 'http') {
    // `*` and authority forms mean nothing to the services behind us.
    stages.observer.finished(exchange, caller, 400, 'The request target is neither a path nor an absolute URL')
    return void sendAnswer(turn, BAD_REQUEST)
  }
  if (turn.head.bodyBytes === 0) return void carry(exchange, caller, stages, isExempt ? NOTHING_UNSIGNED : NOTHING)
  if (isExempt) {
    turn.invite()
    return void carry(exchange, caller, stages, {
      upload: turn.streamBody(MAX_UPLOAD_BODY_BYTES),
      signedBody: undefined,
    })
  }
  forwardWithBody(exchange, caller, stages).catch((error: unknown) => failExchange(exchange, stages, error))
}

/** Reads the body first: the signature stands in front of it. */
async function forwardWithBody(exchange: Exchange, caller: Caller, stages: ProxyStages): Promise<void> {
  const { turn } = exchange
  await room(exchange, caller, stages)
  turn.invite()
  const result = await turn.readBody(MAX_SIGNED_BODY_BYTES)
  if (result.kind === 'whole')
    return void carry(exchange, caller, stages, { upload: undefined, signedBody: result.body })
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

function makeRequest(exchange: Exchange, caller: Caller, stages: ProxyStages, body: Buffer | undefined): HostRequest {
  const { method, target, turn } = exchange
  const headers = toHostHeaders(turn.head.rawHeaders, {
    claims: claimsValue(caller.elevated),
    date: stages.httpDate(),
    defaultHost: exchange.connection.destination?.address ?? '',
    bodyBytes: body === undefined ? turn.head.bodyBytes : body.length,
    method,
  })
  const authorization = body && stages.authorize({ method, path: target.path, query: target.query, headers, body })
  if (authorization !== undefined) headers.push(AUTHORIZATION_HEADER, authorization)
  return { method, target: target.withoutFragment, headers, authorization, body }
}

function carry(exchange: Exchange, caller: Caller, stages: ProxyStages, load: Load): void {
  new Attempt(exchange, caller, stages, load, false).start()
}

/**
 * One try to have a request answered by the host. There is a second when the first certainly did nothing: for a safe request
 * that met a connection which the host had given up, and for one that the host refused because its key was replaced while it was
 * on its way.
 */
class Attempt implements HostOrder, HostAnswerHandler, ClientWatcher {
  readonly uid: number
  readonly #exchange: Exchange
  readonly #caller: Caller
  readonly #stages: ProxyStages
  readonly #load: Load
  readonly #isSecond: boolean
  #host: HostExchange | undefined
  #authorization: string | undefined
  #sentAtMs = 0
  /** The host's; 0 before its answer. */
  #status = 0

  constructor(exchange: Exchange, caller: Caller, stages: ProxyStages, load: Load, isSecond: boolean) {
    this.uid = caller.uid
    this.#exchange = exchange
    this.#caller = caller
    this.#stages = stages
    this.#load = load
    this.#isSecond = isSecond
  }

  get upload(): Readable | undefined {
    return this.#load.upload
  }

  start(): void {
    const { turn, connection } = this.#exchange
    // It may have left while its body was read, or names were looked up.
    if (turn.isGone) return void this.onGone()
    turn.watch(this)
    this.#host = this.#stages.hostClient.send(connection.destination as InetAddress, this, this)
  }

  make(): HostRequest {
    const { observer } = this.#stages
    const request = makeRequest(this.#exchange, this.#caller, this.#stages, this.#load.signedBody)
    this.#authorization = request.authorization
    this.#sentAtMs = observer.nowMs()
    observer.sent(this.#exchange, request.body?.length ?? this.#exchange.turn.head.bodyBytes, request.authorization)
    return request
  }

  onGone(): void {
    this.#host?.abort()
    this.#finished(this.#status || CLIENT_GONE, 'The client went away before the end of the answer')
  }

  onDrain(): void {
    this.#host?.resume()
  }

  onUnmade(error: unknown): void {
    this.#exchange.turn.watch(undefined)
    failExchange(this.#exchange, this.#stages, error)
  }

  onHead(status: number, rawHeaders: readonly string[]): void {
    this.#stages.observer.hostAnswered(this.#exchange, status, this.#sentAtMs)
    const renewal = status === UNAUTHORIZED ? this.#keyAfterRefusal() : undefined
    if (renewal !== undefined) {
      this.#host?.abort()
      this.#exchange.turn.watch(undefined)
      renewal.then(() => this.#tryAgain()).catch((error: unknown) => failExchange(this.#exchange, this.#stages, error))
      return
    }
    this.#status = status
    this.#exchange.turn.begin(status, toClientHeaders(rawHeaders))
  }

  onData(chunk: Buffer): boolean {
    return this.#exchange.turn.write(chunk)
  }

  onPause(): void {
    this.#exchange.turn.flush()
  }

  onEnd(): void {
    this.#finished(this.#status, '')
    this.#exchange.turn.end()
  }

  onError(error: HostClientError): void {
    const { turn } = this.#exchange
    turn.watch(undefined)
    if (this.#status === 0) return void this.#fail(error)
    // A broken body must not look complete, also where its end is the connection's.
    this.#finished(this.#status, `The answer of the host broke off: ${error.reason}`)
    turn.break()
  }

  /** @returns `undefined` when a refusal of the signature is the host's answer */
  #keyAfterRefusal(): Promise<void> | undefined {
    return this.#isSecond || this.#authorization === undefined ? undefined : this.#stages.keyAfter(this.#authorization)
  }

  #tryAgain(): void {
    new Attempt(this.#exchange, this.#caller, this.#stages, this.#load, true).start()
  }

  /** Nothing of an answer has come. */
  #fail(error: HostClientError): void {
    const { method, rawTarget, turn } = this.#exchange
    const mayRepeat = !this.#isSecond && this.upload === undefined && REPEATABLE.has(method)
    if (error.isStale && mayRepeat) return void this.#tryAgain()
    const answer = answerFor(error, this.upload)
    const detail = error.isConnected
      ? `Failed to send request to host: Failed to send request to ${rawTarget}: ${error.reason}`
      : `Failed to send request to host: Host connection error: ${error.reason}`
    this.#finished(answer.status, detail)
    sendAnswer(turn, answer)
  }

  #finished(status: number, detail: string): void {
    this.#stages.observer.finished(this.#exchange, this.#caller, status, detail)
  }
}

function answerFor(error: HostClientError, upload: Readable | undefined): Answer {
  const fault = upload?.errored
  if (fault instanceof BodyError) return BODY_FAULTS[fault.kind].answer
  return error.isConnected ? SERVICE_UNAVAILABLE : BAD_GATEWAY
}
