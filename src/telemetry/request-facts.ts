/** What telemetry needs to know of a request; the proxy's own objects have this shape. */

import type { InetAddress } from '../base/endpoints.ts'

export interface ConnectionFacts {
  /** Counts from 1 since the start of the process. */
  readonly id: number
  readonly peer: InetAddress
  /** Where the client wanted to go; `undefined` when it connected directly. */
  readonly destination: InetAddress | undefined
}

export interface RequestFacts {
  readonly connection: ConnectionFacts
  /** Counts from 1; 0 when the request was refused before it was counted. */
  readonly id: number
  readonly method: string
  /** As received. */
  readonly rawTarget: string
  /** Milliseconds of the monotonic clock. */
  readonly startedAtMs: number
}
