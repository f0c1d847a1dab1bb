/**
 * Compiles rule documents into what a request is decided on: one immutable snapshot, replaced as a whole.
 *
 * A document is applied as far as it makes sense, and where it does not, doubt falls on the side of denying: an unknown mode
 * enforces, a default access that is not `allow` denies, a privilege that nobody is assigned to still matches and so denies.
 * What looked odd is returned as warnings, for the caller to tell once.
 *
 * The result is as big as the document, never as big as privileges times identities: a privilege points to the roles that hold
 * it, a role to those it is assigned to, and `holdings.ts` walks these pointers when a request comes. Privileges and identities are
 * filed such that a request is compared with those that can match it.
 */

import { createHash } from 'node:crypto'
import type { EndpointName } from '../base/endpoints.ts'
import { isCanonicalFailure } from './canonical-failure.ts'
import { compilePattern } from './canonical-pattern.ts'
import type {
  AccessControlRules,
  AuthorizationItem,
  AuthorizationRules,
  Identity,
  Privilege,
  Role,
  RoleAssignment,
} from './document.ts'
import { IdentityIndex } from './identity-index.ts'
import type { LegacyPattern } from './match.ts'
import { compileLegacyPattern, legacyPattern } from './match.ts'
import { type Pattern, PatternIndex } from './pattern-index.ts'
import type { CompiledIdentity } from './selectors.ts'
import { compileIdentity, matchesEveryone } from './selectors.ts'

export type RuleMode = 'disabled' | 'audit' | 'enforce'

/** The effective items by endpoint, whatever they were merged from. Absent: the endpoint has no rules. */
export type EndpointItems = Readonly<Partial<Record<EndpointName, AuthorizationItem>>>

/** What one moment's requests are decided on. `epoch` grows with every change, so that a log line names its snapshot. */
export interface PolicySnapshot extends Readonly<Partial<Record<EndpointName, EndpointPolicy>>> {
  readonly epoch: number
}

export interface EndpointPolicy {
  readonly id: string
  /** Of the item this was compiled from, as `hashItem` gives it. */
  readonly hash: string
  readonly mode: RuleMode
  readonly defaultAllowed: boolean
  /** In the order of the document; order never changes a decision. */
  readonly privileges: readonly CompiledPrivilege[]
  /** The same as each matcher reads them; those without a canonical form keep their place and never match. */
  readonly legacyPatterns: PatternIndex
  readonly canonicalPatterns: PatternIndex
  /** Those that are assigned to somebody, in the order of their first grant. */
  readonly roles: readonly CompiledRole[]
  /** All that are defined, assigned or not. */
  readonly identities: readonly CompiledIdentity[]
  readonly identityIndex: IdentityIndex
  /** What each identity holds, by its index. */
  readonly grantsByIdentity: readonly (readonly Grant[])[]
}

export interface CompiledPrivilege {
  readonly name: string
  readonly legacy: LegacyPattern
  /** Who brings it, in the order of their first grant. Empty: the privilege matches requests and grants nobody. */
  readonly roles: readonly CompiledRole[]
}

/** A role that somebody is assigned to. All its privileges share it, and all assignments of the role add up in it. */
export interface CompiledRole {
  readonly name: string
  /** By ascending position, one for each identity, never empty. */
  readonly grants: readonly Grant[]
}

/** One identity in one role. */
export interface Grant {
  readonly role: string
  readonly identity: CompiledIdentity
  /** Its place in the assignments of the document. Where several grants apply, the lowest is the one to report. */
  readonly position: number
}

export type RuleWarningCode =
  | 'mode-unknown'
  | 'default-access-unknown'
  | 'section-missing'
  | 'duplicate-name'
  | 'duplicate-parameter'
  | 'role-undefined'
  | 'privilege-undefined'
  | 'identity-undefined'
  | 'identity-without-selector'
  | 'identity-selector-empty'
  | 'privilege-not-canonical'
  | 'warnings-omitted'

/** Something in a document that its author would want to know. The message quotes names as the document has them. */
export interface RuleWarning {
  readonly code: RuleWarningCode
  readonly endpoint: EndpointName
  readonly message: string
}

export interface Compiled<Result> {
  readonly result: Result
  readonly warnings: readonly RuleWarning[]
}

/** Spreads a host's document over the endpoints: HostGAPlugin shares WireServer's item, its own member has never counted. */
export function itemsOf(rules: AuthorizationRules): EndpointItems {
  return {
    ...(rules.imds && { imds: rules.imds }),
    ...(rules.wireserver && { wireserver: rules.wireserver, hostga: rules.wireserver }),
  }
}

/** Compiles the items of all endpoints. Endpoints that share an item share its policy, and its warnings come once. */
export function compileSnapshot(items: EndpointItems, epoch: number): Compiled<PolicySnapshot> {
  const compiled = new Map<AuthorizationItem, EndpointPolicy>()
  const snapshot: { -readonly [Member in keyof PolicySnapshot]: PolicySnapshot[Member] } = { epoch }
  const warnings: RuleWarning[] = []
  for (const endpoint of ['wireserver', 'imds', 'hostga'] as const) {
    const item = items[endpoint]
    if (item === undefined) continue
    let policy = compiled.get(item)
    if (policy === undefined) {
      const { result, warnings: more } = compileItem(item, endpoint)
      compiled.set(item, result)
      warnings.push(...more)
      policy = result
    }
    snapshot[endpoint] = policy
  }
  return { result: Object.freeze(snapshot), warnings }
}

/** Tells whether a rule of any endpoint asks for the hash of an executable: computing it takes reading the file. */
export function asksForHash(snapshot: PolicySnapshot): boolean {
  const policies = [snapshot.wireserver, snapshot.imds, snapshot.hostga]
  return policies.some((policy) => policy?.identities.some(({ exeSha256 }) => exeSha256 !== undefined))
}

/** Compiles the item of one endpoint; `endpoint` only names it in warnings. Never fails. */
export function compileItem(item: AuthorizationItem, endpoint: EndpointName): Compiled<EndpointPolicy> {
  const { warnings, warn, warnOfOmitted } = collectWarnings(endpoint)
  const mode = resolveMode(item.mode)
  if (mode === undefined) warn('mode-unknown', `Mode '${item.mode}' is not known, the rules are enforced.`)
  const access = item.defaultAccess.toLowerCase()
  if (access !== 'allow' && access !== 'deny') {
    warn('default-access-unknown', `Default access '${item.defaultAccess}' is not known, it counts as deny.`)
  }
  const identities = compileIdentities(item.rules?.identities ?? [], warn)
  const result: EndpointPolicy = {
    id: item.id,
    hash: hashItem(item),
    mode: mode ?? 'enforce',
    defaultAllowed: access === 'allow',
    ...compilePrivileges(item.rules ?? {}, identities, warn),
    identities: [...identities.values()],
    identityIndex: new IdentityIndex([...identities.values()]),
  }
  if (item.rules !== undefined) warnOfMissingSections(item.rules, warn)
  warnOfOmitted()
  return { result: deepFreeze(result), warnings }
}

/** Reads a mode in any letter case; not trimmed. `undefined` when the word is none of the three. */
export function resolveMode(text: string): RuleMode | undefined {
  const mode = text.toLowerCase()
  return mode === 'disabled' || mode === 'audit' || mode === 'enforce' ? mode : undefined
}

/**
 * Computes the identity of an item's content. The id alone does not tell a change; hosts have sent new rules under an old id.
 * @param item as `document.ts` makes it, its members in one order whatever theirs was in the text
 * @returns SHA-256 in lower-case hexadecimal
 */
export function hashItem(item: AuthorizationItem): string {
  return createHash('sha256').update(JSON.stringify(item)).digest('hex')
}

/** Most warnings of one item. Each becomes a line in a log, and a document can be made of nothing but faults. */
const MAX_WARNINGS = 100

type Warn = (code: RuleWarningCode, message: string) => void

function collectWarnings(endpoint: EndpointName): { warnings: RuleWarning[]; warn: Warn; warnOfOmitted(): void } {
  const warnings: RuleWarning[] = []
  let omitted = 0
  return {
    warnings,
    warn(code, message) {
      if (warnings.length < MAX_WARNINGS) warnings.push({ code, endpoint, message })
      else omitted += 1
    },
    warnOfOmitted() {
      if (omitted === 0) return
      warnings.push({ code: 'warnings-omitted', endpoint, message: `The rules give ${omitted} more warnings.` })
    },
  }
}

function compileIdentities(identities: readonly Identity[], warn: Warn): Map<string, CompiledIdentity> {
  const compiled = new Map<string, CompiledIdentity>()
  for (const identity of lastByName(identities, 'identity', warn).values()) {
    const { name } = identity
    const prepared = compileIdentity(identity, compiled.size)
    compiled.set(name, prepared)
    if (prepared.matchesNobody)
      warn('identity-selector-empty', `Identity '${name}' has an empty selector, it matches nobody.`)
    if (matchesEveryone(identity))
      warn('identity-without-selector', `Identity '${name}' has no selector, it matches everybody.`)
  }
  return compiled
}

function compilePrivileges(
  rules: AccessControlRules,
  identities: ReadonlyMap<string, CompiledIdentity>,
  warn: Warn,
): Pick<EndpointPolicy, 'privileges' | 'legacyPatterns' | 'canonicalPatterns' | 'roles' | 'grantsByIdentity'> {
  const privileges = lastByName(rules.privileges ?? [], 'privilege', warn)
  const definitions = lastByName(rules.roles ?? [], 'role', warn)
  const privilegesOf = findPrivileges(definitions, privileges, warn)
  const roles = compileRoles(rules.roleAssignments ?? [], definitions, identities, warn)
  const holders = new Map([...privileges.keys()].map((name): [string, CompiledRole[]] => [name, []]))
  for (const role of roles) {
    for (const name of privilegesOf.get(role.name) ?? []) holders.get(name)?.push(role)
  }
  const patterns = [...privileges.values()].map((privilege) => compilePatterns(privilege, warn))
  return {
    privileges: [...holders].map(([name, roles], place) => ({ name, legacy: patterns[place]!.legacy, roles })),
    legacyPatterns: new PatternIndex(patterns.map(({ legacy }) => legacyPattern(legacy))),
    canonicalPatterns: new PatternIndex(patterns.map(({ canonical }) => canonical)),
    roles,
    grantsByIdentity: sortGrants(roles, identities.size),
  }
}

/** The defined privileges of every role, each once, however often the role names it. */
function findPrivileges(
  roles: ReadonlyMap<string, Role>,
  privileges: ReadonlyMap<string, Privilege>,
  warn: Warn,
): Map<string, readonly string[]> {
  const found = new Map<string, readonly string[]>()
  for (const role of roles.values()) {
    const defined: string[] = []
    for (const name of new Set(role.privileges)) {
      if (privileges.has(name)) defined.push(name)
      else warn('privilege-undefined', `Role '${role.name}' names privilege '${name}', which is not defined.`)
    }
    found.set(role.name, defined)
  }
  return found
}

/** Assignments of one role add up; an identity that is assigned twice keeps its first place. */
function compileRoles(
  assignments: readonly RoleAssignment[],
  definitions: ReadonlyMap<string, Role>,
  identities: ReadonlyMap<string, CompiledIdentity>,
  warn: Warn,
): CompiledRole[] {
  const grants = new Map<string, Map<string, Grant>>()
  let position = 0
  for (const { role, identities: names } of assignments) {
    if (!definitions.has(role)) {
      warn('role-undefined', `Role '${role}' is not defined, skip the role assignment.`)
      continue
    }
    for (const name of new Set(names)) {
      const identity = identities.get(name)
      if (identity === undefined) {
        warn('identity-undefined', `Identity '${name}' is not defined, role '${role}' is not assigned to it.`)
        continue
      }
      const members = grants.getOrInsertComputed(role, () => new Map())
      // Frozen here: a document can make a hundred thousand of them, and walking them later takes as long as all the rest.
      if (!members.has(name)) members.set(name, Object.freeze({ role, identity, position }))
      position += 1
    }
  }
  return [...grants].map(([name, members]) => ({ name, grants: [...members.values()] }))
}

function sortGrants(roles: readonly CompiledRole[], identities: number): Grant[][] {
  const byIdentity = Array.from({ length: identities }, (): Grant[] => [])
  for (const { grants } of roles) {
    for (const grant of grants) byIdentity[grant.identity.index]!.push(grant)
  }
  return byIdentity
}

function compilePatterns(
  privilege: Privilege,
  warn: Warn,
): { readonly legacy: LegacyPattern; readonly canonical: Pattern | undefined } {
  const { name, path, queryParameters } = privilege
  const legacy = compileLegacyPattern(path, queryParameters)
  if (legacy.query.length < Object.keys(queryParameters ?? {}).length) {
    warn(
      'duplicate-parameter',
      `Privilege '${name}' has query parameters that differ only in case, the last one counts.`,
    )
  }
  const canonical = compilePattern(legacy.path, legacy.query)
  if (!isCanonicalFailure(canonical)) return { legacy, canonical }
  warn(
    'privilege-not-canonical',
    `Privilege '${name}' failed canonicalization (${canonical.code}); dropping from canonical cache (legacy matcher unaffected). path=${path}`,
  )
  return { legacy, canonical: undefined }
}

function lastByName<Named extends { readonly name: string }>(
  entries: readonly Named[],
  kind: string,
  warn: Warn,
): Map<string, Named> {
  const byName = new Map<string, Named>()
  for (const entry of entries) {
    if (byName.has(entry.name))
      warn('duplicate-name', `Two entries define ${kind} '${entry.name}', the last one counts.`)
    byName.set(entry.name, entry)
  }
  return byName
}

function warnOfMissingSections(rules: AccessControlRules, warn: Warn): void {
  const sections = ['privileges', 'roles', 'identities', 'roleAssignments'] as const
  const missing = sections.filter((section) => rules[section] === undefined)
  if (missing.length === 0) return
  warn('section-missing', `The rules have no ${missing.join(', no ')}: privileges that stay unassigned deny.`)
}

function deepFreeze<Value>(value: Value): Value {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value
  Object.freeze(value)
  for (const inner of Object.values(value)) deepFreeze(inner)
  return value
}
