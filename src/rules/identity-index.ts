/**
 * Finds the identities that describe a caller, without comparing those that cannot.
 *
 * Each identity is filed under one of its selectors: the one whose value the fewest identities of the rule set have. Only a caller
 * with that value can be described by it. What has no selector that is compared as a whole text is compared with every caller.
 */

import { ComparableCaller, type CompiledIdentity, matchesIdentity, type RuleCaller } from './selectors.ts'

interface Selector {
  /** What the identity asks for; `undefined`: nothing. */
  valueOf(identity: CompiledIdentity): string | undefined
  /** What the caller has of this kind. */
  valuesOf(caller: ComparableCaller): readonly (string | undefined)[]
}

/** Of selectors with equally rare values the first is taken. */
const SELECTORS: readonly Selector[] = [
  { valueOf: (identity) => identity.comparableExePath, valuesOf: (each) => [each.exePath] },
  { valueOf: ({ userName }) => userName, valuesOf: ({ caller }) => [caller.userName] },
  { valueOf: ({ processName }) => processName, valuesOf: ({ caller }) => [caller.processName] },
  { valueOf: ({ groupName }) => groupName, valuesOf: ({ caller }) => caller.groups },
  { valueOf: ({ systemdUnit }) => systemdUnit, valuesOf: ({ caller }) => [caller.systemdUnit] },
  { valueOf: ({ containerId }) => containerId, valuesOf: ({ caller }) => [caller.containerId] },
  { valueOf: ({ exeSha256 }) => exeSha256, valuesOf: ({ caller }) => [caller.exeSha256] },
]

type ByValue = Map<string, CompiledIdentity[]>

export class IdentityIndex {
  /** In the order of `SELECTORS`. */
  readonly #files: readonly ByValue[] = SELECTORS.map(() => new Map())
  readonly #unfiled: CompiledIdentity[] = []

  /** Identities that match nobody are left out. */
  constructor(identities: readonly CompiledIdentity[]) {
    const sought = identities.filter(({ matchesNobody }) => !matchesNobody)
    const counts = SELECTORS.map((selector) => countValues(sought, selector))
    for (const identity of sought) {
      const rarest = findRarest(identity, counts)
      if (rarest === undefined) this.#unfiled.push(identity)
      else this.#files[rarest.place]!.getOrInsertComputed(rarest.value, () => []).push(identity)
    }
  }

  /** Lists the identities that describe the caller. One can be listed twice if the caller has a group twice. */
  find(caller: RuleCaller): CompiledIdentity[] {
    const comparable = new ComparableCaller(caller)
    const found = this.#unfiled.filter((identity) => matchesIdentity(identity, comparable))
    for (const [place, file] of this.#files.entries()) {
      if (file.size === 0) continue
      for (const value of SELECTORS[place]!.valuesOf(comparable)) {
        for (const identity of (value !== undefined && file.get(value)) || NONE) {
          if (matchesIdentity(identity, comparable)) found.push(identity)
        }
      }
    }
    return found
  }
}

const NONE: readonly never[] = []

function countValues(identities: readonly CompiledIdentity[], selector: Selector): ReadonlyMap<string, number> {
  const counts = new Map<string, number>()
  for (const identity of identities) {
    const value = selector.valueOf(identity)
    if (value !== undefined) counts.set(value, (counts.get(value) ?? 0) + 1)
  }
  return counts
}

/** @returns the selector, by its place in `SELECTORS`, and the value */
function findRarest(
  identity: CompiledIdentity,
  counts: readonly ReadonlyMap<string, number>[],
): { readonly place: number; readonly value: string } | undefined {
  let rarest: { readonly place: number; readonly value: string; readonly count: number } | undefined
  for (const [place, selector] of SELECTORS.entries()) {
    const value = selector.valueOf(identity)
    const count = value === undefined ? undefined : counts[place]!.get(value)
    if (value === undefined || count === undefined) continue
    if (rarest === undefined || count < rarest.count) rarest = { place, value, count }
  }
  return rarest
}
