/** `failClosed`: nobody reaches the host past an agent that has died, and the next one takes everything over. */

import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { reasonToSkip, SLOWNESS } from '../kernel/lab.ts'
import { BpfFileSystem } from './bpf-file-system.ts'
import { createService, loadDuring } from './fail-closed/restart.ts'
import { AGENT_UNDER_TEST, createMachine, type Machine, type MachineOptions } from './machine.ts'

/** At a time, while agents come and go. */
const CLIENTS = 40

const GOAL_STATE = 'http://168.63.129.16/machine?comp=goalstate'

describe('failClosed', { skip: reasonToSkip() ?? false, timeout: 120_000 * SLOWNESS }, () => {
  let bpffs: BpfFileSystem
  before(() => {
    bpffs = new BpfFileSystem()
  })
  after(() => bpffs[Symbol.dispose]())

  const failingClosed = (options: MachineOptions = {}) =>
    createMachine({ ...options, config: { failClosed: true, pinFolder: bpffs.pins, ...options.config } })
  const cleanUp = (machine: Machine, ...args: string[]) =>
    machine.lab.run(AGENT_UNDER_TEST, ['cleanup', '--config', machine.configPath, ...args])

  test('killed: connections are refused until the next agent is there, which goes on', async () => {
    await using machine = await failingClosed()
    assert.equal((await machine.curl([GOAL_STATE])).status, 200)
    machine.agent.kill('SIGKILL')
    await machine.agent.ended
    const { result, requests } = await machine.requestsDuring(() => machine.curl([GOAL_STATE]))
    assert.match(result.error, /refused|Couldn't connect/)
    assert.deepEqual(requests, [], 'the host was asked')
    machine.startAgent()
    await machine.waitUntilProvisioned()
    assert.equal((await machine.curl([GOAL_STATE])).status, 200)
    assert.match(machine.agent.output(), /taken over from an earlier agent: links and maps/)
    assert.equal((await cleanUp(machine)).code, 1)
    machine.agent.kill('SIGKILL')
    await machine.agent.ended
    const cleaned = await cleanUp(machine)
    assert.equal(cleaned.code, 0, cleaned.stderr)
    assert.equal(existsSync(bpffs.pins), false)
    assert.equal(
      (await machine.curl([GOAL_STATE])).status,
      401,
      'straight to the host, which refuses what is not signed',
    )
    assert.deepEqual(await cleanUp(machine), { code: 0, stdout: `nothing is left in ${bpffs.pins}\n`, stderr: '' })
  })

  for (const { signal, lost } of [
    { signal: 'SIGTERM', lost: [] },
    // What the killed process had accepted went with it.
    { signal: 'SIGKILL', lost: ['broken', 'no answer'] },
  ] as const) {
    test(`${signal} and a start, the listener kept by the service manager: clients wait, nobody is refused`, async (t) => {
      await using machine = await failingClosed({ start: { agent: false } })
      const service = await createService(machine)
      await service.start()
      await service.ready()
      await machine.waitUntilProvisioned()
      assert.deepEqual(service.stored(), ['listener'])
      const load = await loadDuring(machine, CLIENTS, async () => {
        for (let round = 0; round < 3; round++) {
          await sleep(300)
          await service.end(signal)
          await service.start()
          await service.ready()
        }
        await sleep(300)
      })
      t.diagnostic(`${signal}: ${JSON.stringify(load)}`)
      const { counts } = load
      assert.ok((counts['200'] ?? 0) > 3 * CLIENTS, service.output())
      assert.deepEqual(
        Object.keys(counts).filter((outcome) => outcome !== '200' && !lost.includes(outcome as never)),
        [],
        JSON.stringify(counts),
      )
      await service.end('SIGTERM')
      await cleanUp(machine)
    })
  }

  test('killed and started without a service manager: refused for a moment, never past the agent', async (t) => {
    await using machine = await failingClosed()
    const load = await loadDuring(machine, CLIENTS, async () => {
      for (let round = 0; round < 3; round++) {
        await sleep(300)
        machine.agent.kill('SIGKILL')
        await machine.agent.ended
        machine.startAgent()
        await machine.waitUntilProvisioned()
      }
      await sleep(300)
    })
    t.diagnostic(JSON.stringify(load))
    const { refused = 0, broken = 0, 'no answer': unanswered = 0, 200: served = 0, ...rest } = load.counts
    assert.ok(refused > 0 && served > 0)
    assert.ok(broken + unanswered < served, JSON.stringify(load))
    assert.deepEqual(rest, {})
    machine.agent.kill('SIGKILL')
    await machine.agent.ended
    await cleanUp(machine)
  })
})
