/**
 * Names, and who refers to whom by them: names that are empty or given twice, references that lead nowhere, entries that nobody
 * refers to.
 */

import type { JsonPath } from '../../base/json.ts'
import type { AccessControlRules } from '../document.ts'
import type { Report, Surroundings } from './finding.ts'

/** Looks through the names and references of one item. @param at leads to its rules */
export function lintReferences(rules: AccessControlRules, at: JsonPath, surroundings: Surroundings): void {
  lintNames(rules, at, surroundings)
  lintRoles(rules, at, surroundings)
  lintUse(rules, at, surroundings.report)
}

/** Lists the names of the privileges that somebody holds. */
export function findGranted({
  privileges = [],
  roles = [],
  identities = [],
  roleAssignments = [],
}: AccessControlRules) {
  const known = new Set(identities.map(({ name }) => name))
  const held = new Set(
    roleAssignments.filter(({ identities: names }) => names.some((name) => known.has(name))).map(({ role }) => role),
  )
  const granted = new Set(roles.filter(({ name }) => held.has(name)).flatMap((role) => role.privileges))
  return new Set(privileges.map(({ name }) => name).filter((name) => granted.has(name)))
}

function lintNames(rules: AccessControlRules, at: JsonPath, { isLocal, report }: Surroundings): void {
  for (const section of ['privileges', 'roles', 'identities'] as const) {
    const kind = SINGULAR[section]
    const seen = new Set<string>()
    for (const [i, { name }] of (rules[section] ?? []).entries()) {
      const path = [...at, section, i, 'name']
      if (name.trim() === '') {
        report(isLocal ? 'error' : 'warning', 'name-empty', path, `the ${kind} has no name`, `Give the ${kind} a name.`)
      }
      if (seen.has(name)) {
        const message = `two entries define ${kind} '${name}', ${isLocal ? 'the rules are refused' : 'the last one counts'}`
        report('error', 'duplicate-name', path, message, 'Rename one of the two.')
      }
      seen.add(name)
    }
  }
}

const SINGULAR = { privileges: 'privilege', roles: 'role', identities: 'identity' } as const

function lintRoles(rules: AccessControlRules, at: JsonPath, surroundings: Surroundings): void {
  const privileges = new KnownNames('privilege', rules.privileges)
  const roles = new KnownNames('role', rules.roles)
  const identities = new KnownNames('identity', rules.identities)
  for (const [i, role] of (rules.roles ?? []).entries()) {
    const path = [...at, 'roles', i, 'privileges']
    lintList(role.privileges, privileges, path, `role '${role.name}'`, surroundings)
  }
  for (const [i, { role, identities: names }] of (rules.roleAssignments ?? []).entries()) {
    const path = [...at, 'roleAssignments', i]
    if (!roles.has(role)) {
      const message = `role '${role}' is assigned and not defined, the assignment has no effect`
      surroundings.report('error', 'role-undefined', [...path, 'role'], message, roles.suggest(role))
    }
    lintList(names, identities, [...path, 'identities'], `the assignment of role '${role}'`, surroundings)
  }
}

function lintList(
  names: readonly string[],
  known: KnownNames,
  path: JsonPath,
  holder: string,
  { isLocal, report }: Surroundings,
): void {
  const { kind } = known
  const severity = isLocal ? 'error' : 'warning'
  if (names.length === 0) {
    report(severity, 'list-empty', path, `${holder} names no ${kind}`, `Name one, or leave it out.`)
  }
  const seen = new Set<string>()
  for (const [i, name] of names.entries()) {
    if (seen.has(name)) {
      report(severity, 'duplicate-reference', [...path, i], `${holder} names ${kind} '${name}' twice`, 'Keep one.')
    } else if (!known.has(name)) {
      const message = `${holder} names ${kind} '${name}', which is not defined`
      report('error', `${kind}-undefined`, [...path, i], message, known.suggest(name))
    }
    seen.add(name)
  }
}

/** The names of one section, and the one that was meant by another. */
class KnownNames {
  readonly kind: string
  readonly #names: ReadonlySet<string>
  /** A name by what is left of it without letter case and space around it. */
  readonly #byPlain: ReadonlyMap<string, string>

  constructor(kind: string, entries: readonly { readonly name: string }[] = []) {
    this.kind = kind
    this.#names = new Set(entries.map(({ name }) => name))
    this.#byPlain = new Map(entries.map(({ name }) => [plain(name), name]))
  }

  has(name: string): boolean {
    return this.#names.has(name)
  }

  /** Names are compared exactly, so the most frequent slip is one of letter case or of a space. */
  suggest(name: string): string {
    const meant = this.#byPlain.get(plain(name))
    return meant === undefined
      ? `Define the ${this.kind}, or leave it out here.`
      : `Did you mean '${meant}'? Names are exact.`
  }
}

function plain(name: string): string {
  return name.trim().toLowerCase()
}

/** Entries that nothing refers to. */
function lintUse(rules: AccessControlRules, at: JsonPath, report: Report): void {
  const { roles = [], identities = [], roleAssignments = [] } = rules
  const assigned = new Set(roleAssignments.flatMap(({ identities: names }) => names))
  for (const [i, { name }] of identities.entries()) {
    if (assigned.has(name)) continue
    const message = `identity '${name}' is never used`
    report('warning', 'identity-unused', [...at, 'identities', i], message, 'Assign it a role, or leave it out.')
  }
  const held = new Set(roleAssignments.map(({ role }) => role))
  for (const [i, { name }] of roles.entries()) {
    if (held.has(name)) continue
    const message = `role '${name}' is never assigned`
    report('warning', 'role-unused', [...at, 'roles', i], message, 'Assign it to somebody, or leave it out.')
  }
}
