/**
 * What one user does with requests that last: with a host that is slow, bodies that do not end, answers that are not read, and
 * with all the files that the agent may open. Others must be served meanwhile, and the agent must stay small.
 */

import assert from 'node:assert/strict'
import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { cpuUs, memory } from '../bench/processes.ts'
import { startToldHost } from '../fuzz/fuzz.ts'
import { ANSWER_HEADER, encodeScript, type HostStep } from '../fuzz/told-host.ts'
import { SLOWNESS } from '../kernel/lab.ts'
import { type Crowd, startCrowd } from './crowd.ts'
import { AGENT_UNDER_TEST, createMachine, type Machine, waitFor } from './machine.ts'

const MALLORY = 1000
const BOB = { uid: 33, gid: 33 }
const IMDS = 'http://169.254.169.254'
const HOST_ARGUMENTS = ['--enforce', '--imds', '127.0.0.1:3082']

/** Long after any test here. */
const FOR_EVER: readonly HostStep[] = [{ pauseMs: 600_000 }]

const get = (steps: readonly HostStep[], more = '') =>
  `GET /x HTTP/1.1\r\nHost: h\r\n${ANSWER_HEADER}: ${encodeScript({ steps })}\r\n${more}\r\n`

/** Bob and root ask, and are answered in a time that has nothing to do with Mallory's requests. */
async function assertOthersAreServed(machine: Machine): Promise<void> {
  const asks = [
    machine.curl([`${IMDS}/bob`], BOB),
    machine.curl(['-d', 'x'.repeat(50_000), `${IMDS}/bob`], BOB),
    machine.curl(['-d', 'x'.repeat(50_000), `${IMDS}/root`]),
  ]
  for (const { status, error } of await Promise.all(asks)) assert.equal(status, 200, error)
}

describe('one user, by what takes long,', () => {
  let machine: Machine
  let crowd: Crowd
  before(async () => {
    machine = await createMachine({ hostArguments: HOST_ARGUMENTS, config: { fileLogLevel: 'Info' } })
    await startToldHost(machine, 'imds')
    await assertOthersAreServed(machine)
  })
  after(() => machine[Symbol.asyncDispose]())

  const privateMb = () => memory(machine.agent.pid).privateMb
  const connections = async (filter: string) =>
    Number((await machine.lab.run('sh', ['-c', `ss -Htn state established state close-wait ${filter} | wc -l`])).stdout)
  const openConnections = async () =>
    Number(/^azure_proxy_agent_open_connections (\d+)$/m.exec((await machine.readControl('/metrics')).body)?.[1])
  /** Mallory goes, and has his whole share again: of a connection that waits, the agent notices its end with the next answer. */
  const leave = async () => {
    crowd.leave()
    const isGone = async () => (await openConnections()) < 10
    await waitFor(isGone, 'the connections of the crowd to end', () => '', 60_000 * SLOWNESS)
  }

  test('does not take the connections to a host that is slow', async () => {
    crowd = startCrowd(machine, MALLORY, 400)
    await crowd.do({ open: true })
    await crowd.do({ write: get(FOR_EVER) })
    await assertOthersAreServed(machine)
    await leave()
    const isLeft = async () => (await connections('dst 169.254.169.254')) < 10
    await waitFor(isLeft, 'connections to the host to end with those who asked')
    await assertOthersAreServed(machine)
  })

  test('does not take the memory with bodies that do not end, however small their pieces', async () => {
    const beforeMb = privateMb()
    crowd = startCrowd(machine, MALLORY, 1000)
    await crowd.do({ open: true })
    await crowd.do({ write: `POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 102400\r\n\r\n` })
    for (let i = 0; i < 20; i++) await crowd.do({ write: 'x' })
    await crowd.do({ write: 'x'.repeat(100_000) })
    await sleep(1000)
    await assertOthersAreServed(machine)
    const grownMb = privateMb() - beforeMb
    await leave()
    assert.ok(grownMb < 100, `1000 bodies of 100 KB made the agent grow by ${Math.round(grownMb)} MB`)
  })

  test('does not take the memory with answers that he does not read', async () => {
    const beforeMb = privateMb()
    crowd = startCrowd(machine, MALLORY, 200)
    await crowd.do({ open: true })
    const large: HostStep[] = [
      { write: 'HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n' },
      { write: 'x'.repeat(1000), times: 20_000 },
    ]
    await crowd.do({ write: get(large), isDeaf: true })
    await sleep(2000)
    await assertOthersAreServed(machine)
    const grownMb = privateMb() - beforeMb
    await leave()
    assert.ok(grownMb < 100, `answers of 20 MB that nobody reads made the agent grow by ${Math.round(grownMb)} MB`)
  })

  test('does not keep others waiting for long with requests that cost much', async (t) => {
    crowd = startCrowd(machine, MALLORY, 1000)
    await crowd.do({ open: true })
    const query = Array.from({ length: 6000 }, (_, i) => `${i.toString(36)}=1`).join('&')
    const costly = `GET /x?${query.slice(0, 31_000)} HTTP/1.1\r\nHost: h\r\n\r\n`
    await crowd.do({ write: costly.repeat(4) })
    let mostMs = 0
    for (let i = 0; i < 10; i++) {
      const startMs = performance.now()
      await assertOthersAreServed(machine)
      mostMs = Math.max(mostMs, performance.now() - startMs)
    }
    t.diagnostic(`beside 4000 requests of 31 KB: three requests of others within ${Math.round(mostMs)} ms`)
    await leave()
  })

  test('does not keep others out with heads that do not end', async () => {
    crowd = startCrowd(machine, MALLORY, 1000)
    await crowd.do({ open: true })
    for (let i = 0; i < 5; i++) {
      await crowd.do({ write: i === 0 ? 'GET /x HTTP/1.1\r\nX: ' : 'x'.repeat(1000) })
      await assertOthersAreServed(machine)
    }
    const { open } = await crowd.do({ look: true })
    assert.equal(open, 1000, 'they were waited for')
    const isOver = async () => (await crowd.do({ look: true })).open === 0
    await waitFor(isOver, 'heads that do not come to be given up', () => '', 30_000 * SLOWNESS)
    await leave()
  })
})

test('an agent that may open few files says so, refuses what is too much without turning in circles, and recovers', async () => {
  await using machine = await createMachine({
    hostArguments: HOST_ARGUMENTS,
    config: { fileLogLevel: 'Info' },
    start: { agent: false },
  })
  await startToldHost(machine, 'imds')
  const limited = join(machine.folder, 'limited')
  writeFileSync(limited, `#!/bin/sh\nulimit -n 150\nexec ${AGENT_UNDER_TEST} "$@"\n`)
  chmodSync(limited, 0o755)
  machine.startAgent([], {}, limited)
  await machine.waitUntilProvisioned()
  const log = () => machine.read('log', 'ProxyAgent.log')
  const notice = 'At most 150 files may be open: 75 connections are taken in place of 16384'
  await waitFor(() => log().includes(notice), 'the limit to be told', log)

  // Each of root's requests takes two files: there are not enough for all.
  const crowd = startCrowd(machine, 0, 300)
  await crowd.do({ open: true })
  await crowd.do({ write: get(FOR_EVER) })
  await sleep(1000)
  const { open } = await crowd.do({ look: true })
  assert.ok(open > 20 && open <= 75, `${open} are open`)
  const beforeUs = cpuUs(machine.agent.pid)
  await sleep(2000)
  const shareOfTime = (cpuUs(machine.agent.pid) - beforeUs) / 2_000_000
  assert.ok(shareOfTime < 0.5, `waiting took ${Math.round(shareOfTime * 100)} % of a processor`)

  crowd.leave()
  const isServed = async () => (await machine.curl([`${IMDS}/after`])).status === 200
  await waitFor(isServed, 'a request to be served when the crowd has left', log)
  assert.ok(log().length < 100_000, `the log has ${log().length} bytes`)
})

test('a listener that somebody destroys is bound again, and nothing turns in circles meanwhile', async () => {
  await using machine = await createMachine({ config: { fileLogLevel: 'Info' } })
  const ask = () => machine.curl(['http://168.63.129.16/machine?comp=goalstate'])
  assert.equal((await ask()).status, 200)
  const { code, stderr } = await machine.lab.run('ss', ['--kill', '--listening', '--tcp', 'src', '127.0.0.1:3080'])
  assert.deepEqual({ code, stderr }, { code: 0, stderr: '' })
  const log = () => machine.read('log', 'ProxyAgent.log')
  await waitFor(() => log().includes('The proxy listener was closed'), 'the loss to be told', log)
  await waitFor(async () => (await ask()).status === 200, 'requests to be served again', log)
  const beforeUs = cpuUs(machine.agent.pid)
  await sleep(1000)
  assert.ok(cpuUs(machine.agent.pid) - beforeUs < 500_000, 'it is busy with nothing')
  assert.ok(log().length < 100_000, `the log has ${log().length} bytes`)
})
