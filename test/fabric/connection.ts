/**
 * Carries one accepted connection: requests in, answers out, one after the other, with whatever a fault asks of the wire.
 *
 * Pipelined bytes wait until the answer before them is out. Errors of the socket end the connection silently: a client
 * that goes away is nothing to report here, the record of its request shows how far it came.
 */

import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Answer } from './answer.ts'
import type { Delivery } from './faults.ts'
import { type RequestHead, RequestReader } from './http-reader.ts'

/** One request in progress. */
export interface Exchange {
  /** Takes a piece of the body. @returns what to do with the rest of it. */
  body(bytes: Buffer): 'go-on' | 'too-large'
  /** The request is complete. @returns `undefined` for an ordinary delivery. */
  end(): Outcome
  /** The sender closed, or sent nonsense, inside the body. */
  cutOff(reason: string): void
}

/** What to put on the wire. */
export interface Outcome {
  readonly answer: Answer
  /** Only what faults ask for; absent means: one head, one body, keep the connection. */
  readonly delivery?: Delivery
}

/** What a connection asks of the host. */
export interface ConnectionService {
  /** Begins a request. @returns `stuck` when the host is to stop reading here. */
  begin(head: RequestHead, nthOnConnection: number): Exchange | 'stuck'
  /** Reports bytes that are no request, or a head that is refused. */
  malformed(reason: string, head: RequestHead | undefined, nthOnConnection: number): void
  /** The value of the `Date` header. */
  date(): string
}

const PATTERN = Buffer.alloc(64 * 1024, 'fabric pattern 0123456789abcdef\n')
const CONTINUE = Buffer.from('HTTP/1.1 100 Continue\r\n\r\n')
const TOO_LARGE: Answer = { status: 413, headers: [], body: Buffer.alloc(0) }
const BAD_REQUEST: Answer = { status: 400, headers: [], body: Buffer.alloc(0) }
const EXPECTATION_FAILED: Answer = { status: 417, headers: [], body: Buffer.alloc(0) }
/** Answers at most this large travel in one write. */
const ONE_WRITE_BYTES = 64 * 1024

/** Serves `socket` until either side ends it. */
export class HostConnection {
  readonly #socket: Socket
  readonly #service: ConnectionService
  readonly #reader = new RequestReader()
  readonly #gone = new AbortController()
  #exchange: Exchange | undefined
  #head: RequestHead | undefined
  #nth = 0
  #isAnswering = false
  #isEnding = false
  #hasPeerEnded = false

  constructor(socket: Socket, service: ConnectionService) {
    this.#socket = socket
    this.#service = service
    socket.setNoDelay(true)
    socket.on('data', (bytes: Buffer) => {
      if (this.#isEnding) return
      this.#reader.push(bytes)
      this.#pump()
    })
    socket.on('end', () => this.#peerEnded())
    socket.on('error', () => socket.destroy())
    socket.on('close', () => {
      this.#gone.abort()
      this.#cutOff('connection closed inside the request')
    })
  }

  /** Reads on while there is something to do and no answer is on its way. */
  #pump(): void {
    while (!this.#isAnswering && !this.#isEnding) {
      const event = this.#reader.next()
      if (event === undefined) return
      switch (event.kind) {
        case 'head':
          if (!this.#begin(event.head)) return
          break
        case 'body':
          if (this.#exchange?.body(event.bytes) === 'too-large') {
            this.#cutOff('body too large')
            this.#refuse(TOO_LARGE)
            return
          }
          break
        case 'end':
          this.#finish()
          break
        case 'malformed':
          if (this.#exchange === undefined) this.#service.malformed(event.reason, event.head, this.#nth + 1)
          else this.#cutOff(event.reason)
          this.#refuse(BAD_REQUEST)
          return
      }
    }
  }

  #begin(head: RequestHead): boolean {
    this.#nth++
    this.#head = head
    if (head.expectation !== '' && head.expectation !== '100-continue') {
      this.#service.malformed('unknown expectation', head, this.#nth)
      this.#refuse(EXPECTATION_FAILED)
      return false
    }
    const exchange = this.#service.begin(head, this.#nth)
    if (exchange === 'stuck') {
      this.#isAnswering = true
      this.#socket.pause()
      return false
    }
    this.#exchange = exchange
    if (head.expectation === '100-continue' && head.framing.kind !== 'none') this.#socket.write(CONTINUE)
    return true
  }

  #finish(): void {
    const exchange = this.#exchange!
    const head = this.#head!
    this.#exchange = undefined
    const { answer, delivery } = exchange.end()
    if (delivery === undefined && Buffer.isBuffer(answer.body) && answer.body.length <= ONE_WRITE_BYTES) {
      this.#writeAtOnce(answer, answer.body, head)
      return
    }
    this.#isAnswering = true
    this.#deliver(answer, head, delivery).then(
      () => this.#goOn(head),
      () => this.#socket.destroy(),
    )
  }

  #goOn(head: RequestHead): void {
    if (this.#isEnding) return
    this.#isAnswering = false
    if (head.keepAlive) this.#pump()
    if (!this.#isAnswering && !this.#isEnding && (!head.keepAlive || this.#hasPeerEnded)) this.#end()
  }

  /** The way of nearly every answer: one buffer, one write. */
  #writeAtOnce(answer: Answer, body: Buffer, head: RequestHead): void {
    const top = this.#headText(answer, head, `Content-Length: ${body.length}\r\n`, head.keepAlive)
    if (body.length === 0 || head.method === 'HEAD' || hasNoBody(answer.status)) this.#socket.write(top, 'latin1')
    else {
      const whole = Buffer.allocUnsafe(top.length + body.length)
      whole.write(top, 'latin1')
      body.copy(whole, top.length)
      this.#socket.write(whole)
    }
    if (!head.keepAlive) this.#end()
  }

  async #deliver(answer: Answer, head: RequestHead, delivery: Delivery | undefined): Promise<void> {
    if (delivery !== undefined && delivery.delayMs > 0) await this.#pause(delivery.delayMs)
    if (delivery?.raw !== undefined) {
      await this.#write(delivery.raw)
      this.#end()
      return
    }
    if (delivery !== undefined && delivery.end !== 'none' && delivery.cutAfterBytes === undefined) {
      await this.#endEarly(delivery.end)
      return
    }
    for (const interim of delivery?.informational ?? []) {
      const lines = interim.headers.map(([name, value]) => `${name}: ${value}\r\n`).join('')
      await this.#write(Buffer.from(`HTTP/1.1 ${statusLine(interim.status)}\r\n${lines}\r\n`, 'latin1'))
    }
    await this.#writeAnswer(answer, head, delivery)
    if (delivery?.closeAfter === true) this.#end()
  }

  async #writeAnswer(answer: Answer, head: RequestHead, delivery: Delivery | undefined): Promise<void> {
    const sizeBytes = Buffer.isBuffer(answer.body) ? answer.body.length : answer.body.patternSizeBytes
    const framing = hasNoBody(answer.status) ? 'none' : (delivery?.framing ?? 'length')
    const isAnnounced = head.keepAlive && framing !== 'until-close'
    await this.#write(Buffer.from(this.#headText(answer, head, framingLine(framing, sizeBytes), isAnnounced), 'latin1'))
    if (framing === 'none' || head.method === 'HEAD') return
    const cut = delivery?.cutAfterBytes
    const cutAt = cut === 'half' ? Math.floor(sizeBytes / 2) : cut
    await this.#writeBody(answer, Math.min(sizeBytes, cutAt ?? sizeBytes), framing === 'chunked', delivery)
    if (cutAt !== undefined) await this.#endEarly(delivery!.end)
    else if (framing === 'chunked') await this.#write(Buffer.from('0\r\n\r\n'))
  }

  async #writeBody(
    answer: Answer,
    sizeBytes: number,
    isChunked: boolean,
    delivery: Delivery | undefined,
  ): Promise<void> {
    const pieceBytes = Math.min(delivery?.pieceBytes || PATTERN.length, PATTERN.length)
    const everyMs = delivery?.pieceEveryMs ?? 0
    for (let at = 0; at < sizeBytes; at += pieceBytes) {
      const length = Math.min(pieceBytes, sizeBytes - at)
      const piece = Buffer.isBuffer(answer.body) ? answer.body.subarray(at, at + length) : PATTERN.subarray(0, length)
      if (at > 0 && everyMs > 0) await this.#pause(everyMs)
      await this.#write(
        isChunked ? Buffer.concat([Buffer.from(`${length.toString(16)}\r\n`), piece, Buffer.from('\r\n')]) : piece,
      )
    }
  }

  #headText(answer: Answer, head: RequestHead, framing: string, keepsAlive: boolean): string {
    let text = `HTTP/1.1 ${statusLine(answer.status)}\r\nDate: ${this.#service.date()}\r\n`
    for (const [name, value] of answer.headers) text += `${name}: ${value}\r\n`
    if (!hasNoBody(answer.status)) text += framing
    if (!keepsAlive) text += 'Connection: close\r\n'
    else if (head.minorVersion === 0) text += 'Connection: keep-alive\r\n'
    return `${text}\r\n`
  }

  /** Answers and ends the connection: after this the place of the next request in the bytes is not known. */
  #refuse(answer: Answer): void {
    const top = `HTTP/1.1 ${statusLine(answer.status)}\r\nDate: ${this.#service.date()}\r\n`
    this.#socket.write(`${top}Content-Length: 0\r\nConnection: close\r\n\r\n`, 'latin1')
    this.#end()
  }

  async #endEarly(how: Delivery['end']): Promise<void> {
    if (how === 'reset') {
      this.#isEnding = true
      this.#socket.resetAndDestroy()
    } else if (how === 'close') this.#end()
    // Silence lasts until the other side gives up or the host is closed.
    else this.#isEnding = true
  }

  #end(): void {
    // Bytes still coming are read and dropped, so that closing does not turn into a reset that eats the answer.
    this.#isEnding = true
    this.#socket.end()
  }

  /** The other side sends no more; it may still be reading, so an answer under way is finished first. */
  #peerEnded(): void {
    this.#hasPeerEnded = true
    if (this.#isAnswering && !this.#isEnding) return
    this.#cutOff('connection ended inside the request')
    this.#isEnding = true
    this.#socket.end()
  }

  #cutOff(reason: string): void {
    const exchange = this.#exchange
    this.#exchange = undefined
    if (exchange !== undefined) exchange.cutOff(reason)
    else if (!this.#isEnding && !this.#isAnswering && this.#reader.isMidRequest) {
      this.#isEnding = true
      this.#service.malformed(`${reason} head`, undefined, this.#nth + 1)
    }
  }

  async #pause(durationMs: number): Promise<void> {
    await sleep(durationMs, undefined, { signal: this.#gone.signal })
  }

  async #write(bytes: Buffer): Promise<void> {
    if (this.#socket.destroyed) throw new Error('Cannot write: the connection is gone')
    if (this.#socket.write(bytes)) return
    await new Promise<void>((resolve, reject) => {
      const done = () => {
        this.#socket.off('drain', done)
        this.#gone.signal.removeEventListener('abort', lost)
        resolve()
      }
      const lost = () => {
        this.#socket.off('drain', done)
        reject(new Error('Cannot write: the connection is gone'))
      }
      this.#socket.once('drain', done)
      this.#gone.signal.addEventListener('abort', lost, { once: true })
    })
  }
}

function statusLine(status: number): string {
  return `${status} ${STATUS_CODES[status] ?? 'Unknown'}`
}

function hasNoBody(status: number): boolean {
  return status === 204 || status === 304 || status < 200
}

function framingLine(framing: 'none' | Delivery['framing'], sizeBytes: number): string {
  if (framing === 'length') return `Content-Length: ${sizeBytes}\r\n`
  return framing === 'chunked' ? 'Transfer-Encoding: chunked\r\n' : ''
}
