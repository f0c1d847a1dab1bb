/** kill -9 at random moments of the latch: afterwards there is always a key that the host takes. */

import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { createMachine, type Machine } from './machine.ts'

const ROUNDS = 200

/** Every so many rounds the agent is left alone, and must come up by itself. */
const CHECK_EVERY = 20

const GOAL_STATE = 'http://168.63.129.16/machine?comp=goalstate'

/** Starts the agent, sees a signed request, and ends it. @returns the time from start to provisioned, in milliseconds */
async function comeUp(machine: Machine): Promise<number> {
  const startMs = performance.now()
  machine.startAgent()
  await machine.waitUntilProvisioned(10_000)
  const tookMs = performance.now() - startMs
  const { requests } = await machine.requestsDuring(() => machine.curl([GOAL_STATE]))
  assert.equal(requests[0]?.signature, 'right', machine.agent.output())
  machine.agent.kill('SIGKILL')
  await machine.agent.ended
  return tookMs
}

test(`${ROUNDS} rounds of kill -9 during the latch leave a usable key each time`, async (t) => {
  await using machine = await createMachine({ start: { agent: false } })
  await comeUp(machine)
  await machine.host.rotateKey()
  // From before the first poll to after the attestation, however fast this machine is at the moment.
  let latchMs = await comeUp(machine)
  let latchedAtKill = 0
  for (let round = 1; round <= ROUNDS; round++) {
    await machine.host.rotateKey()
    const agent = machine.startAgent()
    await sleep(latchMs * (0.4 + Math.random()))
    agent.kill('SIGKILL')
    await agent.ended
    // What the host has taken must be on disk whole: it will take nothing else.
    const { latchedGuid } = await machine.host.readState()
    if (latchedGuid !== undefined) {
      latchedAtKill++
      const path = join(machine.folder, 'keys', `${latchedGuid}.key`)
      assert.ok(existsSync(path), `round ${round}: the host took a key that is not on disk`)
      const { guid, key } = JSON.parse(readFileSync(path, 'utf8')) as { guid: string; key: string }
      assert.equal(guid, latchedGuid)
      assert.match(key, /^[0-9A-F]{64}$/)
    }
    if (round % CHECK_EVERY === 0) latchMs = await comeUp(machine)
  }
  t.diagnostic(`${latchedAtKill} of ${ROUNDS} kills came after the host had taken the key`)
  assert.ok(latchedAtKill > 0 && latchedAtKill < ROUNDS, `${latchedAtKill}: the kills do not straddle the latch`)
})
