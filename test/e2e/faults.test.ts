/** The executable and a host, or a disk, that fails in every way: nothing opens, nothing is lost, all comes back. */

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type FaultRule, KEY_FAULTS } from '../fabric/faults.ts'
import { createMachine, type Machine, waitFor } from './machine.ts'

const GOAL_STATE = 'http://168.63.129.16/machine?comp=goalstate'
const STATUS = '/secure-channel/status'

async function isSigned(machine: Machine): Promise<boolean> {
  const { requests } = await machine.requestsDuring(() => machine.curl([GOAL_STATE]))
  return requests[0]?.signature === 'right' && requests[0].status === 200
}

describe('a status poll that fails leaves key, rules and redirection as they were', () => {
  let machine: Machine
  before(async () => {
    machine = await createMachine()
  })
  after(() => machine[Symbol.asyncDispose]())

  const rows: readonly (readonly [situation: string, fault: FaultRule['fault'], complaint: RegExp])[] = [
    ['500', { kind: 'status', status: 500 }, /status code: 500 Internal Server Error/],
    ['404', { kind: 'status', status: 404 }, /status code: 404 Not Found/],
    ['garbage', { kind: 'garbage-body' }, /Cannot read/],
    ['no version', KEY_FAULTS.statusWithoutVersion.fault, /version/],
    ['reset', { kind: 'reset' }, /Failed to send request to \/secure-channel\/status/],
    ['closed', { kind: 'close' }, /Failed to send request to \/secure-channel\/status/],
    ['too large', { kind: 'huge-body', sizeBytes: 4 * 1024 * 1024 }, /larger than/],
    ['an answer that never comes', { kind: 'never-answer' }, /no complete answer within 10000 ms/],
  ]
  for (const [situation, fault, complaint] of rows) {
    test(situation, async () => {
      const before = machine.agent.output().length
      const said = () => machine.agent.output().slice(before)
      await machine.host.addFault({ path: STATUS, times: 1, fault })
      await waitFor(() => complaint.test(said()), `the complaint about ${situation}`, said)
      assert.ok(await isSigned(machine), 'still signing meanwhile')
      assert.equal((await machine.curl([GOAL_STATE], { uid: 1000, gid: 1000 })).status, 403)
      await waitFor(() => /Recovered from|ready to use/.test(said()), 'recovery', said)
    })
  }

  test('slow, and a clock that jumps ten minutes: signatures follow the host', async () => {
    await machine.host.addFault({ path: STATUS, times: 2, fault: { kind: 'delay', delayMs: 1500 } })
    await machine.host.setClockSkew(600_000)
    await waitFor(() => isSigned(machine), 'signatures of the new time')
    const { requests } = await machine.requestsDuring(() => machine.curl([GOAL_STATE]))
    assert.equal(requests[0]?.date, 'fresh')
    await machine.host.setClockSkew(0)
    await waitFor(() => isSigned(machine), 'signatures of the old time')
  })
})

describe('a key that cannot be had is asked for again, and told', () => {
  const rows: readonly (readonly [situation: string, rule: FaultRule, complaint: RegExp])[] = [
    ['acquire 403', KEY_FAULTS.acquireRefused, /Failed to acquire key details: Key\(KeyResponse\("acquire", 403\)\)/],
    ['attest 403', KEY_FAULTS.attestRefused, /Failed to attest the key: Key\(KeyResponse\("attest", 403\)\)/],
    ['a lost answer to attest', KEY_FAULTS.attestAnswerLost, /Failed to attest the key: Key\(SendKeyRequest\("attest"/],
    ['a key that is not hexadecimal', KEY_FAULTS.keyNotHex, /Failed to acquire key details: .*64 hexadecimal digits/],
    ['a guid that would leave the folder', KEY_FAULTS.guidTraversal, /Failed to acquire key details: .*not a guid/],
    ['a guid with a line break', KEY_FAULTS.guidLineBreak, /Failed to acquire key details: .*not a guid/],
  ]
  for (const [situation, rule, complaint] of rows) {
    test(situation, async () => {
      await using machine = await createMachine({ start: { agent: false } })
      const id = await machine.host.addFault(rule)
      const { output } = machine.startAgent()
      await waitFor(() => complaint.test(output()), situation, output)
      const provision = await machine.curl(['-H', 'Metadata: true', 'http://127.0.0.1:3080/provision'])
      const { finished, errorMessage } = JSON.parse(provision.body) as { finished: boolean; errorMessage: string }
      assert.equal(finished, false)
      assert.match(errorMessage, /^keyLatchStatus - [^\r\n]+\r\n$/)
      await machine.host.removeFault(id)
      // One poll interval, and what a busy machine takes.
      await machine.waitUntilProvisioned(3000)
      assert.ok(await isSigned(machine))
    })
  }

  test('a full disk: no key, nothing half-written, and the same key once there is room', async () => {
    await using machine = await createMachine({ start: { agent: false } })
    const keys = join(machine.folder, 'keys')
    mkdirSync(keys, { mode: 0o700 })
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=16k,mode=0700', 'apa-test', keys])
    try {
      const filler = join(keys, 'filler')
      writeFileSync(filler, Buffer.alloc(4096))
      for (let i = 0; i < 8; i++) {
        try {
          writeFileSync(`${filler}${i}`, Buffer.alloc(4096))
        } catch {
          break
        }
      }
      const { output } = machine.startAgent()
      await waitFor(() => /Failed to save key details to file: .*failed ENOSPC/.test(output()), 'the complaint', output)
      await sleep(2500)
      const acquired = (await machine.host.readRequests()).filter(({ target }) => target === '/secure-channel/key')
      assert.equal(acquired.length, 1, 'the host is not asked for a key that cannot be kept')
      rmSync(filler)
      for (let i = 0; i < 8; i++) rmSync(`${filler}${i}`, { force: true })
      await machine.waitUntilProvisioned(3000)
      assert.ok(await isSigned(machine))
      machine.agent.kill('SIGTERM')
      await machine.agent.ended
    } finally {
      execFileSync('umount', ['--lazy', keys])
    }
  })
})

test('five rotations under load: not one request fails', async () => {
  await using machine = await createMachine()
  const seconds = 8
  const load = `
    const http = require('node:http')
    const agent = new http.Agent({ keepAlive: true, maxSockets: 16 })
    const counts = {}
    const endMs = Date.now() + ${seconds * 1000}
    const ask = () => new Promise((resolve) => {
      const request = http.get('http://168.63.129.16/machine?comp=goalstate', { agent }, (answer) => {
        counts[answer.statusCode] = (counts[answer.statusCode] ?? 0) + 1
        answer.resume().on('end', resolve)
      })
      request.on('error', (error) => { counts[error.code] = (counts[error.code] ?? 0) + 1; resolve() })
    })
    const run = async () => { while (Date.now() < endMs) await ask() }
    Promise.all(Array.from({ length: 16 }, run)).then(() => { console.log(JSON.stringify(counts)); agent.destroy() })
  `
  const loading = machine.lab.run(process.execPath, ['-e', load], { timeoutMs: 30_000 })
  const guids = new Set<string | undefined>()
  for (let i = 0; i < 5; i++) {
    await sleep(1000)
    guids.add((await machine.host.readState()).latchedGuid)
    await machine.host.rotateKey()
    await waitFor(async () => (await machine.host.readState()).latchedGuid !== undefined, 'the next key')
  }
  const { stdout, stderr } = await loading
  const counts = JSON.parse(stdout) as Record<string, number>
  assert.deepEqual(Object.keys(counts), ['200'], `${stdout} ${stderr}`)
  assert.ok((counts['200'] ?? 0) > 1000, stdout)
  assert.equal(guids.size, 5)
})

test('ordered stops under load: every request is answered by the agent or by the host itself', async () => {
  await using machine = await createMachine()
  const load = `
    const http = require('node:http')
    const counts = {}
    const endMs = Date.now() + 3000
    const ask = () => new Promise((resolve) => {
      const request = http.get('http://168.63.129.16/machine?comp=goalstate', { agent: false }, (answer) => {
        counts[answer.statusCode] = (counts[answer.statusCode] ?? 0) + 1
        answer.resume().on('end', resolve)
      })
      request.on('error', (error) => { counts[error.code] = (counts[error.code] ?? 0) + 1; resolve() })
    })
    const run = async () => { while (Date.now() < endMs) await ask() }
    Promise.all(Array.from({ length: 16 }, run)).then(() => console.log(JSON.stringify(counts)))
  `
  const loading = machine.lab.run(process.execPath, ['-e', load], { timeoutMs: 30_000 })
  await sleep(1500)
  machine.agent.kill('SIGTERM')
  assert.equal((await machine.agent.ended).code, 0)
  const { stdout } = await loading
  const { '200': served = 0, '401': unsigned = 0, ...others } = JSON.parse(stdout) as Record<string, number>
  assert.ok(served > 100 && unsigned > 100, stdout)
  assert.deepEqual(others, {}, stdout)
})
