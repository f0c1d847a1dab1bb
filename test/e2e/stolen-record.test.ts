/**
 * A request that somebody left behind must not be served in the name of who comes next.
 *
 * The agent stands still while the attacker leaves half of a connection in its queue, and while root dials from the same
 * port; then it goes on, and finds the attacker's half first.
 */

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { RecordedRequest } from '../fabric/records.ts'
import { reasonToSkip, SLOWNESS } from '../kernel/lab.ts'
import { type Attack, attack } from './attacks/stage.ts'
import { createMachine, type Machine, waitFor } from './machine.ts'

const skip = reasonToSkip() ?? false

describe('the executable serves nobody in the name of another', { skip, timeout: 60_000 * SLOWNESS }, () => {
  let machine: Machine
  before(async () => {
    machine = await createMachine()
  })
  after(() => machine[Symbol.asyncDispose]())

  test('a request left in the queue by a client that timed out is refused, and root is served', async () => {
    const sourcePort = 41_001
    const { result, requests } = await machine.requestsDuring(async () => {
      const outcome = await attack(attackOn(machine, 'orphan.py', sourcePort))
      await waitFor(() => isRefused(machine, `127.0.0.1:${sourcePort}`), 'the forged request to be refused')
      return outcome
    })
    // The half left behind was alive, and root's first packet had left, when the agent began to accept.
    assert.deepEqual({ left: result.left, dialling: result.dialling }, { left: 'ESTABLISHED', dialling: 'SYN_SENT' })
    assert.deepEqual(result.root, SERVED)
    assert.deepEqual(requests.map(told), [ROOT_ALONE])
  })

  test('a request from the same port of another address of the machine is refused, and root is served', async () => {
    const sourcePort = 41_004
    const { result, requests } = await machine.requestsDuring(async () => {
      const outcome = await attack(attackOn(machine, 'neighbour.py', sourcePort))
      await waitFor(() => isRefused(machine, `127.0.0.2:${sourcePort}`), 'the forged request to be refused')
      return outcome
    })
    assert.deepEqual(result.root, SERVED)
    assert.deepEqual(requests.map(told), [ROOT_ALONE])
  })

  for (const row of [
    { situation: 'reset its connection', script: 'reset.py', sourcePort: 41_002 },
    { situation: 'is still there, on the same port', script: 'squat.py', sourcePort: 41_003 },
  ] as const) {
    test(`a request left in the queue by a client that ${row.situation} is not heard, and root is served`, async () => {
      const { result, requests } = await machine.requestsDuring(() =>
        attack(attackOn(machine, row.script, row.sourcePort)),
      )
      assert.deepEqual(result.root, SERVED)
      assert.deepEqual(requests.map(told), [ROOT_ALONE])
    })
  }
})

const SERVED = { errno: 0, answer: 'HTTP/1.1 200 OK' } as const
const ROOT_ALONE = { target: '/machine?comp=goalstate&who=root', signature: 'right', isRoot: true } as const

function told({ target, signature, isRoot }: RecordedRequest) {
  return { target, signature, isRoot }
}

function attackOn(machine: Machine, script: Attack['script'], sourcePort: number): Attack {
  return {
    lab: machine.lab,
    listener: machine.agent,
    listenerPort: 3080,
    script,
    sourcePort,
    forged: requestOf('forged', 'keep-alive'),
    caller: { address: '168.63.129.16', port: 80, request: requestOf('root', 'close') },
  }
}

function requestOf(who: string, connection: string): string {
  const head = [`GET /machine?comp=goalstate&who=${who} HTTP/1.1`, 'Host: 168.63.129.16', 'x-ms-version: 2012-11-30']
  return [...head, `Connection: ${connection}`, '', ''].join('\r\n')
}

/** Tells whether the agent has refused the forged request for want of a record. */
function isRefused(machine: Machine, source: string): boolean {
  const log = machine.read('log', 'ProxyAgent.Connection.log').split('\n')
  const got = log.findIndex((line) => line.includes(`${source} for GET`) && line.includes('who=forged'))
  const id = / (\d+\[\d+\]) - /.exec(log[got] ?? '')?.[1]
  return id !== undefined && log.slice(got).some((line) => line.includes(` ${id} - 421: `))
}
