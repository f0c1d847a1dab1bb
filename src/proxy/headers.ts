/**
 * The header lists that cross the agent, in both directions.
 *
 * What goes to the host is decided here once, then signed, then sent: names in lower case, hop-by-hop headers gone, one
 * header of each name, the agent's own three in place of whatever the client said under those names.
 * Source: RFC 9110 section 7.6.1 for hop-by-hop headers.
 */

import { AUTHORIZATION_HEADER, CLAIMS_HEADER, DATE_HEADER, HOST_HEADER_PREFIX } from '../base/azure-headers.ts'

/** Headers that concern one connection only. `expect` is answered here; `trailer` announces what is dropped. */
export const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'expect',
  'http2-settings',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authentication-info',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
])

/** Headers that a `connection` header cannot declare hop-by-hop: dropping one would change what the request means. */
const END_TO_END: ReadonlySet<string> = new Set([
  'content-length',
  'content-type',
  'host',
  'metadata',
  'x-forwarded-for',
])

export interface OutgoingHead {
  /** Value of the claims header. */
  readonly claims: string
  /** Value of the date header. */
  readonly date: string
  /** Used when the request named no host (HTTP/1.0). */
  readonly defaultHost: string
  /** Exact size of the body in bytes; `undefined` for a stream of unknown length, which is sent in chunks. */
  readonly bodyBytes: number | undefined
  readonly method: string
}

/** Methods whose empty body still gets a length. Source: RFC 9110 section 8.6. */
const BODY_METHODS: ReadonlySet<string> = new Set(['POST', 'PUT', 'PATCH'])

/**
 * Builds the header list of the request to the host: names and values in turn, one character one byte, without the
 * authorization header. Repeated headers are joined in order, so that one signed value is all there is.
 * @param rawHeaders as received, names and values in turn.
 */
export function toHostHeaders(rawHeaders: readonly string[], head: OutgoingHead): string[] {
  const named = namedByConnection(rawHeaders)
  const list: string[] = ['host', head.defaultHost]
  let hasHost = false
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = (rawHeaders[i] as string).toLowerCase()
    if (HOP_BY_HOP.has(name) || name === 'content-length' || isAgentsOwn(name)) continue
    if (named.has(name) && !END_TO_END.has(name)) continue
    const value = rawHeaders[i + 1] as string
    const at = findName(list, name)
    if (at === -1) list.push(name, value)
    else if (name === 'host' && !hasHost) list[at + 1] = value
    else list[at + 1] += `${name === 'cookie' ? '; ' : ', '}${value}`
    hasHost ||= name === 'host'
  }
  if (head.bodyBytes === undefined) list.push('transfer-encoding', 'chunked')
  else if (head.bodyBytes > 0 || BODY_METHODS.has(head.method)) list.push('content-length', String(head.bodyBytes))
  list.push(CLAIMS_HEADER, head.claims, DATE_HEADER, head.date)
  return list
}

/** @returns where a name stands in a header list, -1 when it does not. For the few headers of a request no table is worth its making. */
function findName(list: readonly string[], name: string): number {
  for (let i = 0; i < list.length; i += 2) if (list[i] === name) return i
  return -1
}

/**
 * Builds the header list of the answer to the client: the host's own without hop-by-hop ones, names in lower case, and
 * the mark by which clients see that the agent is in the path.
 * @param rawHeaders the host's, names and values in turn.
 */
export function toClientHeaders(rawHeaders: readonly string[]): string[] {
  const named = namedByConnection(rawHeaders)
  const list: string[] = []
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = (rawHeaders[i] as string).toLowerCase()
    if (HOP_BY_HOP.has(name) || name === AUTHORIZATION_HEADER) continue
    if (named.has(name) && !END_TO_END.has(name)) continue
    list.push(name, rawHeaders[i + 1] as string)
  }
  list.push(AUTHORIZATION_HEADER, 'value')
  return list
}

/**
 * Tells whether a name means one of the headers that only the agent may write. There are servers to which `_` and `-` are one.
 * @param name in lower case
 */
function isAgentsOwn(name: string): boolean {
  if (name.charCodeAt(0) !== X || name.length < HOST_HEADER_PREFIX.length) return false
  return name.startsWith(HOST_HEADER_PREFIX) || name.replaceAll('_', '-').startsWith(HOST_HEADER_PREFIX)
}

const X = 'x'.charCodeAt(0)

/** Names that the `connection` headers declare hop-by-hop. */
function namedByConnection(rawHeaders: readonly string[]): ReadonlySet<string> {
  let names: Set<string> | undefined
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] as string
    if (name.length !== 10 || name.toLowerCase() !== 'connection') continue
    names ??= new Set()
    for (const token of (rawHeaders[i + 1] as string).split(',')) names.add(token.trim().toLowerCase())
  }
  return names ?? NONE
}

const NONE: ReadonlySet<string> = new Set()
