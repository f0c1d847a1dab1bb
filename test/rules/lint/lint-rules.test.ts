import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import type { AccessControlRules } from '../../../src/rules/document.ts'
import { lintRules } from '../../../src/rules/lint/lint-rules.ts'
import { RulesFileError, readRulesFile } from '../../../src/rules/rules-file.ts'

const SOUND: AccessControlRules = {
  privileges: [{ name: 'p', path: '/a/' }],
  roles: [{ name: 'r', privileges: ['p'] }],
  identities: [{ name: 'i', userName: 'alice' }],
  roleAssignments: [{ role: 'r', identities: ['i'] }],
}

function item(rules: unknown = SOUND, more: object = {}): object {
  return { id: 'x', mode: 'enforce', defaultAccess: 'deny', rules, ...more }
}

/** Rules with one privilege of this kind, held by alice. */
function withPrivilege(privilege: object, more: object = {}): object {
  return item({ ...SOUND, privileges: [{ name: 'p', ...privilege }] }, more)
}

/** Rules whose one identity is this. */
function withIdentity(identity: object): object {
  return item({ ...SOUND, identities: [{ name: 'i', ...identity }] })
}

function findingsOf(document: unknown): string[] {
  const text = typeof document === 'string' ? document : JSON.stringify(document)
  return lintRules(text).findings.map(({ severity, code }) => `${severity} ${code}`)
}

/** Two privileges, p1 held by some and p2 by others. */
function overlap(first: object, second: object, holders: readonly string[], others: readonly string[]): object {
  return item({
    privileges: [
      { name: 'p1', ...first },
      { name: 'p2', ...second },
    ],
    roles: [
      { name: 'r1', privileges: ['p1'] },
      { name: 'r2', privileges: ['p2'] },
    ],
    identities: [...new Set([...holders, ...others])].map((name) => ({ name, userName: name })),
    roleAssignments: [
      { role: 'r1', identities: holders },
      { role: 'r2', identities: others },
    ].filter(({ identities }) => identities.length > 0),
  })
}

describe('lintRules() finds', () => {
  const rows: readonly (readonly [situation: string, document: unknown, findings: readonly string[]])[] = [
    ['nothing in sound rules', item(), []],
    ['nothing in an item without rules', item(null), []],
    ['nothing in a schema for editors', { $schema: './x.json', ...item() }, []],
    ['text that is not JSON', '{', ['error json-syntax']],
    [
      'a member that stands twice',
      '{"id":"x","mode":"audit","defaultAccess":"deny","id":"y"}',
      ['error duplicate-member'],
    ],
    ['a value of a wrong type', item(5), ['error shape']],
    ['a missing member', { mode: 'audit', id: 'x' }, ['error shape']],
    ['an unknown mode', item(SOUND, { mode: 'enforce ' }), ['error mode-unknown']],
    ['a mode that switches all off', item(SOUND, { mode: 'Disabled' }), ['warning mode-disabled']],
    ['an unknown default access', item(SOUND, { defaultAccess: 'yes' }), ['error default-access-unknown']],
    ['a slip in the name of a selector', withIdentity({ userName: 'a', exePth: '/x' }), ['warning unknown-member']],
    [
      'a selector of local rules in rules of the host',
      withIdentity({ userName: 'a', exeSha256: 'ab'.repeat(32) }),
      ['warning unknown-member'],
    ],
    ['a mode in a local file by its name', { id: 'x', moed: 'audit' }, ['warning unknown-member']],
    ['a section that is missing', item({ privileges: [] }), ['warning section-missing']],
    [
      'a name that is defined twice',
      item({ ...SOUND, roles: [...(SOUND.roles ?? []), { name: 'r', privileges: ['p'] }] }),
      ['error duplicate-name'],
    ],
    [
      'an undefined privilege',
      item({ ...SOUND, roles: [{ name: 'r', privileges: ['p', 'P'] }] }),
      ['error privilege-undefined'],
    ],
    [
      'an undefined identity',
      item({ ...SOUND, roleAssignments: [{ role: 'r', identities: ['i', 'j'] }] }),
      ['error identity-undefined'],
    ],
    [
      'an undefined role',
      item({ ...SOUND, roleAssignments: [...(SOUND.roleAssignments ?? []), { role: 's', identities: ['i'] }] }),
      ['error role-undefined'],
    ],
    [
      'a reference that stands twice',
      item({ ...SOUND, roles: [{ name: 'r', privileges: ['p', 'p'] }] }),
      ['warning duplicate-reference'],
    ],
    [
      'a role without privileges',
      item({ ...SOUND, roles: [{ name: 'r', privileges: [] }] }),
      ['warning privilege-ungranted', 'warning list-empty'],
    ],
    ['a prefix of text', withPrivilege({ path: '/metadata' }), ['warning path-prefix']],
    [
      'a slash that opens the path without it',
      withPrivilege({ path: '/a/' }, { defaultAccess: 'allow' }),
      ['warning path-slash'],
    ],
    ['a path without a slash', withPrivilege({ path: 'a/' }), ['error path-never-matches']],
    [
      'a path with a query',
      withPrivilege({ path: '/a?b=c' }),
      ['warning privilege-not-canonical', 'error path-never-matches'],
    ],
    ['a path with escapes', withPrivilege({ path: '/a%20b/' }), ['warning path-escaped']],
    ['a path with dots', withPrivilege({ path: '/a/./b/' }), ['warning path-unusual']],
    ['an empty path', withPrivilege({ path: '' }), ['warning path-empty']],
    ['nothing in the path of all', withPrivilege({ path: '/' }), []],
    ['a path without canonical form', withPrivilege({ path: '/é/' }), ['warning privilege-not-canonical']],
    [
      'parameters that differ in case',
      withPrivilege({ path: '/a/', queryParameters: { k: '1', K: '2' } }),
      ['error duplicate-parameter'],
    ],
    [
      'a parameter without a name',
      withPrivilege({ path: '/a/', queryParameters: { '': '1' } }),
      ['error path-never-matches'],
    ],
    [
      'a plus in a parameter',
      withPrivilege({ path: '/a/', queryParameters: { k: 'a+b' } }),
      ['warning parameter-plus'],
    ],
    ['an item that has never counted', { hostga: item(null), wireserver: item(null) }, ['warning item-ignored']],
    ['nothing in a document for two endpoints', { authorizationRules: { imds: item(), wireserver: null } }, []],
    ['an identity without selectors', withIdentity({}), ['error identity-anyone']],
    ['an identity by process name alone', withIdentity({ processName: 'curl' }), ['warning identity-anyone']],
    ['an identity by executable alone', withIdentity({ exePath: '/usr/bin/curl' }), ['warning identity-anyone']],
    ['an identity of an unknown user', withIdentity({ userName: 'undefined' }), ['warning identity-anyone']],
    ['an identity that is nobody', withIdentity({ userName: '', exePath: '/x' }), ['warning identity-nobody']],
    [
      'an executable without its directory',
      withIdentity({ userName: 'a', exePath: 'curl' }),
      ['warning identity-nobody'],
    ],
    [
      'an identity that is never used',
      item({ ...SOUND, identities: [...(SOUND.identities ?? []), { name: 'j', userName: 'j' }] }),
      ['warning identity-unused'],
    ],
    [
      'a role that is never assigned',
      item({ ...SOUND, roles: [...(SOUND.roles ?? []), { name: 's', privileges: ['p'] }] }),
      ['warning role-unused'],
    ],
    [
      'a broad grant that defeats a narrow privilege',
      overlap({ path: '/a/' }, { path: '/a/b/' }, ['i'], ['j']),
      ['warning privilege-defeated'],
    ],
    [
      'a privilege that changes nothing',
      overlap({ path: '/a/' }, { path: '/a/b/' }, ['i', 'j'], ['j']),
      ['warning privilege-shadowed'],
    ],
    [
      'the second of two that are alike',
      overlap({ path: '/A/' }, { path: '/a/' }, ['i'], ['i']),
      ['warning privilege-shadowed'],
    ],
    [
      'nothing where the broad one asks for more',
      overlap({ path: '/a/', queryParameters: { k: 'v' } }, { path: '/a/b/' }, ['i'], ['i']),
      [],
    ],
    ['nothing where the narrow one grants more', overlap({ path: '/a/' }, { path: '/a/b/' }, ['i'], ['i', 'j']), []],
  ]
  for (const [situation, document, findings] of rows) {
    test(situation, () => assert.deepEqual(findingsOf(document), findings))
  }
})

describe('lintRules() says of local rules', () => {
  const local = (rules: object, more: object = {}) => ({ rules: { ...SOUND, ...rules }, ...more })
  const rows: readonly (readonly [situation: string, document: unknown, findings: readonly string[]])[] = [
    ['nothing when they are sound', local({}), []],
    [
      'that the content of a program names nobody',
      local({ identities: [{ name: 'i', exeSha256: 'ab'.repeat(32) }] }),
      ['warning identity-anyone'],
    ],
    [
      'nothing in a unit with a hash',
      local({ identities: [{ name: 'i', systemdUnit: 'a.service', exeSha256: 'ab'.repeat(32) }] }),
      [],
    ],
    ['a unit that is none', local({ identities: [{ name: 'i', systemdUnit: 'a.slice' }] }), ['error refused']],
    ['that a default access is not known', local({}, { defaultAccess: 'yes' }), ['error default-access-unknown']],
    ['nothing about spaces around a default access', local({}, { defaultAccess: ' Deny ' }), []],
    ['that an empty id is refused', local({}, { id: ' ' }), ['error refused']],
    ['that a blank selector is none', local({ identities: [{ name: 'i', userName: ' ' }] }), ['error identity-anyone']],
    [
      'that a repeated reference is refused',
      local({ roles: [{ name: 'r', privileges: ['p', 'p'] }] }),
      ['error duplicate-reference'],
    ],
    [
      'that a parameter needs a value',
      local({ privileges: [{ name: 'p', path: '/a/', queryParameters: { k: '' } }] }),
      ['error parameter-empty'],
    ],
  ]
  for (const [situation, document, findings] of rows) {
    test(situation, () => assert.deepEqual(findingsOf(document), findings))
  }

  test('that a mode has no meaning in a file by the name of one', () => {
    const { format, findings } = lintRules('{"mode":"audit"}', 'IMDS_Rules.json')
    assert.equal(format, 'local')
    assert.deepEqual(
      findings.map(({ code }) => code),
      ['unknown-member'],
    )
  })
})

describe('lintRules()', () => {
  test('points to the place of a finding', () => {
    const text = '{\n  "id": "x", "mode": "enforce", "defaultAccess": "deny",\n  "rules": {\n    "roles": [5]\n  }\n}'
    const [finding] = lintRules(text).findings
    assert.deepEqual(finding?.path, ['rules', 'roles', 0])
    assert.deepEqual(finding?.position, { line: 4, column: 15 })
  })

  test('keeps the errors of a file with more findings than it tells', () => {
    const identities = Array.from({ length: 300 }, (_, i) => ({ name: `i${i}`, userName: 'a' }))
    const { findings } = lintRules(JSON.stringify(item({ ...SOUND, identities: [...identities, { name: 'i' }] })))
    assert.ok(findings.length <= 201)
    assert.ok(findings.some(({ code }) => code === 'identity-anyone'))
    assert.equal(findings.at(-1)?.code, 'findings-omitted')
  })

  test('has an error for every file that the agent refuses, and a result for any text', () => {
    const name = fc.constantFrom('', ' ', 'a', 'b')
    const list = <T>(entry: fc.Arbitrary<T>) => fc.option(fc.array(entry, { maxLength: 2 }), { nil: null })
    const rules = fc.record(
      {
        privileges: list(fc.record({ name, path: name, queryParameters: fc.dictionary(name, name) })),
        roles: list(fc.record({ name, privileges: fc.array(name, { maxLength: 2 }) })),
        identities: list(
          fc.record({ name, userName: fc.option(name), exePath: fc.anything() }, { requiredKeys: ['name'] }),
        ),
        roleAssignments: list(fc.record({ role: name, identities: fc.array(name, { maxLength: 2 }) })),
      },
      { requiredKeys: [] },
    )
    const document = fc.record({ id: name, mode: name, defaultAccess: name, rules }, { requiredKeys: [] })
    const text = fc.oneof(
      { weight: 5, arbitrary: document.map((value) => JSON.stringify(value)) },
      fc.json(),
      fc.string(),
    )
    fc.assert(
      fc.property(text, fc.constantFrom('', 'IMDS_Rules.json'), (content, fileName) => {
        const { findings } = lintRules(content, fileName)
        let refused = false
        try {
          readRulesFile(content, fileName)
        } catch (error) {
          assert.ok(error instanceof RulesFileError)
          refused = true
        }
        if (refused) assert.ok(findings.some(({ severity }) => severity === 'error'))
      }),
      { numRuns: 1000 },
    )
  })
})

describe('lintRules() takes bounded time', () => {
  const names = Array.from({ length: 2000 }, (_, index) => `n${index}`)
  const some = (count: number, offset: number) => names.slice(offset % 1900, (offset % 1900) + count)
  const identities = names.map((name) => ({ name, userName: name }))
  const rows: readonly (readonly [situation: string, rules: AccessControlRules, code: string])[] = [
    [
      'of very many references that lead nowhere',
      {
        privileges: names.map((name) => ({ name, path: `/${name}` })),
        roles: some(90, 0).map((name) => ({ name, privileges: names.map((each) => `${each} x`) })),
      },
      'privilege-undefined',
    ],
    [
      'of very many privileges of one path with as many holders, no two alike',
      {
        privileges: names.map((name) => ({ name, path: '/' })),
        roles: names.map((name, index) => ({ name, privileges: some(40, index) })),
        identities,
        roleAssignments: names.map((role, index) => ({ role, identities: some(40, index * 7) })),
      },
      'privilege-defeated',
    ],
  ]
  // Seconds on a busy machine; what multiplies one list by another takes most of a minute on an idle one.
  for (const [situation, rules, code] of rows) {
    test(situation, () => {
      const startMs = performance.now()
      const { findings } = lintRules(JSON.stringify(item(rules)))
      assert.ok(performance.now() - startMs < 15_000)
      assert.ok(findings.some((each) => each.code === code))
    })
  }
})
