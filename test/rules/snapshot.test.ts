import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { compilePattern } from '../../src/rules/canonical-pattern.ts'
import type { AccessControlRules, AuthorizationItem } from '../../src/rules/document.ts'
import { parseAuthorizationItem } from '../../src/rules/document.ts'
import type { PatternIndex } from '../../src/rules/pattern-index.ts'
import type { RuleWarningCode } from '../../src/rules/snapshot.ts'
import { compileItem, compileSnapshot, hashItem, itemsOf, resolveMode } from '../../src/rules/snapshot.ts'
import { BOB, decideGet, itemGranting } from './make.ts'

const BARE: AuthorizationItem = { id: 'rules-1', mode: 'enforce', defaultAccess: 'allow' }

function itemWith(rules: AccessControlRules): AuthorizationItem {
  return { ...BARE, rules: { privileges: [], roles: [], identities: [], roleAssignments: [], ...rules } }
}

describe('compileSnapshot()', () => {
  const imds: AuthorizationItem = { ...BARE, id: 'imds', mode: 'block' }
  const wireserver: AuthorizationItem = { ...BARE, id: 'wireserver', mode: 'Audit' }
  const hostga: AuthorizationItem = { ...BARE, id: 'hostga' }

  test('HostGAPlugin gets the policy of WireServer, not its own item', () => {
    const { result } = compileSnapshot(itemsOf({ imds, wireserver, hostga }), 7)
    assert.equal(result.epoch, 7)
    assert.equal(result.imds?.id, 'imds')
    assert.equal(result.hostga?.id, 'wireserver')
    assert.equal(result.hostga, result.wireserver)
  })
  test('HostGAPlugin has no rules without WireServer', () => {
    assert.deepEqual(Object.keys(compileSnapshot(itemsOf({ hostga, imds }), 1).result), ['epoch', 'imds'])
  })
  test('an empty document is a snapshot without rules', () => {
    assert.deepEqual(compileSnapshot(itemsOf({}), 0), { result: { epoch: 0 }, warnings: [] })
  })
  test('an endpoint may have an item of its own, as when local rules are merged into one of two', () => {
    const { result } = compileSnapshot({ wireserver, hostga }, 1)
    assert.deepEqual([result.wireserver?.mode, result.hostga?.mode], ['audit', 'enforce'])
  })
  test('warnings name their endpoint, and come once for a shared item', () => {
    const bad = { ...BARE, mode: 'block' }
    const { warnings } = compileSnapshot(itemsOf({ imds, wireserver: bad }), 1)
    assert.deepEqual(
      warnings.map(({ code, endpoint }) => [code, endpoint]),
      [
        ['mode-unknown', 'wireserver'],
        ['mode-unknown', 'imds'],
      ],
    )
  })
  test('nothing in it can be changed', () => {
    const item = itemGranting([{ name: 'p', path: '/p', queryParameters: { k: 'v' } }])
    const { result } = compileSnapshot({ imds: item }, 1)
    assertFrozen(result, 'snapshot')
    assert.equal(Object.isFrozen(item), false, 'the document stays as it was')
    assert.equal(Object.isFrozen(item.rules?.privileges), false)
  })
})

function assertFrozen(value: unknown, path: string): void {
  if (typeof value !== 'object' || value === null) return
  assert.ok(Object.isFrozen(value), `${path} is not frozen`)
  for (const [name, inner] of Object.entries(value)) assertFrozen(inner, `${path}.${name}`)
}

describe('compileItem() understands words', () => {
  for (const [text, mode] of [
    ['disabled', 'disabled'],
    ['AUDIT', 'audit'],
    ['Enforce', 'enforce'],
    ['enforce ', undefined],
    ['', undefined],
    ['constructor', undefined],
  ] as const) {
    test(`mode ${JSON.stringify(text)} is ${mode ?? 'unknown, hence enforce'}`, () => {
      assert.equal(resolveMode(text), mode)
      const { result, warnings } = compileItem({ ...BARE, mode: text }, 'imds')
      assert.equal(result.mode, mode ?? 'enforce')
      assert.deepEqual(
        warnings.map(({ code }) => code),
        mode === undefined ? ['mode-unknown'] : [],
      )
    })
  }
  for (const [text, defaultAllowed, codes] of [
    ['allow', true, []],
    ['ALLOW', true, []],
    ['Deny', false, []],
    [' allow', false, ['default-access-unknown']],
    ['', false, ['default-access-unknown']],
  ] as const) {
    test(`default access ${JSON.stringify(text)} ${defaultAllowed ? 'allows' : 'denies'}`, () => {
      const { result, warnings } = compileItem({ ...BARE, defaultAccess: text }, 'imds')
      assert.equal(result.defaultAllowed, defaultAllowed)
      assert.deepEqual(
        warnings.map(({ code }) => code),
        codes,
      )
    })
  }
})

describe('compileItem() builds privileges', () => {
  test('path and parameters in lower case, patterns for both matchers, grants with their role', () => {
    const item = itemGranting([{ name: 'P', path: '/A%2Fb;x/', queryParameters: { Key: 'A+B' } }])
    const { result, warnings } = compileItem(item, 'imds')
    assert.deepEqual(warnings, [])
    const identity = {
      name: 'someone',
      userName: 'alice',
      index: 0,
      matchesNobody: false,
      comparableExePath: undefined,
      comparableCgroupPath: undefined,
    }
    const role = { name: 'reader', grants: [{ role: 'reader', identity, position: 0 }] }
    const legacy = { path: '/a%2fb;x/', query: [['key', 'a+b']] }
    assert.deepEqual(result.privileges, [{ name: 'P', legacy, roles: [role] }])
    const find = (patterns: PatternIndex, path: string, value: string) =>
      patterns.find({ path, parameters: () => new Map([['key', [value]]]) })
    assert.deepEqual(find(result.legacyPatterns, '/a%2fb;x/y', 'a+b'), [0])
    assert.deepEqual(find(result.canonicalPatterns, '/a/b/y/', 'a b'), [0])
    assert.deepEqual(result.roles, [role])
    assert.deepEqual(result.identities, [identity])
    assert.equal(result.id, 'rules-1')
    assert.equal(result.hash, hashItem(item))
  })

  test('a role is compiled once, however many privileges it brings and however often it is assigned', () => {
    const item = itemWith({
      privileges: [
        { name: 'p', path: '/p' },
        { name: 'q', path: '/q' },
      ],
      roles: [
        { name: 'r', privileges: ['p'] },
        { name: 's', privileges: ['p', 'q', 'p'] },
        { name: 'unassigned', privileges: ['p'] },
      ],
      identities: [
        { name: 'i', userName: 'a' },
        { name: 'j', userName: 'b' },
      ],
      roleAssignments: [
        { role: 's', identities: ['i', 'i'] },
        { role: 'r', identities: ['i', 'j'] },
        { role: 's', identities: ['j', 'i'] },
      ],
    })
    const { privileges, roles } = compileItem(item, 'imds').result
    const [s, r] = roles
    assert.deepEqual(
      roles.map(({ name, grants }) => [name, ...grants.map(({ identity, position }) => [identity.name, position])]),
      [
        ['s', ['i', 0], ['j', 3]],
        ['r', ['i', 1], ['j', 2]],
      ],
    )
    assert.deepEqual(
      privileges.map(({ roles }) => roles.length),
      [2, 1],
    )
    assert.ok(privileges[0]?.roles[0] === s && privileges[1]?.roles[0] === s, 'one object, not a copy for each')
    assert.equal(privileges[0]?.roles[1], r)
  })

  test('names that objects know are names', () => {
    const item = itemWith({
      privileges: [{ name: '__proto__', path: '/p', queryParameters: JSON.parse('{"__proto__":"1"}') }],
      roles: [{ name: 'constructor', privileges: ['__proto__', 'toString'] }],
      identities: [{ name: 'hasOwnProperty', userName: 'a' }],
      roleAssignments: [{ role: 'constructor', identities: ['hasOwnProperty', 'valueOf'] }],
    })
    const { result, warnings } = compileItem(item, 'imds')
    assert.equal(result.privileges[0]?.roles[0]?.grants.length, 1)
    assert.deepEqual(result.privileges[0]?.legacy.query, [['__proto__', '1']])
    assert.deepEqual(
      warnings.map(({ code }) => code),
      ['privilege-undefined', 'identity-undefined'],
    )
  })

  test('parameters are made canonical one by one: an ampersand inside a value stays there', () => {
    assert.deepEqual(compilePattern('/p', Object.entries({ k: 'a&b=c', '': 'x', 'm%20': '%41', '%6B': 'd' })), {
      prefix: '/p/',
      parameters: [
        { name: 'k', values: ['a&b=c', 'd'] },
        { name: 'm ', values: ['a'] },
      ],
    })
  })
})

describe('compileItem() warns', () => {
  const complete = {
    privileges: [{ name: 'p', path: '/p' }],
    roles: [{ name: 'r', privileges: ['p'] }],
    identities: [{ name: 'i', userName: 'u' }],
    roleAssignments: [{ role: 'r', identities: ['i'] }],
  }
  const rows: readonly (readonly [
    situation: string,
    rules: AccessControlRules,
    code: RuleWarningCode,
    message: string,
  ])[] = [
    [
      'an assignment of a role that is not there',
      { ...complete, roleAssignments: [{ role: 'R', identities: ['i'] }] },
      'role-undefined',
      "Role 'R' is not defined, skip the role assignment.",
    ],
    [
      'a role with a privilege that is not there',
      { ...complete, roles: [{ name: 'r', privileges: ['p', 'q'] }] },
      'privilege-undefined',
      "Role 'r' names privilege 'q', which is not defined.",
    ],
    [
      'an assignment to an identity that is not there',
      { ...complete, roleAssignments: [{ role: 'r', identities: ['i', 'ghost'] }] },
      'identity-undefined',
      "Identity 'ghost' is not defined, role 'r' is not assigned to it.",
    ],
    [
      'two privileges of one name',
      { ...complete, privileges: [{ name: 'p', path: '/1' }, ...complete.privileges] },
      'duplicate-name',
      "Two entries define privilege 'p', the last one counts.",
    ],
    [
      'two identities of one name',
      { ...complete, identities: [{ name: 'i' }, ...complete.identities] },
      'duplicate-name',
      "Two entries define identity 'i', the last one counts.",
    ],
    [
      'two roles of one name',
      { ...complete, roles: [{ name: 'r', privileges: ['ghost'] }, ...complete.roles] },
      'duplicate-name',
      "Two entries define role 'r', the last one counts.",
    ],
    [
      'an identity without selectors',
      { ...complete, identities: [{ name: 'i' }] },
      'identity-without-selector',
      "Identity 'i' has no selector, it matches everybody.",
    ],
    [
      'an identity with an empty selector',
      { ...complete, identities: [{ name: 'i', userName: 'u', exePath: '' }] },
      'identity-selector-empty',
      "Identity 'i' has an empty selector, it matches nobody.",
    ],
    [
      'parameters that differ only in case',
      { ...complete, privileges: [{ name: 'p', path: '/p', queryParameters: { k: '1', K: '2' } }] },
      'duplicate-parameter',
      "Privilege 'p' has query parameters that differ only in case, the last one counts.",
    ],
    [
      'a path without canonical form',
      { ...complete, privileges: [{ name: 'p', path: '/X?y' }] },
      'privilege-not-canonical',
      "Privilege 'p' failed canonicalization (CANON_EMBQ); dropping from canonical cache (legacy matcher unaffected). path=/X?y",
    ],
    [
      'a parameter without canonical form',
      { ...complete, privileges: [{ name: 'p', path: '/p', queryParameters: { k: '%zz' } }] },
      'privilege-not-canonical',
      "Privilege 'p' failed canonicalization (CANON_PCT); dropping from canonical cache (legacy matcher unaffected). path=/p",
    ],
    [
      'missing sections',
      { privileges: complete.privileges, identities: complete.identities },
      'section-missing',
      'The rules have no roles, no roleAssignments: privileges that stay unassigned deny.',
    ],
  ]
  for (const [situation, rules, code, message] of rows) {
    test(situation, () => {
      assert.deepEqual(compileItem({ ...BARE, rules }, 'imds').warnings, [{ code, endpoint: 'imds', message }])
    })
  }
  test('a hundred times, and then says how many more there are', () => {
    const identities = Array.from({ length: 150 }, (_, index) => ({ name: `i${index}` }))
    const { warnings } = compileItem({ ...BARE, rules: { ...complete, identities } }, 'imds')
    assert.equal(warnings.length, 101)
    // 150 identities without selector, and one assignment to an identity that is gone.
    assert.deepEqual(warnings.at(-1), {
      code: 'warnings-omitted',
      endpoint: 'imds',
      message: 'The rules give 51 more warnings.',
    })
  })
  test('once of a reference that one list repeats', () => {
    const roles = [{ name: 'r', privileges: ['p', 'q', 'q', 'q'] }]
    assert.equal(compileItem({ ...BARE, rules: { ...complete, roles } }, 'imds').warnings.length, 1)
  })
  test('not about a complete document, nor about one without rules', () => {
    assert.deepEqual(compileItem({ ...BARE, rules: complete }, 'imds').warnings, [])
    assert.deepEqual(compileItem(BARE, 'imds').warnings, [])
    assert.deepEqual(compileItem(itemWith({}), 'imds').warnings, [])
  })
})

describe('compileItem() keeps a restriction whatever part of the document is missing', () => {
  const item = itemGranting([{ name: 'token', path: '/token' }], undefined, { defaultAccess: 'allow' })
  for (const section of ['roles', 'identities', 'roleAssignments'] as const) {
    test(`no ${section}: the privilege grants nobody and denies`, () => {
      const { [section]: _, ...rules } = item.rules ?? {}
      const verdict = decideGet({ ...item, rules }, '/token', BOB)
      assert.deepEqual([verdict.outcome, verdict.reason.kind], ['forbidden', 'not-granted'])
    })
  }
})

describe('hashItem()', () => {
  const item = itemGranting([{ name: 'p', path: '/p', queryParameters: { a: '1', b: '2' } }])

  test('is the same for the same content in another order of members', () => {
    const reversed = (value: unknown): unknown =>
      typeof value !== 'object' || value === null || Array.isArray(value)
        ? value
        : Object.fromEntries(Object.entries(value).reverse())
    const privileges = item.rules?.privileges?.map(reversed)
    const document = reversed({ ...item, rules: reversed({ ...item.rules, privileges }) })
    assert.equal(hashItem(parseAuthorizationItem(document)), hashItem(parseAuthorizationItem(item)))
    assert.match(hashItem(item), /^[0-9a-f]{64}$/)
  })

  const changes: readonly (readonly [situation: string, changed: AuthorizationItem])[] = [
    ['the mode, under the same id', { ...item, mode: 'audit' }],
    ['the letter case of the mode', { ...item, mode: 'Enforce' }],
    ['the id', { ...item, id: 'rules-2' }],
    ['the default access', { ...item, defaultAccess: 'allow' }],
    ['a path', itemGranting([{ name: 'p', path: '/q', queryParameters: { a: '1', b: '2' } }])],
    ['a parameter', itemGranting([{ name: 'p', path: '/p', queryParameters: { a: '1', b: '3' } }])],
    [
      'a parameter named like the prototype',
      itemGranting([{ name: 'p', path: '/p', queryParameters: JSON.parse('{"a":"1","b":"2","__proto__":"1"}') }]),
    ],
    ['a selector', itemGranting(item.rules?.privileges ?? [], { userName: 'bob' })],
    ['empty sections instead of none', { ...item, rules: {} }],
    ['no rules', { id: item.id, mode: item.mode, defaultAccess: item.defaultAccess }],
  ]
  for (const [situation, changed] of changes) {
    test(`tells a change of ${situation}`, () => assert.notEqual(hashItem(changed), hashItem(item)))
  }
  test('tells all these changes from each other', () => {
    assert.equal(new Set(changes.map(([, changed]) => hashItem(changed))).size, changes.length)
  })
})
