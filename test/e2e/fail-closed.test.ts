/** `failClosed`: nobody reaches the host past an agent that has died, and the next one takes everything over. */

import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { reasonToSkip, SLOWNESS } from '../kernel/lab.ts'
import { BpfFileSystem } from './bpf-file-system.ts'
import { AGENT_UNDER_TEST, createMachine, type Machine, type MachineOptions } from './machine.ts'

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
})
