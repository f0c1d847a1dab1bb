/** The executable while the disk of its logs fails: requests are served, what is lost is counted, and told when it is over. */

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { linkSync, mkdirSync, readdirSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { mountDisk } from './disk.ts'
import { createMachine, type Machine, waitFor } from './machine.ts'

const GOAL_STATE = 'http://168.63.129.16/machine?comp=goalstate'
const LOG = 'ProxyAgent.Connection.log'

/** Asks once; the lines of it reach the disk a moment later. */
async function ask(machine: Machine): Promise<void> {
  assert.equal((await machine.curl([GOAL_STATE])).status, 200)
}

async function lostEntries(machine: Machine): Promise<number> {
  const { body } = await machine.readControl('/metrics')
  return Number(/log_entries_lost_total\{log="connection"\} (\d+)/.exec(body)?.[1])
}

test('a full disk, made room again', async () => {
  await using machine = await createMachine({ start: { agent: false } })
  const folder = join(machine.folder, 'log')
  mkdirSync(folder)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k,mode=0750', 'apa-test', folder])
  try {
    const { output } = machine.startAgent()
    await machine.waitUntilProvisioned()
    assert.throws(() => writeFileSync(join(folder, 'filler'), Buffer.alloc(1024 * 1024)), { code: 'ENOSPC' })
    await waitFor(
      async () => {
        await ask(machine)
        return (await lostEntries(machine)) > 0
      },
      'the loss to be counted',
      output,
    )
    assert.match(output(), /Error writing to log: ENOSPC/)
    rmSync(join(folder, 'filler'))
    await ask(machine)
    await waitFor(() => /\d+ log entries were lost/.test(machine.read('log', LOG)), 'the loss to be told', output)
    for (const line of machine.read('log', LOG).trimEnd().split('\n').slice(-3)) assert.match(line, /^20\d\d-/)
    machine.agent.kill('SIGTERM')
    assert.equal((await machine.agent.ended).code, 0)
  } finally {
    execFileSync('umount', ['--lazy', folder])
  }
})

test('a disk that became read-only, and is writable again', async () => {
  await using machine = await createMachine()
  const folder = join(machine.folder, 'log')
  await ask(machine)
  await waitFor(() => machine.read('log', LOG).includes('Got request'), 'the log to begin')
  const before = machine.read('log', LOG)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'ro,mode=0750', 'apa-test', folder])
  try {
    await ask(machine)
    await waitFor(async () => (await lostEntries(machine)) > 0, 'the loss to be counted')
    assert.match(machine.agent.output(), /Error writing to log: EROFS/)
  } finally {
    execFileSync('umount', [folder])
  }
  await ask(machine)
  await waitFor(() => /\d+ log entries were lost/.test(machine.read('log', LOG)), 'the loss to be told')
  assert.ok(machine.read('log', LOG).startsWith(before))
})

test('files removed, linked to those of others, and the folder gone', async () => {
  await using machine = await createMachine()
  const folder = join(machine.folder, 'log')
  const victim = join(machine.folder, 'victim')
  const path = join(folder, LOG)
  const isWritten = () => waitFor(() => machine.read('log', LOG).includes('Got request'), 'the log to go on')
  await ask(machine)
  await isWritten()
  writeFileSync(victim, 'precious')
  unlinkSync(path)
  linkSync(victim, path)
  await ask(machine)
  await isWritten()
  assert.equal(machine.read('victim'), 'precious')
  unlinkSync(path)
  symlinkSync(victim, path)
  await ask(machine)
  await waitFor(async () => (await lostEntries(machine)) > 0, 'the loss to be counted')
  assert.equal(machine.read('victim'), 'precious')
  rmSync(folder, { recursive: true })
  await ask(machine)
  await isWritten()
  assert.deepEqual(
    readdirSync(folder).filter((name) => name === LOG),
    [LOG],
  )
})

test('a disk that hangs: nobody waits, and nothing is lost', async () => {
  await using machine = await createMachine({ start: { agent: false } })
  using disk = mountDisk(machine, 'log')
  machine.startAgent()
  await machine.waitUntilProvisioned()
  await ask(machine)
  await waitFor(() => machine.read('log', LOG).includes('Got request'), 'the log to begin')
  disk.freeze()
  // Each would end after ten seconds without an answer. Some come after the first write has begun to hang.
  for (let i = 0; i < 10; i++) {
    await ask(machine)
    await sleep(100)
  }
  disk.thaw()
  const requests = () => machine.read('log', LOG).split(' - Got request ').length - 1
  await waitFor(
    () => requests() === 11,
    'all requests to be in the log',
    () => machine.read('log', LOG),
  )
  assert.equal(await lostEntries(machine), 0)
  machine.agent.kill('SIGTERM')
  assert.equal((await machine.agent.ended).code, 0)
})
