/**
 * The control pages: status, metrics and health, over HTTP/1.1 on a unix socket, for whoever may ask.
 *
 * Read-only, and small in every respect: nobody asks for more than a page at a time, and nothing here may cost the guard
 * anything. Whoever may not ask is refused whatever he asks.
 */

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

export interface ControlPages {
  /** A JSON document. */
  status(): string
  /** Metrics as text. */
  metrics(): string
  /** One line. */
  health(): { readonly isHealthy: boolean; readonly reason: string }
}

export interface ControlServer {
  /** Binds to a path where nothing is. @throws NodeJS.ErrnoException */
  listen(path: string): Promise<void>
  /** Ends at once, answers in flight included. */
  close(): Promise<void>
}

const LIMITS = {
  /** Connections at one time; further ones are closed at once. */
  connections: 16,
  headBytes: 4096,
  headers: 32,
  /** For a request, and for the silence after an answer. */
  timeoutMs: 5000,
  requestsPerConnection: 100,
} as const

const TEXT = 'text/plain; charset=utf-8'

interface Page {
  readonly status: number
  readonly type: string
  readonly body: string
}

/**
 * Makes the server; nothing is bound before `listen`.
 * @param findObjection says why the client of a connection may not ask, `undefined` when it may
 */
export function createControlServer(
  pages: ControlPages,
  findObjection: (socket: Socket) => string | undefined,
): ControlServer {
  const server = createServer({
    maxHeaderSize: LIMITS.headBytes,
    headersTimeout: LIMITS.timeoutMs,
    requestTimeout: LIMITS.timeoutMs,
    keepAliveTimeout: LIMITS.timeoutMs,
    connectionsCheckingInterval: 1000,
  })
  server.maxHeadersCount = LIMITS.headers
  server.maxConnections = LIMITS.connections
  server.maxRequestsPerSocket = LIMITS.requestsPerConnection
  server.timeout = 2 * LIMITS.timeoutMs
  const objections = new WeakMap<Socket, string>()
  server.on('connection', (socket) => {
    socket.on('error', () => socket.destroy())
    const objection = findObjection(socket)
    if (objection !== undefined) objections.set(socket, objection)
  })
  const serve = (request: IncomingMessage, response: ServerResponse) => {
    const objection = objections.get(request.socket)
    if (objection !== undefined) return send(response, { status: 403, type: TEXT, body: `${objection}\n` }, true)
    if (hasBody(request)) return send(response, { status: 413, type: TEXT, body: 'no body is taken\n' }, true)
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      return send(response, { status: 405, type: TEXT, body: 'only GET and HEAD\n' }, true)
    }
    send(response, findPage(pages, request.url ?? ''), false)
  }
  // A connection that cannot be accepted is its client's loss; why `listen` failed, it says itself.
  server.on('error', () => undefined)
  server.on('request', serve)
  server.on('checkContinue', serve)
  server.on('checkExpectation', serve)
  for (const event of ['clientError', 'connect', 'upgrade'] as const) {
    server.on(event, (_: unknown, socket: Socket) => socket.destroy())
  }
  return {
    listen(path) {
      const { promise, resolve, reject } = Promise.withResolvers<void>()
      server.once('error', reject)
      server.listen({ path, backlog: LIMITS.connections }, () => {
        server.off('error', reject)
        resolve()
      })
      return promise
    },
    close() {
      if (!server.listening) return Promise.resolve()
      const done = new Promise<void>((resolve) => server.close(() => resolve()))
      server.closeAllConnections()
      return done
    },
  }
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0'
}

function findPage(pages: ControlPages, target: string): Page {
  switch (target) {
    case '/status':
      return { status: 200, type: 'application/json; charset=utf-8', body: pages.status() }
    case '/metrics':
      return { status: 200, type: 'text/plain; version=0.0.4; charset=utf-8', body: pages.metrics() }
    case '/healthz': {
      const { isHealthy, reason } = pages.health()
      return { status: isHealthy ? 200 : 503, type: TEXT, body: `${reason}\n` }
    }
    default:
      return { status: 404, type: TEXT, body: 'there are /status, /metrics and /healthz\n' }
  }
}

function send(response: ServerResponse, { status, type, body }: Page, isLast: boolean): void {
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    ...(status === 405 ? { allow: 'GET, HEAD' } : {}),
    ...(isLast ? { connection: 'close' } : {}),
  })
  response.end(body)
}
