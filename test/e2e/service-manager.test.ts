/** What a service manager hears of the built executable, and when it would end it. */

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { reasonToSkip } from '../kernel/lab.ts'
import { createMachine, type Machine, waitFor } from './machine.ts'
import { type Manager, startManager } from './service-manager/manager.ts'

const SCRIPTS = join(import.meta.dirname, 'service-manager')
const WATCHDOG_MS = 2000
const BEAT = 'WATCHDOG=1'

/** Long enough that a beat, which comes four times in it, is missing for good. */
const SILENCE_MS = 2 * WATCHDOG_MS

function startWatched(machine: Machine, address: string): void {
  const watchdog = { NOTIFY_SOCKET: address, WATCHDOG_USEC: String(WATCHDOG_MS * 1000) }
  machine.startAgent([], { env: { ...process.env, ...watchdog } })
}

async function watchedMachine(host = true): Promise<{ machine: Machine; manager: Manager }> {
  const machine = await createMachine({ start: { host, agent: false } })
  try {
    const address = join(machine.folder, 'notify')
    const manager = await startManager(machine, address)
    startWatched(machine, address)
    await waitFor(
      () => manager.count(BEAT) >= 3,
      'three beats',
      () => machine.agent.output(),
      40_000,
    )
    return { machine, manager }
  } catch (error) {
    await machine[Symbol.asyncDispose]()
    throw error
  }
}

/** Waits until no beat has come for as long as a manager would wait. */
async function waitForSilence(manager: Manager, machine: Machine): Promise<void> {
  const isSilent = () => {
    const last = manager.messages.findLast(({ lines }) => lines.includes(BEAT))
    return last !== undefined && performance.now() - last.atMs > SILENCE_MS
  }
  await waitFor(isSilent, 'the beats to stop', () => machine.agent.output(), 30_000)
}

describe('a service manager', { skip: reasonToSkip() }, () => {
  test('hears that the service is ready, how it is, that it reloads, that it stops', async () => {
    const { machine, manager } = await watchedMachine()
    await using _ = machine
    assert.equal(manager.count('READY=1'), 1)
    await waitFor(
      () => manager.last('STATUS')?.startsWith('guarding: WireServer Enforce') === true,
      'the status',
      () => JSON.stringify(manager.messages),
    )
    machine.agent.kill('SIGHUP')
    await waitFor(() => manager.count('READY=1') === 2, 'the end of reloading')
    const reload = manager.messages.find(({ lines }) => lines.includes('RELOADING=1'))
    assert.match(reload?.lines[1] ?? '', /^MONOTONIC_USEC=\d+$/)
    machine.agent.kill('SIGTERM')
    assert.equal((await machine.agent.ended).code, 0)
    await waitFor(() => manager.count('STOPPING=1') === 1, 'the last word')
    const pids = new Set(manager.messages.map(({ pid }) => pid))
    assert.deepEqual([...pids], [String(machine.agent.pid)], 'all messages are those of the main process')
  })

  test('hears it on an abstract socket', async () => {
    await using machine = await createMachine({ start: { host: false, agent: false } })
    const address = `@apa-notify-${process.pid}`
    const manager = await startManager(machine, address)
    startWatched(machine, address)
    await waitFor(
      () => manager.count('READY=1') === 1,
      'readiness',
      () => machine.agent.output(),
    )
  })

  test('hears all of it while another user floods its socket', async () => {
    await using machine = await createMachine({ start: { host: false, agent: false } })
    const address = `@apa-flooded-${process.pid}`
    const manager = await startManager(machine, address)
    const flood = machine.lab.spawn('/usr/bin/python3', [join(SCRIPTS, 'flood.py'), address, '4'], {
      uid: 65534,
      gid: 65534,
    })
    await once(flood.stdout, 'data')
    startWatched(machine, address)
    await waitFor(
      () => manager.count('READY=1') === 1 && manager.last('STATUS') !== undefined && manager.count(BEAT) >= 3,
      'readiness, the status and three beats',
      () => JSON.stringify(manager.messages) + machine.agent.output(),
      40_000,
    )
  })

  test('does not wait for the host to call the service ready', async () => {
    const { machine, manager } = await watchedMachine(false)
    await using _ = machine
    assert.equal(manager.count('READY=1'), 1)
    assert.match(manager.last('STATUS') ?? '', /^no agreement with the host: /)
  })

  test('hears no beat any more when the listener is lost and its port is taken, and the status says so', async () => {
    const { machine, manager } = await watchedMachine()
    await using _ = machine
    const keeper = machine.lab.spawn('/usr/bin/python3', [
      join(SCRIPTS, 'close-listener.py'),
      String(machine.agent.pid),
    ])
    await once(keeper.stdout, 'data')
    await waitForSilence(manager, machine)
    assert.match(manager.last('STATUS') ?? '', /the listener is not bound: .* the port is taken by python3 /)
  })

  test('hears no beat while the hooks are detached, and beats again when they are back', async () => {
    const { machine, manager } = await watchedMachine()
    await using _ = machine
    const detaching = machine.lab.run('/usr/bin/python3', [
      join(SCRIPTS, 'detach.py'),
      String(statSync(machine.lab.cgroup).ino),
      '9',
    ])
    await waitForSilence(manager, machine)
    const { stdout, stderr } = await detaching
    assert.ok(Number(stdout) >= 3, stderr)
    const before = manager.count(BEAT)
    await waitFor(
      () => manager.count(BEAT) > before,
      'beats again',
      () => machine.agent.output(),
      40_000,
    )
  })

  test('goes on hearing beats when the agent is put outside the guarded cgroup, and the status says so', async () => {
    const { machine, manager } = await watchedMachine()
    await using _ = machine
    writeFileSync(join(dirname(machine.lab.cgroup), 'cgroup.procs'), String(machine.agent.pid))
    await waitFor(
      () => /not tried: the agent itself is in cgroup/.test(manager.last('STATUS') ?? ''),
      'the status to say so',
      () => JSON.stringify(manager.messages.slice(-5)),
    )
    const before = manager.count(BEAT)
    await sleep(WATCHDOG_MS)
    assert.ok(manager.count(BEAT) > before)
  })
})
