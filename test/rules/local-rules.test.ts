import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { AuthorizationItem } from '../../src/rules/document.ts'
import {
  type LocalRules,
  LocalRulesError,
  mergeLocalRules,
  parseLocalRules,
  readRuleId,
} from '../../src/rules/local-rules.ts'

const SWITCH_ON = 'eyJpZCI6InNpZy1yZXNvdXJjZS1pZCIsInVzZUxvY2FsRmlsZVJ1bGVzIjp0cnVlfQ=='

/** A file in which bob may read tokens. */
const RULES = {
  privileges: [{ name: 'token', path: '/metadata/identity', queryParameters: { 'api-version': '2018-02-01' } }],
  roles: [{ name: 'reader', privileges: ['token'] }],
  identities: [{ name: 'bob', userName: 'bob' }],
  roleAssignments: [{ role: 'reader', identities: ['bob'] }],
}

function encode(json: unknown): string {
  return Buffer.from(typeof json === 'string' ? json : JSON.stringify(json)).toString('base64')
}

function refusalOf(text: string): LocalRulesError {
  try {
    parseLocalRules(text)
  } catch (error) {
    assert.ok(error instanceof LocalRulesError, String(error))
    return error
  }
  return assert.fail('the file was accepted')
}

test('parseLocalRules() takes what is right, whatever is absent', () => {
  for (const [situation, file, rules] of [
    ['nothing', {}, {}],
    ['null members', { defaultAccess: null, id: null, rules: null }, {}],
    ['a default access alone', { defaultAccess: 'deny' }, { defaultAccess: 'deny' }],
    ['blanks and capitals around the default access', { defaultAccess: ' Allow ' }, { defaultAccess: 'allow' }],
    ['mode and unknown members, of any type', { mode: 7, $schema: 'x', note: [] }, {}],
    ['an empty rules object', { rules: {} }, { rules: {} }],
    ['privileges alone', { rules: { privileges: RULES.privileges } }, { rules: { privileges: RULES.privileges } }],
    ['a whole file', { id: 'mine', rules: RULES }, { id: 'mine', rules: RULES }],
  ] as const) {
    assert.equal(JSON.stringify(parseLocalRules(JSON.stringify(file)).rules), JSON.stringify(rules), situation)
  }
})

test('parseLocalRules() passes over a byte-order mark, and finds no value after it alone', () => {
  assert.deepEqual(parseLocalRules('\ufeff{"id": "a"}').rules, { id: 'a' })
  assert.equal(refusalOf('\ufeff').fault, 'syntax')
  assert.equal(refusalOf('').fault, 'syntax')
})

test('parseLocalRules() refuses repeated members, but for names of query parameters', () => {
  const error = refusalOf('{\n  "id": "a",\n  "id": "b"\n}')
  assert.deepEqual([error.fault, error.position, error.path], ['shape', { line: 3, column: 3 }, ['id']])
  assert.equal(error.message, "duplicate field 'id' at line 3, column 3")
  const text = '{"rules": {"privileges": [{"name": "p", "path": "/", "queryParameters": {"a": "1", "a": "2"}}]}}'
  assert.equal(parseLocalRules(text).rules.rules?.privileges?.[0]?.queryParameters?.a, '2')
})

test('parseLocalRules() refuses what is not JSON or has another shape, and says where', () => {
  for (const [text, fault, message, line] of [
    ['{\n"id": }', 'syntax', 'a value is expected at line 2, column 7', 2],
    ['[]', 'shape', 'expected an object', 1],
    ['{"id":\n 7}', 'shape', 'id: expected string, got number', 2],
    ['{"rules": {"roles": {}}}', 'shape', 'rules.roles: expected array, got object', 1],
    [
      '{"rules": {\n"privileges": [{"name": "p"}]}}',
      'shape',
      'rules.privileges[0].path: a required member is missing',
      2,
    ],
  ] as const) {
    const error = refusalOf(text)
    assert.deepEqual([error.fault, error.message, error.position.line], [fault, message, line], text)
    assert.notEqual(error.hint, '')
  }
})

const { privileges, roles, identities, roleAssignments } = RULES
const REFUSALS: readonly (readonly [situation: string, file: object, message: string, path: string])[] = [
  [
    'a default access of another word',
    { defaultAccess: ' maybe ' },
    "local rules defaultAccess must be 'allow' or 'deny', got ' maybe '",
    'defaultAccess',
  ],
  [
    'an empty default access',
    { defaultAccess: '' },
    "local rules defaultAccess must be 'allow' or 'deny', got ''",
    'defaultAccess',
  ],
  ['an empty id', { id: ' ' }, 'local rules id cannot be empty when provided', 'id'],
  [
    'a privilege without name',
    { rules: { privileges: [{ name: '\t', path: '/' }] } },
    'privilege name cannot be empty',
    'rules.privileges.0.name',
  ],
  [
    'a privilege without path',
    { rules: { privileges: [{ name: 'p', path: '' }] } },
    "privilege 'p' path cannot be empty",
    'rules.privileges.0.path',
  ],
  [
    'a privilege named twice',
    { rules: { privileges: [...privileges, ...privileges] } },
    "duplicate privilege name 'token'",
    'rules.privileges.1.name',
  ],
  [
    'an empty query key',
    { rules: { privileges: [{ name: 'p', path: '/', queryParameters: { '': 'x' } }] } },
    "privilege 'p' queryParameters cannot contain empty keys or values",
    'rules.privileges.0.queryParameters.',
  ],
  [
    'an empty query value',
    { rules: { privileges: [{ name: 'p', path: '/', queryParameters: { k: ' ' } }] } },
    "privilege 'p' queryParameters cannot contain empty keys or values",
    'rules.privileges.0.queryParameters.k',
  ],
  [
    'a role without name',
    { rules: { privileges, roles: [{ name: '', privileges: ['token'] }] } },
    'role name cannot be empty',
    'rules.roles.0.name',
  ],
  [
    'a role of nothing',
    { rules: { roles: [{ name: 'r', privileges: [] }] } },
    "role 'r' must reference at least one privilege",
    'rules.roles.0.privileges',
  ],
  [
    'a role named twice',
    { rules: { privileges, roles: [...roles, ...roles] } },
    "duplicate role name 'reader'",
    'rules.roles.1.name',
  ],
  [
    'an empty privilege reference',
    { rules: { privileges, roles: [{ name: 'r', privileges: ['token', ''] }] } },
    "role 'r' contains an empty privilege reference",
    'rules.roles.0.privileges.1',
  ],
  [
    'a privilege referenced twice',
    { rules: { privileges, roles: [{ name: 'r', privileges: ['token', 'token'] }] } },
    "role 'r' contains duplicate privilege reference 'token'",
    'rules.roles.0.privileges.1',
  ],
  [
    'an unknown privilege',
    { rules: { privileges, roles: [{ name: 'r', privileges: ['Token'] }] } },
    "role 'r' references unknown privilege 'Token'",
    'rules.roles.0.privileges.0',
  ],
  [
    'an identity without name',
    { rules: { identities: [{ name: '', userName: 'x' }] } },
    'identity name cannot be empty',
    'rules.identities.0.name',
  ],
  [
    'an identity named twice',
    { rules: { identities: [...identities, ...identities] } },
    "duplicate identity name 'bob'",
    'rules.identities.1.name',
  ],
  [
    'an identity without selectors',
    { rules: { identities: [{ name: 'i' }] } },
    "identity 'i' must specify at least one selector",
    'rules.identities.0',
  ],
  [
    'an identity with empty selectors',
    { rules: { identities: [{ name: 'i', userName: ' ', exePath: '' }] } },
    "identity 'i' must specify at least one selector",
    'rules.identities.0',
  ],
  ...(
    [
      ['cgroupPath', '/', 'a path below the root of cgroup2'],
      ['cgroupPath', 'system.slice', 'a path below the root of cgroup2'],
      ['systemdUnit', 'nginx', 'the name of a unit that runs processes'],
      ['systemdUnit', 'system.slice', 'the name of a unit that runs processes'],
      ['containerId', 'abcdef012345', '64 hexadecimal digits'],
      ['exeSha256', 'x'.repeat(64), '64 hexadecimal digits'],
    ] as const
  ).map(([member, value, what]): (typeof REFUSALS)[number] => [
    `a ${member} of another form`,
    { rules: { identities: [{ name: 'i', userName: 'bob', [member]: value }] } },
    `identity 'i' ${member} must be ${what}, got '${value}'`,
    `rules.identities.0.${member}`,
  ]),
  [
    'an assignment without role',
    { rules: { roleAssignments: [{ role: '', identities: ['bob'] }] } },
    'roleAssignment role cannot be empty',
    'rules.roleAssignments.0.role',
  ],
  [
    'an assignment of an unknown role',
    { rules: { identities, roleAssignments } },
    "roleAssignment references unknown role 'reader'",
    'rules.roleAssignments.0.role',
  ],
  [
    'an assignment to nobody',
    { rules: { ...RULES, roleAssignments: [{ role: 'reader', identities: [] }] } },
    "roleAssignment for role 'reader' must reference at least one identity",
    'rules.roleAssignments.0.identities',
  ],
  [
    'an empty identity reference',
    { rules: { ...RULES, roleAssignments: [{ role: 'reader', identities: [''] }] } },
    "roleAssignment for role 'reader' contains an empty identity reference",
    'rules.roleAssignments.0.identities.0',
  ],
  [
    'an identity referenced twice',
    { rules: { ...RULES, roleAssignments: [{ role: 'reader', identities: ['bob', 'bob'] }] } },
    "roleAssignment for role 'reader' contains duplicate identity reference 'bob'",
    'rules.roleAssignments.0.identities.1',
  ],
  [
    'an unknown identity',
    { rules: { ...RULES, roleAssignments: [{ role: 'reader', identities: ['alice'] }] } },
    "roleAssignment for role 'reader' references unknown identity 'alice'",
    'rules.roleAssignments.0.identities.0',
  ],
]

for (const [situation, file, message, path] of REFUSALS) {
  test(`parseLocalRules() refuses ${situation}`, () => {
    const error = refusalOf(JSON.stringify(file, null, 1))
    assert.equal(error.message, `${message} is invalid`)
    assert.equal(error.fault, 'meaning')
    assert.equal(error.path.join('.'), path)
    assert.match(error.hint, /^[A-Z].*\.$/)
    assert.ok(error.position.line > 1, 'the position is that of the member')
  })
}

test('parseLocalRules() reports the first of several faults, top members first', () => {
  const rules = { ...RULES, privileges: [{ name: '', path: '' }], roles: [{ name: '', privileges: [] }] }
  assert.match(refusalOf(JSON.stringify({ rules, id: '' })).message, /^local rules id/)
  assert.match(refusalOf(JSON.stringify({ rules })).message, /^privilege name/)
})

test('readRuleId() reads the switch, and what is none is a plain id', () => {
  for (const [situation, id, logicalId, usesLocalFile, effectiveId, hasRemark] of [
    ['the switch on', SWITCH_ON, 'sig-resource-id', true, 'sig-resource-id-useLocalFileRules-true', false],
    ['blanks around it', ` ${SWITCH_ON}\n`, 'sig-resource-id', true, 'sig-resource-id-useLocalFileRules-true', false],
    ['the switch off', encode({ id: 'a', useLocalFileRules: false }), 'a', false, 'a-useLocalFileRules-false', false],
    ['an id alone', encode({ id: 'a' }), 'a', false, 'a-useLocalFileRules-false', false],
    [
      'unknown members',
      encode({ id: 'a', useLocalFileRules: true, x: 1 }),
      'a',
      true,
      'a-useLocalFileRules-true',
      false,
    ],
    ['no id inside', encode({ useLocalFileRules: true }), '', true, encode({ useLocalFileRules: true }), false],
    ['a plain id', 'legacy-id', 'legacy-id', false, 'legacy-id-useLocalFileRules-false', false],
    ['a plain id of base64 letters', 'abcd', 'abcd', false, 'abcd-useLocalFileRules-false', false],
    [
      'no padding',
      SWITCH_ON.slice(0, -2),
      SWITCH_ON.slice(0, -2),
      false,
      `${SWITCH_ON.slice(0, -2)}-useLocalFileRules-false`,
      false,
    ],
    ['nothing', '', '', false, '', false],
    ['blanks', '  ', '', false, '  ', false],
    ...([{ id: 'a', useLocalFileRules: 'true' }, { id: 1 }, '{"id":"a","id":"b"}', '{"id":'] as const).map((bad) => {
      const id = encode(bad)
      return [`malformed: ${JSON.stringify(bad)}`, id, id, false, `${id}-useLocalFileRules-false`, true] as const
    }),
  ] as const) {
    const { remark, ...read } = readRuleId(id)
    assert.deepEqual(read, { logicalId, usesLocalFile, effectiveId }, situation)
    assert.equal(remark !== undefined, hasRemark, situation)
  }
})

const RECEIVED: AuthorizationItem = {
  id: encode({ id: 'decoded-id', useLocalFileRules: true }),
  mode: 'audit',
  defaultAccess: 'allow',
  rules: RULES,
}

test('mergeLocalRules() without a file rewrites the id alone', () => {
  assert.deepEqual(mergeLocalRules(RECEIVED, undefined), { ...RECEIVED, id: 'decoded-id-useLocalFileRules-true' })
  assert.equal(mergeLocalRules({ ...RECEIVED, id: 'legacy-id' }, undefined).id, 'legacy-id-useLocalFileRules-false')
})

test('mergeLocalRules() fails closed whatever the mode of the host', () => {
  assert.deepEqual(mergeLocalRules({ ...RECEIVED, mode: 'disabled' }, 'fail-closed'), {
    id: 'decoded-id-useLocalFileRules-true',
    mode: 'enforce',
    defaultAccess: 'deny',
  })
})

test('mergeLocalRules() appends the local id and takes the local default, never a mode', () => {
  const merged = mergeLocalRules(RECEIVED, { id: 'local-id', defaultAccess: 'deny' })
  assert.deepEqual(merged, {
    id: 'decoded-id-useLocalFileRules-true_local-id',
    mode: 'audit',
    defaultAccess: 'deny',
    rules: RULES,
  })
})

test('mergeLocalRules() takes the rules of one side as they are', () => {
  const { rules: _, ...bare } = RECEIVED
  assert.deepEqual(mergeLocalRules(bare, { rules: RULES }).rules, RULES)
  assert.deepEqual(mergeLocalRules(RECEIVED, {}).rules, RULES)
  assert.equal('rules' in mergeLocalRules(bare, {}), false)
})

test('mergeLocalRules() appends local rules to those of the host, under names of their own', () => {
  const local: LocalRules = {
    rules: {
      privileges: [{ name: 'token', path: '/p', queryParameters: { token: 'token' } }],
      roles: [{ name: 'LocalFileRules_reader', privileges: ['token'] }],
      identities: [{ name: 'bob', userName: 'bob' }],
    },
  }
  assert.deepEqual(mergeLocalRules(RECEIVED, local).rules, {
    privileges: [
      ...RULES.privileges,
      { name: 'LocalFileRules_token', path: '/p', queryParameters: { token: 'token' } },
    ],
    roles: [...RULES.roles, { name: 'LocalFileRules_LocalFileRules_reader', privileges: ['LocalFileRules_token'] }],
    identities: [...RULES.identities, { name: 'LocalFileRules_bob', userName: 'bob' }],
    roleAssignments: RULES.roleAssignments,
  })
})

test('mergeLocalRules() leaves a section absent that is absent on both sides, and prefixes assignments', () => {
  const merged = mergeLocalRules({ ...RECEIVED, rules: {} }, { rules: { roleAssignments } })
  assert.deepEqual(merged.rules, {
    roleAssignments: [{ role: 'LocalFileRules_reader', identities: ['LocalFileRules_bob'] }],
  })
})
