import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type CpuQuotaEnv, limitCpu } from '../../src/agent/cpu-quota.ts'
import { createFakeLog } from '../fakes/log.ts'

const SERVICE_CGROUP = '1:name=systemd:/\n0::/system.slice/azure-proxy-agent.service\n'

function env(changes: Partial<CpuQuotaEnv> = {}) {
  const calls: string[] = []
  return {
    calls,
    isBooted: () => true,
    readOwnCgroup: () => SERVICE_CGROUP,
    systemctl: async (args: readonly string[]) => void calls.push(args.join(' ')),
    ...changes,
  }
}

test('limitCpu() limits the service until the next boot, and says so', async () => {
  const [world, log] = [env(), createFakeLog()]
  await limitCpu(log, world)
  assert.deepEqual(world.calls, ['set-property --runtime azure-proxy-agent.service CPUQuota=15%'])
  assert.deepEqual(log.lines, ['Info Successfully set azure-proxy-agent.service CPU quota to 15%'])
})

for (const [situation, changes] of [
  ['where systemd is not the init', { isBooted: () => false }],
  ['at a console', { readOwnCgroup: () => '0::/user.slice/user-0.slice/session-1.scope\n' }],
  ['in a service of another name', { readOwnCgroup: () => '0::/system.slice/my-azure-proxy-agent.service\n' }],
  ['as root of the hierarchy', { readOwnCgroup: () => '0::/\n' }],
] as const) {
  test(`limitCpu() leaves the processor alone ${situation}`, async () => {
    const [world, log] = [env(changes), createFakeLog()]
    await limitCpu(log, world)
    assert.deepEqual([world.calls, log.lines], [[], []])
  })
}

test('limitCpu() tells that systemctl failed, and goes on', async () => {
  const log = createFakeLog()
  await limitCpu(log, env({ systemctl: () => Promise.reject(new Error('Access denied')) }))
  assert.deepEqual(log.lines, ['Warn Failed to set azure-proxy-agent.service CPU quota with error: Access denied'])
})

test('limitCpu() tells that the own cgroup cannot be read', async () => {
  const log = createFakeLog()
  const readOwnCgroup = () => {
    throw new Error('EACCES')
  }
  await limitCpu(log, env({ readOwnCgroup }))
  assert.match(log.lines.join(), /^Warn Failed to set .*EACCES$/)
})
