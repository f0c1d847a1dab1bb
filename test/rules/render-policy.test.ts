import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseAuthorizationItem } from '../../src/rules/document.ts'
import { MAX_ASSIGNMENT_TEXT, MAX_ASSIGNMENTS, renderPolicy, renderRules } from '../../src/rules/render-policy.ts'
import { compileSnapshot, itemsOf } from '../../src/rules/snapshot.ts'
import { itemGranting, policyOf } from './make.ts'

const ITEM = itemGranting(
  [
    { name: 'Token', path: '/Metadata/Identity', queryParameters: { 'API-version': '2018-02-01' } },
    { name: 'Nobody', path: '/X' },
  ],
  { userName: 'alice', exePath: '/usr/bin/curl' },
)

test('renderRules() shows the items as they came and the policies as they are compared', () => {
  const rules = { ...ITEM.rules, roles: [{ name: 'reader', privileges: ['Token', 'gone'] }] }
  const items = itemsOf({ wireserver: { ...ITEM, rules, mode: 'AUDIT', defaultAccess: 'Allow' } })
  const rendered = renderRules(items, compileSnapshot(items, 7).result)
  const computed = {
    id: 'rules-1',
    defaultAllowed: true,
    mode: 'Audit',
    privileges: {
      Token: { name: 'Token', path: '/metadata/identity', queryParameters: { 'api-version': '2018-02-01' } },
      Nobody: { name: 'Nobody', path: '/x' },
    },
    privilegeAssignments: { Token: ['someone'] },
    identities: { someone: { name: 'someone', userName: 'alice', exePath: '/usr/bin/curl' } },
  }
  assert.deepEqual(JSON.parse(JSON.stringify(rendered)), {
    inputRules: JSON.parse(JSON.stringify({ wireserver: items.wireserver, hostga: items.wireserver })),
    computedRules: { wireserver: computed, hostga: computed },
  })
})

test('renderRules() leaves the input out when no endpoint has rules', () => {
  assert.deepEqual(renderRules({}, compileSnapshot({}, 1).result), { computedRules: {} })
})

for (const [mode, shown] of [
  ['disabled', 'Disabled'],
  ['audit', 'Audit'],
  ['enforce', 'Enforce'],
  ['anything else', 'Enforce'],
] as const) {
  test(`renderPolicy() shows mode ${mode} as ${shown}`, () =>
    assert.equal(renderPolicy(policyOf({ ...ITEM, mode })).mode, shown))
}

test('renderPolicy() names an identity once, whichever of its roles bring the privilege', () => {
  const rules = {
    privileges: [{ name: 'p', path: '/' }],
    roles: ['r', 's'].map((name) => ({ name, privileges: ['p'] })),
    identities: ['i', 'j'].map((name) => ({ name, userName: name })),
    roleAssignments: ['r', 's'].map((role) => ({ role, identities: ['i', 'j'] })),
  }
  const { privilegeAssignments } = renderPolicy(policyOf({ ...ITEM, rules }))
  assert.deepEqual({ ...privilegeAssignments }, { p: ['i', 'j'] })
})

test('renderPolicy() keeps names that objects know of themselves', () => {
  const item = parseAuthorizationItem(
    JSON.parse(`{"defaultAccess":"deny","mode":"enforce","id":"x","rules":{
      "privileges":[{"name":"__proto__","path":"/","queryParameters":{"__proto__":"1"}}],
      "roles":[{"name":"r","privileges":["__proto__"]}],
      "identities":[{"name":"constructor","userName":"a"}],
      "roleAssignments":[{"role":"r","identities":["constructor"]}]}}`),
  )
  const text = JSON.stringify(renderPolicy(policyOf(item)))
  assert.match(
    text,
    /"privileges":\{"__proto__":\{"name":"__proto__","path":"\/","queryParameters":\{"__proto__":"1"\}\}\}/,
  )
  assert.match(text, /"privilegeAssignments":\{"__proto__":\["constructor"\]\}/)
  assert.match(text, /"identities":\{"constructor":\{/)
})

test('renderPolicy() cuts assignments short where two lists multiply, and says so', () => {
  const names = Array.from({ length: 1000 }, (_, index) => `${index}`.padEnd(400, 'x'))
  const rules = {
    privileges: names.map((name) => ({ name, path: '/' })),
    roles: [{ name: 'r', privileges: names }],
    identities: names.map((name) => ({ name, userName: name })),
    roleAssignments: [{ role: 'r', identities: names }],
  }
  const { privilegeAssignments, privilegesCutShort } = renderPolicy(policyOf({ ...ITEM, rules }))
  const shown = Object.values(privilegeAssignments).flat()
  assert.equal(shown.length, Math.floor(MAX_ASSIGNMENT_TEXT / 400))
  assert.ok(shown.length <= MAX_ASSIGNMENTS)
  assert.equal(privilegesCutShort, 999)
  assert.equal(privilegeAssignments[names[0] as string]?.length, 1000)
})
