import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseJson } from '../../src/base/json.ts'
import {
  type AuthorizationItem,
  isAllowedDuplicate,
  MAX_LIST_LENGTH,
  MAX_NAME_LENGTH,
  MAX_PARAMETERS,
  MAX_REFERENCES,
  parseAuthorizationItem,
  parseAuthorizationRules,
  RulesDocumentError,
} from '../../src/rules/document.ts'

const ITEM = { defaultAccess: 'deny', mode: 'enforce', id: 'sigid' }
const FULL = {
  ...ITEM,
  rules: {
    privileges: [{ name: 'test', path: '/test', queryParameters: { key1: 'value1', key2: 'value2' } }],
    roles: [{ name: 'test', privileges: ['test'] }],
    identities: [{ name: 'test', userName: 'u', groupName: 'g', exePath: '/usr/bin/x', processName: 'x' }],
    roleAssignments: [{ role: 'test', identities: ['test'] }],
  },
}

/** Puts `value` at `path` in a copy of a full document. */
function documentWith(path: readonly (string | number)[], value: unknown): unknown {
  const document = structuredClone({ imds: FULL }) as unknown
  // biome-ignore lint/suspicious/noExplicitAny: walks whatever the row names
  const owner = path.slice(0, -1).reduce((at: any, step) => at[step], document)
  owner[path.at(-1)!] = value
  return JSON.parse(JSON.stringify(document))
}

describe('parseAuthorizationRules() accepts', () => {
  test('a full document, unchanged', () => {
    const rules = parseAuthorizationRules({ imds: FULL, wireserver: FULL, hostga: FULL })
    assert.equal(JSON.stringify(rules), JSON.stringify({ imds: FULL, wireserver: FULL, hostga: FULL }))
  })
  test('nothing at all', () => assert.deepEqual(parseAuthorizationRules({}), {}))
  test('null for every optional member, which then is absent', () => {
    assert.deepEqual(parseAuthorizationRules({ imds: null, wireserver: ITEM, hostga: null }), { wireserver: ITEM })
    assert.deepEqual(parseAuthorizationItem({ ...ITEM, rules: null }), ITEM)
    const rules = { privileges: null, roles: null, identities: null, roleAssignments: null }
    assert.deepEqual(parseAuthorizationItem({ ...ITEM, rules }), { ...ITEM, rules: {} })
    const nothing = { userName: null, groupName: null, exePath: null, processName: null }
    assert.deepEqual(
      parseAuthorizationItem({ ...ITEM, rules: { identities: [{ name: 'i', ...nothing }] } }).rules?.identities,
      [{ name: 'i' }],
    )
    const privileges = [{ name: 'p', path: '/', queryParameters: null }]
    assert.deepEqual(parseAuthorizationItem({ ...ITEM, rules: { privileges } }).rules?.privileges, [
      { name: 'p', path: '/' },
    ])
  })
  test('unknown members, which go', () => {
    assert.deepEqual(parseAuthorizationRules({ imds: { ...ITEM, extra: [1] }, other: 5 }), { imds: ITEM })
  })
  test('selectors of local rules in a document of the host: members without a meaning', () => {
    const local = { cgroupPath: '/a', systemdUnit: 'b.service', containerId: 'c', exeSha256: 'd' }
    const received = { ...ITEM, rules: { identities: [{ name: 'i', userName: 'bob', ...local }] } }
    const read = (item: AuthorizationItem | undefined) => item?.rules?.identities
    assert.deepEqual(read(parseAuthorizationItem(received)), [{ name: 'i', userName: 'bob' }])
    assert.deepEqual(read(parseAuthorizationRules({ imds: received }).imds), [{ name: 'i', userName: 'bob' }])
    assert.deepEqual(read(parseAuthorizationItem(received, [], 'local')), received.rules.identities)
    assert.deepEqual(read(parseAuthorizationRules({ imds: received }, [], 'local').imds), received.rules.identities)
  })
  test('words that mean nothing: that is for compiling to say', () => {
    const item = { defaultAccess: 'perhaps', mode: '', id: '' }
    assert.deepEqual(parseAuthorizationItem(item), item)
  })
  test('any name of a query parameter', () => {
    const text = '{"name":"p","path":"/","queryParameters":{"constructor":"1","prototype":"2","__proto__":"3","":"4"}}'
    for (const privilege of [JSON.parse(text), parseJson(text).value]) {
      const item = parseAuthorizationItem({ ...ITEM, rules: { privileges: [privilege] } })
      assert.equal(JSON.stringify(item.rules?.privileges?.[0]), text)
    }
  })
})

describe('parseAuthorizationRules() refuses', () => {
  const rows: readonly (readonly [path: readonly (string | number)[], value: unknown, problem: string])[] = [
    [['imds'], 'x', 'authorizationRules.imds: expected object, got string'],
    [['imds'], [], 'authorizationRules.imds: expected object, got array'],
    [['imds', 'mode'], undefined, 'authorizationRules.imds.mode: a required member is missing'],
    [['imds', 'mode'], null, 'authorizationRules.imds.mode: expected string, got null'],
    [['imds', 'id'], 5, 'authorizationRules.imds.id: expected string, got number'],
    [['imds', 'defaultAccess'], true, 'authorizationRules.imds.defaultAccess: expected string, got boolean'],
    [['imds', 'rules'], [], 'authorizationRules.imds.rules: expected object, got array'],
    [['imds', 'rules', 'privileges'], {}, 'authorizationRules.imds.rules.privileges: expected array, got object'],
    [
      ['imds', 'rules', 'privileges', 0],
      null,
      'authorizationRules.imds.rules.privileges[0]: expected object, got null',
    ],
    [
      ['imds', 'rules', 'privileges', 0, 'path'],
      7,
      'authorizationRules.imds.rules.privileges[0].path: expected string, got number',
    ],
    [
      ['imds', 'rules', 'privileges', 0, 'name'],
      undefined,
      'authorizationRules.imds.rules.privileges[0].name: a required member is missing',
    ],
    [
      ['imds', 'rules', 'privileges', 0, 'queryParameters'],
      ['a'],
      'authorizationRules.imds.rules.privileges[0].queryParameters: expected object, got array',
    ],
    [
      ['imds', 'rules', 'privileges', 0, 'queryParameters', 'key2'],
      1,
      'authorizationRules.imds.rules.privileges[0].queryParameters.key2: expected string, got number',
    ],
    [
      ['imds', 'rules', 'privileges', 0, 'queryParameters', 'a b'],
      null,
      'authorizationRules.imds.rules.privileges[0].queryParameters["a b"]: expected string, got null',
    ],
    [
      ['imds', 'rules', 'roles', 0, 'privileges'],
      undefined,
      'authorizationRules.imds.rules.roles[0].privileges: a required member is missing',
    ],
    [
      ['imds', 'rules', 'roles', 0, 'privileges', 0],
      {},
      'authorizationRules.imds.rules.roles[0].privileges[0]: expected string, got object',
    ],
    [
      ['imds', 'rules', 'identities', 0, 'exePath'],
      [],
      'authorizationRules.imds.rules.identities[0].exePath: expected string, got array',
    ],
    [
      ['imds', 'rules', 'identities', 0, 'name'],
      null,
      'authorizationRules.imds.rules.identities[0].name: expected string, got null',
    ],
    [
      ['imds', 'rules', 'roleAssignments', 0, 'identities'],
      null,
      'authorizationRules.imds.rules.roleAssignments[0].identities: expected array, got null',
    ],
    [
      ['imds', 'rules', 'roleAssignments', 0, 'role'],
      undefined,
      'authorizationRules.imds.rules.roleAssignments[0].role: a required member is missing',
    ],
  ]
  for (const [path, value, problem] of rows) {
    test(problem, () => {
      assert.throws(() => parseAuthorizationRules(documentWith(path, value)), {
        name: 'RulesDocumentError',
        code: 'RULES_DOCUMENT',
        message: `Cannot read authorization rules: ${problem}`,
      })
    })
  }
  for (const json of [null, undefined, 'x', 5, [], true]) {
    test(`${JSON.stringify(json)} as a whole`, () =>
      assert.throws(() => parseAuthorizationRules(json), { code: 'RULES_DOCUMENT' }))
  }

  test('a bad item although the others are good', () => {
    assert.throws(() => parseAuthorizationRules({ imds: ITEM, wireserver: ITEM, hostga: { ...ITEM, id: 1 } }), {
      message: /authorizationRules\.hostga\.id: expected string, got number$/,
    })
  })

  test('with a path that the document can locate, and without the value', () => {
    const document = parseJson(
      '{\n"authorizationRules": {"imds": {"defaultAccess": "deny",\n  "mode": ["secret"], "id": "x"}}}',
    )
    const rules = (document.value as Record<string, unknown>).authorizationRules
    assert.throws(
      () => parseAuthorizationRules(rules),
      (error) => {
        assert.ok(error instanceof RulesDocumentError)
        assert.deepEqual(document.locate(error.path), { line: 3, column: 11 })
        assert.doesNotMatch(JSON.stringify(error.facts) + error.message, /secret/)
        return true
      },
    )
  })
})

describe('parseAuthorizationRules() refuses what is out of proportion', () => {
  const names = (count: number) => Array.from({ length: count }, (_, index) => `n${index}`)
  const parameters = (count: number) => Object.fromEntries(names(count).map((name) => [name, 'v']))
  const long = 'x'.repeat(MAX_NAME_LENGTH)
  type Rules = Readonly<Record<string, readonly unknown[]>>
  const rows: readonly (readonly [where: string, make: (count: number) => Rules, limit: number, what: string])[] = [
    ['privileges', (n) => ({ privileges: names(n).map((name) => ({ name, path: '/' })) }), MAX_LIST_LENGTH, 'entries'],
    ['roles', (n) => ({ roles: names(n).map((name) => ({ name, privileges: [] })) }), MAX_LIST_LENGTH, 'entries'],
    ['identities', (n) => ({ identities: names(n).map((name) => ({ name })) }), MAX_LIST_LENGTH, 'entries'],
    [
      'roleAssignments',
      (n) => ({ roleAssignments: names(n).map((role) => ({ role, identities: [] })) }),
      MAX_LIST_LENGTH,
      'entries',
    ],
    ['roles[0].privileges', (n) => ({ roles: [{ name: 'r', privileges: names(n) }] }), MAX_LIST_LENGTH, 'references'],
    [
      'roleAssignments[1].identities',
      (n) => ({
        roleAssignments: [
          { role: 'r', identities: [] },
          { role: 'r', identities: names(n) },
        ],
      }),
      MAX_LIST_LENGTH,
      'references',
    ],
    [
      'privileges[0].queryParameters',
      (n) => ({ privileges: [{ name: 'p', path: '/', queryParameters: parameters(n) }] }),
      MAX_LIST_LENGTH,
      'parameters',
    ],
    ['identities[0].name', (n) => ({ identities: [{ name: 'x'.repeat(n) }] }), MAX_NAME_LENGTH, 'characters'],
    [
      'roles[0].privileges[1]',
      (n) => ({ roles: [{ name: long, privileges: ['p', 'x'.repeat(n)] }] }),
      MAX_NAME_LENGTH,
      'characters',
    ],
    ['', (n) => spreadReferences(n), MAX_REFERENCES, 'references'],
    ['', (n) => spreadParameters(n), MAX_PARAMETERS, 'query parameters'],
  ]
  /** Lists none of which is long by itself. */
  function spread(count: number): number[] {
    const lists = []
    for (let left = count; left > 0; left -= 1000) lists.push(Math.min(left, 1000))
    return lists
  }
  function spreadReferences(count: number): Rules {
    const [few, ...more] = spread(count)
    return {
      roles: [{ name: 'r', privileges: names(few as number) }],
      roleAssignments: more.map((n) => ({ role: 'r', identities: names(n) })),
    }
  }
  function spreadParameters(count: number): Rules {
    return { privileges: spread(count).map((n) => ({ name: 'p', path: '/', queryParameters: parameters(n) })) }
  }
  for (const [where, make, limit, what] of rows) {
    test(`more than ${limit} ${what} in ${where || 'all lists together'}`, () => {
      const path = `authorizationRules.wireserver.rules${where && `.${where}`}`
      assert.doesNotThrow(() => parseAuthorizationRules({ wireserver: { ...ITEM, rules: make(limit) } }))
      assert.throws(() => parseAuthorizationRules({ wireserver: { ...ITEM, rules: make(limit + 1) } }), {
        name: 'RulesDocumentError',
        message: `Cannot read authorization rules: ${path}: has ${limit + 1} ${what}, the limit is ${limit}`,
      })
    })
  }
  test('the length of a list is told before its entries are looked at', () => {
    const privileges = new Array<unknown>(MAX_LIST_LENGTH + 1).fill(5)
    assert.throws(() => parseAuthorizationItem({ ...ITEM, rules: { privileges } }), { message: /the limit is 2000$/ })
  })
})

describe('isAllowedDuplicate()', () => {
  const rows: readonly (readonly [situation: string, text: string, allowed: boolean])[] = [
    ['a query parameter twice', '{"imds":{"rules":{"privileges":[{"queryParameters":{"k":"1","k":"2"}}]}}}', true],
    ['a privilege path twice', '{"imds":{"rules":{"privileges":[{"path":"/a","path":"/b"}]}}}', false],
    ['queryParameters itself twice', '{"privileges":[{"queryParameters":{},"queryParameters":{}}]}', false],
    ['a mode twice', '{"imds":{"mode":"enforce","mode":"disabled"}}', false],
    ['an endpoint twice', '{"imds":{},"imds":{}}', false],
    ['inside an object of that name elsewhere', '{"queryParameters":{"k":1,"k":2}}', false],
    ['below the values of query parameters', '{"privileges":[{"queryParameters":{"a":{"k":1,"k":2}}}]}', false],
    ['an object named privileges', '{"privileges":{"0":{"queryParameters":{"k":1,"k":2}}}}', false],
  ]
  for (const [situation, text, allowed] of rows) {
    test(`${situation}: ${allowed}`, () => {
      const { duplicates } = parseJson(text)
      assert.equal(duplicates.length, 1)
      assert.equal(isAllowedDuplicate(duplicates[0]!), allowed)
    })
  }
})
