/**
 * Twins: other spellings of a denied request. In canonical mode enforce, which of them stay denied?
 *
 * These relations hold, whatever the rules say, as long as their mode is enforce (audit softens each denial, disabled asks
 * nobody, and an endpoint without rules has nothing to deny):
 *   1. Same meaning. When the canonical matcher denies a request, it denies every request of the same canonical form: letter
 *      case, percent-encoding, repeated or encoded slashes, dots, matrix parameters, a slash at the end, fragments, spellings
 *      of the host, the order of query pairs, pairs that say nothing, `+` for a space.
 *   2. No meaning. What has no canonical form is denied, even if its twin is allowed: `%3F`, control characters, look-alikes
 *      and combining marks in the path, overlong and malformed escapes, user information, another scheme, a bad port.
 *   3. More query. When a matching privilege denies a caller who holds nothing, adding or repeating query pairs, anywhere,
 *      changes nothing.
 *   4. Nobody. Under default access deny, a caller who holds nothing is denied any text at all.
 *   5. Legacy alone. What the canonical matcher reads otherwise or not at all (a rule path that ends inside a segment, has no
 *      canonical form, or a `+` in a value) denies every spelling of the canonical form that it denies.
 *
 * These do not, and cannot without another meaning of the rules; the last block of tests shows each:
 *   - double encoding names another resource, since a path is decoded once;
 *   - a request that the legacy matcher alone denied, because of where its text ends, may have an allowed twin;
 *   - where a grant asks for a query parameter, a repeated name satisfies it when the granted value comes first.
 */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { isCanonicalFailure } from '../../src/rules/canonical-failure.ts'
import { compilePattern, readCanonicalRequest } from '../../src/rules/canonical-pattern.ts'
import { type CanonicalRequest, canonicalize, renderTarget } from '../../src/rules/canonicalize.ts'
import type { Verdict } from '../../src/rules/decide.ts'
import type { AuthorizationItem, Privilege } from '../../src/rules/document.ts'
import { PatternIndex } from '../../src/rules/pattern-index.ts'
import type { RuleCaller } from '../../src/rules/selectors.ts'
import { BOB, decideGet, itemGranting } from './make.ts'

/** What a request asks for, before anybody spells it. */
interface Request {
  readonly segments: readonly string[]
  readonly pairs: readonly (readonly [name: string, value: string])[]
}

const some = <Value>(...values: Value[]) => fc.constantFrom(...values)
const enforce = (item: AuthorizationItem, target: string, caller: RuleCaller = BOB): Verdict =>
  decideGet(item, target, caller, 'enforce')

/** The plainest spelling. */
const plain = ({ segments, pairs }: Request): string => {
  const query = pairs.map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`).join('&')
  return `/${segments.map(encodeURIComponent).join('/')}${query === '' ? '' : `?${query}`}`
}

/** Draws what a spelling needs. Every number is below its bound. */
type Draw = (bound: number) => number
const pick = <Value>(draw: Draw, values: readonly Value[]): Value => values[draw(values.length)] as Value

const draws = fc.array(fc.nat(0xffff), { minLength: 40, maxLength: 40 }).map((numbers): Draw => {
  let at = 0
  return (bound) => (numbers[at++ % numbers.length] as number) % bound
})

function encode(character: string, draw: Draw): string {
  const hex = Buffer.from(character).toString('hex').replace(/../g, '%$&')
  return draw(2) === 0 ? hex : hex.toUpperCase()
}

/** Spells text character by character: as it is, in the other case, or encoded. */
function spell(text: string, draw: Draw, literal: RegExp): string {
  return [...text]
    .map((character) => {
      const cased = /[a-z]/i.test(character) && draw(2) === 0 ? swapCase(character) : character
      return literal.test(cased) && draw(3) > 0 ? cased : encode(cased, draw)
    })
    .join('')
}

const swapCase = (letter: string) => (letter === letter.toLowerCase() ? letter.toUpperCase() : letter.toLowerCase())

const SEPARATORS = ['/', '//', '/./', '%2F', '%2f', '/%2F', '/%2e/', '/;a=b/', '/%3B/', '/up/../', '/;/;x;y//'] as const
const MATRIX = ['', '', '', ';', ';a=b', '%3Bk=v'] as const
const ENDS = ['', '', '/', '//', '/.', '/%2e', ';z', '/;z', '/more/..', '%2F'] as const
const HOSTS = [
  '',
  '',
  'http://169.254.169.254',
  'HTTP://169.254.169.254:80',
  'http://2852039166',
  'http://0xA9FEA9FE',
  'http://[::ffff:169.254.169.254]:80',
  'http://example.com',
  'http://169.254.169.254.',
] as const
const FRAGMENTS = ['', '', '#', '#x?y', '#/%zz'] as const
const EMPTY_PAIRS = ['', '=', '=x', '=%41'] as const

/** Relation 1: another spelling of the same meaning. */
function respell({ segments, pairs }: Request, draw: Draw): string {
  const path = segments
    .map((segment) => `${pick(draw, SEPARATORS)}${spell(segment, draw, /[\w.~:-]/)}${pick(draw, MATRIX)}`)
    .join('')
  const spelt = pairs.map(([name, value]) => {
    const [left, right] = [name, value].map((text) => spell(text, draw, /[\w.~:/-]/))
    return `${left}=${right}`.replaceAll('%20', draw(2) === 0 ? '+' : '%20')
  })
  const mixed = shuffle([...spelt, ...EMPTY_PAIRS.filter(() => draw(4) === 0)], draw)
  const query = mixed.length === 0 && draw(2) === 0 ? '' : `?${mixed.join('&')}`
  // An origin form begins with a slash that is one.
  return `${pick(draw, HOSTS)}/${path}${pick(draw, ENDS)}${query}${pick(draw, FRAGMENTS)}`
}

/** Pairs of one name change places as well: the canonical matcher asks whether a value is there, not where. */
function shuffle<Value>(values: readonly Value[], draw: Draw): Value[] {
  const rest = [...values]
  return values.map(() => rest.splice(draw(rest.length), 1)[0] as Value)
}

/** Relation 2: things that put any request out of canonical form. */
const SPOILERS: readonly (readonly [what: string, spoil: (target: string) => string])[] = [
  ['an encoded question mark in place of a real one', (target) => `${target.split('?')[0]}%3Fa=b`],
  ['an encoded question mark in front', (target) => `/%3f${target}`],
  ['a null byte', (target) => `/%00${target}`],
  ['a line feed', (target) => `/%0a${target}`],
  ['the Kelvin sign', (target) => `/%E2%84%AA${target}`],
  ['a full-width letter', (target) => `/%EF%BD%94oken${target}`],
  ['a full-width slash', (target) => `%EF%BC%8F${target}`.replace(/^/, '/')],
  ['a combining accent', (target) => `/e%CC%81${target}`],
  ['a combining accent behind the path', (target) => target.replace(/^([^?]*)/, '$1%CC%81')],
  ['a zero-width space', (target) => `/%E2%80%8B${target}`],
  ['a byte-order mark', (target) => `/%EF%BB%BF${target}`],
  ['a full-width letter, not encoded', (target) => `/ｔ${target}`],
  ['an overlong slash', (target) => `/%C0%AF${target}`],
  ['half a character', (target) => `/%C3${target}`],
  ['a malformed escape', (target) => `/%4${target}`.replace('%4/', '%4g/')],
  ['a malformed escape in the query', (target) => `${target}${target.includes('?') ? '&' : '?'}a=%4`],
  ['a control character in the query', (target) => `${target}${target.includes('?') ? '&' : '?'}a=%0D`],
  ['bytes that are not text in the query', (target) => `${target}${target.includes('?') ? '&' : '?'}a=%FF`],
  ['more steps up than down', (target) => `/a/../..${target}`],
  ['the same, encoded', (target) => `/%2e%2E%2f..${target}`],
  ['another scheme', (target) => `https://169.254.169.254${target}`],
  ['user information', (target) => `http://169.254.169.254@169.254.169.254${target}`],
  ['a port out of range', (target) => `http://169.254.169.254:99999${target}`],
  ['a host that is no address and no name', (target) => `http://999.999.999.999${target}`],
]

const PROTECTED = { name: 'token', path: '/metadata/identity/oauth2/token' }
const OTHERS = { name: 'other', path: '/metadata/instance' }

/** Rule sets as administrators write them, and what bob may not do under each. */
const REALISTIC: readonly (readonly [what: string, item: AuthorizationItem, request: Request])[] = (() => {
  const token = ['metadata', 'identity', 'oauth2', 'token']
  const resource = ['resource', 'https://management.azure.com/ x'] as const
  const version = ['api-version', '2018-02-01'] as const
  const open = { defaultAccess: 'allow' }
  const scoped: Privilege = { ...PROTECTED, queryParameters: { Resource: 'https://Management.azure.com/ X' } }
  return [
    [
      'a path for alice, the rest open',
      itemGranting([PROTECTED], undefined, open),
      { segments: token, pairs: [version] },
    ],
    ['below that path', itemGranting([PROTECTED], undefined, open), { segments: [...token, 'info'], pairs: [] }],
    ['a path for alice, the rest closed', itemGranting([PROTECTED]), { segments: token, pairs: [version] }],
    ['what no privilege names, closed', itemGranting([OTHERS], { userName: 'bob' }), { segments: token, pairs: [] }],
    [
      'one resource for alice',
      itemGranting([scoped], undefined, open),
      { segments: token, pairs: [version, resource] },
    ],
    [
      'one resource for alice, asked for beside another',
      itemGranting([scoped], undefined, open),
      { segments: token, pairs: [['resource', 'x'], resource, ['resource', 'y']] },
    ],
    ['all for alice', itemGranting([{ name: 'all', path: '/' }], undefined, open), { segments: token, pairs: [] }],
    [
      'an assignment to nobody',
      { ...itemGranting([PROTECTED], undefined, open), rules: { privileges: [PROTECTED] } },
      { segments: token, pairs: [] },
    ],
  ]
})()

const request: fc.Arbitrary<Request> = fc.record({
  segments: fc.array(some('a', 'a', 'b', 'ab', 'token', 'x y', 'a%41', '%2f', '..a', 'k'), {
    minLength: 1,
    maxLength: 4,
  }),
  pairs: fc.array(
    fc.tuple(
      some('k', 'k', 'm', 'api-version', 'a b'),
      some('v', 'v', 'w', '', '1&2', 'a b', 'é', '%zz', 'https://x/'),
    ),
    { maxLength: 3 },
  ),
})

const privilege = fc.record(
  {
    path: some('/', '/a', '/a', '/A/b', '/b/', '/token', '/a//k', '/x%20y', '/a;p/b', 'a', ''),
    queryParameters: fc.dictionary(some('k', 'K', 'm', 'api-version'), some('v', 'V', 'w', 'a b', 'https://x/'), {
      maxKeys: 2,
    }),
  },
  { requiredKeys: ['path'] },
)

/** Some privileges are alice's, some are bob's, some are nobody's. */
const item: fc.Arbitrary<AuthorizationItem> = fc
  .record({
    privileges: fc
      .array(privilege, { maxLength: 3 })
      .map((all) => all.map((each, index) => ({ ...each, name: `p${index}` }))),
    owners: fc.array(some('alice', 'alice', 'bob', 'nobody'), { minLength: 3, maxLength: 3 }),
    defaultAccess: some('allow', 'deny'),
  })
  .map(({ privileges, owners, defaultAccess }) => ({
    id: 'generated',
    mode: 'enforce',
    defaultAccess,
    rules: {
      privileges,
      roles: privileges.map(({ name }) => ({ name, privileges: [name] })),
      identities: ['alice', 'bob'].map((name) => ({ name, userName: name })),
      roleAssignments: privileges.flatMap(({ name }, index) =>
        owners[index] === 'nobody' ? [] : [{ role: name, identities: [owners[index] as string] }],
      ),
    },
  }))

/** What the canonical matcher compares, with the values of a name in no order. */
function meaningOf({ path, query }: CanonicalRequest) {
  return {
    segments: path.segments,
    query: Object.fromEntries([...query].sort().map(([name, values]) => [name, [...values].sort()])),
  }
}

function canonicalOf(target: string): CanonicalRequest {
  const result = canonicalize({ method: 'GET', target })
  if (isCanonicalFailure(result)) assert.fail(`${target} has no canonical form: ${result.code}`)
  return result
}

describe('decide() denies a twin of the same meaning', () => {
  for (const [what, rules, asked] of REALISTIC) {
    test(what, () => {
      assert.equal(enforce(rules, plain(asked)).canonical?.allowed, false, 'the request itself is denied')
      fc.assert(
        fc.property(draws, (draw) => {
          const twin = respell(asked, draw)
          assert.deepEqual(meaningOf(canonicalOf(twin)), meaningOf(canonicalOf(plain(asked))), twin)
          assert.equal(enforce(rules, twin).outcome, 'forbidden', twin)
        }),
        { numRuns: 300 },
      )
    })
  }

  test('of any request and rules', () => {
    let denied = 0
    fc.assert(
      fc.property(item, request, draws, (rules, asked, draw) => {
        const [first, twin] = [plain(asked), respell(asked, draw)]
        assert.deepEqual(meaningOf(canonicalOf(twin)), meaningOf(canonicalOf(first)), twin)
        const canonical = enforce(rules, first).canonical
        const again = enforce(rules, twin)
        assert.equal(again.canonical?.allowed, canonical?.allowed, `${first} and ${twin}`)
        if (canonical?.allowed) return
        denied += 1
        assert.equal(again.outcome, 'forbidden', twin)
      }),
      { numRuns: 3000 },
    )
    assert.ok(denied > 500, `only ${denied} of 3000 requests were denied`)
  })
})

describe('decide() denies a twin without meaning, of allowed requests as well', () => {
  for (const [what, spoil] of SPOILERS) {
    test(what, () => {
      fc.assert(
        fc.property(item, request, (rules, asked) => {
          const twin = spoil(plain(asked))
          const { outcome, canonical } = enforce(rules, twin)
          assert.equal(outcome, 'forbidden', twin)
          assert.equal(canonical?.reason.kind, 'canonical-error', twin)
        }),
        { numRuns: 50 },
      )
      for (const [, rules, asked] of REALISTIC) assert.equal(enforce(rules, spoil(plain(asked))).outcome, 'forbidden')
    })
  }
})

describe('decide() for a caller who holds nothing', () => {
  const carol: RuleCaller = { ...BOB, userName: 'carol' }

  test('more query pairs, before, between or behind, do not open what a privilege closes', () => {
    let closed = 0
    fc.assert(
      fc.property(item, request, request, draws, (rules, asked, { pairs: more }, draw) => {
        if (enforce(rules, plain(asked), carol).canonical?.reason.kind !== 'not-granted') return
        closed += 1
        const pairs = shuffle([...asked.pairs, ...more], draw)
        const twin = respell({ ...asked, pairs }, draw)
        assert.equal(enforce(rules, twin, carol).outcome, 'forbidden', twin)
      }),
      { numRuns: 2000 },
    )
    assert.ok(closed > 200, `only ${closed} of 2000 requests were closed by a privilege`)
  })

  test('under default access deny, no text whatever is allowed', () => {
    const texts = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 40 }),
      fc.string({ unit: 'grapheme-ascii', maxLength: 80 }),
      fc.tuple(request, draws).map(([asked, draw]) => respell(asked, draw)),
    )
    fc.assert(
      fc.property(item, texts, (rules, target) => {
        assert.equal(enforce({ ...rules, defaultAccess: 'deny' }, target, carol).outcome, 'forbidden')
      }),
      { numRuns: 2000 },
    )
  })
})

describe('the canonical form agrees with the matcher', () => {
  test('a rendered request gets the canonical verdict of the request', () => {
    fc.assert(
      fc.property(item, request, draws, (rules, asked, draw) => {
        const twin = respell(asked, draw)
        const { canonical } = enforce(rules, twin)
        assert.deepEqual(enforce(rules, renderTarget(canonicalOf(twin))).canonical, canonical, twin)
      }),
      { numRuns: 1000 },
    )
  })

  test('a rule written as the rendered path matches the request, and with one segment more it does not', () => {
    fc.assert(
      fc.property(request, draws, (asked, draw) => {
        const canonical = canonicalOf(respell(asked, draw))
        const path = renderTarget({ ...canonical, destination: canonicalOf('/').destination, query: new Map() })
        const [same, longer] = [path, `${path}/z`].map((rule) => compilePattern(rule, []))
        assert.ok(same && longer && !isCanonicalFailure(same) && !isCanonicalFailure(longer))
        const subject = readCanonicalRequest(canonical)
        assert.equal(same.prefix, subject.path, path)
        assert.deepEqual(new PatternIndex([longer, same]).find(subject), [1], path)
      }),
      { numRuns: 1000 },
    )
  })
})

describe('decide() denies a twin of what the legacy matcher alone denies', () => {
  const open = { defaultAccess: 'allow' }
  const to = (path: string, queryParameters?: Record<string, string>) =>
    itemGranting([{ name: 'p', path, ...(queryParameters && { queryParameters }) }], undefined, open)
  const token = ['a', 'token']
  const rows: readonly (readonly [situation: string, rules: AuthorizationItem, asked: Request])[] = [
    ['a rule path that ends inside a segment', to('/a/tok'), { segments: token, pairs: [] }],
    ['a rule path that is no text when decoded', to('/a%C0%AF'), { segments: ['a%c0%af'], pairs: [] }],
    ['a rule path with a malformed escape', to('/a%zz'), { segments: ['a%zz', 'b'], pairs: [] }],
    ['a rule value with a malformed escape', to('/a', { k: '%zz' }), { segments: token, pairs: [['k', '%zz']] }],
    ['a rule value with a plus', to('/a', { k: 'b+c' }), { segments: token, pairs: [['k', 'b+c']] }],
    ['a rule value with capitals outside ASCII', to('/a', { k: 'É' }), { segments: token, pairs: [['k', 'É']] }],
    ['a rule name with capitals outside ASCII', to('/a', { É: 'v' }), { segments: token, pairs: [['É', 'v']] }],
  ]
  for (const [situation, rules, asked] of rows) {
    test(situation, () => {
      const [allowed] = ['off', 'shadow'].map((mode) => decideGet(rules, plain(asked), BOB, mode as 'off').outcome)
      assert.equal(allowed, 'forbidden', 'the request itself is denied, in any mode')
      assert.equal(
        decideGet(rules, plain(asked), BOB, 'shadow').canonical?.allowed,
        true,
        'not by the canonical matcher',
      )
      fc.assert(
        fc.property(draws, some<Request['pairs']>([], [['k', 'other']], [['x', 'y']]), (draw, more) => {
          const pairs = [...more, ...asked.pairs]
          const twin = respell({ ...asked, pairs }, draw)
          const verdict = enforce(rules, twin)
          assert.deepEqual([verdict.outcome, verdict.reason.kind], ['forbidden', 'not-granted'], twin)
        }),
        { numRuns: 300 },
      )
      assert.equal(enforce(rules, '/elsewhere').outcome, 'ok', 'nothing else is closed')
    })
  }
})

/** Each row: why these two are not twins. The first is denied, the second allowed. A row that fails is a gap that closed. */
describe('decide() may allow what only looks like a twin', () => {
  const open = { defaultAccess: 'allow' }
  const to = (path: string, queryParameters?: Record<string, string>) =>
    itemGranting([{ name: 'p', path, ...(queryParameters && { queryParameters }) }], undefined, open)
  const rows: readonly (readonly [why: string, item: AuthorizationItem, denied: string, allowed: string])[] = [
    ['double encoding names another resource', to('/a/token'), '/a/token', '/a/%2574oken'],
    ['a dot more names another resource', to('/a/token'), '/a/token', '/a./token'],
    ['a look-alike in a query value is another value', to('/a', { k: 't' }), '/a?k=t', '/a?k=%EF%BD%94'],
    [
      'a granted value in front of another one',
      itemGranting([{ name: 'p', path: '/a', queryParameters: { k: 'v' } }], { userName: 'bob' }),
      '/a?k=w',
      '/a?k=v&k=w',
    ],
    [
      'a grant that the legacy matcher sees behind a slash only',
      itemGranting([{ name: 'p', path: '/a/' }], { userName: 'bob' }),
      '/a',
      '/a/',
    ],
  ]
  for (const [why, rules, denied, allowed] of rows) {
    test(why, () => {
      assert.equal(enforce(rules, denied).outcome, 'forbidden')
      assert.equal(enforce(rules, allowed).outcome, 'ok')
    })
  }
})
