/**
 * A client's connection: reads its requests strictly and one at a time, and writes their answers.
 *
 *     waiting ──► head ──► turn: body when somebody wants it, answer ──► waiting …  or  lingering ──► closed
 *
 * What arrives before it is wanted is held. When that is more than a few small requests the socket is not read any further:
 * a client that writes ahead costs `MAX_HELD_BYTES` and what one read brought, whatever it sends. While the socket rests,
 * a client that leaves is noticed only when its next answer is written; that is why small requests do not make it rest.
 *
 * Times are not kept by timers of its own: the listener calls `expire` once a second for all.
 */

import type { Socket } from 'node:net'
import { Readable } from 'node:stream'
import { atRoundEnd } from '../round-end.ts'
import { renderAnswerHead } from './answer-head.ts'
import { createBodyCollector } from './body-collector.ts'
import { type BodyReader, type BodyState, createBodyReader } from './body-reader.ts'
import type { Fields } from './fields.ts'
import { createHeadCollector, type HeadCollector } from './head-collector.ts'
import { parseRequest, type RequestHead } from './request-reader.ts'

export interface ConnectionLimits {
  readonly maxHeadBytes: number
  readonly maxHeaders: number
  /** Time for a request head, from the connection's beginning or the head's first byte. */
  readonly headTimeoutMs: number
  /** Time for a request head and body together. */
  readonly requestTimeoutMs: number
  /** Silence after which a connection without a request is closed. */
  readonly idleTimeoutMs: number
  /** Longest wait for a client to take more of its answer. */
  readonly stallTimeoutMs: number
}

export interface ConnectionHooks {
  /** A request has its turn. Its answer ends the turn. */
  onRequest(turn: Turn): void
  /** What arrived is no request; it was answered with `status` and the connection ends. @param detail a fixed sentence */
  onRefused(status: number, detail: string): void
}

export type BodyResult =
  | { readonly kind: 'whole'; readonly body: Buffer }
  /** More than the limit arrived. */
  | { readonly kind: 'too-large' }
  | { readonly kind: BodyFault }

/** Its chunks are malformed; they have too many extensions or trailers; it took too long; the client went away. */
export type BodyFault = 'malformed' | 'overhead' | 'late' | 'gone'

/** The error of a body stream that did not reach its end. */
export class BodyError extends Error {
  override name = 'BodyError'
  readonly kind: BodyFault | 'too-large'
  constructor(kind: BodyFault | 'too-large') {
    super(`the body of the request is ${kind}`)
    this.kind = kind
  }
}

export interface ClientWatcher {
  /** The client went away before its answer was complete. */
  onGone(): void
  /** More of the answer can be written, after `write` gave false. */
  onDrain(): void
}

/**
 * One request and the way to answer it.
 *
 * Whoever wants to hear of it hands functions over and does not assign them to properties: V8 takes a function literal that is
 * assigned to a property for a method of a class and makes it in the old generation, where it keeps all that it refers to, which is
 * the whole request, from the quick collection of young objects.
 */
export interface Turn {
  readonly head: RequestHead
  /** Whether the client can get no answer any more. */
  readonly isGone: boolean
  /** Whether the answer has begun. */
  readonly hasBegun: boolean
  /** Tells `watcher` of the client until the turn is over; `undefined`: nobody any more. */
  watch(watcher: ClientWatcher | undefined): void
  /** Calls `callback` when the turn is over, whether with its answer or without. Once at most. */
  whenOver(callback: () => void): void
  /** Tells a client that waits for it to send its body; nothing to others. */
  invite(): void
  /** Reads the body to its end. Never rejects. Once at most. */
  readBody(maxBytes: number): Promise<BodyResult>
  /** Gives the body as it comes; fails with `BodyError`. Once at most. */
  streamBody(maxBytes: number): Readable
  /**
   * Writes a whole answer, and the turn is over.
   * @param headers names in lower case and values in turn; the length is added
   * @param isLast whether the connection ends with it
   */
  answer(status: number, headers: Fields, body: Buffer, isLast: boolean): void
  /** Begins an answer whose body comes in pieces, framed as its headers say, or in chunks. */
  begin(status: number, headers: Fields): void
  /** @param piece may be reused by the caller afterwards @returns false: wait for the watcher's `onDrain` */
  write(piece: Buffer): boolean
  /** Sends what was written so far; until then it may wait, to go out in one piece with what follows. */
  flush(): void
  end(): void
  /** Ends the connection so that nobody can take what was written for a whole answer. */
  break(): void
}

/** How long, and how much, is read from a client that is still sending when its last answer is out. */
const LINGER_MS = 2000
const MAX_DROPPED_BYTES = 4 * 1024 * 1024

/** How long after it connected a client is waited for when the listener closes. */
const FIRST_REQUEST_MS = 250

/** How much of a body is read and dropped when its answer came early, so that the connection can go on. */
const MAX_DRAINED_BYTES = 100 * 1024 * 1024

/** Bytes that are not wanted yet, from which on the socket is not read. */
const MAX_HELD_BYTES = 16 * 1024

/** Bodies up to this go out in one write with their head, as text. */
const ONE_WRITE_BYTES = 16 * 1024

const CR = 0x0d
const LF = 0x0a
const TAB = 0x09
const DELETE = 0x7f
const CONTINUE = 'HTTP/1.1 100 Continue\r\n\r\n'
const EMPTY = Buffer.alloc(0)

/** Takes the pieces of a body. */
interface Sink {
  /** @param piece may be reused by the caller afterwards @returns false: no more until `resumeBody` */
  onData(piece: Buffer): boolean
  onEnd(): void
  onFault(fault: BodyFault): void
}

export class ServerConnection {
  readonly #socket: Socket
  readonly #limits: ConnectionLimits
  readonly #hooks: ConnectionHooks
  readonly #monotonicMs: () => number
  readonly #collector: HeadCollector
  #turn: ConnectionTurn | undefined
  /** What is left of the current request's body; `undefined`: nothing. */
  #body: BodyReader | undefined
  #sink: Sink | undefined
  #isSinkFull = false
  /** What was read and is not wanted yet. */
  #rest: Buffer | undefined
  #isAdvancing = false
  /** Whether a request was ever read: a connection that says nothing from the start is told, one that ends is not. */
  #hasAsked = false
  /** When what the connection waits for began. */
  #sinceMs: number
  #blockedSinceMs: number | undefined
  /** Whether the connection ends with the current answer. */
  #isLast = false
  /** Whether it ends with the answer to the last request that has arrived. */
  #isFinishing = false
  /** What is written at the end of this round: `ONE_WRITE_BYTES` at most. */
  #unsent = ''
  /** Bytes dropped while lingering; `undefined`: not lingering. */
  #droppedBytes: number | undefined

  constructor(socket: Socket, limits: ConnectionLimits, monotonicMs: () => number, hooks: ConnectionHooks) {
    this.#socket = socket
    this.#limits = limits
    this.#hooks = hooks
    this.#monotonicMs = monotonicMs
    this.#collector = createHeadCollector(limits.maxHeadBytes)
    this.#sinceMs = monotonicMs()
    socket.on('end', () => this.#onClientEnd())
    socket.on('drain', () => this.#onDrain())
    socket.on('error', () => socket.destroy())
    socket.on('close', () => this.#onClose())
  }

  /** Looks whether something took too long. */
  expire(nowMs: number): void {
    const passedMs = nowMs - this.#sinceMs
    const { headTimeoutMs, requestTimeoutMs, idleTimeoutMs, stallTimeoutMs } = this.#limits
    if (this.#droppedBytes !== undefined) {
      if (passedMs >= LINGER_MS) this.#socket.destroy()
    } else if (this.#blockedSinceMs !== undefined && nowMs - this.#blockedSinceMs >= stallTimeoutMs) {
      this.#socket.destroy()
    } else if (this.#turn === undefined) {
      if (this.#collector.isStarted || !this.#hasAsked) {
        if (passedMs >= headTimeoutMs) this.#refuse(408, 'the head of a request did not arrive in time')
      } else if (passedMs >= idleTimeoutMs) this.#socket.destroy()
    } else if (this.#body !== undefined && passedMs >= requestTimeoutMs) {
      this.#isLast = true
      if (this.#sink === undefined) this.#socket.destroy()
      else this.#failBody('late')
    }
  }

  /**
   * Ends the connection when all that has arrived is answered, and at once when there is nothing. A client that has only
   * just connected is given a moment: its request is on its way.
   */
  finish(): void {
    this.#isFinishing = true
    const endIfIdle = () => {
      if (this.#turn !== undefined || this.#collector.isStarted) return
      this.#sendUnsent()
      this.#socket.destroy()
    }
    const restMs = this.#hasAsked ? 0 : this.#sinceMs + FIRST_REQUEST_MS - this.#monotonicMs()
    if (restMs > 0) setTimeout(endIfIdle, restMs)
    else endIfIdle()
  }

  /** Takes what the socket has read. @param bytes may be reused by the caller afterwards */
  take(bytes: Buffer): void {
    if (this.#droppedBytes !== undefined) {
      this.#droppedBytes += bytes.length
      if (this.#droppedBytes > MAX_DROPPED_BYTES) this.#socket.destroy()
      return
    }
    const isFirst = this.#rest === undefined
    this.#rest = this.#rest === undefined ? bytes : Buffer.concat([this.#rest, bytes])
    this.#advance()
    if (isFirst && this.#rest !== undefined) this.#rest = Buffer.from(this.#rest)
  }

  /** Does what can be done with what was read. A turn that ends meanwhile does not begin another below itself. */
  #advance(): void {
    if (this.#isAdvancing) return
    this.#isAdvancing = true
    while (this.#rest !== undefined && this.#step(this.#rest)) {}
    this.#isAdvancing = false
    if (this.#droppedBytes !== undefined || this.#socket.destroyed) return
    // What is held of a body that nobody wants yet, since there is no room for it, would be room for it.
    const isUnwanted = this.#body !== undefined && this.#sink === undefined
    const isFull = this.#rest !== undefined && (isUnwanted || this.#rest.length > MAX_HELD_BYTES)
    if (isFull !== this.#socket.isPaused()) this.#socket[isFull ? 'pause' : 'resume']()
  }

  /** @returns whether there may be more to do */
  #step(rest: Buffer): boolean {
    if (this.#turn === undefined) return !this.#socket.writableNeedDrain && this.#readHead(rest)
    if (this.#body === undefined || this.#sink === undefined || this.#isSinkFull) return false
    this.#readBody(rest, this.#body, this.#sink)
    return true
  }

  #readHead(rest: Buffer): boolean {
    const { maxHeadBytes, maxHeaders } = this.#limits
    this.#rest = undefined
    const at = this.#collector.isStarted ? 0 : skipEmptyLines(rest)
    if (at === rest.length) return false
    if (!this.#collector.isStarted && this.#hasAsked) this.#sinceMs = this.#monotonicMs()
    const whole = this.#collector.add(rest, at)
    if (whole === 'more') {
      // What can be no request any more is not waited for.
      if (hasForeignBytes(rest, at)) this.#refuse(400, 'it does not begin with a request line')
      return false
    }
    if (whole === 'too-large' || whole === 'line-too-large') {
      const status = whole === 'too-large' ? 431 : 414
      this.#refuse(status, `the head of a request is larger than ${maxHeadBytes} bytes`)
      return false
    }
    const { bytes, start, end } = whole
    const head = parseRequest(bytes.toString('latin1', start, end), maxHeaders)
    if ('detail' in head) {
      this.#refuse(head.status, head.detail)
      return false
    }
    const next = end + '\r\n\r\n'.length
    if (next < bytes.length) this.#rest = bytes.subarray(next)
    this.#hasAsked = true
    this.#sinceMs = this.#monotonicMs()
    this.#body = head.bodyBytes === 0 ? undefined : createBodyReader(head.bodyBytes)
    this.#turn = new ConnectionTurn(this, head)
    this.#hooks.onRequest(this.#turn)
    return true
  }

  #readBody(rest: Buffer, body: BodyReader, sink: Sink): void {
    this.#rest = undefined
    const state: BodyState = body.read(rest, 0, (piece) => {
      if (!sink.onData(piece)) this.#isSinkFull = true
    })
    if (state === 'more') return
    if (state !== 'done') {
      this.#isLast = true
      return void this.#failBody(state)
    }
    if (body.position < rest.length) this.#rest = rest.subarray(body.position)
    this.#body = undefined
    this.#sink = undefined
    this.#isSinkFull = false
    sink.onEnd()
  }

  #failBody(fault: BodyFault): void {
    const sink = this.#sink
    this.#sink = undefined
    sink?.onFault(fault)
  }

  /** Answers what is no request. */
  #refuse(status: 400 | 408 | 414 | 431, detail: string): void {
    this.#hooks.onRefused(status, detail)
    this.write(renderAnswerHead(status, ['content-length', '0', 'connection', 'close']))
    this.#linger()
  }

  /**
   * Ends our side, and reads for a while what the client still sends. Closing a socket with unread data makes the kernel
   * send a reset, and a reset can overtake the answer: the client would see a broken connection in place of it.
   * Source: RFC 9112 section 9.6.
   */
  #linger(): void {
    if (this.#droppedBytes !== undefined) return
    this.#droppedBytes = 0
    this.#rest = undefined
    this.#sinceMs = this.#monotonicMs()
    this.#sendUnsent()
    this.#socket.end()
    this.#socket.resume()
  }

  /**
   * The client has ended its side. Nobody here can tell whether it still listens or has closed its socket; the latter is
   * what clients do, and a request to a slow host must not outlive the one who asked.
   */
  #onClientEnd(): void {
    if (this.#turn !== undefined) return void this.#socket.destroy()
    this.#sendUnsent()
    this.#socket.destroySoon()
  }

  #onDrain(): void {
    this.#blockedSinceMs = undefined
    this.#turn?.drain()
    this.#advance()
  }

  #onClose(): void {
    this.#failBody('gone')
    const turn = this.#turn
    this.#turn = undefined
    this.#rest = undefined
    turn?.leave()
  }

  /** Whether `turn` is the one whose answer is awaited. */
  isCurrent(turn: Turn): boolean {
    return this.#turn === turn
  }

  /** Gives the body of the current request to `sink`. */
  pour(sink: Sink): void {
    if (this.#body === undefined) return void sink.onEnd()
    this.#sink = sink
    this.#advance()
  }

  resumeBody(): void {
    this.#isSinkFull = false
    this.#advance()
  }

  /** Whether the connection ends with the answer to `head`. */
  endsWith({ keepsOpen }: RequestHead): boolean {
    return this.#isLast || !keepsOpen || (this.#isFinishing && this.#rest === undefined)
  }

  /** Texts are written together at the end of the round. @returns false: the client does not take it at once */
  write(data: string | Buffer): boolean {
    if (typeof data === 'string' && this.#unsent.length + data.length <= ONE_WRITE_BYTES) {
      if (this.#unsent === '') atRoundEnd(this.#sendUnsent)
      this.#unsent += data
      return !this.#socket.writableNeedDrain
    }
    this.#sendUnsent()
    return this.#writeNow(data)
  }

  readonly #sendUnsent = () => {
    const text = this.#unsent
    this.#unsent = ''
    if (text !== '' && !this.#socket.destroyed) this.#writeNow(text)
  }

  #writeNow(data: string | Buffer): boolean {
    const isTaken = typeof data === 'string' ? this.#socket.write(data, 'latin1') : this.#socket.write(data)
    if (!isTaken) this.#blockedSinceMs ??= this.#monotonicMs()
    return isTaken
  }

  /** Writes a piece between two texts, all at once. */
  writeBetween(before: string, piece: Buffer, after: string): boolean {
    this.#sendUnsent()
    this.#socket.cork()
    if (before !== '') this.#writeNow(before)
    const isTaken = this.#writeNow(piece)
    const isAllTaken = after === '' ? isTaken : this.#writeNow(after)
    this.#socket.uncork()
    return isAllTaken
  }

  /** The answer to the current request is written. */
  endTurn(isLast: boolean): void {
    if (isLast) {
      this.#turn = undefined
      return void this.#linger()
    }
    if (this.#body !== undefined) return void this.#dropBody()
    this.#turn = undefined
    this.#sinceMs = this.#monotonicMs()
    if (this.#rest !== undefined || this.#socket.isPaused()) this.#advance()
  }

  reset(): void {
    this.#socket.resetAndDestroy()
  }

  /** The answer came before the end of the request: what is left of it has nowhere to go, and the client has to get rid of it. */
  #dropBody(): void {
    let dropped = 0
    const close = () => {
      this.#turn = undefined
      this.#linger()
    }
    this.#isSinkFull = false
    this.#sink = {
      onData: (piece) => {
        dropped += piece.length
        if (dropped > MAX_DRAINED_BYTES) close()
        return true
      },
      onEnd: () => this.endTurn(false),
      onFault: close,
    }
    this.#advance()
  }
}

/** Empty lines before a request are passed over. Source: RFC 9112 section 2.2. */
function skipEmptyLines(bytes: Buffer): number {
  let at = 0
  while (bytes[at] === CR && bytes[at + 1] === LF) at += 2
  return at
}

/** Tells whether a piece of a head has bytes that no head has: control characters, or a line feed that ends no CRLF. */
function hasForeignBytes(bytes: Buffer, start: number): boolean {
  for (let at = start; at < bytes.length; at++) {
    const byte = bytes[at] as number
    if (
      byte >= 0x20
        ? byte === DELETE
        : byte !== CR && byte !== TAB && !(byte === LF && (at === start || bytes[at - 1] === CR))
    )
      return true
  }
  return false
}

type Framing = 'length' | 'chunks' | 'close' | 'none'

class ConnectionTurn implements Turn {
  readonly head: RequestHead
  hasBegun = false
  readonly #connection: ServerConnection
  #watcher: ClientWatcher | undefined
  #onOver: (() => void) | undefined
  #framing: Framing = 'length'
  #isLast = false
  /** What is written with the next piece: a head waits for the first piece of its body, to go out in one write. */
  #held = ''
  #isInvited = false

  constructor(connection: ServerConnection, head: RequestHead) {
    this.#connection = connection
    this.head = head
  }

  get isGone(): boolean {
    return !this.#connection.isCurrent(this)
  }

  watch(watcher: ClientWatcher | undefined): void {
    this.#watcher = watcher
  }

  whenOver(callback: () => void): void {
    this.#onOver = callback
  }

  /** The connection has ended. */
  leave(): void {
    this.#watcher?.onGone()
    this.#onOver?.()
  }

  /** The client has taken what was written. */
  drain(): void {
    this.#watcher?.onDrain()
  }

  invite(): void {
    const { expect, isOld } = this.head
    if (expect?.toLowerCase() === '100-continue' && !isOld && !this.hasBegun && !this.isGone) {
      this.#isInvited = true
      this.#connection.write(CONTINUE)
    }
  }

  readBody(maxBytes: number): Promise<BodyResult> {
    return new Promise((resolve) => {
      if (this.isGone) return void resolve({ kind: 'gone' })
      const body = createBodyCollector()
      let isTooLarge = false
      this.#connection.pour({
        onData(piece) {
          isTooLarge ||= body.sizeBytes + piece.length > maxBytes
          if (!isTooLarge) body.add(piece)
          else {
            body.take()
            resolve({ kind: 'too-large' })
          }
          return true
        },
        onEnd: () => resolve({ kind: 'whole', body: body.take() }),
        onFault: (kind) => resolve({ kind }),
      })
    })
  }

  streamBody(maxBytes: number): Readable {
    let sizeBytes = 0
    const stream = new Readable({ read: () => this.#connection.resumeBody() })
    // Whoever reads the stream hears of its errors; when nobody does any more, they have no effect.
    stream.on('error', () => undefined)
    this.#connection.pour({
      onData(piece) {
        sizeBytes += piece.length
        if (sizeBytes > maxBytes) stream.destroy(new BodyError('too-large'))
        // What nobody reads any more is dropped.
        return stream.destroyed || stream.push(Buffer.from(piece))
      },
      onEnd: () => void stream.push(null),
      onFault: (kind) => void stream.destroy(new BodyError(kind)),
    })
    return stream
  }

  answer(status: number, headers: Fields, body: Buffer, isLast: boolean): void {
    if (this.isGone || this.hasBegun) return
    this.#start(status, headers, body.length, isLast)
    this.#send(this.#framing === 'none' ? EMPTY : body, '')
    this.#finish()
  }

  begin(status: number, headers: Fields): void {
    if (this.isGone || this.hasBegun) return
    this.#start(status, headers, undefined, false)
  }

  write(piece: Buffer): boolean {
    if (this.isGone || this.#framing === 'none' || piece.length === 0) return true
    if (this.#framing !== 'chunks') return this.#send(piece, '')
    this.#held += `${piece.length.toString(16)}\r\n`
    return this.#send(piece, '\r\n')
  }

  flush(): void {
    if (!this.isGone) this.#send(EMPTY, '')
  }

  end(): void {
    if (this.isGone) return
    this.#send(EMPTY, this.#framing === 'chunks' ? '0\r\n\r\n' : '')
    this.#finish()
  }

  break(): void {
    if (!this.isGone) this.#connection.reset()
  }

  /** @param bodyBytes `undefined`: the headers tell, or nobody knows */
  #start(status: number, headers: Fields, bodyBytes: number | undefined, isLast: boolean): void {
    const { method, isOld } = this.head
    this.hasBegun = true
    const list = [...headers]
    const hasLength = bodyBytes !== undefined || headers.some((name, i) => i % 2 === 0 && name === 'content-length')
    if (bodyBytes !== undefined) list.push('content-length', String(bodyBytes))
    if (method === 'HEAD' || status === 204 || status === 304) this.#framing = 'none'
    else if (hasLength) this.#framing = 'length'
    else this.#framing = isOld ? 'close' : 'chunks'
    if (this.#framing === 'chunks') list.push('transfer-encoding', 'chunked')
    // A client that was not told to go ahead with its body may or may not send it: such a connection ends, too.
    const isUninvited = this.head.expect !== undefined && !this.#isInvited
    this.#isLast = isLast || isUninvited || this.#framing === 'close' || this.#connection.endsWith(this.head)
    if (this.#isLast) list.push('connection', 'close')
    else if (isOld) list.push('connection', 'keep-alive')
    this.#held = renderAnswerHead(status, list)
  }

  /** Writes what is held, `piece`, which the caller may reuse, and `after`: in one write. */
  #send(piece: Buffer, after: string): boolean {
    const held = this.#held
    this.#held = ''
    if (piece.length > ONE_WRITE_BYTES) return this.#connection.writeBetween(held, Buffer.from(piece), after)
    const text = held + piece.toString('latin1') + after
    return text === '' || this.#connection.write(text)
  }

  #finish(): void {
    this.#watcher = undefined
    this.#onOver?.()
    this.#onOver = undefined
    this.#connection.endTurn(this.#isLast)
  }
}
