import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { LocalOutcome } from '../../src/agent/local-rules.ts'
import { createRulesHolder } from '../../src/agent/rules-holder.ts'
import { HOSTGA, IMDS, WIRESERVER } from '../../src/base/endpoints.ts'
import type { EndpointItems } from '../../src/rules/snapshot.ts'
import { makeCaller } from '../fakes/caller.ts'
import { createFakeLog } from '../fakes/log.ts'
import { itemGranting } from '../rules/make.ts'

const ALICE = makeCaller({ exePath: undefined, processName: undefined, commandLine: '' })

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

test('update() tells what looks odd in a document, once, at the level of other agents', () => {
  const { rules, log } = holder()
  const roleAssignments = [{ role: 'gone', identities: [] }, ...(TO_BOB.rules?.roleAssignments ?? [])]
  const odd = { ...TO_BOB, mode: 'enforced?', rules: { ...TO_BOB.rules, identities: [], roleAssignments } }
  rules.update({ imds: odd })
  rules.update({ imds: structuredClone(odd) })
  assert.deepEqual(
    log.lines.filter((line) => line.includes(' rules: ')),
    [
      "Error IMDS rules: Mode 'enforced?' is not known, the rules are enforced.",
      "Error IMDS rules: Role 'gone' is not defined, skip the role assignment.",
      "Warn IMDS rules: Identity 'someone' is not defined, role 'reader' is not assigned to it.",
    ],
  )
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

/** A holder whose local files hold what a test puts into `files`; each look waits for `gate`. */
function localHolder() {
  const log = createFakeLog()
  const files: { wireserver: LocalOutcome; imds: LocalOutcome } = { wireserver: undefined, imds: undefined }
  const scene = { log, files, gate: Promise.resolve(), looks: 0, applied: [] as EndpointItems[] }
  const fileOf = (endpoint: 'wireserver' | 'imds') => ({
    async look(isOn: boolean) {
      scene.looks += 1
      await scene.gate
      return isOn ? files[endpoint] : undefined
    },
  })
  const rules = createRulesHolder('off', log, {
    localFiles: { wireserver: fileOf('wireserver'), imds: fileOf('imds') },
    onApplied: (items) => scene.applied.push(items),
  })
  return Object.assign(scene, {
    rules,
    outcome: (endpoint = IMDS) =>
      rules.decide(endpoint, { ...ALICE, elevated: endpoint !== IMDS }, 'GET', '/x').outcome,
  })
}

const switchedOn = (id: string) => Buffer.from(JSON.stringify({ id, useLocalFileRules: true })).toString('base64')
const LOCAL_IMDS = { ...TO_ALICE, id: switchedOn('host') }
const LOCAL_WIRESERVER = { id: switchedOn('host'), mode: 'audit', defaultAccess: 'allow' }

test('update() looks at no file while no switch is on, and is done when it returns', () => {
  const { rules, looks, applied } = localHolder()
  assert.equal(rules.update({ imds: TO_BOB }), undefined)
  assert.equal(looks, 0)
  assert.equal(applied[0]?.imds?.id, 'rules-1-useLocalFileRules-false')
})

test('update() changes nothing before the file was read', async () => {
  const scene = localHolder()
  scene.rules.update({ imds: TO_BOB })
  const { promise, resolve } = Promise.withResolvers<void>()
  scene.gate = promise
  const done = scene.rules.update({ imds: LOCAL_IMDS })
  assert.equal(scene.outcome(), 'forbidden', 'the rules before')
  resolve()
  await done
  assert.equal(scene.outcome(), 'ok')
  const line = "Warn IMDS rule id changed from 'rules-1' to 'host-useLocalFileRules-true'."
  assert.ok(scene.log.lines.includes(line), scene.log.lines.join('\n'))
})

test('update() with the switch off again waits for a look that is running, and forgets the file', async () => {
  const scene = localHolder()
  scene.files.imds = 'fail-closed'
  void scene.rules.update({ imds: LOCAL_IMDS })
  await scene.rules.update({ imds: TO_ALICE })
  assert.equal(scene.outcome(), 'ok')
  assert.equal(scene.applied.length, 1, 'rules that the host has replaced meanwhile are not applied')
})

test('update() while a look hangs begins one more look, however often the host speaks, for what it said last', async () => {
  const scene = localHolder()
  const { promise, resolve } = Promise.withResolvers<void>()
  scene.gate = promise
  const updates = [scene.rules.update({ imds: LOCAL_IMDS })]
  await Promise.resolve()
  for (let i = 0; i < 100; i++) updates.push(scene.rules.update({ imds: { ...LOCAL_IMDS, mode: `mode ${i}` } }))
  updates.push(scene.rules.update({ imds: { ...TO_BOB, id: switchedOn('last') } }))
  resolve()
  await Promise.all(updates)
  assert.equal(scene.looks, 4, 'two files, twice')
  assert.deepEqual(
    scene.applied.map(({ imds }) => imds?.id),
    ['last-useLocalFileRules-true'],
  )
  assert.equal(scene.outcome(), 'forbidden')
})

test('reread() merges what the file holds now into what the host sent last', async () => {
  const scene = localHolder()
  await scene.rules.update({ imds: LOCAL_IMDS })
  scene.files.imds = { id: 'mine', rules: { privileges: [{ name: 'none', path: '/x' }] } }
  await scene.rules.reread()
  assert.equal(scene.applied.at(-1)?.imds?.id, 'host-useLocalFileRules-true_mine')
  const { privileges } = scene.applied.at(-1)?.imds?.rules ?? {}
  assert.deepEqual(
    privileges?.map(({ name }) => name),
    ['all', 'LocalFileRules_none'],
  )
  scene.files.imds = undefined
  await scene.rules.reread()
  assert.deepEqual(scene.applied.at(-1)?.imds?.rules, TO_ALICE.rules)
})

test('a file of WireServer is not for HostGAPlugin, but one that cannot be used closes both', async () => {
  const scene = localHolder()
  scene.files.wireserver = { defaultAccess: 'deny' }
  await scene.rules.update({ wireserver: { ...LOCAL_WIRESERVER, mode: 'enforce' } })
  assert.deepEqual([scene.outcome(WIRESERVER), scene.outcome(HOSTGA)], ['forbidden', 'ok'])
  assert.equal(scene.applied.at(-1)?.hostga?.id, LOCAL_WIRESERVER.id, 'as the host sent it')
  scene.files.wireserver = 'fail-closed'
  await scene.rules.update({ wireserver: LOCAL_WIRESERVER })
  assert.deepEqual([scene.outcome(WIRESERVER), scene.outcome(HOSTGA)], ['forbidden', 'forbidden'])
})

test('update() tells a malformed switch once', () => {
  const { rules, log } = localHolder()
  const id = Buffer.from('{"id": "a", "useLocalFileRules": "true"}').toString('base64')
  rules.update({ wireserver: { ...LOCAL_WIRESERVER, id } })
  rules.update({ wireserver: { ...LOCAL_WIRESERVER, id, mode: 'enforce' } })
  assert.deepEqual(
    log.lines.filter((line) => line.includes('switch')),
    [
      'Warn Wireserver rules: the id decodes to a switch whose useLocalFileRules is not true or false, so local rules are off.',
    ],
  )
})
