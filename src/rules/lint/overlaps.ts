/**
 * Finds privileges that another one overtakes. Rules only grant, so a broad privilege that somebody holds lets him through
 * whatever a narrower one says.
 */

import type { AccessControlRules } from '../document.ts'
import { compileLegacyPattern } from '../match.ts'
import { PrefixIndex } from '../prefix-index.ts'

export interface Overlap {
  /** Of the narrower privilege. */
  readonly index: number
  /** Shadowed: it changes nothing. Defeated: it does not keep out whom it seems to. */
  readonly kind: 'privilege-shadowed' | 'privilege-defeated'
  readonly message: string
  readonly hint: string
}

interface Candidate {
  readonly name: string
  readonly index: number
  readonly path: string
  readonly query: ReadonlyMap<string, string>
  readonly holders: Holders
}

/** One bit for each identity, in the order of their definition: rules can have thousands of holders of thousands of privileges. */
type Holders = bigint

/** Compares privileges with those of broader paths; at most one overlap is told of each. Of entries with one name the last counts. */
export function findOverlaps(rules: AccessControlRules): Overlap[] {
  const identities = [...new Set((rules.identities ?? []).map(({ name }) => name))]
  const candidates = collectCandidates(rules, identities)
  const held = candidates.filter(({ holders }) => holders !== 0n)
  const byPath = new PrefixIndex(held.map((candidate) => [candidate.path, candidate] as const))
  const overlaps: Overlap[] = []
  for (const narrow of candidates) {
    const broader = byPath.find(narrow.path).filter((broad) => isBroader(broad, narrow))
    const shadowing = narrow.holders === 0n ? undefined : broader.find((broad) => isWithin(narrow, broad))
    const defeating = broader.find((broad) => !isWithin(broad, narrow))
    if (shadowing !== undefined) overlaps.push(describeShadowed(narrow, shadowing))
    else if (defeating !== undefined) overlaps.push(describeDefeated(narrow, defeating, identities))
  }
  return overlaps
}

function describeShadowed({ index, name }: Candidate, { name: wide }: Candidate): Overlap {
  const message = `privilege '${name}' changes nothing: '${wide}' matches all it matches, and whoever holds it holds '${wide}'`
  return { index, kind: 'privilege-shadowed', message, hint: `Leave it out, or grant '${wide}' to fewer.` }
}

function describeDefeated(narrow: Candidate, broad: Candidate, identities: readonly string[]): Overlap {
  const others = broad.holders & ~narrow.holders
  const first = identities.find((_, bit) => (others >> BigInt(bit)) & 1n)
  const message = `privilege '${narrow.name}' does not keep out identity '${first}', who holds the broader '${broad.name}'`
  const hint = `Narrow '${broad.name}': one grant suffices, rules never take away.`
  return { index: narrow.index, kind: 'privilege-defeated', message, hint }
}

/** Tells whether whoever holds `a` holds `b`. */
function isWithin(a: Candidate, b: Candidate): boolean {
  return (a.holders & b.holders) === a.holders
}

/**
 * Tells whether every request that `narrow` matches is matched by `broad`, whose path is known to begin its path.
 * Of two that are alike, the later one is the one too many.
 */
function isBroader(broad: Candidate, narrow: Candidate): boolean {
  if (broad === narrow) return false
  for (const [name, value] of broad.query) if (narrow.query.get(name) !== value) return false
  const areAlike = broad.path === narrow.path && broad.query.size === narrow.query.size
  return !areAlike || broad.index < narrow.index
}

function collectCandidates(
  { privileges = [], roles = [], roleAssignments = [] }: AccessControlRules,
  identities: readonly string[],
): Candidate[] {
  const bits = new Map(identities.map((name, bit) => [name, 1n << BigInt(bit)]))
  const members = new Map<string, Holders>()
  for (const { role, identities: names } of roleAssignments) {
    members.set(
      role,
      names.reduce((set, name) => set | (bits.get(name) ?? 0n), members.get(role) ?? 0n),
    )
  }
  const holders = new Map<string, Holders>()
  for (const { name, privileges: names } of new Map(roles.map((role) => [role.name, role])).values()) {
    for (const privilege of names) holders.set(privilege, (holders.get(privilege) ?? 0n) | (members.get(name) ?? 0n))
  }
  const last = new Map(privileges.map((privilege, index) => [privilege.name, { privilege, index }]))
  return [...last.values()].map(({ privilege: { name, path, queryParameters }, index }) => {
    const pattern = compileLegacyPattern(path, queryParameters)
    return { name, index, path: pattern.path, query: new Map(pattern.query), holders: holders.get(name) ?? 0n }
  })
}
