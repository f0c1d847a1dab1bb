/**
 * Rebuilds the text that a request's signature must cover, from what came over the wire.
 *
 *   METHOD LF  body LF  name:value LF …  path LF  query
 *
 * This is the host's half of the agreement, written apart from the agent's so that one mistake cannot hide in both.
 */

import { createHmac, type Hmac } from 'node:crypto'
import { trimWhiteSpace } from './http-reader.ts'

/** The parts of a request line and its headers that a signature covers; latin-1, as received. */
export interface SignedHead {
  readonly method: string
  readonly target: string
  /** name, value, name, value …, in order of arrival. */
  readonly rawHeaders: readonly string[]
}

export const AUTHORIZATION_HEADER = 'x-ms-azure-host-authorization'

/** Builds the whole string to sign as bytes; it is not text, since the body stands in it raw. */
export function stringToSign(head: SignedHead, body: Uint8Array): Buffer {
  return Buffer.concat([latin1(`${head.method}\n`), body, latin1(`\n${canonicalTail(head)}`)])
}

/** Computes a signature while the body passes by, so that an upload of any size needs no buffer. */
export class RunningSignature {
  readonly #hmac: Hmac
  readonly #head: SignedHead

  /** @param keyHex the key as the host hands it out, hexadecimal in either case. */
  constructor(head: SignedHead, keyHex: string) {
    this.#head = head
    this.#hmac = createHmac('sha256', Buffer.from(keyHex, 'hex')).update(`${head.method}\n`, 'latin1')
  }

  /** Takes the next piece of the body, after transfer decoding. */
  update(bytes: Uint8Array): void {
    this.#hmac.update(bytes)
  }

  /** Closes the computation. @returns the 32 bytes of the HMAC. */
  digest(): Buffer {
    return this.#hmac.update(`\n${canonicalTail(this.#head)}`, 'latin1').digest()
  }
}

/** Splits a request target at its `?`; a scheme with authority and a fragment are not part of either half. */
export function splitTarget(target: string): { path: string; query: string } {
  const fragment = target.indexOf('#')
  const whole = fragment === -1 ? target : target.slice(0, fragment)
  const mark = whole.indexOf('?')
  const query = mark === -1 ? '' : whole.slice(mark + 1)
  const beforeQuery = mark === -1 ? whole : whole.slice(0, mark)
  const authority = /^[A-Za-z][A-Za-z0-9+.-]*:\/\/[^/]*/.exec(beforeQuery)?.[0]
  if (authority === undefined) return { path: beforeQuery, query }
  return { path: beforeQuery.slice(authority.length) || '/', query }
}

/**
 * Orders the parameters of a query the way a signature covers them.
 * The order follows name and value run together, and what runs together alike counts once, the last one winning: `a=bc`
 * and `ab=c` are one. Known to be weak, and kept because both sides must agree; `hasQueryCollision` tells where it bites.
 */
export function canonicalQuery(query: string): string {
  if (query === '') return ''
  const byJoined = new Map<string, string>()
  for (const piece of query.split('&')) {
    const mark = piece.indexOf('=')
    const name = (mark === -1 ? piece : piece.slice(0, mark)).toLowerCase()
    const value = mark === -1 ? '' : piece.slice(mark + 1)
    if (name === '') continue
    byJoined.set(name + value, value === '' ? name : `${name}=${value}`)
  }
  return [...byJoined.keys()]
    .sort()
    .map((joined) => byJoined.get(joined)!)
    .join('&')
}

/** Tells whether two different parameters of `query` run together alike, so that one of them is not covered. */
export function hasQueryCollision(query: string): boolean {
  const seen = new Map<string, string>()
  for (const piece of query.split('&')) {
    const mark = piece.indexOf('=')
    const name = (mark === -1 ? piece : piece.slice(0, mark)).toLowerCase()
    if (name === '') continue
    const joined = name + (mark === -1 ? '' : piece.slice(mark + 1))
    if ((seen.get(joined) ?? name) !== name) return true
    seen.set(joined, name)
  }
  return false
}

/** Everything after the line feed that ends the body. */
function canonicalTail(head: SignedHead): string {
  const { path, query } = splitTarget(head.target)
  return `${headerLines(head.rawHeaders)}${path}\n${canonicalQuery(query)}`
}

/** One line per name, the last value of each, in byte order of the names; latin-1 text sorts as its bytes do. */
function headerLines(rawHeaders: readonly string[]): string {
  const values = new Map<string, string>()
  for (let at = 0; at < rawHeaders.length; at += 2) {
    values.set(rawHeaders[at]!.toLowerCase(), trimWhiteSpace(rawHeaders[at + 1]!))
  }
  values.delete(AUTHORIZATION_HEADER)
  let lines = ''
  for (const name of [...values.keys()].sort()) lines += `${name}:${values.get(name)}\n`
  return lines
}

function latin1(text: string): Buffer {
  return Buffer.from(text, 'latin1')
}
