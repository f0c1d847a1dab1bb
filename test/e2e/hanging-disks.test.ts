/** The executable while every disk that it writes to hangs: it guards, signs and answers as before, and goes on when they do. */

import assert from 'node:assert/strict'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { SLOWNESS } from '../kernel/lab.ts'
import { mountDisk } from './disk.ts'
import { createMachine, type Machine, waitFor } from './machine.ts'

const GOAL_STATE = 'http://168.63.129.16/machine?comp=goalstate'
const INSTANCE = 'http://169.254.169.254/metadata/instance?api-version=2021-02-01'
/** In what went through the agent. */
const MARK = 'x-ms-azure-host-authorization'

const EVENT = {
  EventLevel: 'INFO',
  Message: 'from an earlier run',
  Version: '1.0.0',
  TaskName: 'test',
  EventPid: '1',
  EventTid: '00000001',
  OperationId: 'test',
  TimeStamp: '2026-01-02T03:04:05.678',
}

async function askSigned(machine: Machine): Promise<void> {
  const { result, requests } = await machine.requestsDuring(() => machine.curl([GOAL_STATE]))
  assert.equal(result.status, 200)
  assert.equal(requests.find(({ target }) => target.startsWith('/machine?comp=goalstate'))?.signature, 'right')
}

test('the disks of logs, status, events and keys hang together', async () => {
  await using machine = await createMachine({
    config: { monitorIntervalInSeconds: 1, telemetryIntervalInSeconds: 1 },
    start: { agent: false },
  })
  using disks = new DisposableStack()
  const mounted = ['log', 'status', 'events', 'keys'].map((name) => disks.use(mountDisk(machine, name)))
  machine.startAgent()
  await machine.waitUntilProvisioned()
  const stamp = () => /"timestamp": "([^"]+)"/.exec(machine.read('status', 'status.json'))?.[1] ?? ''
  await waitFor(() => stamp() !== '', 'the status to be written')
  writeFileSync(join(machine.folder, 'events', '1.json'), JSON.stringify([EVENT]))
  for (const disk of mounted) disk.freeze()
  const frozenAt = stamp()
  const polls = async () =>
    (await machine.host.readRequests()).filter(({ target }) => target.startsWith('/secure-channel/status')).length
  const pollsBefore = await polls()
  // Long enough for each of them to begin a write, and to be due again.
  for (let i = 0; i < 30; i++) {
    await askSigned(machine)
    await sleep(100)
  }
  assert.equal(stamp(), frozenAt, 'the disk of the status does not hang')
  assert.match((await machine.readControl('/healthz')).body, /^guarding: /)
  assert.ok(JSON.parse((await machine.readControl('/status')).body).decisions.ok >= 30)
  assert.ok((await polls()) > pollsBefore, 'the host is not asked')

  for (const disk of mounted) disk.thaw()
  await waitFor(() => stamp() !== frozenAt, 'the status to be written again')
  await waitFor(
    () => machine.read('log', 'ProxyAgent.Connection.log').split(' - Got request ').length - 1 === 30,
    'all requests to be in the log',
  )
  await waitFor(
    () => readdirSync(join(machine.folder, 'events')).every((name) => name !== '1.json'),
    'events to be taken',
  )
  await machine.host.rotateKey()
  const keys = () => readdirSync(join(machine.folder, 'keys')).filter((name) => name.endsWith('.key'))
  const [oldKey] = keys()
  await waitFor(() => keys().length === 1 && keys()[0] !== oldKey, 'the new key to be on disk')
  await askSigned(machine)
  machine.agent.kill('SIGTERM')
  assert.deepEqual(await machine.agent.ended, { code: 0, signal: null })
})

test('the disk of the keys hangs while the host replaces the key: nothing goes unsigned, and the new one is used when it is on disk', async () => {
  await using machine = await createMachine({ start: { agent: false } })
  using disk = mountDisk(machine, 'keys')
  machine.startAgent()
  await machine.waitUntilProvisioned()
  await askSigned(machine)
  disk.freeze()
  await machine.host.rotateKey()
  const channel = async () => (await machine.host.readState()).channel
  // What is asked before the new key is offered shows little: its write has not begun to hang.
  await waitFor(async () => (await channel()) === 'offered', 'the new key to be offered')
  const { requests } = await machine.requestsDuring(async () => {
    for (let i = 0; i < 30; i++) {
      await machine.curl(['--max-time', '3', GOAL_STATE])
      await sleep(100)
    }
  })
  assert.equal(requests.length, 30)
  for (const { signature } of requests) assert.notEqual(signature, 'absent')
  assert.equal(await channel(), 'offered', 'the host was told that the key is kept')
  assert.match((await machine.readControl('/healthz')).body, /^guarding: /)
  disk.thaw()
  await waitFor(async () => (await channel()) === 'latched', 'the new key to be kept')
  await askSigned(machine)
})

test('the disk of the keys hangs, and rules and modes of the host are followed; an agent that starts then finds its key', async () => {
  await using machine = await createMachine({ start: { agent: false } })
  using disk = mountDisk(machine, 'keys')
  machine.startAgent()
  await machine.waitUntilProvisioned()
  const ask = () => machine.curl(['--max-time', '3', INSTANCE, '-H', 'Metadata: true'])
  const item = (mode: string, defaultAccess: 'allow' | 'deny') =>
    ({ mode, defaultAccess, id: `${mode} ${defaultAccess}` }) as const
  const wireserver = item('enforce', 'allow')
  // Longer than a poll waits for a disk.
  const follows = (condition: () => Promise<boolean>, what: string) =>
    waitFor(condition, what, undefined, 30_000 * SLOWNESS)
  assert.equal((await ask()).status, 200)

  disk.freeze()
  await machine.host.rotateKey()
  await waitFor(async () => (await machine.host.readState()).channel === 'offered', 'the new key to be offered')
  await machine.host.setRules({ wireserver, imds: item('enforce', 'deny') })
  await follows(async () => (await ask()).status === 403, 'the rule that forbids to be in force')
  await machine.host.setRules({ wireserver, imds: item('disabled', 'allow') })
  await follows(async () => !(await ask()).headers.has(MARK), 'IMDS to be left alone')
  assert.equal((await machine.host.readState()).channel, 'offered', 'the disk does not hang')
  disk.thaw()
  await follows(async () => (await machine.host.readState()).channel === 'latched', 'the new key to be kept')
  await askSigned(machine)

  machine.agent.kill('SIGTERM')
  await machine.agent.ended
  disk.freeze()
  machine.startAgent()
  await follows(async () => (await machine.curl([GOAL_STATE])).headers.has(MARK), 'the agent to guard')
  await askSigned(machine)
  assert.equal((await machine.host.readState()).channel, 'latched')
})
