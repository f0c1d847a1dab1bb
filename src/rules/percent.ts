/**
 * Percent-decoding, once for the forgiving matcher and once for the strict one.
 *
 * `decodeURIComponent` does neither: it throws on what the first must keep and tells nothing of why. `TextDecoder` drops a
 * leading byte-order mark unless told otherwise, and a dropped character is a way around a prefix rule.
 * Both functions read text, not bytes: a character outside ASCII stands for its UTF-8 form.
 * Source: RFC 3986 section 2.1.
 */

import { isUtf8 } from 'node:buffer'
import type { CanonicalFailure } from './canonical-failure.ts'
import { canonicalFailure } from './canonical-failure.ts'

/** Decodes every `%xx` once; malformed sequences stay as they are, bytes that are not UTF-8 become U+FFFD. */
export function decodeLossy(text: string): string {
  if (!text.includes('%')) return text
  return decodeBytes(text).bytes.toString('utf8')
}

/** Decodes every `%xx` once, or fails with CANON_PCT (a `%` without two hexadecimal digits) or CANON_UTF8, in this order. */
export function decodeStrict(text: string): string | CanonicalFailure {
  if (!text.isWellFormed()) return canonicalFailure('CANON_UTF8')
  if (!text.includes('%')) return text
  const { bytes, malformed } = decodeBytes(text)
  if (malformed) return canonicalFailure('CANON_PCT')
  return isUtf8(bytes) ? bytes.toString('utf8') : canonicalFailure('CANON_UTF8')
}

const PERCENT = 0x25

function decodeBytes(text: string): { bytes: Buffer; malformed: boolean } {
  const bytes = Buffer.from(text, 'utf8')
  let malformed = false
  let end = 0
  for (let at = 0; at < bytes.length; at++) {
    let byte = bytes[at]!
    if (byte === PERCENT) {
      const high = hexValue(bytes[at + 1])
      const low = hexValue(bytes[at + 2])
      if (high === -1 || low === -1) malformed = true
      else {
        byte = high * 16 + low
        at += 2
      }
    }
    bytes[end++] = byte
  }
  return { bytes: bytes.subarray(0, end), malformed }
}

/** Reads one hexadecimal digit; -1 for anything that is not a hexadecimal digit, the end of the text included. */
export function hexValue(byte: number | undefined): number {
  if (byte === undefined) return -1
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30
  const letter = byte | 0x20
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1
}
