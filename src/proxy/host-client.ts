/**
 * Carries requests to the host over pooled connections, one pool for each destination.
 *
 * Whole requests go over connections of our own (`host-connection.ts`); uploads, which are rare, large and not signed, over
 * undici. What both promise: the head on the wire is exactly the list they were given, so that the signature over that
 * list holds.
 */

import type { InetAddress } from '../base/endpoints.ts'
import type { HostAnswerHandler, HostClientOptions, HostExchange, HostOrder } from './host-exchange.ts'
import { createHostPool, type HostPool } from './host-pool.ts'
import type { UploadClient } from './upload-client.ts'

export interface HostClient {
  send(destination: InetAddress, order: HostOrder, handler: HostAnswerHandler): HostExchange
  /** Ends all pools and the requests on them. */
  close(): Promise<void>
}

export const HOST_CLIENT_DEFAULTS: HostClientOptions = {
  maxConnections: 128,
  maxConnectionsPerUser: 32,
  reservedConnections: 16,
  connectTimeoutMs: 5_000,
  headTimeoutMs: 130_000,
  bodyTimeoutMs: 60_000,
}

/** Makes the client. Connections are opened on demand. */
export function createHostClient(options: HostClientOptions = HOST_CLIENT_DEFAULTS): HostClient {
  const pools = new Map<string, HostPool>()
  let uploads: Promise<UploadClient> | undefined
  const poolOf = (destination: InetAddress) => {
    const name = `${destination.address}:${destination.port}`
    let pool = pools.get(name)
    if (pool === undefined) {
      pool = createHostPool(destination, options)
      pools.set(name, pool)
    }
    return pool
  }
  const upload = (destination: InetAddress, order: HostOrder, handler: HostAnswerHandler) => {
    let exchange: HostExchange | undefined
    let isAborted = false
    uploads ??= import('./upload-client.ts').then(({ createUploadClient }) => createUploadClient(options))
    void uploads.then((client) => {
      if (!isAborted) exchange = client.send(destination, order, handler)
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
    send: (destination, order, handler) =>
      order.upload === undefined ? poolOf(destination).send(order, handler) : upload(destination, order, handler),
    async close() {
      for (const pool of pools.values()) pool.close()
      pools.clear()
      await (await uploads)?.close()
    },
  }
}
