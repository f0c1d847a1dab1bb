/**
 * Carries uploads: requests whose body is a stream of up to 100 MiB, which the host takes unsigned.
 *
 * They come every few minutes at most, so this module, and undici with it, is loaded for the first of them.
 */

import type { Readable } from 'node:stream'
import type { Dispatcher, Pool as UndiciPool } from 'undici'
import Pool from 'undici/lib/dispatcher/pool.js'
import type { InetAddress } from '../base/endpoints.ts'
import type { HostAnswerHandler, HostClientOptions, HostExchange, HostOrder } from './host-exchange.ts'

export interface UploadClient {
  /** @param order one with an upload */
  send(destination: InetAddress, order: HostOrder, handler: HostAnswerHandler): HostExchange
  /** Ends all uploads. */
  close(): Promise<void>
}

/** Headers that the pool writes by itself, from the same facts as ours. */
const WRITTEN_BY_POOL: ReadonlySet<string> = new Set(['connection', 'transfer-encoding'])

/** Makes the client. Connections are opened on demand. */
export function createUploadClient(options: HostClientOptions): UploadClient {
  const pools = new Map<string, UndiciPool>()
  const poolOf = ({ address, port }: InetAddress) => {
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
    send: (destination, order, handler) => dispatch(poolOf(destination), order, handler),
    close: async () => {
      await Promise.all([...pools.values()].map((pool) => pool.destroy()))
      pools.clear()
    },
  }
}

function dispatch(pool: UndiciPool, order: HostOrder, handler: HostAnswerHandler): HostExchange {
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
  const request = order.make()
  const options = {
    method: request.method as Dispatcher.HttpMethod,
    path: request.target,
    headers: withoutPoolHeaders(request.headers),
    body: order.upload as Readable,
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
        handler.onPause()
      },
      onResponseData(current, chunk) {
        if (!isOver && !handler.onData(chunk)) current.pause()
        if (!isOver) handler.onPause()
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
