/**
 * One connection to the host: carries one whole request at a time, and reads the answer.
 *
 * The hot path of the agent: a head is one string and one write, an answer is read where the kernel put it. Times are
 * kept by the pool, which looks at all its connections once in a while, so that a request sets no timer.
 */

import { connect, type Socket } from 'node:net'
import type { InetAddress } from '../base/endpoints.ts'
import type { HostAnswerHandler, HostRequest } from './host-exchange.ts'
import { createAnswerReader } from './http1/answer-reader.ts'
import { atRoundEnd } from './round-end.ts'

/** What a connection waits for, and since when. Milliseconds of the monotonic clock. */
export interface Waiting {
  readonly for: 'connection' | 'head' | 'body' | 'client' | 'request'
  readonly sinceMs: number
}

export interface HostConnection {
  /** Sends a request. Only while idle. */
  send(request: HostRequest, handler: HostAnswerHandler): void
  /** Goes on with the answer for `handler`, if that is the one on its way. */
  resume(handler: HostAnswerHandler): void
  /** Ends the request of `handler`, if that is the one on its way, and the connection. Nothing of it is called any more. */
  abort(handler: HostAnswerHandler): void
  /** Ends it, and tells the handler of the request on it why. */
  fail(reason: string): void
  readonly waiting: Waiting
}

export interface ConnectionEvents {
  /** The request is over and the connection can take another. */
  onIdle(connection: HostConnection): void
  onClosed(connection: HostConnection): void
}

/** Where all connections are read into: what arrives is handed on within the call, and nobody keeps a view of it. */
const READ_BUFFER = Buffer.allocUnsafeSlow(64 * 1024)

/** Bodies up to this go out in one write with their head. */
const ONE_WRITE_BYTES = 8 * 1024

/** Opens a connection with its first request. */
export function openHostConnection(
  { address, port }: InetAddress,
  monotonicMs: () => number,
  events: ConnectionEvents,
): HostConnection {
  let handler: HostAnswerHandler | undefined
  let waiting: Waiting = { for: 'connection', sinceMs: monotonicMs() }
  let isConnected = false
  let hasAnswered = false
  let isClosed = false
  /** The head of a request that is written at the end of this round. */
  let unsent = ''
  const wait = (what: Waiting['for']) => {
    waiting = { for: what, sinceMs: monotonicMs() }
  }
  const socket: Socket = connect({
    host: address,
    port,
    noDelay: true,
    onread: {
      buffer: READ_BUFFER,
      callback(length) {
        take(READ_BUFFER.subarray(0, length))
        return true
      },
    },
  })

  const sendUnsent = () => {
    if (!isClosed) socket.write(unsent, 'latin1')
    unsent = ''
  }
  const close = () => {
    if (isClosed) return
    isClosed = true
    socket.destroy()
    events.onClosed(connection)
  }
  /** Ends connection and request. @param isStale the host had let go of the connection before it answered */
  const fail = (reason: string, isStale = false) => {
    const failed = handler
    handler = undefined
    close()
    failed?.onError({ isConnected, isStale, reason })
  }
  const take = (bytes: Buffer) => {
    if (isClosed) return
    // Nobody asked: the host is out of step, or says that it will close.
    if (handler === undefined) return void close()
    hasAnswered = true
    reader.read(bytes)
    // A head has its time however many bytes of it, or interim answers, come: see `HostClientOptions`.
    if (waiting.for !== 'body') return
    wait('body')
    handler?.onPause()
  }
  const reader = createAnswerReader({
    onHead(status, fields) {
      wait('body')
      handler?.onHead(status, fields)
    },
    onData(piece) {
      if (handler?.onData(piece) === false && !isClosed) {
        wait('client')
        socket.pause()
      }
    },
    onEnd(isReusable) {
      if (isClosed) return
      const answered = handler
      handler = undefined
      if (waiting.for === 'client') socket.resume()
      wait('request')
      if (isReusable) events.onIdle(connection)
      else close()
      answered?.onEnd()
    },
    onMalformed: (reason) => fail(reason),
  })
  socket.once('connect', () => {
    isConnected = true
    if (handler !== undefined) wait('head')
  })
  socket.on('error', (error: NodeJS.ErrnoException) => fail(error.code ?? error.message, isConnected && !hasAnswered))
  socket.on('end', () => {
    if (handler === undefined) return void close()
    if (!reader.end()) fail('other side closed', !hasAnswered)
  })
  socket.on('close', () => fail('other side closed', isConnected && !hasAnswered))

  const connection: HostConnection = {
    send(request, toHandler) {
      handler = toHandler
      hasAnswered = false
      if (isConnected) wait('head')
      reader.begin(request.method !== 'HEAD')
      const head = renderHead(request)
      if (request.body !== undefined && request.body.length > 0) write(socket, head, request.body)
      else {
        unsent = head
        atRoundEnd(sendUnsent)
      }
    },
    resume(ofHandler) {
      if (handler !== ofHandler || waiting.for !== 'client') return
      wait('body')
      socket.resume()
    },
    abort(ofHandler) {
      if (handler !== ofHandler) return
      handler = undefined
      close()
    },
    fail: (reason) => fail(reason),
    get waiting() {
      return waiting
    },
  }
  return connection
}

function renderHead({ method, target, headers }: HostRequest): string {
  let head = `${method} ${target} HTTP/1.1\r\n`
  for (let i = 0; i + 1 < headers.length; i += 2) head += `${headers[i]}: ${headers[i + 1]}\r\n`
  return `${head}\r\n`
}

function write(socket: Socket, head: string, body: Buffer): void {
  if (body.length <= ONE_WRITE_BYTES) socket.write(Buffer.concat([Buffer.from(head, 'latin1'), body]))
  else {
    socket.cork()
    socket.write(head, 'latin1')
    socket.write(body)
    socket.uncork()
  }
}
