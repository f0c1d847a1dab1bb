import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Mode } from './channel.ts'
import { signed } from './raw-client.ts'
import { ALL_STRICT, type Findings, findOut, judge, NOT_STRICT, SignatureCheck } from './verify.ts'

const KEY = { guid: '9cf81e97-0316-4ad3-94a7-8ccbdee8ccbf', keyHex: '4A'.repeat(32) }
const NOW_MS = Date.parse('2026-01-02T03:04:05Z')

const RIGHT: Findings = {
  signature: 'right',
  guid: KEY.guid,
  date: 'fresh',
  claims: '{ "isRoot": "true"}',
  isRoot: true,
  claimNames: ['isRoot'],
  hasRepeatedHeader: false,
  hasQueryCollision: false,
}
const ENFORCE = {
  mode: 'enforce' as Mode,
  isExempt: false,
  canDemand: true,
  requiredClaims: ['isRoot'],
  strict: NOT_STRICT,
}

const DECISIONS: [mode: Mode, signature: Findings['signature'], decision: string][] = [
  ['disabled', 'absent', 'served'],
  ['disabled', 'wrong', 'served'],
  ['disabled', 'right', 'served'],
  ['audit', 'absent', 'audited'],
  ['audit', 'wrong', 'audited'],
  ['audit', 'right', 'served'],
  ['enforce', 'absent', 'refused'],
  ['enforce', 'wrong', 'refused'],
  ['enforce', 'unknown-guid', 'refused'],
  ['enforce', 'not-latched', 'refused'],
  ['enforce', 'repeated', 'refused'],
  ['enforce', 'right', 'served'],
]
for (const [mode, signature, decision] of DECISIONS) {
  test(`judge() in mode ${mode}, signature ${signature}: ${decision}`, () => {
    assert.equal(judge({ ...RIGHT, signature }, { ...ENFORCE, mode }).decision, decision)
  })
}

const OBJECTIONS: [situation: string, findings: Partial<Findings>, strict: boolean, objection: string | undefined][] = [
  ['a date outside the tolerance', { date: 'stale' }, false, 'date-stale'],
  ['no date', { date: 'absent' }, false, 'date-absent'],
  ['claims that lack a required name', { claimNames: ['other'] }, false, 'claims-missing'],
  [
    'a wrong signature and an old date: the signature comes first',
    { signature: 'wrong', date: 'stale' },
    false,
    'signature-wrong',
  ],
  ['claims in another spelling', { claims: '{"isRoot":"true"}' }, false, undefined],
  ['claims in another spelling, strictly', { claims: '{"isRoot":"true"}' }, true, 'claims-not-exact'],
  ['a repeated header', { hasRepeatedHeader: true }, false, undefined],
  ['a repeated header, strictly', { hasRepeatedHeader: true }, true, 'headers-repeated'],
  ['a query collision, strictly', { hasQueryCollision: true }, true, 'query-collision'],
]
for (const [situation, findings, isStrict, objection] of OBJECTIONS) {
  test(`judge() on ${situation}`, () => {
    const strict = isStrict ? ALL_STRICT : NOT_STRICT
    assert.equal(judge({ ...RIGHT, ...findings }, { ...ENFORCE, strict }).objection, objection)
  })
}

test('judge() never asks an exempt request, and nobody while there is no key', () => {
  const unsigned: Findings = { ...RIGHT, signature: 'absent' }
  assert.deepEqual(judge(unsigned, { ...ENFORCE, isExempt: true }), { decision: 'exempt' })
  assert.deepEqual(judge(unsigned, { ...ENFORCE, canDemand: false }), {
    decision: 'audited',
    objection: 'signature-absent',
  })
})

test('findOut() measures the date against the host clock, tolerance included', () => {
  const dateOf = (text: string) =>
    findOut(
      { method: 'GET', target: '/', rawHeaders: ['x-ms-azure-host-date', text] },
      'absent',
      undefined,
      NOW_MS,
      300_000,
    ).date
  assert.equal(dateOf('Fri, 02 Jan 2026 02:59:05 GMT'), 'fresh')
  assert.equal(dateOf('Fri, 02 Jan 2026 02:59:04 GMT'), 'stale')
  assert.equal(dateOf('Fri, 02 Jan 2026 03:09:06 GMT'), 'stale')
  assert.equal(dateOf('2026-01-02T03:04:05Z'), 'malformed')
  assert.equal(dateOf('Fri, 02 Jan 2026 03:04:05 UTC'), 'malformed')
})

test('findOut() reads the claims', () => {
  const of = (...rawHeaders: string[]) =>
    findOut({ method: 'GET', target: '/?a=bc&ab=c', rawHeaders }, 'absent', undefined, NOW_MS, 0)
  assert.equal(of('X-MS-Azure-Host-Claims', '{ "isRoot": "false"}').isRoot, false)
  assert.equal(of('x-ms-azure-host-claims', '{ "isRoot": true}').isRoot, undefined)
  assert.equal(of('x-ms-azure-host-claims', 'nonsense').isRoot, undefined)
  assert.equal(of('a', '1', 'A', '2').hasRepeatedHeader, true)
  assert.equal(of().hasQueryCollision, true)
})

const REQUEST = { method: 'POST', target: '/x?b=1', headers: [['Host', 'h']] as [string, string][], body: 'abc' }
const GOOD = signed(REQUEST, KEY, NOW_MS)
const [, GOOD_AUTHORIZATION] = GOOD.headers.at(-1)!
const AUTHORIZATIONS: [
  situation: string,
  authorization: string[],
  standing: 'latched' | 'offered' | 'retired',
  verdict: string,
][] = [
  ['none', [], 'latched', 'absent'],
  ['the right one', [GOOD_AUTHORIZATION], 'latched', 'right'],
  ['the right one, of an offered key', [GOOD_AUTHORIZATION], 'offered', 'not-latched'],
  ['the right one, of a retired key', [GOOD_AUTHORIZATION], 'retired', 'not-latched'],
  ['the right one twice', [GOOD_AUTHORIZATION, GOOD_AUTHORIZATION], 'latched', 'repeated'],
  [
    'upper-case digits',
    [GOOD_AUTHORIZATION.replace(/[0-9a-f]{64}$/, (hex) => hex.toUpperCase())],
    'latched',
    'malformed',
  ],
  ['two spaces', [GOOD_AUTHORIZATION.replace(' ', '  ')], 'latched', 'malformed'],
  ['another scheme', [GOOD_AUTHORIZATION.replace('SHA256', 'MD5')], 'latched', 'unknown-scheme'],
  ['a guid in upper case', [GOOD_AUTHORIZATION.replace(KEY.guid, KEY.guid.toUpperCase())], 'latched', 'unknown-guid'],
  ['all digits zero', [GOOD_AUTHORIZATION.replace(/[0-9a-f]{64}$/, '0'.repeat(64))], 'latched', 'wrong'],
]
for (const [situation, authorization, standing, verdict] of AUTHORIZATIONS) {
  test(`SignatureCheck on ${situation}: ${verdict}`, () => {
    const rawHeaders = GOOD.headers.slice(0, -1).flat()
    for (const value of authorization) rawHeaders.push('x-ms-azure-host-authorization', value)
    const check = new SignatureCheck({ ...REQUEST, rawHeaders }, (guid) =>
      guid === KEY.guid ? { key: KEY, standing } : undefined,
    )
    check.update(Buffer.from('abc'))
    assert.equal(check.verdict(), verdict)
  })
}

const ALTERED: [part: string, change: (request: typeof GOOD) => typeof GOOD, body: string][] = [
  ['the method', (request) => ({ ...request, method: 'PUT' }), 'abc'],
  ['the path', (request) => ({ ...request, target: '/y?b=1' }), 'abc'],
  ['the query', (request) => ({ ...request, target: '/x?b=2' }), 'abc'],
  ['a header', (request) => ({ ...request, headers: [['Host', 'i'], ...request.headers.slice(1)] }), 'abc'],
  ['an added header', (request) => ({ ...request, headers: [['Accept', '*/*'], ...request.headers] }), 'abc'],
  ['the body', (request) => request, 'abd'],
]
for (const [part, change, body] of ALTERED) {
  test(`SignatureCheck notices a change of ${part}`, () => {
    const { method, target, headers } = change(GOOD)
    const check = new SignatureCheck({ method, target, rawHeaders: headers.flat() }, () => ({
      key: KEY,
      standing: 'latched',
    }))
    check.update(Buffer.from(body))
    assert.equal(check.verdict(), 'wrong')
  })
}

test('SignatureCheck accepts on an attestation only the key being attested', () => {
  const head = { ...REQUEST, rawHeaders: GOOD.headers.flat() }
  const find = () => ({ key: KEY, standing: 'offered' as const })
  const same = new SignatureCheck(head, find, KEY.guid)
  same.update(Buffer.from('abc'))
  assert.equal(same.verdict(), 'right')
  assert.equal(new SignatureCheck(head, find, '00000000-0000-4000-8000-000000000000').verdict(), 'unknown-guid')
})
