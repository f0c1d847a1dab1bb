import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import type { Identity } from '../../src/rules/document.ts'
import { IdentityIndex } from '../../src/rules/identity-index.ts'
import { ComparableCaller, compileIdentity, matchesIdentity, type RuleCaller } from '../../src/rules/selectors.ts'
import { ALICE } from './make.ts'

const word = fc.constantFrom('a', 'a', 'b', 'c', '', 'constructor')
const path = fc.constantFrom('/a', '/a', '//a/', '/a/./b', '/a/b', '/', '')
const maybe = <Value>(arbitrary: fc.Arbitrary<Value>) => fc.option(arbitrary, { nil: undefined, freq: 1 })

const identity = fc
  .record({
    userName: maybe(word),
    groupName: maybe(word),
    exePath: maybe(path),
    processName: maybe(word),
    cgroupPath: maybe(path),
    systemdUnit: maybe(word),
    containerId: maybe(word),
    exeSha256: maybe(word),
  })
  .chain((all) => fc.subarray(Object.entries(all)).map((some) => JSON.parse(JSON.stringify(Object.fromEntries(some)))))

const caller: fc.Arbitrary<RuleCaller> = fc.record({
  userName: word,
  groups: fc.array(word, { maxLength: 4 }),
  exePath: maybe(path),
  processName: maybe(word),
  elevated: fc.boolean(),
  cgroupPath: maybe(path),
  systemdUnit: maybe(word),
  containerId: maybe(word),
  exeSha256: maybe(word),
})

describe('IdentityIndex.find()', () => {
  test('finds whom a look at every identity finds', () => {
    let found = 0
    fc.assert(
      fc.property(fc.array(identity, { maxLength: 12 }), caller, (selectors, caller) => {
        const identities = selectors.map((each, index) => compileIdentity({ name: `i${index}`, ...each }, index))
        const expected = identities.filter((each) => matchesIdentity(each, new ComparableCaller(caller)))
        const places = new Set(new IdentityIndex(identities).find(caller).map(({ index }) => index))
        assert.deepEqual(
          [...places].sort((a, b) => a - b),
          expected.map(({ index }) => index),
        )
        found += expected.length
      }),
      { numRuns: 5000 },
    )
    assert.ok(found > 2000, `only ${found} found`)
  })

  /** Counts how often an identity is compared with the caller. */
  function countLooks(identities: readonly Omit<Identity, 'name'>[], who: RuleCaller): number {
    let looks = 0
    const compiled = identities.map((each, index) => {
      const { matchesNobody, ...rest } = compileIdentity({ name: `i${index}`, ...each }, index)
      let isFiled = false
      return {
        ...rest,
        get matchesNobody() {
          if (isFiled) looks += 1
          isFiled = true
          return matchesNobody
        },
      }
    })
    assert.equal(new IdentityIndex(compiled).find(who).length, 1)
    return looks
  }
  const numbers = Array.from({ length: 100 }, (_, index) => index)
  const rows: readonly (readonly [situation: string, others: readonly Omit<Identity, 'name'>[]])[] = [
    ['other users', numbers.map((n) => ({ userName: `u${n}` }))],
    ['other users of the same program', numbers.map((n) => ({ userName: `u${n}`, exePath: '/usr/bin/curl' }))],
    ['other programs of the same user', numbers.map((n) => ({ userName: 'alice', exePath: `/usr/bin/x${n}` }))],
    ['other groups', numbers.map((n) => ({ groupName: `g${n}`, exePath: '/usr/bin/curl' }))],
    ['other hashes of the same process name', numbers.map((n) => ({ processName: 'curl', exeSha256: `${n}` }))],
  ]
  for (const [situation, others] of rows) {
    test(`does not compare with ${situation}`, () => {
      assert.equal(countLooks([...others, { userName: 'alice', exePath: '/usr/bin/curl' }], ALICE), 1)
    })
  }
})
