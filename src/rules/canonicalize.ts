/**
 * Brings a request into the one form in which two spellings of the same thing are equal.
 *
 * The checks run in a fixed order and the first failure is the answer: scheme, method, user information, port, host, then the
 * path (percent-decoding, UTF-8, control characters, ASCII, embedded `?`, case, segments), then the query. What cannot be
 * brought into this form is refused rather than guessed at.
 *
 *   GET http://169.254.169.254/Metadata/./a;x=1//Token/?K=a+b&k=%43
 *     method GET, destination imds, segments metadata a token, trailing slash, query k: ["a b", "c"]
 */

import type { RequestLine, RequestTarget } from '../base/request-target.ts'
import { parseRequestTarget } from '../base/request-target.ts'
import type { CanonicalFailure } from './canonical-failure.ts'
import { canonicalFailure, isCanonicalFailure } from './canonical-failure.ts'
import type { Destination } from './destination.ts'
import { classifyDestination } from './destination.ts'
import { decodeStrict } from './percent.ts'
import { formParts } from './query.ts'

/** ASCII lower case, never empty, never `.` or `..`, without `/` and `;`. The root has no segments and no trailing slash. */
export interface CanonicalPath {
  readonly segments: readonly string[]
  readonly hasTrailingSlash: boolean
}

/** Values by name, both decoded and in ASCII lower case, in the order of the request; names are never empty. */
export type CanonicalQuery = ReadonlyMap<string, readonly string[]>

export interface CanonicalRequest {
  readonly method: string
  readonly destination: Destination
  readonly path: CanonicalPath
  readonly query: CanonicalQuery
}

/** Methods that have a canonical form; they are case-sensitive. */
export const CANONICAL_METHODS: ReadonlySet<string> = new Set([
  'GET',
  'POST',
  'PUT',
  'DELETE',
  'HEAD',
  'OPTIONS',
  'PATCH',
])

/** Canonicalises a request line. Total: any text gives a request or a failure, in linear time. */
export function canonicalize(request: RequestLine): CanonicalRequest | CanonicalFailure {
  return canonicalizeParts(request.method, parseRequestTarget(request.target))
}

/** The same for a target that is already taken apart. */
export function canonicalizeParts(method: string, target: RequestTarget): CanonicalRequest | CanonicalFailure {
  if (target.scheme !== undefined && target.scheme.toLowerCase() !== 'http') return canonicalFailure('CANON_SCHEME')
  if (!CANONICAL_METHODS.has(method)) return canonicalFailure('CANON_METHOD')
  const destination = classifyDestination(target.authority)
  if (isCanonicalFailure(destination)) return destination
  const path = canonicalPath(target.path)
  if (isCanonicalFailure(path)) return path
  const query = canonicalQuery(target.query)
  if (isCanonicalFailure(query)) return query
  return { method, destination, path, query }
}

/** Canonicalises a path, of a request or of a rule; a leading slash makes no difference. */
export function canonicalPath(raw: string): CanonicalPath | CanonicalFailure {
  const decoded = decodeStrict(raw)
  if (typeof decoded !== 'string') return decoded
  const found = surveyCharacters(decoded)
  if (found === 'control') return canonicalFailure('CANON_CTRL')
  if (found === 'non-ascii') return canonicalFailure('CANON_NON_ASCII')
  if (decoded.includes('?')) return canonicalFailure('CANON_EMBQ')
  return resolveSegments(decoded.toLowerCase())
}

/** Canonicalises the query of a request, without its `?`. */
function canonicalQuery(raw: string): CanonicalQuery | CanonicalFailure {
  if (raw === '') return NO_QUERY
  // A request line is ASCII (RFC 9112 section 3); what a server makes of other bytes is its secret, so they never match.
  if (!IS_ASCII.test(raw)) return canonicalFailure('CANON_NON_ASCII')
  const parts = formParts(raw)
  if (isCanonicalFailure(parts)) return parts
  const query = new Map<string, string[]>()
  for (let at = 0; at < parts.length; at += 2) {
    const name = parts[at]!
    const values = query.get(name)
    if (values === undefined) query.set(name, [parts[at + 1]!])
    else values.push(parts[at + 1]!)
  }
  return query
}

const NO_QUERY: CanonicalQuery = new Map()

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are ASCII as well
const IS_ASCII = /^[\x00-\x7f]*$/

/**
 * Canonicalises one name or value of a rule, as `formParts` reads those of a request: `+` is a space, then one
 * percent-decoding, then ASCII lower case.
 */
export function canonicalQueryText(raw: string): string | CanonicalFailure {
  const decoded = decodeStrict(raw.includes('+') ? raw.replaceAll('+', ' ') : raw)
  if (typeof decoded !== 'string') return decoded
  const found = surveyCharacters(decoded)
  if (found === 'control') return canonicalFailure('CANON_CTRL')
  return found === 'ascii' ? decoded.toLowerCase() : decoded.replace(/[A-Z]+/g, (letters) => letters.toLowerCase())
}

/**
 * Writes a canonical request as a target. Canonicalising that again gives the same request, which is what makes the form
 * canonical; the test of it is the reason this function exists, besides showing people what was compared.
 */
export function renderTarget(request: CanonicalRequest): string {
  const { destination, path, query } = request
  const authority = destination.host === '' ? '' : `http://${destination.host}:${destination.port}`
  const pathText = path.segments.map((segment) => `/${encodeSegment(segment)}`).join('')
  const pairs = [...query].flatMap(([name, values]) =>
    values.map((value) => `${encodeQueryText(name)}=${encodeQueryText(value)}`),
  )
  const slash = path.hasTrailingSlash || path.segments.length === 0 ? '/' : ''
  return `${authority}${pathText}${slash}${pairs.length === 0 ? '' : `?${pairs.join('&')}`}`
}

/** Control characters win over everything outside ASCII, wherever they stand. */
function surveyCharacters(text: string): 'ascii' | 'non-ascii' | 'control' {
  let result: 'ascii' | 'non-ascii' = 'ascii'
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code < 0x20 || code === 0x7f) return 'control'
    if (code > 0x7f) result = 'non-ascii'
  }
  return result
}

/** Parameters (`;x=1`) go, then empty segments and `.`, and `..` takes the segment before it along. */
function resolveSegments(path: string): CanonicalPath | CanonicalFailure {
  const segments: string[] = []
  let endsInside = false
  for (const raw of path.split('/')) {
    const semicolon = raw.indexOf(';')
    const segment = semicolon === -1 ? raw : raw.slice(0, semicolon)
    endsInside = segment !== '' && segment !== '.' && segment !== '..'
    if (endsInside) segments.push(segment)
    else if (segment === '..' && segments.pop() === undefined) return canonicalFailure('CANON_UNDERFLOW')
  }
  return { segments, hasTrailingSlash: segments.length > 0 && !endsInside }
}

function encodeSegment(segment: string): string {
  return encodeCharacters(segment, / |[%#?;]/g)
}

function encodeQueryText(text: string): string {
  return encodeCharacters(text, / |[%#&=+]|[^ -~]/gu)
}

function encodeCharacters(text: string, unsafe: RegExp): string {
  return text.replace(unsafe, (character) => {
    const hex = Buffer.from(character, 'utf8').toString('hex').toUpperCase()
    return hex.replace(/../g, '%$&')
  })
}
