/**
 * All patterns of a rule set on one side, legacy or canonical, and which of them a request matches.
 *
 * Both matchers ask the same of a request, once they have read it each in its own way: the path begins with a prefix, and each
 * named parameter has one of the wanted values. A request is looked up by its path and by its parameters, so what cannot match
 * costs it nothing.
 */

import { PrefixIndex } from './prefix-index.ts'

/** A parameter of the request must have this name and one of these values. */
export interface WantedParameter {
  readonly name: string
  readonly values: readonly string[]
}

export interface Pattern {
  readonly prefix: string
  readonly parameters: readonly WantedParameter[]
}

/** A request as one of the matchers reads it. The parameters are asked for only when a pattern needs them. */
export interface ReadRequest {
  readonly path: string
  parameters(): ReadonlyMap<string, readonly string[]>
}

/** A pattern by its place in the list. Its parameters are numbers: equal ones of several patterns have one number. */
interface Candidate {
  readonly place: number
  readonly parameters: readonly number[]
}

export class PatternIndex {
  readonly #candidates: PrefixIndex<Candidate>
  readonly #parameters = new ParameterIndex()

  /** @param patterns `undefined` keeps a place and never matches */
  constructor(patterns: readonly (Pattern | undefined)[]) {
    const entries: [prefix: string, candidate: Candidate][] = []
    for (const [place, pattern] of patterns.entries()) {
      if (pattern === undefined) continue
      const parameters = pattern.parameters.map((parameter) => this.#parameters.add(parameter))
      entries.push([pattern.prefix, { place, parameters }])
    }
    this.#candidates = new PrefixIndex(entries)
  }

  /** Lists the places of the patterns that match: the broadest path first, and patterns of one path in their order. */
  find(request: ReadRequest): number[] {
    const places: number[] = []
    let present: Uint8Array | undefined
    for (const { place, parameters } of this.#candidates.find(request.path)) {
      if (parameters.length > 0) {
        present ??= this.#parameters.findPresent(request.parameters())
        if (!areAllPresent(parameters, present)) continue
      }
      places.push(place)
    }
    return places
  }
}

function areAllPresent(parameters: readonly number[], present: Uint8Array): boolean {
  for (const parameter of parameters) {
    if (present[parameter] === 0) return false
  }
  return true
}

/** Gives parameters numbers, and finds out once for all patterns which of them a request has. */
class ParameterIndex {
  readonly #numbers = new Map<string, number>()
  /** By name, then by value: the numbers of the parameters that this value satisfies. */
  readonly #byName = new Map<string, Map<string, number[]>>()

  add({ name, values }: WantedParameter): number {
    const key = JSON.stringify([name, values])
    const known = this.#numbers.get(key)
    if (known !== undefined) return known
    const number = this.#numbers.size
    this.#numbers.set(key, number)
    const byValue = this.#byName.getOrInsertComputed(name, () => new Map())
    for (const value of new Set(values)) byValue.getOrInsertComputed(value, () => []).push(number)
    return number
  }

  /** @returns by number: 1 when the parameter is there, else 0 */
  findPresent(parameters: ReadonlyMap<string, readonly string[]>): Uint8Array {
    const present = new Uint8Array(this.#numbers.size)
    for (const [name, byValue] of this.#byName) {
      const values = parameters.get(name)
      if (values === undefined) continue
      // A request may repeat one pair thousands of times, and thousands of parameters ask for it: never one times the other.
      for (const value of values.length === 1 ? values : new Set(values)) {
        for (const number of byValue.get(value) ?? []) present[number] = 1
      }
    }
    return present
  }
}
