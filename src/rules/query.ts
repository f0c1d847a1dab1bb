/**
 * Takes a raw query apart into names and values, each percent-decoded once.
 *
 *   k=%41&b&=c&k     k, A, b, (empty), k, (empty)
 *
 * Separators are those of the raw text: a decoded `&` or `=` belongs to its part. A pair without `=` has an empty value; a pair
 * without a name is left out. Both matchers start here and differ in the reading: what a `+` is, whether letter case stays, and
 * whether a part that cannot be decoded is kept or ends it.
 *
 * A target of 32 KiB holds 16 000 pairs, and anybody can send it. So all parts are decoded in one walk over one buffer; a buffer
 * for each part would cost the caller nothing and everybody else milliseconds.
 */

import { isUtf8 } from 'node:buffer'
import type { CanonicalCode, CanonicalFailure } from './canonical-failure.ts'
import { canonicalFailure } from './canonical-failure.ts'
import { hexValue } from './percent.ts'

/**
 * Reads a query as the legacy matcher does: `+` is a plus, malformed escapes stay as they are, bytes that are not UTF-8 become
 * U+FFFD, letters keep their case.
 * @returns name, value, name, value, and so on
 */
export function literalParts(raw: string): string[] {
  if (!raw.includes('%')) return splitPlain(raw)
  const { bytes, parts } = decodeParts(raw, 'literal')
  return readTexts(bytes, parts)
}

/**
 * Reads a query as the canonical matcher does: `+` is a space, ASCII letters are written in lower case, and the first part with
 * a malformed escape (CANON_PCT), bytes that are not UTF-8 (CANON_UTF8) or a control character (CANON_CTRL) is the answer.
 * @param raw ASCII
 * @returns name, value, name, value, and so on
 */
export function formParts(raw: string): string[] | CanonicalFailure {
  if (PRINTABLE_WITHOUT_ESCAPES.test(raw)) return splitPlain(raw.replaceAll('+', ' ').toLowerCase())
  const { bytes, parts } = decodeParts(raw, 'form')
  const fault = findFault(bytes, parts)
  return fault === undefined ? readTexts(bytes, parts) : canonicalFailure(fault)
}

const PRINTABLE_WITHOUT_ESCAPES = /^[ -$&-~]*$/

/** Without escapes there is nothing to decode. */
function splitPlain(text: string): string[] {
  const texts: string[] = []
  for (const pair of text.split('&')) {
    const equals = pair.indexOf('=')
    if (equals === -1 && pair !== '') texts.push(pair, '')
    else if (equals > 0) texts.push(pair.slice(0, equals), pair.slice(equals + 1))
  }
  return texts
}

/** `parts` holds three numbers for each part: where it begins in `bytes`, where it ends, and its marks. */
interface DecodedParts {
  readonly bytes: Buffer
  readonly parts: readonly number[]
}

/** Names and values alternate. Pairs without a name are still there, since their values can be at fault. */
function decodeParts(raw: string, reading: 'literal' | 'form'): DecodedParts {
  const isForm = reading === 'form'
  const bytes = Buffer.from(raw, 'utf8')
  const parts: number[] = []
  let isName = true
  let start = 0
  let end = 0
  let marks = 0
  for (let at = 0; at < bytes.length; at++) {
    let byte = bytes[at]!
    if (byte === AMPERSAND || (byte === EQUALS && isName)) {
      parts.push(start, end, marks)
      if (byte === AMPERSAND && isName) parts.push(end, end, 0)
      isName = byte === AMPERSAND
      // It stays in the buffer and keeps the bytes on its two sides from joining to one character.
      bytes[end++] = byte
      start = end
      marks = 0
      continue
    }
    if (byte === PLUS && isForm) byte = SPACE
    else if (byte === PERCENT) {
      const high = hexValue(bytes[at + 1])
      const low = hexValue(bytes[at + 2])
      if (high === -1 || low === -1) marks |= MALFORMED
      else {
        byte = high * 16 + low
        at += 2
      }
    }
    if (byte >= 0x80) marks |= NON_ASCII
    else if (byte < 0x20 || byte === 0x7f) marks |= CONTROL
    else if (isForm && byte >= UPPER_A && byte <= UPPER_Z) byte += 0x20
    bytes[end++] = byte
  }
  parts.push(start, end, marks)
  if (isName) parts.push(end, end, 0)
  return { bytes: bytes.subarray(0, end), parts }
}

/** In the order of the query; within one part, escapes come before UTF-8 and UTF-8 before control characters. */
function findFault(bytes: Buffer, parts: readonly number[]): CanonicalCode | undefined {
  // Separators are ASCII: when all bytes together are UTF-8, those of each part are.
  const isAllUtf8 = isUtf8(bytes)
  for (let at = 0; at < parts.length; at += 3) {
    const marks = parts[at + 2]!
    if (marks & MALFORMED) return 'CANON_PCT'
    if (marks & NON_ASCII && !isAllUtf8 && !isUtf8(bytes.subarray(parts[at], parts[at + 1]))) return 'CANON_UTF8'
    if (marks & CONTROL) return 'CANON_CTRL'
  }
  return undefined
}

function readTexts(bytes: Buffer, parts: readonly number[]): string[] {
  const ascii = bytes.toString('latin1')
  const texts: string[] = []
  const readText = (at: number): string =>
    parts[at + 2]! & NON_ASCII
      ? bytes.toString('utf8', parts[at], parts[at + 1])
      : ascii.slice(parts[at], parts[at + 1])
  for (let name = 0; name < parts.length; name += 6) {
    if (parts[name] !== parts[name + 1]) texts.push(readText(name), readText(name + 3))
  }
  return texts
}

const AMPERSAND = 0x26
const EQUALS = 0x3d
const PLUS = 0x2b
const SPACE = 0x20
const PERCENT = 0x25
const UPPER_A = 0x41
const UPPER_Z = 0x5a

/** Marks of a part. */
const MALFORMED = 1
const NON_ASCII = 2
const CONTROL = 4
