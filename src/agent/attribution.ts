/** Who made a connection: the kernel's record of it, identified. */

import type { InetAddress } from '../base/endpoints.ts'
import { describeError } from '../base/errors.ts'
import { monotonicNowNs } from '../ebpf/records.ts'
import type { Redirector } from '../ebpf/redirector.ts'
import { type IdentityEnv, type IdentityOptions, identify } from '../identity/identify.ts'
import type { Attribution } from '../proxy/exchange.ts'
import { isConnected } from '../sys/socket.ts'
import type { AttributionFailure } from '../telemetry/request-metrics.ts'

/** A record older than this belongs to a connection that never came. */
const MAX_RECORD_AGE_NS = 30_000_000_000n

export interface AttributionEvents {
  /** Something went wrong that should not. */
  report(message: string): void
  /** The connection is nobody's. */
  failed(reason: AttributionFailure): void
}

/**
 * Takes the record of a connection just accepted and starts to find out who made it.
 * The connection must still live when its record has been taken: then the record is its own, see `isConnected`.
 * @param fd of its socket
 * @param redirector holds the records; `undefined` while none is attached
 * @param netns of the listener that accepted it; `undefined`: our own
 * @returns `undefined` when there is no record, or it cannot be had: the connection is nobody's
 */
export function attribute(
  peer: InetAddress,
  fd: number,
  redirector: Redirector | undefined,
  netns: bigint | undefined,
  env: IdentityEnv,
  options: IdentityOptions,
  events: AttributionEvents,
): Attribution | undefined {
  const fail = (reason: AttributionFailure) => {
    events.failed(reason)
    return undefined
  }
  if (redirector === undefined) return fail('not_redirecting')
  try {
    const record = redirector.takeRecord(peer.address, peer.port, netns)
    if (record === undefined) return fail('no_record')
    if (monotonicNowNs() - record.recordedAtNs > MAX_RECORD_AGE_NS) return fail('record_too_old')
    if (!isConnected(fd)) return fail('connection_gone')
    return { destination: record.destination, uid: record.uid, caller: identify(record, peer, env, options) }
  } catch (error) {
    events.report(`Cannot take the record of a connection: ${describeError(error)}`)
    return fail('error')
  }
}
