/**
 * Finds privileges that another one overtakes. Rules only grant, so a broad privilege that somebody holds lets him through
 * whatever a narrower one says.
 */

import type { AccessControlRules, Privilege } from './document.ts'
import { compileLegacyPattern, type LegacyPattern } from './match.ts'
import { beginsWith } from './prefix.ts'

export interface Overlap {
  /** Of the narrower privilege. */
  readonly index: number
  /** Shadowed: it changes nothing. Defeated: it does not keep out whom it seems to. */
  readonly kind: 'privilege-shadowed' | 'privilege-defeated'
  readonly message: string
  readonly hint: string
}

interface Candidate {
  readonly privilege: Privilege
  readonly index: number
  readonly pattern: LegacyPattern
  readonly holders: ReadonlySet<string>
}

/** Looks at every two privileges; at most one overlap is told of each. Of entries with one name the last counts. */
export function findOverlaps(rules: AccessControlRules): Overlap[] {
  const candidates = collectCandidates(rules)
  const overlaps: Overlap[] = []
  for (const narrow of candidates) {
    let worst: Overlap | undefined
    for (const broad of candidates) {
      if (broad === narrow || broad.holders.size === 0 || !covers(broad.pattern, narrow.pattern)) continue
      // Of two that are alike, the later one is the one too many.
      if (broad.index > narrow.index && covers(narrow.pattern, broad.pattern)) continue
      const overlap = compare(broad, narrow)
      if (overlap?.kind === 'privilege-shadowed') {
        worst = overlap
        break
      }
      worst ??= overlap
    }
    if (worst !== undefined) overlaps.push(worst)
  }
  return overlaps
}

function compare(broad: Candidate, narrow: Candidate): Overlap | undefined {
  const { index } = narrow
  const [wide, tight] = [broad.privilege.name, narrow.privilege.name]
  const defeating = [...broad.holders].find((name) => !narrow.holders.has(name))
  if (narrow.holders.size > 0 && narrow.holders.isSubsetOf(broad.holders)) {
    const message = `privilege '${tight}' changes nothing: '${wide}' matches all it matches, and whoever holds it holds '${wide}'`
    return { index, kind: 'privilege-shadowed', message, hint: `Leave it out, or grant '${wide}' to fewer.` }
  }
  if (defeating === undefined) return undefined
  const message = `privilege '${tight}' does not keep out identity '${defeating}', who holds the broader '${wide}'`
  return {
    index,
    kind: 'privilege-defeated',
    message,
    hint: `Narrow '${wide}': one grant suffices, rules never take away.`,
  }
}

/** Tells whether every request that `narrow` matches is matched by `broad`. */
function covers(broad: LegacyPattern, narrow: LegacyPattern): boolean {
  if (!beginsWith(narrow.path, broad.path)) return false
  const parameters = new Map(narrow.query)
  return broad.query.every(([name, value]) => parameters.get(name) === value)
}

function collectCandidates({
  privileges = [],
  roles = [],
  identities = [],
  roleAssignments = [],
}: AccessControlRules): Candidate[] {
  const known = new Set(identities.map(({ name }) => name))
  const members = new Map<string, Set<string>>()
  for (const { role, identities: names } of roleAssignments) {
    const set = members.get(role) ?? new Set()
    members.set(role, set)
    for (const name of names) if (known.has(name)) set.add(name)
  }
  const rolesOf = new Map<string, string[]>()
  for (const { name, privileges: names } of new Map(roles.map((role) => [role.name, role])).values()) {
    for (const privilege of new Set(names)) rolesOf.set(privilege, [...(rolesOf.get(privilege) ?? []), name])
  }
  const unions = new Map<string, ReadonlySet<string>>()
  const holdersOf = (name: string): ReadonlySet<string> => {
    const names = rolesOf.get(name) ?? []
    const key = JSON.stringify(names)
    const union = unions.get(key) ?? new Set(names.flatMap((role) => [...(members.get(role) ?? [])]))
    unions.set(key, union)
    return union
  }
  const last = new Map(privileges.map((privilege, index) => [privilege.name, { privilege, index }]))
  return [...last.values()].map(({ privilege, index }) => ({
    privilege,
    index,
    pattern: compileLegacyPattern(privilege.path, privilege.queryParameters),
    holders: holdersOf(privilege.name),
  }))
}
