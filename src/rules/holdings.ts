/**
 * What one caller holds under one policy, worked out as far as one decision asks.
 *
 * Many privileges share a role and many roles share an identity. Each role is asked at most once and each identity is compared
 * at most once, so a decision costs no more than the references of the document, whatever they multiply to.
 */

import type { CompiledIdentity, RuleCaller } from './selectors.ts'
import { ComparableCaller, matchesIdentity } from './selectors.ts'
import type { CompiledPrivilege, CompiledRole, EndpointPolicy, Grant } from './snapshot.ts'

/** Lives as long as one decision; both matchers share it. */
export class Holdings {
  readonly #caller: ComparableCaller
  readonly #grants: (Grant | 'none' | undefined)[]
  readonly #matches: (boolean | undefined)[]

  constructor(policy: EndpointPolicy, caller: RuleCaller) {
    this.#caller = new ComparableCaller(caller)
    this.#grants = new Array(policy.roles.length)
    this.#matches = new Array(policy.identities.length)
  }

  /** Finds the first grant of the document that gives the privilege to the caller. */
  findGrant(privilege: CompiledPrivilege): Grant | undefined {
    let first: Grant | undefined
    for (const role of privilege.roles) {
      if (first !== undefined && first.position < role.grants[0]!.position) break
      const grant = this.#grantOf(role)
      if (grant !== undefined && (first === undefined || grant.position < first.position)) first = grant
    }
    return first
  }

  #grantOf(role: CompiledRole): Grant | undefined {
    let grant = this.#grants[role.index]
    if (grant === undefined) {
      grant = role.grants.find(({ identity }) => this.#describes(identity)) ?? 'none'
      this.#grants[role.index] = grant
    }
    return grant === 'none' ? undefined : grant
  }

  #describes(identity: CompiledIdentity): boolean {
    let matches = this.#matches[identity.index]
    if (matches === undefined) {
      matches = matchesIdentity(identity, this.#caller)
      this.#matches[identity.index] = matches
    }
    return matches
  }
}
