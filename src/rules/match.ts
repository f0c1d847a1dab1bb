/**
 * The matcher that every deployed rule document was written for: text prefixes, once-decoded paths, first query value wins.
 *
 * Its gaps are known (`/metadata` also covers `/metadata-attacker`, a second spelling of a path escapes a rule) and kept, as a
 * host expects the same answer from every agent. The canonical matcher is what closes them.
 */

import type { RequestTarget } from '../base/request-target.ts'
import type { Pattern, ReadRequest } from './pattern-index.ts'
import { decodeLossy } from './percent.ts'
import { literalParts } from './query.ts'

/** A privilege as this matcher reads it: all in Unicode lower case, nothing percent-decoded. */
export interface LegacyPattern {
  readonly path: string
  readonly query: readonly (readonly [name: string, value: string])[]
}

/** Compiles a rule path and its parameters. Names that differ only in case become one, and the last of them counts. */
export function compileLegacyPattern(
  path: string,
  queryParameters: Readonly<Record<string, string>> = {},
): LegacyPattern {
  const query = Object.entries(queryParameters).map(
    ([name, value]) => [name.toLowerCase(), value.toLowerCase()] as const,
  )
  return { path: path.toLowerCase(), query: [...new Map(query)] }
}

/** Writes a pattern for `PatternIndex`. */
export function legacyPattern({ path, query }: LegacyPattern): Pattern {
  return { prefix: path, parameters: query.map(([name, value]) => ({ name, values: [value] })) }
}

/**
 * Reads one request, once for all privileges. The query is taken apart only when a privilege asks for it.
 *
 * The path is decoded once and in Unicode lower case. It may carry a `?` of its own (from `%3F`): what follows is a second query,
 * read after the real one.
 */
export function readLegacyRequest(target: RequestTarget): ReadRequest {
  const decoded = decodeLossy(target.path).toLowerCase()
  const mark = decoded.indexOf('?')
  if (mark === -1) return { path: decoded, parameters: (wanted) => firstValues([target.query], wanted) }
  const embeddedQuery = decoded.slice(mark + 1)
  return { path: decoded.slice(0, mark), parameters: (wanted) => firstValues([target.query, embeddedQuery], wanted) }
}

/** Of several parameters with one name only the first is seen. `+` is a plus. */
function firstValues(
  queries: readonly string[],
  wanted: { has(name: string): boolean },
): ReadonlyMap<string, readonly string[]> {
  const parameters = new Map<string, readonly string[]>()
  for (const query of queries) {
    if (query === '') continue
    const parts = literalParts(query)
    for (let at = 0; at < parts.length; at += 2) {
      const name = parts[at]!.toLowerCase()
      if (wanted.has(name) && !parameters.has(name)) parameters.set(name, [parts[at + 1]!.toLowerCase()])
    }
  }
  return parameters
}
