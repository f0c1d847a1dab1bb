import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type AskHost, createVmMetadata } from '../../src/agent/vm-metadata.ts'
import { configXml, DEFAULT_VM, goalStateXml } from '../fabric/documents.ts'
import { createFakeClock } from '../fakes/clock.ts'
import { createFakeLog } from '../fakes/log.ts'

const MACHINE = { cpuArchitecture: 'x86_64', osVersion: 'Linux:Debian-12.0.0', ramMib: 1, processors: 2 }
const INSTANCE = { compute: { subscriptionId: 's', resourceGroupName: 'g', vmId: 'v', offer: 'o' } }

function make() {
  const clock = createFakeClock()
  const log = createFakeLog()
  const asked: [endpoint: string, target: string, headers: unknown][] = []
  const host = { vm: { ...DEFAULT_VM }, fails: (_target: string): number | Error => 200 }
  const ask: AskHost = async (endpoint, target, headers) => {
    asked.push([endpoint, target, headers])
    const status = host.fails(target)
    if (typeof status !== 'number') throw status
    if (target.startsWith('/metadata/')) return { status, text: JSON.stringify(INSTANCE) }
    return {
      status,
      text: target.includes('goalstate') ? goalStateXml(host.vm) : String(configXml(host.vm, 'sharedconfig')),
    }
  }
  const { signal } = new AbortController()
  const metadata = createVmMetadata({ ask, machine: MACHINE, clock, log })
  return { clock, log, asked, host, metadata, current: () => metadata.current(signal) }
}

test('current() asks for goal state, shared config and instance, in this order, with their headers', async () => {
  const { current, asked } = make()
  assert.deepEqual(await current(), {
    ...MACHINE,
    containerId: DEFAULT_VM.containerId,
    tenantName: DEFAULT_VM.deploymentId,
    roleName: 'demo-vm',
    roleInstanceName: '_demo-vm',
    subscriptionId: 's',
    resourceGroupName: 'g',
    vmId: 'v',
    imageOrigin: 1,
  })
  assert.deepEqual(asked, [
    ['wireserver', '/machine?comp=goalstate', [['x-ms-version', '2012-11-30']]],
    [
      'wireserver',
      `/machine/${DEFAULT_VM.containerId}/demo?comp=config&type=sharedConfig&incarnation=1`,
      [['x-ms-version', '2012-11-30']],
    ],
    ['imds', '/metadata/instance?api-version=2018-02-01', [['metadata', 'true']]],
  ])
})

test('current() asks again after an hour, or when it was told that things changed', async () => {
  const { current, asked, clock, host, metadata } = make()
  await current()
  host.vm.containerId = 'another'
  await clock.advance(3_599_000)
  assert.equal((await current())?.containerId, DEFAULT_VM.containerId)
  assert.equal(asked.length, 3)
  await clock.advance(1000)
  assert.equal((await current())?.containerId, 'another')
  assert.equal(asked.length, 6)
  metadata.expire()
  await current()
  assert.equal(asked.length, 9)
})

test('current() keeps what it knew when the host fails, tells it once, and asks again half a minute later', async () => {
  const { current, asked, clock, host, log } = make()
  await current()
  await clock.advance(3_600_000)
  host.fails = (target) => (target.includes('sharedConfig') ? 410 : 200)
  for (let round = 0; round < 3; round++) {
    assert.equal((await current())?.containerId, DEFAULT_VM.containerId)
    await current()
    await clock.advance(30_000)
  }
  assert.equal(asked.length, 3 + 3 * 2)
  assert.equal(log.lines.length, 1)
  assert.match(String(log.lines[0]), /^Warn Failed to update the metadata .*sharedConfig.* answered 410$/)
})

test('current() knows nothing before the host has answered all, whatever fails', async () => {
  for (const part of ['goalstate', 'sharedConfig', 'metadata']) {
    for (const failure of [500, 401, 204, new Error('Connection refused')]) {
      const { current, host, clock } = make()
      host.fails = (target) => (target.includes(part) ? failure : 200)
      assert.equal(await current(), undefined)
      host.fails = () => 200
      await clock.advance(30_000)
      assert.equal((await current())?.vmId, 'v')
    }
  }
})

test('current() follows no shared config that is elsewhere: the request would be signed', async () => {
  const { current, host, asked, log } = make()
  host.vm.wireserverAuthority = 'evil.invalid'
  assert.equal(await current(), undefined)
  assert.equal(asked.length, 1)
  assert.match(log.lines.join(), /the shared config is not at/)
})
