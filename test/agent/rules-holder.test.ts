import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createRulesHolder } from '../../src/agent/rules-holder.ts'
import { IMDS, WIRESERVER } from '../../src/base/endpoints.ts'
import type { Caller } from '../../src/identity/caller.ts'
import { createFakeLog } from '../fakes/log.ts'
import { itemGranting } from '../rules/make.ts'

const ALICE: Caller = {
  uid: 1000,
  gid: 1000,
  userName: 'alice',
  groups: [],
  pid: 1,
  exePath: undefined,
  processName: undefined,
  commandLine: '',
  elevated: false,
  clientAddress: '127.0.0.1',
  clientPort: 1,
  doubt: undefined,
}

const TO_ALICE = itemGranting([{ name: 'all', path: '/' }])
const TO_BOB = itemGranting([{ name: 'all', path: '/' }], { userName: 'bob' })

function holder(mode: 'off' | 'shadow' | 'enforce' = 'off') {
  const log = createFakeLog()
  const rules = createRulesHolder(mode, log)
  return { log, rules, outcome: (target = '/x') => rules.decide(IMDS, ALICE, 'GET', target).outcome }
}

test('decide() lets everybody pass while there are no rules, save for what root alone may use', () => {
  const { rules } = holder()
  assert.equal(rules.decide(IMDS, ALICE, 'GET', '/x').reason.kind, 'no-rules')
  assert.equal(rules.decide(WIRESERVER, ALICE, 'GET', '/x').outcome, 'forbidden')
})

test('update() puts a document in force, and tells it', () => {
  const { rules, outcome, log } = holder()
  rules.update({ imds: TO_BOB })
  assert.equal(outcome(), 'forbidden')
  assert.deepEqual(log.lines, ["Warn IMDS rule id changed from '' to 'rules-1'.", 'Info Rules of epoch 1 are in force'])
})

test('update() with the same content does nothing', () => {
  const { rules, log } = holder()
  rules.update({ imds: TO_BOB })
  const told = log.lines.length
  rules.update({ imds: structuredClone(TO_BOB) })
  assert.equal(log.lines.length, told)
})

test('update() sees changed content under the same id', () => {
  const { rules, outcome, log } = holder()
  rules.update({ imds: TO_BOB })
  log.lines.length = 0
  rules.update({ imds: TO_ALICE })
  assert.equal(outcome(), 'ok')
  assert.deepEqual(log.lines, ['Info Rules of epoch 2 are in force'])
})

test('update() tells a changed id although nothing else changed', () => {
  const { rules, outcome, log } = holder()
  rules.update({ imds: TO_BOB })
  log.lines.length = 0
  rules.update({ imds: { ...TO_BOB, id: 'rules-2' } })
  assert.equal(outcome(), 'forbidden')
  assert.equal(log.lines[0], "Warn IMDS rule id changed from 'rules-1' to 'rules-2'.")
})

test('update() with nothing takes the rules away', () => {
  const { rules, outcome, log } = holder()
  rules.update({ imds: TO_BOB })
  rules.update(undefined)
  assert.equal(outcome(), 'ok')
  assert.ok(log.lines.includes("Warn IMDS rule id changed from 'rules-1' to ''."))
})

test('update() tells what looks odd in a document, once', () => {
  const { rules, log } = holder()
  const odd = { ...TO_BOB, mode: 'enforced?' }
  rules.update({ imds: odd })
  rules.update({ imds: structuredClone(odd) })
  assert.equal(log.lines.filter((line) => /^Warn IMDS rules: .*enforced\?/.test(line)).length, 1)
})

test('decide() hands the canonical mode on: where only the canonical matcher denies, enforce denies', () => {
  for (const [mode, outcome, isCompared] of [
    ['off', 'ok', false],
    ['shadow', 'ok', true],
    ['enforce', 'forbidden', true],
  ] as const) {
    const { rules } = holder(mode)
    rules.update({ imds: TO_ALICE })
    const verdict = rules.decide(IMDS, ALICE, 'GET', '/a%00b')
    assert.equal(verdict.outcome, outcome, mode)
    assert.equal(verdict.divergence !== undefined, isCompared, mode)
  }
})
