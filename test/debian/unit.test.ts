import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { CONTAINERS_LIMITS } from '../../src/agent/containers.ts'
import { IMDS, LISTENER, SELF_PROBE, WIRESERVER } from '../../src/base/endpoints.ts'

const FILE = join(dirname(dirname(import.meta.dirname)), 'debian', 'azure-proxy-agent.service')
const TEXT = readFileSync(FILE, 'utf8')

const valuesOf = (name: string) => [...TEXT.matchAll(new RegExp(`^${name}=(.*)$`, 'gm'))].map(([, value]) => value!)

test('the unit lets the agent reach its host and its clients, and no other address', () => {
  assert.deepEqual(valuesOf('IPAddressDeny'), ['any'])
  const allowed = valuesOf('IPAddressAllow').flatMap((value) => value.split(' '))
  assert.deepEqual(allowed.sort(), ['127.0.0.0/8', IMDS.address, WIRESERVER.address].sort())
  for (const { address } of [LISTENER, SELF_PROBE]) assert.match(address, /^127\./)
})

test('the unit starts before the network and never gives up, but for a configuration that cannot be used', () => {
  assert.deepEqual(valuesOf('Before'), ['network-pre.target shutdown.target'])
  assert.deepEqual(valuesOf('Wants'), ['network-pre.target'])
  assert.deepEqual(valuesOf('DefaultDependencies'), ['no'])
  assert.deepEqual([valuesOf('Restart'), valuesOf('StartLimitIntervalSec')], [['always'], ['0']])
  assert.deepEqual(valuesOf('RestartPreventExitStatus'), ['78'])
})

test('the unit waits for the agent to be ready, and watches that it stays so', () => {
  assert.deepEqual([valuesOf('Type'), valuesOf('WatchdogSec')], [['notify'], ['60']])
})

test('the unit keeps all listeners over a restart, and lets the agent pin', () => {
  assert.deepEqual(valuesOf('FileDescriptorStoreMax'), [String(1 + CONTAINERS_LIMITS.all)])
  assert.ok(valuesOf('ReadWritePaths').some((value) => value.split(' ').includes('-/sys/fs/bpf')))
  // It makes /sys/fs/bpf read-only, whatever else is said.
  assert.deepEqual(valuesOf('ProtectKernelTunables'), [])
  const closed = valuesOf('ReadOnlyPaths').flatMap((value) => value.split(' '))
  assert.deepEqual(closed.slice(0, 3), ['/sys', '-/proc/sys', '-/proc/sysrq-trigger'])
})

test('the unit keeps the key out of core files and swap', () => {
  assert.deepEqual([valuesOf('LimitCORE'), valuesOf('MemorySwapMax')], [['0'], ['0']])
})

test('systemd rates the unit 3.0 or better, and knows every word in it', (t) => {
  const ran = spawnSync('systemd-analyze', ['security', '--offline=yes', '--threshold=30', FILE], { encoding: 'utf8' })
  if (ran.error !== undefined) return t.skip('no systemd-analyze here')
  assert.equal(ran.status, 0, ran.stdout)
  assert.doesNotMatch(ran.stderr, /Unknown|Failed to parse|Invalid/)
})
