/** What is refused before anybody asks who is calling. Pure functions over the request head as it was received. */

import type { RequestTarget } from '../base/request-target.ts'
import { ALLOWED_METHODS } from './answer.ts'

/** Largest body of a request that is read whole and signed. */
export const MAX_SIGNED_BODY_BYTES = 100 * 1024

/** Largest body of the two uploads that pass unsigned, as a stream. */
export const MAX_UPLOAD_BODY_BYTES = 100 * 1024 * 1024

/** Tells whether the method is one that can be forwarded; names are case-sensitive. */
export function isAllowedMethod(method: string): boolean {
  return (ALLOWED_METHODS as readonly string[]).includes(method)
}

/**
 * Tells whether `target` has only characters that a request target may have: visible ASCII, without the few that no
 * client sends unescaped.
 */
export function hasValidCharacters(target: RequestTarget): boolean {
  return /^[\x21-\x7e]*$/.test(target.withoutFragment) && !/[<>`]/.test(target.path) && !/["<>]/.test(target.query)
}

/**
 * Tells whether the path tries to climb: `//` as written, or `..` anywhere after decoding once. The query is free.
 * Malformed escapes are left as they are.
 */
export function hasTraversal(path: string): boolean {
  if (path.includes('//')) return true
  if (!path.includes('%')) return path.includes('..')
  // `.` is ASCII: bytes of longer UTF-8 sequences are never 0x2e, so decoding the two escapes that matter is enough.
  return path.replace(/%2e/gi, '.').includes('..')
}

/**
 * Finds what makes a request head unfit to be carried on; the parser lets these pass.
 * @returns a sentence for the log, `undefined` when the head is sound.
 */
export function findHeadFlaw(httpVersion: string, rawHeaders: readonly string[]): string | undefined {
  if (httpVersion !== '1.1' && httpVersion !== '1.0') return `the version is HTTP/${httpVersion}`
  if (hasAmbiguousHead(rawHeaders)) return 'the request head frames its body or names its host more than once'
  if (httpVersion === '1.1') return hasHeader(rawHeaders, 'host') ? undefined : 'the request names no host'
  // HTTP/1.0 knows no chunks: the next hop might take them for the body itself. Source: RFC 9112 section 6.1.
  return hasHeader(rawHeaders, 'transfer-encoding') ? 'an HTTP/1.0 request encodes its body' : undefined
}

/**
 * Tells whether the head frames its body in two ways, or names its host twice: what the host reads may then not be what
 * was judged and signed. `node:http` refuses most of these by itself.
 * @param rawHeaders names and values in turn, as received.
 */
export function hasAmbiguousHead(rawHeaders: readonly string[]): boolean {
  let hosts = 0
  let lengths = 0
  let encodings = 0
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] as string
    if (name.length === 4 && name.toLowerCase() === 'host') hosts++
    else if (name.length === 14 && name.toLowerCase() === 'content-length') lengths++
    else if (name.length === 17 && name.toLowerCase() === 'transfer-encoding') {
      if ((rawHeaders[i + 1] as string).trim().toLowerCase() !== 'chunked') return true
      encodings++
    }
  }
  return hosts > 1 || lengths + encodings > 1
}

function hasHeader(rawHeaders: readonly string[], lowerName: string): boolean {
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] as string
    if (name.length === lowerName.length && name.toLowerCase() === lowerName) return true
  }
  return false
}
