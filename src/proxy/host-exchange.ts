/** One request to the host and its answer, as whoever carries them and whoever waits see them. */

import type { Readable } from 'node:stream'

/**
 * What somebody wants sent. It is made when there is a connection for it: a request that has waited bears the time of its
 * sending, and is signed with the key of that moment.
 */
export interface HostOrder {
  /** User id of whoever asks: on whose share of the connections it goes. */
  readonly uid: number
  /** A body that comes as a stream: such an order is carried once, and its request has no other body. */
  readonly upload: Readable | undefined
  /** Called at most once. @throws when the request cannot be signed */
  make(): HostRequest
}

export interface HostRequest {
  readonly method: string
  /** Origin-form or absolute-form target. */
  readonly target: string
  /** Names and values in turn, as `toHostHeaders` makes them, and the authorization header. */
  readonly headers: readonly string[]
  /** Value of the authorization header, when the request is signed. */
  readonly authorization: string | undefined
  /** Whole body, or nothing. */
  readonly body: Buffer | undefined
}

/** Receives the host's answer. After `onUnmade`, `onEnd` or `onError` nothing more is called. */
export interface HostAnswerHandler {
  /** The request could not be made. */
  onUnmade(error: unknown): void
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

export interface HostClientOptions {
  /** Connections to one destination; further requests wait. */
  readonly maxConnections: number
  /** Of these, how many one user's requests have at one time, root excepted. */
  readonly maxConnectionsPerUser: number
  /** Of `maxConnections`, those that only root's requests have. */
  readonly reservedConnections: number
  readonly connectTimeoutMs: number
  /** Time from the request to the head of its answer. Scheduled events may take two minutes the first time. */
  readonly headTimeoutMs: number
  /** Longest silence inside an answer's body. */
  readonly bodyTimeoutMs: number
}
