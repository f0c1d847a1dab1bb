/**
 * Lets another process steer a simulated host: HTTP with JSON on a unix socket, or on a port of 127.0.0.1.
 *
 *   GET  /state                              the host at this moment
 *   GET  /requests?after=N&limit=N&waitMs=N  recorded requests after number N; waits for one if there is none
 *   POST /control {"method": …, "args": […]} calls a method of HostControl; answers {"result": …}
 */

import { chmodSync, rmSync, statSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Fabric } from './fabric.ts'
import type { HostControl } from './host-control.ts'
import type { RecordedRequest } from './records.ts'

/** Where the control listens: a path of a unix socket, or a port (0 for a free one). */
export type ControlPlace = { path: string } | { port: number }

export interface ControlServer {
  readonly place: ControlPlace
  close(): Promise<void>
}

/** A recorded request as it travels: the body in base64. */
export type RequestOnTheWire = Omit<RecordedRequest, 'body'> & { readonly bodyBase64: string }

type RemoteMethod = Exclude<keyof HostControl, 'readRequests' | 'waitForRequest' | 'readState'>

/** The methods that `POST /control` may call; everything that only reads has a GET of its own. */
const REMOTE_METHODS: Readonly<Record<RemoteMethod, true>> = {
  clearRequests: true,
  setRules: true,
  setState: true,
  setChannel: true,
  setHostModes: true,
  rotateKey: true,
  latchKey: true,
  addFault: true,
  removeFault: true,
  clearFaults: true,
  setClockSkew: true,
  setListener: true,
  setDocuments: true,
  raiseIncarnation: true,
  setScheduledEvents: true,
}

/** Most requests in one answer; a reader asks again for the rest. */
export const REQUESTS_PER_PAGE = 500
const LONGEST_WAIT_MS = 30_000
const LARGEST_BODY_BYTES = 4 * 1024 * 1024

/** Starts the control of `fabric`. A socket file left behind by an earlier run is replaced; it is for its owner only. */
export async function startControl(fabric: Fabric, place: ControlPlace): Promise<ControlServer> {
  const server = createServer((request, response) => {
    answer(fabric, request, response).catch((error: unknown) => {
      if (!response.headersSent) send(response, 400, { error: error instanceof Error ? error.message : String(error) })
      else response.destroy()
    })
  })
  if ('path' in place) removeLeftover(place.path)
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    if ('path' in place) server.listen(place.path, resolve)
    else server.listen(place.port, '127.0.0.1', resolve)
  })
  if ('path' in place) chmodSync(place.path, 0o600)
  const bound = server.address()
  return {
    place: typeof bound === 'object' && bound !== null ? { port: bound.port } : place,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

async function answer(fabric: Fabric, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? '/', 'http://control')
  switch (`${request.method} ${url.pathname}`) {
    case 'GET /state':
      send(response, 200, fabric.readState())
      return
    case 'GET /requests':
      send(response, 200, { requests: await readRequests(fabric, url.searchParams) })
      return
    case 'POST /control':
      send(response, 200, { result: (await call(fabric, await readBody(request))) ?? null })
      return
    default:
      send(response, 404, { error: 'Cannot answer: there are GET /state, GET /requests and POST /control' })
  }
}

async function readRequests(fabric: Fabric, query: URLSearchParams): Promise<RequestOnTheWire[]> {
  const after = Number(query.get('after') ?? 0)
  const limit = Math.min(Number(query.get('limit') ?? REQUESTS_PER_PAGE), REQUESTS_PER_PAGE)
  const waitMs = Math.min(Number(query.get('waitMs') ?? 0), LONGEST_WAIT_MS)
  if (![after, limit, waitMs].every((number) => Number.isInteger(number) && number >= 0)) {
    throw new Error('Cannot read requests: after, limit and waitMs must be whole numbers')
  }
  if (waitMs > 0) {
    // Nothing new within the time is an answer, too: an empty list.
    await fabric.waitForRequest((request) => request.seq > after, waitMs).catch(() => undefined)
  }
  return fabric
    .readRequests(after)
    .slice(0, limit)
    .map(({ body, ...request }) => ({ ...request, bodyBase64: body.toString('base64') }))
}

async function call(fabric: Fabric, text: string): Promise<unknown> {
  const { method, args = [] } = JSON.parse(text) as { method?: unknown; args?: unknown }
  if (typeof method !== 'string' || !Object.hasOwn(REMOTE_METHODS, method)) {
    throw new Error(`Cannot call ${String(method)}: methods are ${Object.keys(REMOTE_METHODS).join(', ')}`)
  }
  if (!Array.isArray(args)) throw new Error(`Cannot call ${method}: args must be a list`)
  const methods = fabric as unknown as Record<string, (...given: unknown[]) => unknown>
  // JSON has no undefined; null stands for it.
  return methods[method]!(...args.map((arg: unknown) => arg ?? undefined))
}

async function readBody(request: IncomingMessage): Promise<string> {
  const pieces: Buffer[] = []
  let sizeBytes = 0
  for await (const piece of request as AsyncIterable<Buffer>) {
    sizeBytes += piece.length
    if (sizeBytes > LARGEST_BODY_BYTES) throw new Error(`Cannot read the call: above ${LARGEST_BODY_BYTES} bytes`)
    pieces.push(piece)
  }
  return Buffer.concat(pieces).toString()
}

function send(response: ServerResponse, status: number, value: unknown): void {
  const text = JSON.stringify(value)
  response
    .writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) })
    .end(text)
}

function removeLeftover(path: string): void {
  if (statSync(path, { throwIfNoEntry: false })?.isSocket() === true) rmSync(path)
}
