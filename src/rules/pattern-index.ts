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

/** A request as one of the matchers reads it. */
export interface ReadRequest {
  readonly path: string
  /**
   * Reads the parameters, when a pattern of this path needs them.
   * @param wanted names that are asked for; a request may have thousands of others, which need not be in the answer
   */
  parameters(wanted: { has(name: string): boolean }): ReadonlyMap<string, readonly string[]>
}

/** Patterns of one path that ask for the same parameters, by their places in the list. Equal parameters have one number. */
interface Alike {
  readonly parameters: readonly number[]
  readonly places: number[]
}

export class PatternIndex {
  readonly #byPrefix: PrefixIndex<Alike>
  readonly #parameters = new ParameterIndex()

  /** @param patterns `undefined` keeps a place and never matches */
  constructor(patterns: readonly (Pattern | undefined)[]) {
    const groups = new Map<string, readonly [prefix: string, alike: Alike]>()
    for (const [place, pattern] of patterns.entries()) {
      if (pattern === undefined) continue
      const { prefix } = pattern
      const parameters = pattern.parameters.map((parameter) => this.#parameters.add(parameter))
      const key = `${parameters.join()} ${prefix}`
      const [, { places }] = groups.getOrInsertComputed(key, () => [prefix, { parameters, places: [] }])
      places.push(place)
    }
    this.#byPrefix = new PrefixIndex(groups.values())
  }

  /** Lists the places of the patterns that match: those of broader paths first, and those that are alike in their order. */
  find(request: ReadRequest): readonly number[] {
    let present: Uint8Array | undefined
    const matching = this.#byPrefix.find(request.path).filter(({ parameters }) => {
      if (parameters.length === 0) return true
      present ??= this.#parameters.findPresent(request)
      return areAllPresent(parameters, present)
    })
    if (matching.length === 1) return matching[0]!.places
    const all: number[] = []
    for (const { places } of matching) for (const place of places) all.push(place)
    return all
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
  findPresent(request: ReadRequest): Uint8Array {
    const present = new Uint8Array(this.#numbers.size)
    const parameters = request.parameters(this.#byName)
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
