/**
 * Signs requests the way the host verifies them: HMAC-SHA256 over method, body, headers, path and query.
 *
 *   METHOD LF  BODY LF  (name ":" value LF)*  PATH LF  QUERY
 *
 * All text is latin1: one character, one byte, exactly what stands on the wire. Headers are the last value of each
 * lower-case name in byte order, all but the authorization header itself. The query rule joins key and value without
 * a separator to sort and to drop doubles; that is odd, and the host's.
 */

import { createHmac } from 'node:crypto'
import { AUTHORIZATION_HEADER } from '../base/azure-headers.ts'
import type { LatchedKey, SecretKey } from './secret-key.ts'

export const AUTHORIZATION_SCHEME = 'Azure-HMAC-SHA256'

/** What is signed: exactly what will be sent. */
export interface SignableRequest {
  readonly method: string
  /** Path as it stands in the target, not decoded. */
  readonly path: string
  /** Query as it stands in the target, without `?`; may be empty. */
  readonly query: string
  /** Names and values in turn, in order of arrival; one character is one byte. */
  readonly headers: readonly string[]
  readonly body: Buffer
}

/** Builds the bytes that are signed. For tests and diagnosis; `sign` does not need them in one piece. */
export function stringToSign(request: SignableRequest): Buffer {
  return Buffer.concat([
    Buffer.from(`${request.method}\n`, 'latin1'),
    request.body,
    Buffer.from(tail(request), 'latin1'),
  ])
}

/** @returns the signature as 64 lower-case hexadecimal digits. */
export function sign(key: SecretKey, request: SignableRequest): string {
  const hmac = createHmac('sha256', key.keyObject)
  if (request.body.length === 0) return hmac.update(`${request.method}\n${tail(request)}`, 'latin1').digest('hex')
  return hmac.update(`${request.method}\n`, 'latin1').update(request.body).update(tail(request), 'latin1').digest('hex')
}

/** Renders the value of the authorization header for `request`. Never log it: it can be replayed for a while. */
export function authorizationValue(latched: LatchedKey, request: SignableRequest): string {
  return `${AUTHORIZATION_SCHEME} ${latched.guid} ${sign(latched.key, request)}`
}

/** All that follows the body. */
function tail(request: SignableRequest): string {
  return `\n${canonicalHeaders(request.headers)}${request.path}\n${canonicalQuery(request.query)}`
}

/** Renders the header lines: last value of each name, byte order, white space trimmed at both ends. */
export function canonicalHeaders(headers: readonly string[]): string {
  // In order, names and values in turn. For the few headers of a request that is quicker than a table and a sort.
  const sorted: string[] = []
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = lowerAscii(headers[i] as string)
    if (name === AUTHORIZATION_HEADER) continue
    const value = headers[i + 1] as string
    let at = sorted.length
    while (at > 0 && (sorted[at - 2] as string) > name) at -= 2
    if (at > 0 && sorted[at - 2] === name) sorted[at - 1] = value
    else sorted.splice(at, 0, name, value)
  }
  let lines = ''
  for (let i = 0; i < sorted.length; i += 2) lines += `${sorted[i]}:${trimBlanks(sorted[i + 1] as string)}\n`
  return lines
}

/** Renders the query: names lower-cased, pairs in the byte order of name+value, of equal sums the last one. */
export function canonicalQuery(query: string): string {
  if (query === '') return ''
  const pairs = new Map<string, string>()
  for (const piece of query.split('&')) {
    const equals = piece.indexOf('=')
    const name = lowerAscii(equals === -1 ? piece : piece.slice(0, equals))
    if (name === '') continue
    const value = equals === -1 ? '' : piece.slice(equals + 1)
    pairs.set(name + value, value === '' ? name : `${name}=${value}`)
  }
  return [...pairs.keys()]
    .sort(byCodeUnit)
    .map((sum) => pairs.get(sum))
    .join('&')
}

/** Byte order, since every character is one byte; the default sort of strings says the same, only less plainly. */
function byCodeUnit(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/** Lower-cases A to Z alone: in latin1 text `toLowerCase` would also change bytes of other alphabets. */
function lowerAscii(text: string): string {
  return /[\u0080-\u00ff]/.test(text) ? text.replace(/[A-Z]/g, (char) => char.toLowerCase()) : text.toLowerCase()
}

function trimBlanks(text: string): string {
  let start = 0
  let end = text.length
  while (start < end && isBlank(text.charCodeAt(start))) start++
  while (end > start && isBlank(text.charCodeAt(end - 1))) end--
  return start === 0 && end === text.length ? text : text.slice(start, end)
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09
}
