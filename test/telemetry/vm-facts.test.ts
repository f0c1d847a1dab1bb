import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readGoalState, readInstance, readSharedConfig } from '../../src/telemetry/vm-facts.ts'
import { configXml, DEFAULT_VM, goalStateXml } from '../fabric/documents.ts'

const WIRESERVER = '168.63.129.16'
const TARGET = `/machine/${DEFAULT_VM.containerId}/demo?comp=config&type=sharedConfig&incarnation=1`

test('readGoalState() takes the whole form and the short one', () => {
  for (const goalState of ['full', 'short'] as const) {
    assert.deepEqual(readGoalState(goalStateXml({ ...DEFAULT_VM, goalState }), WIRESERVER), {
      containerId: DEFAULT_VM.containerId,
      sharedConfigTarget: TARGET,
    })
  }
})

const URLS: readonly (readonly [url: string, target: string | undefined])[] = [
  ['http://168.63.129.16/x?y=1&amp;z', '/x?y=1&z'],
  ['http://168.63.129.16:80/x', '/x'],
  ['http://168.63.129.16:81/x', undefined],
  ['http://168.63.129.16:32526/x', undefined],
  ['https://168.63.129.16/x', undefined],
  ['http://169.254.169.254/metadata/identity/oauth2/token', undefined],
  ['http://168.63.129.16@evil.invalid/x', undefined],
  ['http://user@168.63.129.16/x', undefined],
  ['http://168.63.129.16.evil.invalid/x', undefined],
  ['//168.63.129.16/x', undefined],
  ['/x', undefined],
]
for (const [url, target] of URLS) {
  test(`readGoalState() ${target === undefined ? 'refuses' : 'takes'} a shared config at ${url}`, () => {
    const document = goalStateXml(DEFAULT_VM).replace(/(<SharedConfig>)[^<]*/, `$1${url}`)
    if (target !== undefined) assert.equal(readGoalState(document, WIRESERVER).sharedConfigTarget, target)
    else
      assert.throws(
        () => readGoalState(document, WIRESERVER),
        /the shared config is not at http:\/\/168\.63\.129\.16\//,
      )
  })
}

test('readSharedConfig() takes what is used', () => {
  assert.deepEqual(readSharedConfig(configXml(DEFAULT_VM, 'sharedconfig') ?? ''), {
    tenantName: DEFAULT_VM.deploymentId,
    roleName: 'demo-vm',
    roleInstanceName: '_demo-vm',
  })
})

test('readInstance() tells an image of the platform from one of the customer', () => {
  const compute = { subscriptionId: 's', resourceGroupName: 'g', vmId: 'v' }
  const read = (more: object) => readInstance(JSON.stringify({ compute: { ...compute, ...more } }))
  assert.deepEqual(read({ offer: 'ubuntu' }), { ...compute, imageOrigin: 1 })
  for (const more of [{}, { offer: '' }, { offer: null }]) assert.deepEqual(read(more), { ...compute, imageOrigin: 0 })
})

const INCOMPLETE: readonly (readonly [situation: string, read: () => unknown, reason: RegExp])[] = [
  ['another document', () => readGoalState('<Health/>', WIRESERVER), /goal state: GoalState is missing/],
  ['no container', () => readGoalState('<GoalState/>', WIRESERVER), /goal state: Container\/.*SharedConfig is missing/],
  [
    'an empty container id',
    () => readGoalState(goalStateXml({ ...DEFAULT_VM, containerId: '' }), WIRESERVER),
    /Container\/ContainerId is missing/,
  ],
  [
    'a shared config without instances',
    () => readSharedConfig('<SharedConfig><Deployment name="d"/><Role name="r"/></SharedConfig>'),
    /Instances\/Instance\/@id is missing/,
  ],
  ['instance metadata without compute', () => readInstance('{"network": {}}'), /compute is missing/],
  ['a list for instance metadata', () => readInstance('[]'), /compute is missing/],
  [
    'a number for a name',
    () => readInstance('{"compute": {"subscriptionId": 1}}'),
    /compute.subscriptionId is missing/,
  ],
]
for (const [situation, read, reason] of INCOMPLETE) {
  test(`documents are refused: ${situation}`, () => assert.throws(read, reason))
}
