/**
 * Documents and requests made to cost as much as they can.
 *
 * Sizes are counted where they can be. Times are bounds for a slow and busy machine, far above what is needed and far below
 * what a product of two lengths would take: that took minutes.
 */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseRequestTarget } from '../../src/base/request-target.ts'
import { canonicalize } from '../../src/rules/canonicalize.ts'
import { decide } from '../../src/rules/decide.ts'
import type { AccessControlRules, AuthorizationItem } from '../../src/rules/document.ts'
import { MAX_LIST_LENGTH, MAX_PARAMETERS, MAX_REFERENCES, parseAuthorizationRules } from '../../src/rules/document.ts'
import { readLegacyRequest } from '../../src/rules/match.ts'
import { PatternIndex } from '../../src/rules/pattern-index.ts'
import { compileSnapshot, itemsOf } from '../../src/rules/snapshot.ts'
import { ALICE, decideGet, itemGranting, policyOf } from './make.ts'

const TARGET_CHARACTERS = 32 * 1024

function list<Value>(count: number, make: (index: number) => Value): Value[] {
  return Array.from({ length: count }, (_, index) => make(index))
}

function itemWith(rules: AccessControlRules): AuthorizationItem {
  return { id: 'v', mode: 'enforce', defaultAccess: 'deny', rules }
}

/** The quickest of a few runs: others may be busy on the machine, and only the work itself is asked about. */
function timeMs(work: () => unknown): number {
  let best = Number.POSITIVE_INFINITY
  for (let run = 0; run < 5; run++) {
    const startMs = performance.now()
    work()
    best = Math.min(best, performance.now() - startMs)
  }
  return best
}

/** One role that holds every privilege, assigned to every identity. */
function everythingToEverybody(count: number): AccessControlRules {
  const names = list(count, (index) => index.toString(36))
  return {
    privileges: names.map((name) => ({ name, path: '/' })),
    roles: [{ name: 'r', privileges: names }],
    identities: names.map((name) => ({ name, userName: name })),
    roleAssignments: [{ role: 'r', identities: names }],
  }
}

/** Objects and arrays that can be reached from a value, each counted once. */
function countReachable(root: unknown): number {
  const seen = new Set<unknown>()
  const queue = [root]
  for (const value of queue) {
    if (typeof value !== 'object' || value === null || seen.has(value)) continue
    seen.add(value)
    queue.push(...Object.values(value))
  }
  return seen.size
}

describe('a hostile document', () => {
  test('of 11 000 privileges and as many identities is refused at once', () => {
    const document = { imds: itemWith(everythingToEverybody(11_000)) }
    const refuse = () =>
      assert.throws(() => parseAuthorizationRules(document), { code: 'RULES_DOCUMENT', message: /the limit is 2000$/ })
    assert.ok(timeMs(refuse) < 500)
  })

  test('compiles to something as big as itself: twice the names, twice the objects', () => {
    const [once, twice] = [1000, 2000].map((count) => {
      const { imds } = parseAuthorizationRules({ imds: itemWith(everythingToEverybody(count)) })
      return countReachable(compileSnapshot(itemsOf({ ...(imds && { imds }) }), 1).result)
    }) as [number, number]
    assert.ok(twice < once * 2.01, `${once} objects, then ${twice}`)
  })

  const big = list(MAX_LIST_LENGTH, (index) => `n${index}`)
  const each = MAX_PARAMETERS / MAX_LIST_LENGTH
  const half = MAX_REFERENCES / MAX_LIST_LENGTH / 2
  const spelling = (bits: number) => list(11, (bit) => ((bits >> bit) & 1 ? '%61' : 'a')).join('')
  const everybody = big.map((name) => ({ name, userName: name }))
  const everything = big.map((name) => ({ name, path: '/' }))
  const rows: readonly (readonly [situation: string, rules: AccessControlRules, query: string])[] = [
    [
      'a few roles of very many privileges and identities',
      {
        privileges: everything,
        identities: everybody,
        roles: list(2, (index) => ({ name: `r${index}`, privileges: big })),
        roleAssignments: list(3, (index) => ({ role: `r${index % 2}`, identities: big })),
      },
      '',
    ],
    [
      'as many roles of all privileges as references go, all held by everybody',
      {
        privileges: everything,
        identities: big.map((name) => ({ name, userName: 'alice' })),
        roles: list(half, (index) => ({ name: `r${index}`, privileges: big })),
        roleAssignments: list(half, (index) => ({ role: `r${index}`, identities: big })),
      },
      '',
    ],
    [
      'as many roles of all privileges, none of them held',
      {
        privileges: everything,
        identities: [...everybody, { name: 'alice', userName: 'alice' }].slice(1),
        roles: [
          ...list(half, (index) => ({ name: `r${index}`, privileges: big })),
          { name: 'other', privileges: ['no'] },
        ],
        roleAssignments: [
          ...list(half - 1, (index) => ({ role: `r${index}`, identities: big.slice(1) })),
          { role: 'other', identities: ['alice'] },
        ],
      },
      '',
    ],
    [
      'very many roles of a few',
      {
        privileges: everything,
        identities: everybody,
        roles: big.map((name, index) => ({ name, privileges: [0, 1].map((step) => big[(index + step) % 2000]!) })),
        roleAssignments: big.map((role, index) => ({
          role,
          identities: [0, 1, 2].map((step) => big[(index * 7 + step) % 2000]!),
        })),
      },
      '',
    ],
    [
      'long executables that differ in their last letter from that of the caller',
      {
        ...everythingToEverybody(2000),
        identities: big.map((name) => ({ name, exePath: `/${'e'.repeat(400)}y` })),
      },
      '',
    ],
    [
      'parameters of which all but the last are there',
      {
        privileges: everything.map((privilege) => ({
          ...privilege,
          queryParameters: Object.fromEntries(list(each, (index) => [`k${index}`, index === each - 1 ? 'no' : 'v'])),
        })),
      },
      list(each, (index) => `k${index}=v&`).join(''),
    ],
    [
      'one parameter in 2000 spellings, which the request repeats with other values',
      {
        privileges: list(each, (index) => ({
          name: `p${index}`,
          path: '/',
          queryParameters: Object.fromEntries(list(2000, (bits) => [spelling(bits), `v${bits}`])),
        })),
      },
      list(2000, (index) => `aaaaaaaaaaa=w${index}&`).join(''),
    ],
    [
      'long paths of short segments',
      { privileges: everything.map(({ name }) => ({ name, path: '/ab'.repeat(150) })) },
      '',
    ],
  ]
  for (const [situation, rules, query] of rows) {
    test(`that is accepted is compiled and asked in bounded time: ${situation}`, () => {
      const document = parseAuthorizationRules({ imds: itemWith(rules) })
      assert.ok(timeMs(() => compileSnapshot(itemsOf(document), 1)) < 2000)
      const { imds } = compileSnapshot(itemsOf(document), 1).result
      const caller = { ...ALICE, exePath: `/${'e'.repeat(400)}x` }
      const request = { method: 'GET', target: `${'/ab'.repeat(150)}?${query}` }
      assert.ok(timeMs(() => decide(imds, 'imds', caller, request, { canonicalMode: 'enforce' })) < 50)
    })
  }

  test('cannot make its warnings bigger than a hundred lines', () => {
    const rules = { roles: list(5, (index) => ({ name: `${index}`.repeat(1024), privileges: big })) }
    const document = parseAuthorizationRules({ imds: itemWith(rules) })
    const { warnings } = compileSnapshot(itemsOf(document), 1)
    assert.equal(warnings.length, 101)
    assert.ok(warnings.reduce((sum, { message }) => sum + message.length, 0) < 250_000)
  })
})

describe('a hostile target of 32 KiB', () => {
  const fill = (head: string, unit: string) => head + unit.repeat((TARGET_CHARACTERS - head.length) / unit.length)
  const unique = (make: (index: number) => string) => {
    let text = '/x?'
    for (let index = 0; text.length < TARGET_CHARACTERS; index++) text += make(index)
    return text.slice(0, TARGET_CHARACTERS)
  }
  const rows: readonly (readonly [situation: string, target: string])[] = [
    ['slashes', fill('/', '/')],
    ['steps down and up', fill('/', 'a/../')],
    ['escapes', fill('/', '%2f')],
    ['bytes that are not UTF-8', fill('/', '%80')],
    ['semicolons', fill('/', ';/')],
    ['empty pairs', fill('/x?', '&')],
    ['different names', unique((index) => `${index.toString(36)}&`)],
    ['different escaped names', unique((index) => `%61${index.toString(36)}&`)],
    ['names outside ASCII', fill('/x?', '%C3%89A&')],
    ['names that are not UTF-8', fill('/x?', '%80&')],
    ['malformed names', fill('/x?', '%&')],
    ['one name, many values', unique((index) => `k=${index.toString(36)}&`)],
    ['a query inside the path', fill('/x%3f', '%2561&')],
    ['dots as a host', fill('http://', '.')],
    ['digits as a host', fill('http://', '1')],
    ['groups as a host', fill('http://[', 'a:')],
    ['digits as a port', fill('http://h:', '1')],
    ['a scheme that never ends', fill('', 'a')],
  ]
  const policy = policyOf(itemGranting([{ name: 'p', path: '/x', queryParameters: { k: 'v' } }]))
  for (const [situation, target] of rows) {
    test(`is read in bounded time: ${situation}`, () => {
      assert.ok(timeMs(() => canonicalize({ method: 'GET', target })) < 50)
      const patterns = new PatternIndex([{ prefix: '/x', parameters: [{ name: 'k', values: ['v'] }] }])
      assert.ok(timeMs(() => patterns.find(readLegacyRequest(parseRequestTarget(target)))) < 50)
      const options = { canonicalMode: 'enforce' } as const
      assert.ok(timeMs(() => decide(policy, 'imds', ALICE, { method: 'GET', target }, options)) < 100)
    })
  }
})

test('a parameter repeated very often still counts with each of its values', () => {
  const item = itemGranting([{ name: 'p', path: '/x', queryParameters: { k: 'Wanted' } }])
  const values = list(1000, (index) => `k=${index}`).join('&')
  for (const [query, kind] of [
    [`${values}&K=%57anted`, 'granted'],
    [values, 'default-access'],
  ]) {
    assert.equal(decideGet(item, `/x?${query}`).canonical?.reason.kind, kind)
  }
})
