/**
 * What one caller holds under one policy, worked out when a decision first asks for it.
 *
 * Many privileges share a role and many roles share an identity. The identities that describe the caller are found once, and the
 * roles they hold are noted once, so a decision costs no more than the references of the document, whatever they multiply to.
 */

import type { RuleCaller } from './selectors.ts'
import type { CompiledPrivilege, EndpointPolicy, Grant } from './snapshot.ts'

/** Lives as long as one decision; both matchers share it. */
export class Holdings {
  readonly #policy: EndpointPolicy
  readonly #caller: RuleCaller
  /** By name of the role. */
  #grants: ReadonlyMap<string, Grant> | undefined

  constructor(policy: EndpointPolicy, caller: RuleCaller) {
    this.#policy = policy
    this.#caller = caller
  }

  /** Finds the first grant of the document that gives the privilege to the caller. */
  findGrant(privilege: CompiledPrivilege): Grant | undefined {
    this.#grants ??= findGrants(this.#policy, this.#caller)
    if (this.#grants.size === 0) return undefined
    let first: Grant | undefined
    for (const role of privilege.roles) first = earlier(first, this.#grants.get(role.name))
    return first
  }
}

/** The first grant of each role that the caller holds. */
function findGrants({ identityIndex, grantsByIdentity }: EndpointPolicy, caller: RuleCaller): Map<string, Grant> {
  const grants = new Map<string, Grant>()
  for (const identity of identityIndex.find(caller)) {
    for (const grant of grantsByIdentity[identity.index]!) {
      const known = grants.get(grant.role)
      if (known === undefined || grant.position < known.position) grants.set(grant.role, grant)
    }
  }
  return grants
}

function earlier(a: Grant | undefined, b: Grant | undefined): Grant | undefined {
  return b !== undefined && (a === undefined || b.position < a.position) ? b : a
}
