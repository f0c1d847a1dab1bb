/**
 * What a privilege asks of a request in canonical form: these segments first, and these query parameters among others.
 */

import type { CanonicalFailure } from './canonical-failure.ts'
import { isCanonicalFailure } from './canonical-failure.ts'
import type { CanonicalRequest } from './canonicalize.ts'
import { canonicalPath, canonicalQueryText } from './canonicalize.ts'

/** A parameter of the request must have this name and one of these values. */
export interface CanonicalParameter {
  readonly name: string
  readonly values: readonly string[]
}

export interface CanonicalPattern {
  readonly segments: readonly string[]
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
    if (name !== '') query.set(name, [...(query.get(name) ?? []), value])
  }
  return { segments: compiledPath.segments, query: [...query].map(([name, values]) => ({ name, values })) }
}

/**
 * Tells whether a request lies below the pattern's segments and carries all its parameters. Case and spelling are settled
 * before. Plain loops: this runs for every privilege of every request.
 */
export function matchesPattern(pattern: CanonicalPattern, request: CanonicalRequest): boolean {
  const { segments } = request.path
  if (pattern.segments.length > segments.length) return false
  for (let index = 0; index < pattern.segments.length; index++) {
    if (pattern.segments[index] !== segments[index]) return false
  }
  for (const parameter of pattern.query) {
    if (!hasParameter(request, parameter)) return false
  }
  return true
}

function hasParameter(request: CanonicalRequest, { name, values }: CanonicalParameter): boolean {
  return request.query.get(name)?.some((value) => values.includes(value)) ?? false
}
