/**
 * What a privilege asks of a request in canonical form: these segments first, and these query parameters among others.
 */

import type { CanonicalFailure } from './canonical-failure.ts'
import { isCanonicalFailure } from './canonical-failure.ts'
import type { CanonicalRequest } from './canonicalize.ts'
import { canonicalPath, canonicalQueryText } from './canonicalize.ts'
import type { Pattern, ReadRequest } from './pattern-index.ts'

/**
 * Compiles a rule path and rule parameters (both already in lower case) into a pattern.
 * Name and value are canonicalised apart, so a `&` inside a value stays part of it. A parameter whose name is empty asks for
 * nothing, as such a pair says nothing in a request.
 * @returns the failure of the first part that has no canonical form: the caller decides what becomes of the privilege
 */
export function compilePattern(
  path: string,
  parameters: Iterable<readonly [string, string]>,
): Pattern | CanonicalFailure {
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
  return {
    prefix: joinSegments(compiledPath.segments),
    parameters: [...query].map(([name, values]) => ({ name, values })),
  }
}

/** Reads a canonical request for all patterns. Case and spelling are settled before. */
export function readCanonicalRequest({ path, query }: CanonicalRequest): ReadRequest {
  return { path: joinSegments(path.segments), parameters: () => query }
}

/**
 * Reads a canonical request for the patterns of the legacy matcher, as if it had been spelt so. It carries all values of a parameter:
 * which of them the host takes is not known.
 */
export function readRespelt({ path, query }: CanonicalRequest): ReadRequest {
  const parameters: ReadRequest['parameters'] = (wanted) => {
    const lower = new Map<string, string[]>()
    for (const [spelt, values] of query) {
      const name = spelt.toLowerCase()
      if (!wanted.has(name)) continue
      const all = lower.getOrInsertComputed(name, () => [])
      for (const value of values) all.push(value.toLowerCase())
    }
    return lower
  }
  return { path: joinSegments(path.segments), parameters }
}

/** Segments hold no slash, so one text that ends in a slash begins another exactly when the segments of one begin the other's. */
function joinSegments(segments: readonly string[]): string {
  return segments.length === 0 ? '/' : `/${segments.join('/')}/`
}
