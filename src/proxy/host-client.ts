/**
 * Carries requests to the host over pooled connections, one pool for each destination.
 *
 * The interface is small so that another client can take this one's place. What it promises: the head on the wire is
 * exactly the list it was given, in another order at most, so that the signature over that list holds.
 */

import type { Readable } from 'node:stream'
import type { Dispatcher, Pool as UndiciPool } from 'undici'
import Pool from 'undici/lib/dispatcher/pool.js'

export interface HostRequest {
  readonly method: string
  /** Origin-form or absolute-form target. */
  readonly target: string
  /** Names and values in turn, as `toHostHeaders` makes them, and the authorization header. */
  readonly headers: readonly string[]
  /** Value of the authorization header, when the request is signed. */
  readonly authorization: string | undefined
  /** Whole body, a stream, or nothing. */
  readonly body: Buffer | Readable | undefined
}

/** Receives the host's answer. After `onEnd` or `onError` nothing more is called. */
export interface HostAnswerHandler {
  /** @param rawHeaders names and values in turn, one character one byte. */
  onHead(status: number, rawHeaders: readonly string[]): void
  /** @returns false to pause until `HostExchange.resume`. */
  onData(chunk: Buffer): boolean
  onEnd(): void
  onError(error: HostClientError): void
}

export interface HostExchange {
  resume(): void
  /** Ends the exchange and its connection; no handler is called any more. */
  abort(): void
}

/** Why there is no (complete) answer. `isConnected` false: the host never saw the request. */
export interface HostClientError {
  readonly isConnected: boolean
  /** True when the connection had ended before any byte of an answer: a pooled one that the host had given up. */
  readonly isStale: boolean
  readonly reason: string
}

export interface HostClient {
  send(destination: { address: string; port: number }, request: HostRequest, handler: HostAnswerHandler): HostExchange
  /** Ends all pools and the requests on them. */
  close(): Promise<void>
}

export interface HostClientOptions {
  /** Connections to one destination; further requests wait. */
  readonly maxConnections: number
  readonly connectTimeoutMs: number
  /** Time from the request to the head of its answer. Scheduled events may take two minutes the first time. */
  readonly headTimeoutMs: number
  /** Longest silence inside an answer's body. */
  readonly bodyTimeoutMs: number
}

export const HOST_CLIENT_DEFAULTS: HostClientOptions = {
  maxConnections: 128,
  connectTimeoutMs: 5_000,
  headTimeoutMs: 130_000,
  bodyTimeoutMs: 60_000,
}

/** Headers that the pool writes by itself, from the same facts as ours. */
const WRITTEN_BY_POOL: ReadonlySet<string> = new Set(['connection', 'transfer-encoding'])

/** Makes the client. Connections are opened on demand. */
export function createHostClient(options: HostClientOptions = HOST_CLIENT_DEFAULTS): HostClient {
  const pools = new Map<string, UndiciPool>()
  const poolOf = ({ address, port }: { address: string; port: number }) => {
    const origin = `http://${address}:${port}`
    let pool = pools.get(origin)
    if (pool === undefined) {
      pool = new Pool(origin, {
        connections: options.maxConnections,
        pipelining: 1,
        connect: { timeout: options.connectTimeoutMs },
        headersTimeout: options.headTimeoutMs,
        bodyTimeout: options.bodyTimeoutMs,
        keepAliveTimeout: 4_000,
        keepAliveMaxTimeout: 60_000,
      })
      pools.set(origin, pool)
    }
    return pool
  }
  return {
    send: (destination, request, handler) => dispatch(poolOf(destination), request, handler),
    close: async () => {
      await Promise.all([...pools.values()].map((pool) => pool.destroy()))
      pools.clear()
    },
  }
}

function dispatch(pool: UndiciPool, request: HostRequest, handler: HostAnswerHandler): HostExchange {
  let controller: Dispatcher.DispatchController | undefined
  let isOver = false
  let hasHead = false
  const fail = (error: Error & { code?: string }) => {
    if (isOver) return
    isOver = true
    handler.onError({
      isConnected: controller !== undefined,
      isStale: controller !== undefined && !hasHead && STALE_CODES.has(error.code ?? ''),
      reason: describe(error),
    })
  }
  const options = {
    method: request.method as Dispatcher.HttpMethod,
    path: request.target,
    headers: withoutPoolHeaders(request.headers),
    body: request.body ?? null,
    // The pool would announce `connection: close` for HEAD otherwise; what is announced is signed.
    reset: false,
  }
  try {
    pool.dispatch(options, {
      onRequestStart(started) {
        controller = started
        if (isOver) started.abort(new Error('aborted'))
      },
      onResponseStart(current, status) {
        // Early hints are for the client library alone. What switches protocols ends in an error of its own.
        if (status < 200) return
        hasHead = true
        handler.onHead(status, toStrings(current.rawHeaders))
      },
      onResponseData(current, chunk) {
        if (!isOver && !handler.onData(chunk)) current.pause()
      },
      onResponseEnd() {
        if (isOver) return
        isOver = true
        handler.onEnd()
      },
      onResponseError: (_, error) => fail(error),
    })
  } catch (error) {
    // Refused before it was sent, for instance a target that the pool cannot write.
    queueMicrotask(() => fail(error as Error))
  }
  return {
    resume: () => controller?.resume(),
    abort() {
      if (isOver) return
      isOver = true
      controller?.abort(new Error('aborted'))
    },
  }
}

const STALE_CODES: ReadonlySet<string> = new Set(['UND_ERR_SOCKET', 'ECONNRESET', 'EPIPE'])

function withoutPoolHeaders(headers: readonly string[]): string[] {
  const list: string[] = []
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i] as string
    if (!WRITTEN_BY_POOL.has(name)) list.push(name, headers[i + 1] as string)
  }
  return list
}

function toStrings(raw: unknown): string[] {
  return Array.isArray(raw)
    ? raw.map((part) => (typeof part === 'string' ? part : (part as Buffer).toString('latin1')))
    : []
}

/** Names the fault without the message of a library that might repeat headers. */
function describe(error: Error & { code?: string; errno?: number; syscall?: string }): string {
  if (error.code !== undefined) return error.syscall === undefined ? `${error.message} (${error.code})` : error.code
  return error.message
}
