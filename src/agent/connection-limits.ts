/** How many connections of clients there may be: as configured, as far as the limit on open files goes. */

import type { Config } from '../config/config.ts'
import { PROXY_SERVER_DEFAULTS, type ProxyServerOptions } from '../proxy/server.ts'

/** Descriptors for all but clients: connections to three services of the host, logs, /proc, programs and maps. */
const OTHER_DESCRIPTORS = 640

/** One in so many connections is root's alone. */
const RESERVED_SHARE = 16

export interface ConnectionLimitsFound {
  readonly options: ProxyServerOptions
  /** What the operator should know. */
  readonly notice: string | undefined
}

/** @param openFiles the limit on open files of this process */
export function findConnectionLimits(
  { maxConnections, maxConnectionsPerUser }: Pick<Config, 'maxConnections' | 'maxConnectionsPerUser'>,
  openFiles: number,
): ConnectionLimitsFound {
  // With few files, clients have half of them: what is left must do for their requests.
  const fitting = Math.max(openFiles - OTHER_DESCRIPTORS, Math.floor(openFiles / 2))
  const used = Math.min(maxConnections, fitting)
  return {
    options: {
      ...PROXY_SERVER_DEFAULTS,
      maxConnections: used,
      maxConnectionsPerUser: Math.min(maxConnectionsPerUser, used),
      reservedConnections: Math.floor(used / RESERVED_SHARE),
    },
    notice:
      used === maxConnections
        ? undefined
        : `At most ${openFiles} files may be open: ${used} connections are taken in place of ${maxConnections}`,
  }
}
