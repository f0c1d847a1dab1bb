/** decide() against an evaluator of another build, on random rule sets and requests made to meet each other often. */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import type { EndpointName } from '../../src/base/endpoints.ts'
import type { RequestLine } from '../../src/base/request-target.ts'
import type { CanonicalMode, Verdict } from '../../src/rules/decide.ts'
import { decide } from '../../src/rules/decide.ts'
import type { AuthorizationItem, Identity, Privilege } from '../../src/rules/document.ts'
import type { RuleCaller } from '../../src/rules/selectors.ts'
import { compileItem } from '../../src/rules/snapshot.ts'
import { secondOpinion } from './second-opinion.ts'

const some = <Value>(...values: Value[]) => fc.constantFrom(...values)

/** Pieces of paths: plain, spelt otherwise, and broken. Weighted towards those that meet. */
const piece = fc.oneof(
  { weight: 12, arbitrary: some('a', 'a', 'b', 'A', 'a/b', '/a', '/b', '/') },
  { weight: 3, arbitrary: some('%61', '%2F', '.', '..', '%2e', ';x=1', '//', '%41', '%2561', '+', '%20') },
  {
    weight: 1,
    arbitrary: some('%3F', '%3fk=v', '%', '%zz', '%80', '%C3%A9', '%E2%84%AA', 'K', 'k', '%00', '%EF%BB%BF', '=', '&'),
  },
)
const path = fc.array(piece, { maxLength: 4 }).map((pieces) => `/${pieces.join('')}`)
const rulePath = fc.oneof(
  { weight: 4, arbitrary: path },
  { weight: 4, arbitrary: some('/', '/a', '/a', '/A/b', '/b') },
  { weight: 1, arbitrary: some('', 'a', '/', '/a?k=v', '/é', '/a%zz') },
)

const word = fc.oneof(
  { weight: 6, arbitrary: some('k', 'K', 'v', 'a', 'm') },
  { weight: 2, arbitrary: some('', '%6B', 'a+b', 'a%20b', 'a b', 'a%2Bb', '%C3%89', 'é') },
  { weight: 1, arbitrary: some('%', '%zz', '%FF', '%0A', 'a&b', 'a%26b', 'a=b', '%256B', 'constructor', '__proto__') },
)
const requestWord = word.filter((text) => text !== 'a&b' && text !== 'é' && text !== 'a b')
const query = fc
  .array(fc.tuple(requestWord, some('=', '=', ''), requestWord), { maxLength: 4 })
  .map((pairs) => pairs.map((pair) => pair.join('')).join('&'))

const target = fc
  .tuple(
    some('', '', '', 'http://169.254.169.254', 'HTTP://h', 'ftp://h'),
    path,
    some('', '?'),
    query,
    some('', '', '', '#f?k=v'),
  )
  .map(([origin, path, mark, query, fragment]) => `${origin}${path}${mark}${mark && query}${fragment}`)
const request: fc.Arbitrary<RequestLine> = fc.oneof(
  { weight: 20, arbitrary: fc.record({ method: some('GET', 'GET', 'POST', 'OPTIONS', 'TRACE'), target }) },
  {
    weight: 1,
    arbitrary: some(
      { method: 'PUT', target: '/vmAgentLog' },
      { method: 'POST', target: '/MACHINE/?comp=telemetrydata' },
    ),
  },
)

const name = some('p', 'p', 'p', 'p', 'q', 'constructor')
const names = fc.array(name, { minLength: 1, maxLength: 4, size: 'max' })
const selector = some(undefined, undefined, undefined, 'alice', 'alice', 'bob', 'curl', '')
const exePath = some(
  undefined,
  undefined,
  undefined,
  '/usr/bin/curl',
  '/usr//bin/./curl/',
  '/usr/bin',
  'curl',
  './curl',
  '',
)

/** Leaves out members that are undefined, as JSON does. */
function asJson<Value>(value: unknown): Value {
  return JSON.parse(JSON.stringify(value)) as Value
}

const queryParameters = fc.oneof(
  { weight: 6, arbitrary: fc.constant(undefined) },
  { weight: 3, arbitrary: some({ k: 'v' }, { K: '' }, { k: 'a+b' }, { m: 'A' }, {}) },
  { weight: 1, arbitrary: fc.dictionary(word, word, { maxKeys: 2 }) },
)
const privilege = fc.record({ name, path: rulePath, queryParameters }).map((value) => asJson<Privilege>(value))
const selectors = fc.oneof(
  { weight: 2, arbitrary: fc.constant({}) },
  {
    weight: 4,
    arbitrary: some(
      { userName: 'alice' },
      { groupName: 'bob' },
      { processName: 'curl' },
      { exePath: '/usr/./bin/curl' },
    ),
  },
  { weight: 3, arbitrary: fc.record({ userName: selector, groupName: selector, exePath, processName: selector }) },
)
const identity = fc.tuple(name, selectors).map(([name, selectors]) => asJson<Identity>({ name, ...selectors }))
const list = <Value>(entry: fc.Arbitrary<Value>) =>
  fc.oneof(
    { weight: 12, arbitrary: fc.array(entry, { minLength: 1, maxLength: 4 }) },
    { weight: 1, arbitrary: some(undefined, []) },
  )

const item: fc.Arbitrary<AuthorizationItem> = fc
  .record({
    id: some('rs'),
    mode: some('enforce', 'enforce', 'enforce', 'audit', 'Audit', 'disabled', 'block'),
    defaultAccess: some('allow', 'deny', 'ALLOW', ' allow'),
    rules: fc.option(
      fc.record({
        privileges: list(privilege),
        roles: list(fc.record({ name, privileges: names })),
        identities: list(identity),
        roleAssignments: list(fc.record({ role: name, identities: names })),
      }),
      { nil: undefined, freq: 12 },
    ),
  })
  .map((value) => asJson<AuthorizationItem>(value))

const caller: fc.Arbitrary<RuleCaller> = fc.record({
  userName: some('alice', 'alice', 'bob', 'undefined'),
  groups: fc.subarray(['alice', 'bob', 'curl']),
  exePath: some<string | undefined>(undefined, '/usr/bin/curl', '/usr//bin/./curl', 'curl'),
  processName: some<string | undefined>(undefined, 'curl', 'alice'),
  elevated: fc.boolean(),
})

const endpoint = some<EndpointName>('imds', 'imds', 'imds', 'wireserver', 'hostga')
const canonicalMode = some<CanonicalMode>('off', 'shadow', 'enforce')
const anyItem = fc.option(item, { nil: undefined, freq: 20 })

function canonicalOf({ canonical }: Verdict): boolean | string | undefined {
  return canonical?.reason.kind === 'canonical-error' ? canonical.reason.code : canonical?.allowed
}

describe('decide() on random rules and requests', () => {
  test('agrees with a slow and simple evaluator', () => {
    const seen = new Map<string, number>()
    fc.assert(
      fc.property(
        anyItem,
        endpoint,
        caller,
        request,
        canonicalMode,
        (item, endpoint, caller, request, canonicalMode) => {
          const policy = item && compileItem(item, endpoint).result
          const verdict = decide(policy, endpoint, caller, request, { canonicalMode })
          const opinion = secondOpinion(item, endpoint, caller, request, canonicalMode)
          assert.equal(verdict.outcome, opinion.outcome)
          assert.equal(canonicalOf(verdict), opinion.canonical)
          if (verdict.legacy !== undefined) assert.equal(verdict.legacy.allowed, opinion.legacy)
          const sort = `${verdict.decidedBy} ${verdict.reason.kind}`
          seen.set(sort, (seen.get(sort) ?? 0) + 1)
        },
      ),
      { numRuns: 10_000 },
    )
    // A generator that no longer reaches a branch would make the agreement worthless.
    const branches = ['skip-signature-exempt', 'elevated-only', 'no-rules'].map((kind) => `endpoint ${kind}`)
    branches.push(...['mode-disabled', 'granted', 'not-granted', 'default-access'].map((kind) => `legacy ${kind}`))
    branches.push(...['not-granted', 'canonical-error'].map((kind) => `canonical ${kind}`), 'respelling not-granted')
    for (const branch of branches) assert.ok(seen.has(branch), `no request reached ${branch}`)
  })

  test('enforce never allows what either matcher denies, and allows what both grant', () => {
    fc.assert(
      fc.property(item, caller, request, (item, caller, request) => {
        const policy = compileItem(item, 'imds').result
        const off = decide(policy, 'imds', caller, request, { canonicalMode: 'off' })
        const shadow = decide(policy, 'imds', caller, request, { canonicalMode: 'shadow' })
        const enforce = decide(policy, 'imds', caller, request, { canonicalMode: 'enforce' })
        assert.ok(shadow.canonical && shadow.legacy)
        assert.equal(shadow.outcome, off.outcome, 'shadow changes nothing')
        assert.equal(off.outcome === 'ok', shadow.legacy.allowed)
        if (enforce.outcome === 'ok') assert.ok(shadow.legacy.allowed && shadow.canonical.allowed)
        const isGranted = [shadow.legacy, shadow.canonical].every(({ reason }) => reason.kind === 'granted')
        if (isGranted) assert.equal(enforce.outcome, 'ok')
        assert.equal(enforce.divergence === undefined, shadow.legacy.allowed === shadow.canonical.allowed)
      }),
      { numRuns: 5000 },
    )
  })

  test('the order of privileges, assignments and identities never changes a decision', () => {
    const unique = <Named extends { name: string }>(entries: readonly Named[] | undefined) => [
      ...new Map((entries ?? []).map((entry) => [entry.name, entry])).values(),
    ]
    fc.assert(
      fc.property(item, caller, request, (item, caller, request) => {
        const { privileges, roles, identities, roleAssignments = [] } = item.rules ?? {}
        const rules = {
          privileges: unique(privileges),
          roles: unique(roles),
          identities: unique(identities),
          roleAssignments,
        }
        const reversed = Object.fromEntries(
          Object.entries(rules).map(([section, entries]) => [section, [...entries].reverse()]),
        )
        const outcomes = [rules, reversed].map((rules) => {
          const policy = compileItem({ ...item, rules }, 'imds').result
          return decide(policy, 'imds', caller, request, { canonicalMode: 'enforce' }).outcome
        })
        assert.equal(outcomes[0], outcomes[1])
      }),
      { numRuns: 2000 },
    )
  })
})
