/**
 * The matcher that every deployed rule document was written for: text prefixes, once-decoded paths, first query value wins.
 *
 * Its gaps are known (`/metadata` also covers `/metadata-attacker`, a second spelling of a path escapes a rule) and kept, as a
 * host expects the same answer from every agent. The canonical matcher is what closes them.
 */

import type { RequestTarget } from '../base/request-target.ts'
import { decodeLossy } from './percent.ts'
import { beginsWith } from './prefix.ts'
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

/**
 * One request, read once for all privileges it is compared with. The query is taken apart only when a privilege asks for it.
 *
 * A path may carry a `?` of its own (from `%3F`): what follows is a second query, read after the real one.
 */
export class LegacyRequest {
  /** Decoded once, in Unicode lower case, up to the embedded `?`. */
  readonly path: string
  readonly #embeddedQuery: string
  readonly #query: string
  #parameters: ReadonlyMap<string, string> | undefined

  constructor(target: RequestTarget) {
    const path = decodeLossy(target.path).toLowerCase()
    const mark = path.indexOf('?')
    this.path = mark === -1 ? path : path.slice(0, mark)
    this.#embeddedQuery = mark === -1 ? '' : path.slice(mark + 1)
    this.#query = target.query
  }

  /** Tells whether the path starts with the pattern's and every parameter it names has the value it names. */
  matches(pattern: LegacyPattern): boolean {
    if (!beginsWith(this.path, pattern.path)) return false
    if (pattern.query.length === 0) return true
    this.#parameters ??= firstValues([this.#query, this.#embeddedQuery])
    for (const [name, value] of pattern.query) {
      if (this.#parameters.get(name) !== value) return false
    }
    return true
  }
}

/** Of several parameters with one name only the first is seen. `+` is a plus. */
function firstValues(queries: readonly string[]): ReadonlyMap<string, string> {
  const parameters = new Map<string, string>()
  for (const query of queries) {
    if (query === '') continue
    const parts = literalParts(query)
    for (let at = 0; at < parts.length; at += 2) {
      const name = parts[at]!.toLowerCase()
      if (!parameters.has(name)) parameters.set(name, parts[at + 1]!.toLowerCase())
    }
  }
  return parameters
}
