import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { EndpointName } from '../../src/base/endpoints.ts'
import type { CanonicalMode, EndpointReason, Outcome, RulesReason, Verdict } from '../../src/rules/decide.ts'
import { decide } from '../../src/rules/decide.ts'
import type { AuthorizationItem } from '../../src/rules/document.ts'
import type { RuleCaller } from '../../src/rules/selectors.ts'
import { ALICE, BOB, decideGet, itemGranting, policyOf, ROOT } from './make.ts'

const TOKEN = itemGranting([{ name: 'token', path: '/metadata/identity' }])
const DENY_ALL: AuthorizationItem = { id: 'shut', mode: 'enforce', defaultAccess: 'deny' }

function decideAt(
  endpoint: EndpointName,
  caller: RuleCaller,
  line: string,
  item?: AuthorizationItem,
  canonicalMode: CanonicalMode = 'off',
): Verdict {
  const [method = '', target = ''] = line.split(' ')
  return decide(item && policyOf(item), endpoint, caller, { method, target }, { canonicalMode })
}

describe('decide() answers for the endpoint before the rules are asked', () => {
  type Row = readonly [
    situation: string,
    endpoint: EndpointName,
    caller: RuleCaller,
    line: string,
    item: AuthorizationItem | undefined,
    outcome: Outcome,
    kind: (EndpointReason | RulesReason)['kind'],
  ]
  const audit = { ...DENY_ALL, mode: 'audit' }
  const disabled = { ...DENY_ALL, mode: 'disabled' }
  const allow = { ...DENY_ALL, defaultAccess: 'allow' }
  const rows: readonly Row[] = [
    ['no rules, elevated', 'wireserver', ROOT, 'GET /x', undefined, 'ok', 'no-rules'],
    ['no rules, not elevated', 'wireserver', ALICE, 'GET /x', undefined, 'forbidden', 'elevated-only'],
    ['no rules, not elevated', 'hostga', ALICE, 'GET /x', undefined, 'forbidden', 'elevated-only'],
    ['no rules, anybody', 'imds', ALICE, 'GET /x', undefined, 'ok', 'no-rules'],
    ['rules that allow, not elevated', 'wireserver', ALICE, 'GET /x', allow, 'forbidden', 'elevated-only'],
    ['audit mode softens nothing here', 'wireserver', ALICE, 'GET /x', audit, 'forbidden', 'elevated-only'],
    ['disabled rules open nothing here', 'hostga', ALICE, 'GET /x', disabled, 'forbidden', 'elevated-only'],
    ['rules that deny, elevated', 'wireserver', ROOT, 'GET /x', DENY_ALL, 'forbidden', 'default-access'],
    ['rules that deny, elevated', 'imds', ROOT, 'GET /x', DENY_ALL, 'forbidden', 'default-access'],
    ['rules that deny in audit mode', 'hostga', ROOT, 'GET /x', audit, 'audit', 'default-access'],
    ['rules that are disabled', 'imds', ALICE, 'GET /x', disabled, 'ok', 'mode-disabled'],
    ['agent log upload, elevated', 'wireserver', ROOT, 'PUT /vmAgentLog', DENY_ALL, 'ok', 'skip-signature-exempt'],
    ['agent log upload, elevated', 'hostga', ROOT, 'PUT /vmagentlog', DENY_ALL, 'ok', 'skip-signature-exempt'],
    [
      'telemetry upload, elevated',
      'wireserver',
      ROOT,
      'POST /machine/?comp=telemetrydata',
      DENY_ALL,
      'ok',
      'skip-signature-exempt',
    ],
    ['agent log upload without rules', 'hostga', ROOT, 'PUT /vmAgentLog', undefined, 'ok', 'skip-signature-exempt'],
    ['agent log upload, not elevated', 'wireserver', ALICE, 'PUT /vmAgentLog', allow, 'forbidden', 'elevated-only'],
    ['agent log upload to IMDS', 'imds', ROOT, 'PUT /vmAgentLog', DENY_ALL, 'forbidden', 'default-access'],
    [
      'telemetry upload to IMDS',
      'imds',
      ROOT,
      'POST /machine/?comp=telemetrydata',
      DENY_ALL,
      'forbidden',
      'default-access',
    ],
    ['agent log upload with a query', 'wireserver', ROOT, 'PUT /vmAgentLog?', DENY_ALL, 'forbidden', 'default-access'],
  ]
  for (const [situation, endpoint, caller, line, item, outcome, kind] of rows) {
    test(`${endpoint}: ${situation}: ${outcome}`, () => {
      for (const mode of ['off', 'shadow', 'enforce'] as const) {
        const verdict = decideAt(endpoint, caller, line, item, mode)
        assert.equal(verdict.outcome, outcome)
        assert.equal(verdict.reason.kind, kind)
        assert.equal(verdict.ruleSetId, item?.id)
      }
    })
  }

  test('a shut-out caller is still compared by both matchers in shadow mode', () => {
    const verdict = decideAt('wireserver', ALICE, 'GET /./metadata/identity', TOKEN, 'shadow')
    assert.equal(verdict.decidedBy, 'endpoint')
    assert.deepEqual([verdict.legacy?.allowed, verdict.canonical?.allowed], [false, true])
    assert.equal(verdict.divergence?.canonical, 'allow')
  })
})

describe('decide() gives its reason', () => {
  test('granted: privilege, role and identity', () => {
    const verdict = decideGet(TOKEN, '/metadata/identity/info', ALICE, 'off')
    assert.deepEqual(verdict, {
      outcome: 'ok',
      decidedBy: 'legacy',
      reason: { kind: 'granted', privilege: 'token', role: 'reader', identity: 'someone' },
      ruleSetId: 'rules-1',
    })
  })

  test('not granted: every privilege that matches', () => {
    const item = itemGranting([
      { name: 'all', path: '/' },
      { name: 'other', path: '/other' },
      { name: 'token', path: '/metadata' },
    ])
    assert.deepEqual(decideGet(item, '/metadata/x', BOB, 'off'), {
      outcome: 'forbidden',
      decidedBy: 'legacy',
      reason: { kind: 'not-granted', privileges: ['all', 'token'] },
      ruleSetId: 'rules-1',
    })
  })

  test('no match: the default access', () => {
    const verdict = decideGet({ ...TOKEN, defaultAccess: 'allow' }, '/other', BOB, 'off')
    assert.deepEqual([verdict.outcome, verdict.reason], ['ok', { kind: 'default-access' }])
  })

  test('both matchers deny: the legacy one is named, and nothing diverges', () => {
    const verdict = decideGet({ ...TOKEN, defaultAccess: 'allow' }, '/metadata/identity%3Fx', BOB, 'enforce')
    assert.equal(verdict.decidedBy, 'legacy')
    assert.deepEqual(verdict.canonical?.reason, { kind: 'canonical-error', code: 'CANON_EMBQ' })
    assert.equal(verdict.divergence, undefined)
  })
})

describe('decide() in canonical mode enforce closes what the legacy matcher leaves open', () => {
  const guarded = itemGranting([{ name: 'token', path: '/metadata/identity' }], undefined, { defaultAccess: 'allow' })
  const scoped = itemGranting(
    [{ name: 'token', path: '/metadata/identity', queryParameters: { resource: 'https://vault' } }],
    undefined,
    { defaultAccess: 'allow' },
  )
  const granted = itemGranting([{ name: 'token', path: '/metadata' }])
  const rows: readonly (readonly [
    situation: string,
    item: AuthorizationItem,
    target: string,
    caller: RuleCaller,
    reason: string,
  ])[] = [
    ['a dot segment', guarded, '/metadata/./identity', BOB, 'not-granted'],
    ['an encoded double slash', guarded, '/metadata/%2Fidentity', BOB, 'not-granted'],
    ['a parameter inside the path', guarded, '/metadata;a=b/identity', BOB, 'not-granted'],
    ['an overlong encoding', guarded, '/metadata%C0%AFidentity', BOB, 'canonical-error'],
    ['a step above the root', guarded, '/../metadata/identity', BOB, 'canonical-error'],
    ['a repeated query key', scoped, '/metadata/identity?resource=x&resource=https://vault', BOB, 'not-granted'],
    ['a longer first segment', granted, '/metadata-attacker/x', ALICE, 'default-access'],
    ['an encoded control character', granted, '/metadata/x%00', ALICE, 'canonical-error'],
  ]
  for (const [situation, item, target, caller, reason] of rows) {
    test(situation, () => {
      assert.equal(decideGet(item, target, caller, 'off').outcome, 'ok')
      assert.equal(decideGet(item, target, caller, 'shadow').outcome, 'ok')
      const verdict = decideGet(item, target, caller, 'enforce')
      assert.deepEqual([verdict.outcome, verdict.decidedBy, verdict.reason.kind], ['forbidden', 'canonical', reason])
    })
  }

  test('audit mode softens a canonical denial as well', () => {
    assert.equal(decideGet({ ...guarded, mode: 'audit' }, '/metadata/./identity', BOB, 'enforce').outcome, 'audit')
  })
  test('disabled rules deny nothing, not even what has no canonical form', () => {
    assert.equal(decideGet({ ...guarded, mode: 'disabled' }, '/%zz', BOB, 'enforce').outcome, 'ok')
  })
  test('a legacy denial stands although the canonical matcher allows', () => {
    const verdict = decideGet(itemGranting([{ name: 'p', path: '/metadata/' }]), '/metadata', ALICE, 'enforce')
    assert.deepEqual([verdict.outcome, verdict.decidedBy], ['forbidden', 'legacy'])
    assert.deepEqual(verdict.divergence, {
      mode: 'enforce',
      ruleSetId: 'rules-1',
      legacy: 'deny',
      canonical: 'allow',
      uri: '/metadata',
    })
  })
})

test('decide() leaves its arguments alone and answers the same again', () => {
  const policy = policyOf(TOKEN)
  const before = JSON.stringify(policy)
  const request = Object.freeze({ method: 'GET', target: '/metadata/identity?a=b' })
  const verdicts = [1, 2].map(() =>
    decide(policy, 'imds', Object.freeze({ ...ALICE }), request, { canonicalMode: 'enforce' }),
  )
  assert.deepEqual(verdicts[0], verdicts[1])
  assert.equal(JSON.stringify(policy), before)
})
