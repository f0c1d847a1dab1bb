/**
 * Shows the rules in force to the people who wrote them: what came in, and what was made of it.
 *
 *   { inputRules:    { imds, wireserver, hostga }     the items, as merged and before compiling
 *     computedRules: { imds, wireserver, hostga } }   id, defaultAllowed, mode, privileges, privilegeAssignments, identities
 *
 * The computed side is that of the legacy matcher, in the lower case it compares in; canonical patterns are not shown.
 */

import type { EndpointName } from '../base/endpoints.ts'
import type { AuthorizationItem, Identity, Privilege } from './document.ts'
import type { EndpointItems, EndpointPolicy, PolicySnapshot, RuleMode } from './snapshot.ts'

/** Endpoints without rules are absent, and so is `inputRules` when no endpoint has any. */
export interface RenderedRules {
  readonly inputRules?: Readonly<Partial<Record<EndpointName, AuthorizationItem>>>
  readonly computedRules: Readonly<Partial<Record<EndpointName, RenderedPolicy>>>
}

/** The three objects have no prototype, so any name of a document is a member. */
export interface RenderedPolicy {
  readonly id: string
  readonly defaultAllowed: boolean
  readonly mode: 'Disabled' | 'Audit' | 'Enforce'
  readonly privileges: Readonly<Record<string, Privilege>>
  /** Privilege name to the names of the identities that hold it. Privileges that nobody holds are absent. */
  readonly privilegeAssignments: Readonly<Record<string, readonly string[]>>
  readonly identities: Readonly<Record<string, Identity>>
  /** Present when the document multiplies to more than is shown: how many privileges may have more identities than listed. */
  readonly privilegesCutShort?: number
}

/**
 * Most assignments of one endpoint that are followed, and most text of names in them, in UTF-16 code units. Two lists of a
 * document of one megabyte multiply to gigabytes of assignments, and writing those down would stop everybody's requests.
 */
export const MAX_ASSIGNMENTS = 20_000
export const MAX_ASSIGNMENT_TEXT = 512 * 1024

/** Renders items and what they compiled to, ready for JSON.stringify. Takes work in proportion to the document, no more. */
export function renderRules(items: EndpointItems, snapshot: PolicySnapshot): RenderedRules {
  const inputRules: Partial<Record<EndpointName, AuthorizationItem>> = {}
  const computedRules: Partial<Record<EndpointName, RenderedPolicy>> = {}
  for (const endpoint of ['imds', 'wireserver', 'hostga'] as const) {
    const [item, policy] = [items[endpoint], snapshot[endpoint]]
    if (item !== undefined) inputRules[endpoint] = item
    if (policy !== undefined) computedRules[endpoint] = renderPolicy(policy)
  }
  return Object.keys(inputRules).length === 0 ? { computedRules } : { inputRules, computedRules }
}

/** Renders the policy of one endpoint. */
export function renderPolicy(policy: EndpointPolicy): RenderedPolicy {
  const { assignments, cutShort } = renderAssignments(policy)
  return {
    id: policy.id,
    defaultAllowed: policy.defaultAllowed,
    mode: MODES[policy.mode],
    privileges: byName(policy.privileges.map(({ name, legacy }) => renderPrivilege(name, legacy))),
    privilegeAssignments: assignments,
    identities: byName(policy.identities.map(renderIdentity)),
    ...(cutShort > 0 && { privilegesCutShort: cutShort }),
  }
}

const MODES = { disabled: 'Disabled', audit: 'Audit', enforce: 'Enforce' } as const satisfies Record<RuleMode, string>

function renderPrivilege(name: string, { path, query }: EndpointPolicy['privileges'][number]['legacy']): Privilege {
  if (query.length === 0) return { name, path }
  const queryParameters: Record<string, string> = Object.create(null)
  for (const [key, value] of query) queryParameters[key] = value
  return { name, path, queryParameters }
}

function renderIdentity(identity: Identity): Identity {
  const { name, userName, groupName, exePath, processName } = identity
  const { cgroupPath, systemdUnit, containerId, exeSha256 } = identity
  return {
    name,
    ...(userName !== undefined && { userName }),
    ...(groupName !== undefined && { groupName }),
    ...(exePath !== undefined && { exePath }),
    ...(processName !== undefined && { processName }),
    ...(cgroupPath !== undefined && { cgroupPath }),
    ...(systemdUnit !== undefined && { systemdUnit }),
    ...(containerId !== undefined && { containerId }),
    ...(exeSha256 !== undefined && { exeSha256 }),
  }
}

function renderAssignments({ privileges }: EndpointPolicy): {
  assignments: Record<string, readonly string[]>
  cutShort: number
} {
  const assignments: Record<string, readonly string[]> = Object.create(null)
  let cutShort = 0
  let steps = 0
  let text = 0
  for (const { name, roles } of privileges) {
    if (roles.length === 0) continue
    const holders = new Set<string>()
    let isWhole = true
    for (const grant of grantsOf(roles)) {
      isWhole = steps < MAX_ASSIGNMENTS && text + grant.identity.name.length <= MAX_ASSIGNMENT_TEXT
      if (!isWhole) break
      steps += 1
      text += grant.identity.name.length
      holders.add(grant.identity.name)
    }
    assignments[name] = [...holders]
    if (!isWhole) cutShort += 1
  }
  return { assignments, cutShort }
}

function* grantsOf(roles: EndpointPolicy['roles']) {
  for (const role of roles) yield* role.grants
}

function byName<Named extends { readonly name: string }>(entries: readonly Named[]): Record<string, Named> {
  const named: Record<string, Named> = Object.create(null)
  for (const entry of entries) named[entry.name] = entry
  return named
}
