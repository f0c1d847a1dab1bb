/** One client connection and one request on it, as the steps of the pipeline see them. */

import { type Endpoint, findEndpoint, type InetAddress } from '../base/endpoints.ts'
import type { RequestTarget } from '../base/request-target.ts'
import type { Caller } from '../identity/caller.ts'
import type { Turn } from './http1/server-connection.ts'

/** Facts about a client connection, fixed for its life. */
export interface ClientConnection {
  /** Counts from 1 since the start of the process. */
  readonly id: number
  readonly peer: InetAddress
  /** Where the client wanted to go; `undefined` when no record was found. */
  readonly destination: InetAddress | undefined
  /** The guarded service at `destination`; `undefined` when that is none of ours. */
  readonly endpoint: Endpoint | undefined
  /** The caller, or a promise of it while names are looked up. */
  caller: Caller | Promise<Caller> | undefined
}

/** Who connected, as identification tells the proxy. */
export interface Attribution {
  readonly destination: InetAddress
  /** The caller's user id, known at once. */
  readonly uid: number
  readonly caller: Promise<Caller>
}

/** Makes the facts of a new connection. The caller replaces its promise as soon as it is known. */
export function openConnection(id: number, peer: InetAddress, attribution: Attribution | undefined): ClientConnection {
  const destination = attribution?.destination
  const connection: ClientConnection = {
    id,
    peer,
    destination,
    endpoint: destination && findEndpoint(destination.address, destination.port),
    caller: attribution?.caller,
  }
  void attribution?.caller.then(
    (caller) => {
      connection.caller = caller
    },
    () => {
      connection.caller = undefined
    },
  )
  return connection
}

/** One request and its answer. */
export interface Exchange {
  readonly connection: ClientConnection
  /** The request as it was read, and the way to answer it. */
  readonly turn: Turn
  readonly method: string
  /** As received, with a fragment if there was one. */
  readonly rawTarget: string
  readonly target: RequestTarget
  /** One of the two uploads that pass unsigned and as a stream. */
  readonly isExempt: boolean
  /** Counts requests from 1; 0 until the body size is known to be acceptable. */
  id: number
  /** Milliseconds of the monotonic clock. */
  readonly startedAtMs: number
}
