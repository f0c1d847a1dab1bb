/**
 * The listener: accepts redirected connections, reads requests strictly, and hands them to the pipeline.
 *
 * What the parser refuses is answered here with a status and a closed connection. The record of a connection is taken
 * the moment it is accepted, before a byte is read: later it might be somebody else's.
 */

import { createServer, type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { httpDate } from '../base/dates.ts'
import { AgentError } from '../base/errors.ts'
import { parseRequestTarget } from '../base/request-target.ts'
import { type Answer, BAD_REQUEST, METHOD_NOT_ALLOWED, renderAnswer } from './answer.ts'
import { type ClientConnection, openConnection } from './exchange.ts'
import { handleRequest } from './pipeline.ts'
import type { ProxyStages } from './stages.ts'

export interface ProxyServer {
  /**
   * Binds the listener. @throws AgentError `LISTEN_FAILED` with the system's code in its facts.
   */
  listen(address: string, port: number): Promise<void>
  /** Descriptor of the listening socket, for questions to the kernel; `undefined` while not listening. */
  descriptor(): number | undefined
  /** Resolves when the listener has closed, for whatever reason. */
  readonly closed: Promise<void>
  /** Takes no more connections, waits up to `graceMs` for requests in flight, then cuts what is left. */
  close(graceMs: number): Promise<void>
}

export interface ProxyServerOptions {
  /** Connections at one time; further ones are closed at once. */
  readonly maxConnections: number
  readonly maxHeadBytes: number
  readonly maxHeaders: number
  /** Time for a request head. */
  readonly headTimeoutMs: number
  /** Time for a request head and body together. Uploads of 100 MiB need some. */
  readonly requestTimeoutMs: number
  /** Silence after which an idle connection is closed. */
  readonly idleTimeoutMs: number
}

export const PROXY_SERVER_DEFAULTS: ProxyServerOptions = {
  maxConnections: 16_384,
  maxHeadBytes: 32 * 1024,
  maxHeaders: 100,
  headTimeoutMs: 10_000,
  requestTimeoutMs: 300_000,
  idleTimeoutMs: 60_000,
}

/** Makes the server; nothing is bound before `listen`. */
export function createProxyServer(
  stages: ProxyStages,
  monotonicMs: () => number,
  options: ProxyServerOptions = PROXY_SERVER_DEFAULTS,
): ProxyServer {
  const connections = new WeakMap<Socket, ClientConnection>()
  let lastConnectionId = 0
  const server = createServer({
    maxHeaderSize: options.maxHeadBytes,
    headersTimeout: options.headTimeoutMs,
    requestTimeout: options.requestTimeoutMs,
    keepAliveTimeout: options.idleTimeoutMs,
    keepAliveTimeoutBuffer: 0,
    connectionsCheckingInterval: 1000,
    noDelay: true,
    // Half of a pair that the kernel redirected may linger: a peer that vanished is noticed.
    keepAlive: true,
    keepAliveInitialDelay: 60_000,
    joinDuplicateHeaders: false,
    requireHostHeader: true,
  })
  server.maxHeadersCount = options.maxHeaders + 1
  server.maxConnections = options.maxConnections

  server.on('connection', (socket) => {
    const peer = { address: socket.remoteAddress ?? '', port: socket.remotePort ?? 0 }
    const attribution = stages.attribute(peer)
    const connection = openConnection(++lastConnectionId, peer, attribution)
    connections.set(socket, connection)
    if (attribution === undefined) stages.observer.connected(connection, 'no record of a redirected connection')
    else stages.observer.connected(connection, undefined)
  })

  const serve = (request: IncomingMessage, response: ServerResponse) => {
    const connection = connections.get(request.socket)
    if (connection === undefined) {
      request.socket.destroy()
      return
    }
    const method = request.method ?? ''
    const rawTarget = request.url ?? ''
    const isExempt = connection.endpoint?.name !== 'imds' && stages.isExemptUpload(method, rawTarget)
    const target = parseRequestTarget(rawTarget)
    const startedAtMs = monotonicMs()
    void handleRequest(
      { connection, request, response, method, rawTarget, target, isExempt, id: 0, startedAtMs },
      stages,
    )
  }
  server.on('request', serve)
  // A client that asks before it sends its body is invited when the body is wanted, and not for a refusal.
  server.on('checkContinue', serve)

  const refuse = (socket: Socket, answer: Answer, detail: string) => {
    const connection = connections.get(socket)
    if (connection !== undefined) stages.observer.rejected(connection, answer.status, detail)
    if (!socket.writable) {
      socket.destroy()
      return
    }
    socket.end(renderAnswer(answer, STATUS_CODES[answer.status] ?? '', httpDate(Date.now())), () =>
      socket.destroySoon(),
    )
  }

  server.on('clientError', (error: ParserError, stream) => {
    const socket = stream as Socket
    if (error.code === 'ECONNRESET') {
      socket.destroy()
      return
    }
    const answer = answerFor(error)
    refuse(socket, answer, `ProxyListener serve_connection error: ${error.code ?? error.message}`)
  })
  server.on('connect', (_: IncomingMessage, stream) => refuse(stream as Socket, METHOD_NOT_ALLOWED, 'method CONNECT'))

  return {
    listen: (address, port) => listen(server, address, port),
    descriptor: () => (server as unknown as { _handle?: { fd?: number } })._handle?.fd,
    closed: new Promise((resolve) => server.once('close', resolve)),
    close: (graceMs) => close(server, graceMs),
  }
}

interface ParserError extends Error {
  code?: string
  rawPacket?: Buffer
}

/** The status for what the parser could not take. */
function answerFor(error: ParserError): Answer {
  switch (error.code) {
    case 'HPE_HEADER_OVERFLOW':
    case 'HPE_CHUNK_EXTENSIONS_OVERFLOW':
      return { ...BAD_REQUEST, status: 431 }
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return { ...BAD_REQUEST, status: 408 }
    case 'HPE_INVALID_METHOD':
      // A well-formed request line with a method that the parser does not know is a refusal, not an accident.
      return /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32} \S+ HTTP\/1\.[01]\r\n/.test(error.rawPacket?.toString('latin1') ?? '')
        ? METHOD_NOT_ALLOWED
        : BAD_REQUEST
    default:
      return BAD_REQUEST
  }
}

function listen(server: Server, address: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (error: NodeJS.ErrnoException) => {
      server.off('listening', onListening)
      reject(
        new AgentError(
          'LISTEN_FAILED',
          `IO error: Failed to bind TcpListener '${address}:${port}': ${error.code ?? error.message}`,
          { errno: error.code },
        ),
      )
    }
    const onListening = () => {
      server.off('error', onError)
      resolve()
    }
    server.once('error', onError)
    server.once('listening', onListening)
    server.listen({ host: address, port, backlog: 4096, exclusive: true })
  })
}

async function close(server: Server, graceMs: number): Promise<void> {
  if (!server.listening) return
  const done = new Promise<void>((resolve) => server.close(() => resolve()))
  server.closeIdleConnections()
  const timer = setTimeout(() => server.closeAllConnections(), graceMs)
  await done
  clearTimeout(timer)
}
