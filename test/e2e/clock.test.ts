/** The executable while the wall clock is set forward and back under it, by a library that comes between it and libc. */

import assert from 'node:assert/strict'
import { existsSync, globSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { createMachine, type Machine, waitFor } from './machine.ts'

const [FAKETIME] = globSync('/usr/lib{,64}/{,*-linux-gnu/}faketime/libfaketime.so.1')

const GOAL_STATE = 'http://168.63.129.16/machine?comp=goalstate'
const DAY_MS = 24 * 60 * 60 * 1000

/** Starts the agent with a wall clock of its own, `setClock` days ahead. The monotonic clock and files keep theirs. */
async function startWithClock(machine: Machine) {
  const path = join(machine.folder, 'clock')
  const setClock = (days: number) => writeFileSync(path, `${days < 0 ? '-' : '+'}${Math.abs(days)}d`)
  setClock(0)
  const env = {
    ...process.env,
    LD_PRELOAD: FAKETIME,
    FAKETIME_TIMESTAMP_FILE: path,
    FAKETIME_NO_CACHE: '1',
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
    NO_FAKE_STAT: '1',
  }
  machine.startAgent([], { env })
  await machine.waitUntilProvisioned()
  return setClock
}

function skipReason(): string | undefined {
  return FAKETIME === undefined || !existsSync(FAKETIME) ? 'libfaketime is not installed' : undefined
}

/** Asks once. @returns what the host saw of it */
async function ask(machine: Machine) {
  const { result, requests } = await machine.requestsDuring(() => machine.curl([GOAL_STATE]))
  assert.equal(result.status, 200)
  const [request] = requests.filter(({ target }) => target.startsWith('/machine?comp=goalstate'))
  assert.ok(request)
  const date = request.rawHeaders[request.rawHeaders.findIndex((name) => /^x-ms-azure-host-date$/i.test(name)) + 1]
  return { signature: request.signature, date: Date.parse(date ?? '') }
}

async function polls(machine: Machine): Promise<number> {
  return (await machine.host.readRequests()).filter(({ target }) => target.startsWith('/secure-channel/status')).length
}

async function telemetryPosts(machine: Machine): Promise<number> {
  return (await machine.host.readState()).telemetry.length
}

/** How often curl's requests are counted in status.json, and the time that stands on it. */
function readStatus(machine: Machine): { count: number; daysAhead: number } {
  const { timestamp, proxyConnectionSummary } = JSON.parse(machine.read('status', 'status.json'))
  const counts = proxyConnectionSummary.filter(({ processCmdLine }: { processCmdLine: string }) =>
    processCmdLine.startsWith('curl'),
  )
  assert.ok(counts.length <= 1, 'requests of one caller are one entry')
  return { count: counts[0]?.count ?? 0, daysAhead: (Date.parse(`${timestamp}Z`) - Date.now()) / DAY_MS }
}

test('the clock is set two days forward, then a day back, and right again', async (t: TestContext) => {
  const reason = skipReason()
  if (reason !== undefined) return t.skip(reason)
  await using machine = await createMachine({
    config: {
      fileLogLevel: 'Info',
      fileLogLevelForEvents: 'Info',
      monitorIntervalInSeconds: 1,
      telemetryIntervalInSeconds: 1,
    },
    start: { agent: false },
  })
  const setClock = await startWithClock(machine)
  await ask(machine)
  let asked = 1
  const log = () => machine.read('log', 'ProxyAgent.log')
  // The last line of a start: those before it are no answer to a jump.
  await waitFor(() => log().includes('Aggregate status written'), 'the lines of the start to be written', log)
  for (const days of [2, -1, 0]) {
    const agentLines = () => machine.read('log', 'ProxyAgent.log').split('\n').length
    const [linesBefore, pollsBefore, postsBefore] = [agentLines(), await polls(machine), await telemetryPosts(machine)]
    setClock(days)
    const seen = await ask(machine)
    asked++
    assert.equal(seen.signature, 'right')
    assert.ok(Math.abs(seen.date - Date.now()) < 60_000, 'the date of a signature is the time of the host')
    await waitFor(() => Math.abs(readStatus(machine).daysAhead - days) < 0.1, 'the status to have the new time')
    await waitFor(() => readStatus(machine).count === asked, `${asked} requests to be counted in one entry`)
    await waitFor(async () => (await polls(machine)) >= pollsBefore + 3, 'the host to be asked further')
    // Something new to tell, so that there is an event.
    await machine.host.setRules({ wireserver: { defaultAccess: 'allow', mode: 'enforce', id: `ahead ${days}` } })
    const lines = () => machine.read('log', 'ProxyAgent.log').split('\n')
    const findChange = () => lines().find((line) => line.includes(`to 'ahead ${days}'`)) ?? ''
    await waitFor(() => findChange() !== '', 'the change of rules to be in the log')
    await waitFor(async () => (await telemetryPosts(machine)) > postsBefore, 'telemetry to go on')
    await sleep(1000)
    const changed = findChange()
    assert.ok(Math.abs((Date.parse(`${changed.slice(0, 23)}Z`) - Date.now()) / DAY_MS - days) < 0.1, changed)
    // Two lines of memory each second; for the rest a jump says nothing, and what it sets off is not told again and again.
    const others = lines()
      .slice(linesBefore - 1)
      .filter((line) => !/Current process .*memory usage/.test(line))
    assert.ok(others.length < 20, others.join('\n'))
  }
})
