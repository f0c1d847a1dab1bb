/**
 * What a privilege asks of a request in canonical form: these segments first, and these query parameters among others.
 */

import type { CanonicalFailure } from './canonical-failure.ts'
import { isCanonicalFailure } from './canonical-failure.ts'
import type { CanonicalRequest } from './canonicalize.ts'
import { canonicalPath, canonicalQueryText } from './canonicalize.ts'
import { beginsWith } from './prefix.ts'

/** A parameter of the request must have this name and one of these values. */
export interface CanonicalParameter {
  readonly name: string
  readonly values: readonly string[]
}

export interface CanonicalPattern {
  readonly segments: readonly string[]
  /** The segments as one text, for comparing. */
  readonly prefix: string
  readonly query: readonly CanonicalParameter[]
}

/**
 * Compiles a rule path and rule parameters (both already in lower case) into a pattern.
 * Name and value are canonicalised apart, so a `&` inside a value stays part of it. A parameter whose name is empty asks for
 * nothing, as such a pair says nothing in a request.
 * @returns the failure of the first part that has no canonical form: the caller decides what becomes of the privilege
 */
export function compilePattern(
  path: string,
  parameters: Iterable<readonly [string, string]>,
): CanonicalPattern | CanonicalFailure {
  const compiledPath = canonicalPath(path)
  if (isCanonicalFailure(compiledPath)) return compiledPath
  const query = new Map<string, string[]>()
  for (const [rawName, rawValue] of parameters) {
    const name = canonicalQueryText(rawName)
    if (typeof name !== 'string') return name
    const value = canonicalQueryText(rawValue)
    if (typeof value !== 'string') return value
    if (name === '') continue
    const values = query.get(name)
    if (values === undefined) query.set(name, [value])
    else values.push(value)
  }
  const { segments } = compiledPath
  return { segments, prefix: joinSegments(segments), query: [...query].map(([name, values]) => ({ name, values })) }
}

/** One canonical request, compared with any number of patterns. Case and spelling are settled before. */
export class CanonicalMatcher {
  readonly #request: CanonicalRequest
  readonly #path: string
  #valueSets: Map<string, ReadonlySet<string>> | undefined

  constructor(request: CanonicalRequest) {
    this.#request = request
    this.#path = joinSegments(request.path.segments)
  }

  /** Tells whether the request lies below the pattern's segments and carries all its parameters. */
  matches(pattern: CanonicalPattern): boolean {
    if (!beginsWith(this.#path, pattern.prefix)) return false
    for (const parameter of pattern.query) {
      if (!this.#has(parameter)) return false
    }
    return true
  }

  #has({ name, values: wanted }: CanonicalParameter): boolean {
    const values = this.#request.query.get(name)
    if (values === undefined) return false
    const set = values.length > FEW_VALUES ? this.#setOf(name, values) : undefined
    for (const value of wanted) {
      if (set === undefined ? values.includes(value) : set.has(value)) return true
    }
    return false
  }

  /** A request may repeat a name thousands of times and a document ask for thousands of values: never one times the other. */
  #setOf(name: string, values: readonly string[]): ReadonlySet<string> {
    this.#valueSets ??= new Map()
    let set = this.#valueSets.get(name)
    if (set === undefined) {
      set = new Set(values)
      this.#valueSets.set(name, set)
    }
    return set
  }
}

const FEW_VALUES = 4

/** Segments hold no slash, so one text that ends in a slash begins another exactly when the segments of one begin the other's. */
function joinSegments(segments: readonly string[]): string {
  return segments.length === 0 ? '/' : `/${segments.join('/')}/`
}
