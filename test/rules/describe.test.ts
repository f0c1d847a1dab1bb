import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { decide } from '../../src/rules/decide.ts'
import { describeVerdict } from '../../src/rules/describe.ts'
import type { AuthorizationItem } from '../../src/rules/document.ts'
import { ALICE, BOB, decideGet, itemGranting, ROOT } from './make.ts'

const ITEM = itemGranting([{ name: 'token', path: '/t' }])
const MANY = itemGranting(['a', 'b', 'c', 'd', 'e'].map((name) => ({ name, path: '/t' })))

function textFor(item: AuthorizationItem, target: string, caller = ALICE): string {
  return describeVerdict(decideGet(item, target, caller, 'enforce'))
}

describe('describeVerdict()', () => {
  const rows: readonly (readonly [situation: string, text: string, expected: string])[] = [
    [
      'granted',
      textFor(ITEM, '/t'),
      'ok: privilege "token" is granted to identity "someone" by role "reader" (rule set "rules-1", legacy matcher)',
    ],
    [
      'not granted',
      textFor(ITEM, '/t', BOB),
      'forbidden: privilege "token" matches and is not granted to the caller (rule set "rules-1", legacy matcher)',
    ],
    [
      'five privileges match',
      textFor({ ...MANY, mode: 'audit' }, '/t', BOB),
      'audit: privileges "a", "b", "c" and 2 more match and are not granted to the caller (rule set "rules-1", legacy matcher)',
    ],
    [
      'denied by default',
      textFor(ITEM, '/u'),
      'forbidden: no privilege matches and the default access is deny (rule set "rules-1", legacy matcher)',
    ],
    [
      'allowed by default',
      textFor({ ...ITEM, defaultAccess: 'allow' }, '/u'),
      'ok: no privilege matches and the default access is allow (rule set "rules-1", legacy matcher)',
    ],
    [
      'no canonical form',
      textFor(ITEM, '/t%00'),
      'forbidden: the request has no canonical form: it holds a control character (CANON_CTRL) (rule set "rules-1", canonical matcher)',
    ],
    [
      'denied in its canonical spelling alone',
      textFor({ ...itemGranting([{ name: 'p', path: '/a/t' }]), defaultAccess: 'allow' }, '/a/./token', BOB),
      'forbidden: privilege "p" matches and is not granted to the caller (rule set "rules-1", legacy matcher, on the canonical spelling)',
    ],
    [
      'disabled',
      textFor({ ...ITEM, mode: 'disabled' }, '/u'),
      'ok: the rules are disabled (rule set "rules-1", legacy matcher)',
    ],
    [
      'names with line breaks',
      textFor(itemGranting([{ name: 'a\n"b', path: '/t' }]), '/t', BOB),
      'forbidden: privilege "a\\n\\"b" matches and is not granted to the caller (rule set "rules-1", legacy matcher)',
    ],
  ]
  for (const [situation, text, expected] of rows) test(situation, () => assert.equal(text, expected))

  test('the endpoint answers by itself', () => {
    const options = { canonicalMode: 'off' } as const
    const upload = { method: 'PUT', target: '/vmAgentLog' }
    assert.equal(describeVerdict(decide(undefined, 'imds', ALICE, upload, options)), 'ok: the endpoint has no rules')
    assert.equal(
      describeVerdict(decide(undefined, 'hostga', ALICE, upload, options)),
      'forbidden: the endpoint is for elevated callers only',
    )
    assert.equal(
      describeVerdict(decide(undefined, 'hostga', ROOT, upload, options)),
      'ok: an upload of the guest agent that goes without signature',
    )
  })
})
