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
