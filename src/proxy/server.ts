/**
 * The listener: accepts redirected connections, reads requests strictly, and hands them to the pipeline.
 *
 * What the parser refuses is answered here with a status and a closed connection. The record of a connection is taken
 * the moment it is accepted, before a byte is read: later it might be somebody else's.
 */

import { createServer, type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { httpDate } from '../base/dates.ts'
import { AgentError, describeErrno } from '../base/errors.ts'
import { parseRequestTarget } from '../base/request-target.ts'
import { type Answer, BAD_REQUEST, METHOD_NOT_ALLOWED, renderAnswer, unsupportedMethod } from './answer.ts'
import { type ClientConnection, openConnection } from './exchange.ts'
import { handleRequest } from './pipeline.ts'
import { createShares } from './shares.ts'
import type { ProxyStages } from './stages.ts'
import { createTurns, type Turns } from './turns.ts'

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
  /** Connections of one user at one time, root excepted; see `shares.ts`. */
  readonly maxConnectionsPerUser: number
  /** Of `maxConnections`, those that only root can have. */
  readonly reservedConnections: number
  readonly maxHeadBytes: number
  readonly maxHeaders: number
  /** Time for a request head. */
  readonly headTimeoutMs: number
  /** Time for a request head and body together. Uploads of 100 MiB need some. */
  readonly requestTimeoutMs: number
  /** Silence after which an idle connection is closed. */
  readonly idleTimeoutMs: number
}

/**
 * A connection whose head is not complete holds up to `maxHeadBytes` for `headTimeoutMs`: 32 MiB for one user, 256 MiB
 * for as many users as it takes to use all connections up.
 */
export const PROXY_SERVER_DEFAULTS: ProxyServerOptions = {
  maxConnections: 8192,
  maxConnectionsPerUser: 1024,
  reservedConnections: 512,
  maxHeadBytes: 32 * 1024,
  maxHeaders: 100,
  headTimeoutMs: 10_000,
  requestTimeoutMs: 300_000,
  idleTimeoutMs: 60_000,
}

/** How often the time limits of heads and bodies are looked at. */
const CHECK_INTERVAL_MS = 1000

/** How long a socket that asked for CONNECT may take to read its refusal. */
const DETACHED_TIMEOUT_MS = 2000

/** Makes the server; nothing is bound before `listen`. */
export function createProxyServer(
  stages: ProxyStages,
  monotonicMs: () => number,
  options: ProxyServerOptions = PROXY_SERVER_DEFAULTS,
): ProxyServer {
  const shares = createShares(options.maxConnectionsPerUser, options.maxConnections - options.reservedConnections)
  /** All that are accepted and not closed, also those that the server has let go of. */
  const open = new Set<Socket>()
  const clients = new WeakMap<Socket, { readonly connection: ClientConnection; readonly turns: Turns }>()
  let lastConnectionId = 0
  let isClosing = false
  const server = createServer({
    maxHeaderSize: options.maxHeadBytes,
    headersTimeout: options.headTimeoutMs,
    requestTimeout: options.requestTimeoutMs,
    keepAliveTimeout: options.idleTimeoutMs,
    keepAliveTimeoutBuffer: 0,
    connectionsCheckingInterval: CHECK_INTERVAL_MS,
    noDelay: true,
    // Half of a pair that the kernel redirected may linger: a peer that vanished is noticed.
    keepAlive: true,
    keepAliveInitialDelay: 60_000,
    joinDuplicateHeaders: false,
    // Refused with the other flaws of heads, so that it is told.
    requireHostHeader: false,
  })
  server.maxHeadersCount = options.maxHeaders
  server.maxConnections = options.maxConnections
  // A client that asks and then never reads its answer would hold a connection to the host for ever. Later than the
  // other limits, which answer.
  server.timeout = options.requestTimeoutMs + 2 * CHECK_INTERVAL_MS

  /** Counts a connection among those of its user, and closes one that is too much. Root has no share: there is a reserve. */
  const takeShare = (socket: Socket, uid: number | undefined) => {
    if (uid === 0) return
    const surplus = shares.add(uid, socket)
    const client = surplus && clients.get(surplus)
    if (client === undefined) return
    const reason = `Closed a connection: the user has ${options.maxConnectionsPerUser} others, or all users have theirs`
    stages.observer.dismissed(client.connection, uid === undefined ? undefined : `uid ${uid}`, reason)
    surplus?.destroy()
  }
  server.on('connection', (socket) => {
    // `node:http` takes its own listener off a socket that asks for CONNECT; a reset would then end the process.
    socket.on('error', () => socket.destroy())
    open.add(socket)
    socket.once('close', () => open.delete(socket))
    const id = ++lastConnectionId
    const { remoteAddress: address, remotePort: port = 0 } = socket
    if (address === undefined) {
      // The client has reset it before we came to accept it: there is nobody to answer, and no source to look up.
      const connection = openConnection(id, { address: '', port }, undefined)
      stages.observer.dismissed(connection, undefined, 'Closed a connection: its client had left already')
      socket.destroy()
      return
    }
    const peer = { address, port }
    const attribution = stages.attribute(peer, socket)
    const connection = openConnection(id, peer, attribution)
    clients.set(socket, { connection, turns: createTurns(socket) })
    const doubt = attribution === undefined ? 'no record of a redirected connection' : undefined
    stages.observer.connected(connection, doubt)
    takeShare(socket, attribution?.uid)
  })
  server.on('drop', () => stages.observer.listenerFailed(`${options.maxConnections} connections are open, no more fit`))

  const serve = (request: IncomingMessage, response: ServerResponse) => {
    const client = clients.get(request.socket)
    if (client === undefined) {
      request.socket.destroy()
      return
    }
    const { connection, turns } = client
    const method = request.method ?? ''
    const rawTarget = request.url ?? ''
    const isExempt = connection.endpoint?.name !== 'imds' && stages.isExemptUpload(method, rawTarget)
    const target = parseRequestTarget(rawTarget)
    const startedAtMs = monotonicMs()
    const exchange = { connection, request, response, method, rawTarget, target, isExempt, id: 0, startedAtMs }
    turns.take(response, () => {
      if (isClosing) endAfter(response)
      void handleRequest(exchange, stages)
    })
    response.once('close', () => {
      if (isClosing && turns.current() === undefined) request.socket.destroySoon()
    })
  }
  server.on('request', serve)
  // A client that asks before it sends its body is invited when the body is wanted, and not for a refusal.
  server.on('checkContinue', serve)
  // Other expectations are ours to ignore, RFC 9110 section 10.1.1.
  server.on('checkExpectation', serve)

  /** Answers what cannot be handled as a request, after the requests before it. */
  const refuse = (socket: Socket, answer: Answer, detail: string) => {
    const client = clients.get(socket)
    if (client === undefined) return void socket.destroy()
    const { connection, turns } = client
    const say = () => {
      if (!socket.writable) {
        if (socket.writableFinished) socket.destroy()
        return
      }
      const text = renderAnswer(answer, STATUS_CODES[answer.status] ?? '', httpDate(Date.now()))
      socket.end(text, () => socket.destroySoon())
    }
    const tellAndSay = () => {
      if (socket.writable) stages.observer.rejected(connection, answer.status, detail)
      say()
    }
    const current = turns.current()
    if (current === undefined || turns.latest()?.req.complete) return turns.end(tellAndSay)
    // It is the body of the latest request that is wrong, and its own exchange tells how that ended.
    if (current === turns.latest() && !current.headersSent) say()
    else socket.destroy()
  }

  server.on('clientError', (error: ParserError, stream) => {
    const socket = stream as Socket
    if (error.code === 'ECONNRESET') {
      socket.destroy()
      return
    }
    // Bytes after a request that was to be the last one are nobody's: the answer to that request still goes out.
    if (error.code === 'HPE_CLOSED_CONNECTION' && clients.get(socket)?.turns.current() !== undefined) return
    const method = unknownMethod(error)
    if (method === undefined)
      refuse(socket, answerFor(error), `ProxyListener serve_connection error: ${error.code ?? error.message}`)
    else refuse(socket, METHOD_NOT_ALLOWED, unsupportedMethod(method))
  })
  server.on('connect', (_: IncomingMessage, stream) => {
    const socket = stream as Socket
    // The server has let go of this socket and watches it no more. Behind a request in flight it would outlive all limits.
    if (clients.get(socket)?.turns.current() !== undefined) return void socket.destroy()
    socket.setTimeout(DETACHED_TIMEOUT_MS, () => socket.destroy())
    refuse(socket, METHOD_NOT_ALLOWED, unsupportedMethod('CONNECT'))
  })

  return {
    async listen(address, port) {
      await listen(server, address, port)
      // A connection that cannot be accepted, for want of memory or descriptors, must not end the agent.
      server.on('error', (error) => stages.observer.listenerFailed(error.message))
    },
    descriptor: () => (server as unknown as { _handle?: { fd?: number } })._handle?.fd,
    closed: new Promise((resolve) => server.once('close', resolve)),
    close(graceMs) {
      isClosing = true
      return close(server, open, graceMs)
    },
  }
}

/** Makes the connection end with this answer, although neither side asked for it. */
function endAfter(response: ServerResponse): void {
  response.shouldKeepAlive = false
}

interface ParserError extends Error {
  code?: string
  /** What the parser was given last, requests before the wrong one included. */
  rawPacket?: Buffer
  bytesParsed?: number
}

/** The status for what the parser could not take. */
function answerFor(error: ParserError): Answer {
  switch (error.code) {
    case 'HPE_HEADER_OVERFLOW':
    case 'HPE_CHUNK_EXTENSIONS_OVERFLOW':
      return { ...BAD_REQUEST, status: 431 }
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return { ...BAD_REQUEST, status: 408 }
    default:
      return BAD_REQUEST
  }
}

/**
 * Reads the method out of a request line that the parser refused for it: a well-formed line with a method that the parser
 * does not know is a request to refuse, not an accident.
 */
function unknownMethod({ code, rawPacket, bytesParsed = 0 }: ParserError): string | undefined {
  if (code !== 'HPE_INVALID_METHOD' || rawPacket === undefined) return undefined
  const text = rawPacket.toString('latin1')
  const line = text.slice(text.lastIndexOf('\n', bytesParsed - 1) + 1)
  return /^([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) \S+ HTTP\/1\.[01]\r\n/.exec(line)?.[1]
}

function listen(server: Server, address: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (error: NodeJS.ErrnoException) => {
      server.off('listening', onListening)
      reject(
        new AgentError(
          'LISTEN_FAILED',
          `IO error: Failed to bind TcpListener '${address}:${port}': ${error.errno === undefined ? error.message : describeErrno(error.errno)}`,
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

async function close(server: Server, open: ReadonlySet<Socket>, graceMs: number): Promise<void> {
  if (!server.listening) return
  const done = new Promise<void>((resolve) => server.close(() => resolve()))
  server.closeIdleConnections()
  const timer = setTimeout(() => {
    for (const socket of open) socket.destroy()
  }, graceMs)
  await done
  clearTimeout(timer)
}
