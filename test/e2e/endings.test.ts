/** The end of the executable while a disk or a reader hangs: the guard ends at once, and the process as soon as it can. */

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { mountDisk } from './disk.ts'
import { AGENT_UNDER_TEST, createMachine, type Machine, ROOT, waitFor } from './machine.ts'

const GOAL_STATE = 'http://168.63.129.16/machine?comp=goalstate'
const LOG = 'ProxyAgent.Connection.log'

async function ask(machine: Machine): Promise<void> {
  assert.equal((await machine.curl([GOAL_STATE])).status, 200)
}

/** Tells whether a request goes past the agent now: the host sees it without a signature. */
async function isUnguarded(machine: Machine): Promise<boolean> {
  const { requests } = await machine.requestsDuring(() => machine.curl([GOAL_STATE]))
  return requests.some(({ signature }) => signature === 'absent')
}

/** A pipe that is full and open for reading, with nobody who reads. */
function fullPipe(machine: Machine): { path: string; close(): void } {
  const path = join(machine.folder, 'pipe')
  execFileSync('mkfifo', [path])
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
  assert.throws(
    () => {
      for (;;) writeSync(fd, Buffer.alloc(4096))
    },
    { code: 'EAGAIN' },
  )
  return { path, close: () => closeSync(fd) }
}

test('nobody reads the output: requests are served, lost lines are counted, and it stops in time', async () => {
  await using machine = await createMachine({
    config: { fileLogLevelForSystemEvents: 'Trace' },
    start: { agent: false },
  })
  const pipe = fullPipe(machine)
  const words = [pipe.path, AGENT_UNDER_TEST, '--config', machine.configPath]
  const child = machine.lab.spawn('/bin/sh', ['-c', 'exec "$@" >"$0" 2>&1', ...words])
  const ended = once(child, 'close')
  await machine.waitUntilProvisioned()
  const lost = async () => {
    const { body } = await machine.readControl('/metrics')
    return Number(/log_entries_lost_total\{log="system"\} (\d+)/.exec(body)?.[1])
  }
  await waitFor(async () => {
    await Promise.all(Array.from({ length: 4 }, () => machine.curl([`${GOAL_STATE}&n=[1-50]`])))
    return (await lost()) > 0
  }, 'lines to be lost')
  await ask(machine)
  child.kill('SIGTERM')
  assert.deepEqual(await ended, [0, null])
  pipe.close()
})

test('the disk of the logs hangs at a stop: the guard ends, and the process with the hanging write', async () => {
  await using machine = await createMachine({ start: { agent: false } })
  using disk = mountDisk(machine, 'log')
  const agent = machine.startAgent()
  await machine.waitUntilProvisioned()
  await ask(machine)
  await waitFor(() => machine.read('log', LOG).includes('Got request'), 'the log to begin')
  disk.freeze()
  await ask(machine)
  agent.kill('SIGTERM')
  await waitFor(() => isUnguarded(machine), 'the guard to end')
  disk.thaw()
  assert.deepEqual(await agent.ended, { code: 0, signal: null })
})

test('the disk of the logs hangs at a fault of our own: the same, and it is over within seconds', async () => {
  await using machine = await createMachine({ start: { agent: false } })
  using disk = mountDisk(machine, 'log')
  // From source, where a fault can be brought about.
  const fault = `data:text/javascript,process.on('SIGUSR2', () => { throw new Error('brought about') })`
  const words = ['--disable-warning=ExperimentalWarning', '--import', fault, join(ROOT, 'src', 'main.ts')]
  const child = machine.lab.spawn(process.execPath, [...words, '--config', machine.configPath])
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk))
  const ended = once(child, 'close')
  await machine.waitUntilProvisioned()
  await ask(machine)
  await waitFor(() => machine.read('log', LOG).includes('Got request'), 'the log to begin')
  disk.freeze()
  await ask(machine)
  child.kill('SIGUSR2')
  await waitFor(() => isUnguarded(machine), 'the guard to end')
  // A signal cannot end a process that waits for this disk; the kernel keeps it in store.
  const isDoomed = () => /^SigPnd:.*[1-9a-f]/m.test(readFileSync(`/proc/${child.pid}/status`, 'latin1'))
  await waitFor(isDoomed, 'the process to be ended')
  disk.thaw()
  const [code, signal] = await ended
  assert.deepEqual({ code, signal }, { code: null, signal: 'SIGALRM' })
  assert.match(output, /internal error: Error: brought about/)
})
