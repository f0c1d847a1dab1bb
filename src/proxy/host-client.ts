/**
 * Carries requests to the host over pooled connections, one pool for each destination.
 *
 * Whole requests go over connections of our own (`host-connection.ts`); uploads, which are rare, large and not signed, over
 * undici. What both promise: the head on the wire is exactly the list they were given, so that the signature over that
 * list holds.
 */

import type { Readable } from 'node:stream'
import { createHostPool, type HostPool } from './host-pool.ts'
import type { UploadClient } from './upload-client.ts'

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
  /**
   * @param chunk a view that is good during the call only: whoever keeps it copies it
   * @returns false to pause until `HostExchange.resume`.
   */
  onData(chunk: Buffer): boolean
  /** What arrived together has been handed on, and there is more to come. */
  onPause(): void
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

export interface HostAddress {
  readonly address: string
  readonly port: number
}

export interface HostClient {
  send(destination: HostAddress, request: HostRequest, handler: HostAnswerHandler): HostExchange
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

/** Makes the client. Connections are opened on demand. */
export function createHostClient(options: HostClientOptions = HOST_CLIENT_DEFAULTS): HostClient {
  const pools = new Map<string, HostPool>()
  let uploads: Promise<UploadClient> | undefined
  const poolOf = (destination: HostAddress) => {
    const name = `${destination.address}:${destination.port}`
    let pool = pools.get(name)
    if (pool === undefined) {
      pool = createHostPool(destination, options)
      pools.set(name, pool)
    }
    return pool
  }
  const upload = (destination: HostAddress, request: HostRequest, body: Readable, handler: HostAnswerHandler) => {
    let exchange: HostExchange | undefined
    let isAborted = false
    uploads ??= import('./upload-client.ts').then(({ createUploadClient }) => createUploadClient(options))
    void uploads.then((client) => {
      if (!isAborted) exchange = client.send(destination, request, body, handler)
    })
    return {
      resume: () => exchange?.resume(),
      abort() {
        isAborted = true
        exchange?.abort()
      },
    }
  }
  return {
    send(destination, request, handler) {
      const { body } = request
      if (body === undefined || Buffer.isBuffer(body)) return poolOf(destination).send(request, body, handler)
      return upload(destination, request, body, handler)
    },
    async close() {
      for (const pool of pools.values()) pool.close()
      pools.clear()
      await (await uploads)?.close()
    },
  }
}
