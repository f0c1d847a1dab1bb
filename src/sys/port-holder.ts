/** Finds out which process listens on a TCP port, to say so when it is ours that is taken. */

import { findSocketHolders, readTcpSockets, TCP_STATE } from './tcp-table.ts'

/**
 * Describes the process that listens on `port` in this network namespace, such as `python3 (pid 4711)`.
 * @param port host byte order
 * @returns `undefined` when there is none, or it cannot be seen from here
 */
export function describePortHolder(port: number): string | undefined {
  const listening = readTcpSockets().find(({ state, local }) => state === TCP_STATE.listen && local.port === port)
  return listening && findSocketHolders(new Set([listening.inode])).get(listening.inode)
}
