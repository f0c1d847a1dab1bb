import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import type { AccessControlRules } from '../../src/rules/document.ts'
import { Holdings } from '../../src/rules/holdings.ts'
import type { RuleCaller } from '../../src/rules/selectors.ts'
import type { EndpointPolicy } from '../../src/rules/snapshot.ts'
import { ALICE, policyOf } from './make.ts'

function policyWith(rules: AccessControlRules): EndpointPolicy {
  return policyOf({ id: 'v', mode: 'enforce', defaultAccess: 'deny', rules })
}

describe('findGrant() names the first grant of the document', () => {
  const rules = {
    privileges: [{ name: 'p', path: '/' }],
    roles: [
      { name: 'r', privileges: ['p'] },
      { name: 's', privileges: ['p'] },
    ],
    identities: [
      { name: 'bob', userName: 'bob' },
      { name: 'alice', userName: 'alice' },
      { name: 'users', groupName: 'users' },
    ],
  }
  const rows: readonly (readonly [
    situation: string,
    roleAssignments: AccessControlRules['roleAssignments'],
    expected: string | undefined,
  ])[] = [
    ['nobody is assigned', [], undefined],
    ['others are assigned', [{ role: 'r', identities: ['bob'] }], undefined],
    ['two identities of one assignment apply', [{ role: 'r', identities: ['users', 'alice'] }], 'r users'],
    [
      'two roles apply: the one assigned first, not the one defined first',
      [
        { role: 's', identities: ['alice'] },
        { role: 'r', identities: ['alice'] },
      ],
      's alice',
    ],
    [
      'the role assigned first applies only by a later assignment',
      [
        { role: 's', identities: ['bob'] },
        { role: 'r', identities: ['users'] },
        { role: 's', identities: ['alice'] },
      ],
      'r users',
    ],
  ]
  for (const [situation, roleAssignments, expected] of rows) {
    test(situation, () => {
      const policy = policyWith({ ...rules, roleAssignments: roleAssignments ?? [] })
      const grant = new Holdings(policy, ALICE).findGrant(policy.privileges[0]!)
      assert.equal(grant && `${grant.role} ${grant.identity.name}`, expected)
    })
  }

  test('whatever the document, as reading its assignments in order does', () => {
    const name = fc.constantFrom('a', 'b', 'c', 'd')
    const names = fc.array(name, { maxLength: 4 })
    const roles = fc.array(fc.record({ name, privileges: names }), { maxLength: 4 })
    const roleAssignments = fc.array(fc.record({ role: name, identities: names }), { maxLength: 6 })
    const identities = fc.uniqueArray(fc.record({ name, userName: fc.constantFrom('alice', 'bob', '') }), {
      selector: ({ name }) => name,
    })
    let granted = 0
    fc.assert(
      fc.property(roles, roleAssignments, identities, (roles, roleAssignments, identities) => {
        const privileges = ['a', 'b', 'c'].map((name) => ({ name, path: '/' }))
        const policy = policyWith({ privileges, roles, roleAssignments, identities })
        const holdings = new Holdings(policy, ALICE)
        for (const privilege of policy.privileges) {
          const bringing = roleAssignments.filter(({ role }) =>
            roles.findLast(({ name }) => name === role)?.privileges.some((name) => name === privilege.name),
          )
          const first = bringing
            .flatMap(({ role, identities: held }) => held.map((name) => ({ role, name })))
            .find(({ name }) => identities.find((identity) => identity.name === name)?.userName === 'alice')
          const grant = holdings.findGrant(privilege)
          assert.deepEqual(grant && { role: grant.role, name: grant.identity.name }, first)
          if (grant !== undefined) granted += 1
        }
      }),
      { numRuns: 3000 },
    )
    assert.ok(granted > 300, `only ${granted} grants in 3000 documents`)
  })
})

test('findGrant() looks for the identities of the caller once, however many roles and privileges lead to them', () => {
  const names = Array.from({ length: 40 }, (_, index) => `n${index}`)
  const policy = policyWith({
    privileges: names.map((name) => ({ name, path: '/' })),
    roles: names.map((name) => ({ name, privileges: names })),
    identities: names.map((name) => ({ name, userName: name })),
    roleAssignments: names.map((role) => ({ role, identities: names })),
  })
  let looks = 0
  const caller: RuleCaller = {
    ...ALICE,
    get userName() {
      looks += 1
      return 'nobody'
    },
  }
  const holdings = new Holdings(policy, caller)
  for (const privilege of policy.privileges) assert.equal(holdings.findGrant(privilege), undefined)
  assert.equal(looks, 1)
})
