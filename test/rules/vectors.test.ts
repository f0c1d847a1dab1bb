/** Every row of test/fixtures/rules.json, through both matchers. Where a row says `ours`, we differ on purpose. */

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import type { EndpointName } from '../../src/base/endpoints.ts'
import { parseJson } from '../../src/base/json.ts'
import type { CanonicalMode, RulesVerdict, Verdict } from '../../src/rules/decide.ts'
import { decide } from '../../src/rules/decide.ts'
import { parseAuthorizationItem } from '../../src/rules/document.ts'
import type { RuleCaller } from '../../src/rules/selectors.ts'
import { compileItem } from '../../src/rules/snapshot.ts'

interface Vector {
  readonly name: string
  readonly endpoint: EndpointName
  readonly item: unknown
  readonly method: string
  readonly target: string
  readonly claims: {
    readonly userName: string
    readonly userGroups: readonly string[]
    readonly processName: string
    readonly processFullPath: string
    readonly runAsElevated: boolean
  }
  readonly expected: string
  readonly ours?: string
  readonly canonicalExpected?: string
  readonly oursCanonical?: string
}

const vectors = parseJson(readFileSync(new URL('../fixtures/rules.json', import.meta.url), 'utf8')).value as Vector[]

/** Claims write what is not known as empty text. */
function callerOf({ claims }: Vector): RuleCaller {
  return {
    userName: claims.userName,
    groups: claims.userGroups,
    exePath: claims.processFullPath || undefined,
    processName: claims.processName || undefined,
    elevated: claims.runAsElevated,
  }
}

function decideVector(vector: Vector, canonicalMode: CanonicalMode): Verdict {
  const { endpoint, item, method, target } = vector
  const policy = item === null ? undefined : compileItem(parseAuthorizationItem(item), endpoint).result
  return decide(policy, endpoint, callerOf(vector), { method, target }, { canonicalMode })
}

function textOf(verdict: RulesVerdict): string {
  if (verdict.reason.kind === 'canonical-error') return `error:${verdict.reason.code}`
  return verdict.allowed ? 'allowed' : 'denied'
}

test('the fixture has all its rows', () => {
  assert.equal(vectors.length, 129)
  assert.equal(vectors.filter(({ canonicalExpected }) => canonicalExpected !== undefined).length, 123)
})

describe('decide() gives the outcome of the vector, canonical mode off and shadow', () => {
  for (const vector of vectors) {
    test(vector.name, () => {
      for (const mode of ['off', 'shadow'] as const) {
        assert.equal(decideVector(vector, mode).outcome, vector.ours ?? vector.expected, mode)
      }
      assert.equal(decideVector(vector, 'off').canonical, undefined)
    })
  }
})

describe('decide() gives the canonical verdict of the vector', () => {
  for (const vector of vectors) {
    const expected = vector.oursCanonical ?? vector.canonicalExpected
    if (expected === undefined) continue
    test(vector.name, () => {
      const { canonical } = decideVector(vector, 'shadow')
      assert.ok(canonical)
      assert.equal(textOf(canonical), expected)
    })
  }
})

describe('decide() does not consult the canonical matcher where it has nothing to say', () => {
  for (const vector of vectors) {
    const differs = vector.name === 'skip-sig-applies-to-imds-too'
    if (vector.canonicalExpected !== undefined || differs) continue
    test(vector.name, () => assert.equal(decideVector(vector, 'enforce').canonical, undefined))
  }
})

describe('decide() in canonical mode enforce is as strict as the stricter matcher', () => {
  for (const vector of vectors) {
    const canonical = vector.oursCanonical ?? vector.canonicalExpected
    if (canonical === undefined) continue
    test(vector.name, () => {
      const verdict = decideVector(vector, 'enforce')
      const legacy = vector.ours ?? vector.expected
      if (canonical === 'allowed' || legacy !== 'ok') assert.equal(verdict.outcome, legacy)
      else {
        assert.equal(verdict.outcome, 'forbidden')
        assert.equal(verdict.decidedBy, 'canonical')
        assert.equal(verdict.divergence?.legacy, 'allow')
      }
    })
  }
})
