/** Short ways to say what most tests about rules need. */

import type { CanonicalMode, Verdict } from '../../src/rules/decide.ts'
import { decide } from '../../src/rules/decide.ts'
import type { AuthorizationItem, Identity, Privilege } from '../../src/rules/document.ts'
import type { RuleCaller } from '../../src/rules/selectors.ts'
import type { EndpointPolicy } from '../../src/rules/snapshot.ts'
import { compileItem } from '../../src/rules/snapshot.ts'

export const ALICE: RuleCaller = {
  userName: 'alice',
  groups: ['users'],
  exePath: '/usr/bin/curl',
  processName: 'curl',
  elevated: false,
}
export const BOB: RuleCaller = { ...ALICE, userName: 'bob' }
export const ROOT: RuleCaller = { ...ALICE, userName: 'root', groups: ['root'], elevated: true }

/** An item that grants each of `privileges` to `identity` (alice, when not given). */
export function itemGranting(
  privileges: readonly Privilege[],
  identity: Omit<Identity, 'name'> = { userName: 'alice' },
  overrides: Partial<AuthorizationItem> = {},
): AuthorizationItem {
  return {
    id: 'rules-1',
    mode: 'enforce',
    defaultAccess: 'deny',
    rules: {
      privileges,
      roles: [{ name: 'reader', privileges: privileges.map(({ name }) => name) }],
      identities: [{ name: 'someone', ...identity }],
      roleAssignments: [{ role: 'reader', identities: ['someone'] }],
    },
    ...overrides,
  }
}

export function policyOf(item: AuthorizationItem): EndpointPolicy {
  return compileItem(item, 'imds').result
}

/** Decides a GET to IMDS. */
export function decideGet(
  item: AuthorizationItem,
  target: string,
  caller: RuleCaller = ALICE,
  canonicalMode: CanonicalMode = 'shadow',
): Verdict {
  return decide(policyOf(item), 'imds', caller, { method: 'GET', target }, { canonicalMode })
}
