/** Reads a request body whole, or lets it through with a limit. */

import type { IncomingMessage } from 'node:http'
import { Transform } from 'node:stream'

const EMPTY = Buffer.alloc(0)

export type BodyResult =
  | { readonly kind: 'whole'; readonly body: Buffer }
  /** More than the limit arrived. */
  | { readonly kind: 'too-large' }
  /** The client went away before the end. */
  | { readonly kind: 'broken' }

/** Tells whether the head announces a body. */
export function hasBody(request: IncomingMessage): boolean {
  return request.headers['transfer-encoding'] !== undefined || Number(request.headers['content-length'] ?? 0) > 0
}

/** The announced size in bytes, `undefined` for a chunked body. */
export function announcedBytes(request: IncomingMessage): number | undefined {
  if (request.headers['transfer-encoding'] !== undefined) return undefined
  return Number(request.headers['content-length'] ?? 0)
}

/** Tells whether the client waits for a go-ahead before it sends its body. Source: RFC 9110 section 10.1.1. */
export function awaitsContinue({ httpVersion, headers }: IncomingMessage): boolean {
  return headers.expect !== undefined && httpVersion === '1.1' && headers.expect.toLowerCase() === '100-continue'
}

/** Reads the body to its end. Never rejects. @param maxBytes the size that is still accepted. */
export function readBody(request: IncomingMessage, maxBytes: number): Promise<BodyResult> {
  if (!hasBody(request)) return Promise.resolve({ kind: 'whole', body: EMPTY })
  return new Promise((resolve) => {
    const chunks: Buffer[] = []
    let sizeBytes = 0
    request.on('data', (chunk: Buffer) => {
      sizeBytes += chunk.length
      if (sizeBytes <= maxBytes) chunks.push(chunk)
      else {
        // What still comes is dropped until the connection ends: see `linger.ts`.
        chunks.length = 0
        resolve({ kind: 'too-large' })
      }
    })
    request.on('end', () =>
      resolve({ kind: 'whole', body: chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks) }),
    )
    request.on('close', () => resolve({ kind: 'broken' }))
    request.on('error', () => resolve({ kind: 'broken' }))
  })
}

/** The error of a stream that passed its limit. */
export class BodyTooLargeError extends Error {
  override name = 'BodyTooLargeError'
}

/** Makes a stream of the body that fails with `BodyTooLargeError` past `maxBytes`. */
export function limitBody(request: IncomingMessage, maxBytes: number): Transform {
  let sizeBytes = 0
  const limited = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      sizeBytes += chunk.length
      if (sizeBytes > maxBytes) done(new BodyTooLargeError(`the body is larger than ${maxBytes} bytes`))
      else done(null, chunk)
    },
  })
  // Whoever reads the stream hears of its errors; when nobody does any more, they have no effect.
  limited.on('error', () => undefined)
  request.on('error', (error) => limited.destroy(error))
  request.on('close', () => {
    if (!request.complete) limited.destroy(new Error('the client went away'))
  })
  return request.pipe(limited)
}
