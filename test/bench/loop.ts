/**
 * How long the event loop of the executable is kept, with each fault and each large piece of work in turn, under load:
 * `npm run bench -- loop`.
 *
 * Somebody asks over the control socket every few milliseconds, which takes the agent a tenth of one. What an answer takes
 * longer, it waited for the loop: while the loop's thread computed, while it waited for a processor, which is no fault of
 * the agent, or while something blocked it. The kernel's accounts of that thread tell these apart; the last one is what
 * neither of them, nor those of the one who asks, explain.
 */

import { execFile, execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { Agent, get } from 'node:http'
import { setPriority } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs, promisify } from 'node:util'
import { mountDisk } from '../e2e/disk.ts'
import { AGENT_UNDER_TEST, type Machine } from '../e2e/machine.ts'
import { PATHS } from './nginx.ts'
import { processors } from './processors.ts'
import { IMDS, startMachine } from './subject.ts'
import { renderTable, round } from './table.ts'
import { runWrk, WRK_SCRIPT } from './wrk.ts'

interface Case {
  readonly name: string
  /** Before the agent starts. */
  prepare?(machine: Machine): Disposable
  /** While it is asked and loaded, until `signal` is aborted. */
  disturb?(machine: Machine, signal: AbortSignal): Promise<void>
}

const run = promisify(execFile)

/** Events of the size that log lines have, as many as a file holds. */
function writeEvents(machine: Machine, count: number): void {
  const folder = join(machine.folder, 'events')
  mkdirSync(folder, { recursive: true })
  const event = (i: number) => ({
    EventLevel: 'INFO',
    Message: `${i} ${'a message with password=hunter2 and "quotes" '.repeat(60)}`,
    Version: '1.0.0',
    TaskName: 'bench',
    EventPid: '1',
    EventTid: '00000001',
    OperationId: 'bench',
    TimeStamp: '2026-01-02T03:04:05.678',
  })
  writeFileSync(
    join(folder, `${Date.now()}000000.json`),
    JSON.stringify(Array.from({ length: count }, (_, i) => event(i))),
  )
}

/** Mounts a disk in memory where the logs go. @param options of mount(8) */
function mountForLogs(machine: Machine, options: string): Disposable {
  const folder = join(machine.folder, 'log')
  mkdirSync(folder)
  execFileSync('mount', ['-t', 'tmpfs', '-o', `${options},mode=0750`, 'apa-bench', folder])
  return { [Symbol.dispose]: () => void execFileSync('umount', ['--lazy', folder]) }
}

/** Connects as many users with as many command lines each: by rewriting its own, which is quicker than to start anew. */
const CROWD = `
import os, socket, sys
with open('/proc/self/stat') as f: start = int(f.read().rsplit(')', 1)[1].split()[45])
memory = open('/proc/self/mem', 'r+b', buffering=0)
for uid in range(2000, 2000 + int(sys.argv[1])):
    if os.fork() == 0:
        os.setgid(uid); os.setuid(uid)
        for i in range(int(sys.argv[2])):
            memory.seek(start); memory.write(b'crowd%04d' % i)
            s = socket.create_connection(('${IMDS}', 80))
            s.sendall(b'GET ${PATHS.small} HTTP/1.1\\r\\nHost: ${IMDS}\\r\\nMetadata: true\\r\\nConnection: close\\r\\n\\r\\n')
            while s.recv(65536): pass
        os._exit(0)
    os.wait()
`

/** A document of the host near the bounds of what is taken. */
function largeRules(privileges: number, id: string) {
  const numbers = Array.from({ length: privileges }, (_, i) => i)
  const item = {
    defaultAccess: 'allow',
    mode: 'enforce',
    id,
    rules: {
      privileges: numbers.map((i) => ({
        name: `p${i}`,
        path: `/machine/${id}/${i}`,
        queryParameters: { comp: `c${i}` },
      })),
      roles: numbers.map((i) => ({ name: `r${i}`, privileges: [`p${i}`] })),
      identities: numbers.map((i) => ({ name: `i${i}`, userName: `u${i}`, exePath: `/usr/bin/x${i}` })),
      roleAssignments: numbers.map((i) => ({ role: `r${i}`, identities: [`i${i}`] })),
    },
  } as const
  return { wireserver: item, imds: { defaultAccess: 'allow', mode: 'enforce', id: 'open' } } as const
}

const CASES: readonly Case[] = [
  { name: 'nothing' },
  {
    name: 'slow disk of the logs',
    prepare: (machine) => mountDisk(machine, 'log'),
    async disturb(machine, signal) {
      const folder = join(machine.folder, 'log')
      while (!signal.aborted) {
        await run('fsfreeze', ['--freeze', folder])
        await sleep(100)
        await run('fsfreeze', ['--unfreeze', folder])
        await sleep(100)
      }
    },
  },
  {
    name: 'full disk of the logs',
    prepare: (machine) => mountForLogs(machine, 'size=64k'),
  },
  {
    name: 'read-only disk of the logs',
    prepare: (machine) => mountForLogs(machine, 'ro'),
  },
  {
    name: '1000 telemetry events of 2.7 kB',
    prepare(machine) {
      writeEvents(machine, 1000)
      return { [Symbol.dispose]: () => undefined }
    },
  },
  {
    name: 'status of 2000 summaries',
    disturb: async (machine) => {
      await machine.lab.run('/usr/bin/python3', ['-c', CROWD, '40', '50'], { timeoutMs: 60_000 })
    },
  },
  {
    name: 'the same 1000 privileges with each poll',
    async disturb(machine) {
      await machine.host.setRules(largeRules(1000, 'v'))
    },
  },
  {
    name: 'other 1000 privileges with each poll',
    async disturb(machine, signal) {
      for (let i = 0; !signal.aborted; i++) {
        await machine.host.setRules(largeRules(1000, `v${i}`))
        await sleep(1000)
      }
    },
  },
]

/** What one answer waited for, in milliseconds. */
interface Wait {
  readonly ms: number
  readonly computingMs: number
  readonly runnableMs: number
  readonly blockedMs: number
}

/** Reads CPU time and time spent runnable of a thread, in milliseconds. Source: proc(5), schedstat. */
function readAccounts(path: string): [computingMs: number, runnableMs: number] {
  const [computing, runnable] = readFileSync(path, 'latin1').split(' ')
  return [Number(computing) / 1e6, Number(runnable) / 1e6]
}

const PAUSE_MS = 2

/** Asks until `signal` is aborted. */
async function watchLoop(machine: Machine, signal: AbortSignal): Promise<Wait[]> {
  const { pid } = machine.agent
  const accounts = `/proc/${pid}/task/${pid}/schedstat`
  const own = `/proc/${process.pid}/task/${process.pid}/schedstat`
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const ask = () =>
    new Promise<void>((resolve, reject) => {
      const request = get({ socketPath: machine.controlSocket, path: '/healthz', agent }, (answer) => {
        answer.on('end', resolve).resume()
      })
      request.on('error', reject)
    })
  const waits: Wait[] = []
  while (!signal.aborted) {
    const [computing, runnable] = readAccounts(accounts)
    const [ownComputing, ownRunnable] = readAccounts(own)
    const startMs = performance.now()
    await ask()
    const ms = performance.now() - startMs
    const [computingEnd, runnableEnd] = readAccounts(accounts)
    const [ownComputingEnd, ownRunnableEnd] = readAccounts(own)
    const computingMs = Math.min(ms, computingEnd - computing)
    const runnableMs = Math.min(ms, runnableEnd - runnable)
    const ownMs = ownComputingEnd - ownComputing + ownRunnableEnd - ownRunnable
    waits.push({ ms, computingMs, runnableMs, blockedMs: Math.max(0, ms - computingMs - runnableMs - ownMs) })
    await sleep(PAUSE_MS)
  }
  agent.destroy()
  return waits
}

/** The agent's own figure: of so many samples of its delay, how many were longer than 5 ms. */
async function readOwnDelay(machine: Machine): Promise<string> {
  const { body } = await machine.readControl('/metrics')
  const count = (le: string) =>
    Number(new RegExp(`event_loop_delay_seconds_bucket\\{le="${le}"\\} (\\d+)`).exec(body)?.[1])
  return `${count('\\+Inf') - count('0.005')} of ${count('\\+Inf')}`
}

async function measureCase({ name, prepare, disturb }: Case, seconds: number) {
  let prepared: Disposable | undefined
  await using machine = await startMachine(
    AGENT_UNDER_TEST,
    {
      fileLogLevel: 'Trace',
      monitorIntervalInSeconds: 1,
      telemetryIntervalInSeconds: 1,
      pollKeyStatusIntervalInSeconds: 1,
    },
    (made) => {
      prepared = prepare?.(made)
    },
  )
  using _ = prepared ?? { [Symbol.dispose]: () => undefined }
  const script = join(machine.folder, WRK_SCRIPT.name)
  writeFileSync(script, WRK_SCRIPT.text)
  const ending = new AbortController()
  const disturbing = disturb?.(machine, ending.signal)
  const watching = watchLoop(machine, ending.signal)
  const load = { url: `http://${IMDS}${PATHS.small}`, connections: 2, seconds, pauseMs: 5, inCgroup: true }
  const { requests, p99Ms } = await runWrk(machine.lab, script, processors.load, load)
  ending.abort()
  const [waits] = await Promise.all([watching, disturbing])
  // Who is kept from the processor goes through many turns of the loop for one answer: what it computed then says nothing.
  const own = waits.filter(({ computingMs, runnableMs }) => computingMs > runnableMs)
  const longest = (of: (wait: Wait) => number) => round(Math.max(...waits.map(of)))
  return {
    fault: name,
    requests,
    'p99 ms': round(p99Ms),
    answers: waits.length,
    'longest ms': longest(({ ms }) => ms),
    'computing ms': round(Math.max(...own.map(({ computingMs }) => computingMs))),
    'runnable ms': longest(({ runnableMs }) => runnableMs),
    'blocked ms': longest(({ blockedMs }) => blockedMs),
    'own > 5 ms': await readOwnDelay(machine),
  }
}

const USAGE = `Usage: npm run bench -- loop [OPTIONS]

  --seconds N     length of each case (default 6)
  --only TEXT     cases whose name has this text
`

const string = { type: 'string' } as const
const { values } = parseArgs({
  options: { seconds: { ...string, default: '6' }, only: { ...string, default: '' }, help: { type: 'boolean' } },
})
if (values.help) process.stdout.write(USAGE)
else {
  setPriority(-10)
  const rows = []
  for (const each of CASES.filter(({ name }) => name.includes(values.only))) {
    rows.push(await measureCase(each, Number(values.seconds)))
    process.stderr.write(`${each.name}: done\n`)
  }
  process.stdout.write(renderTable(rows))
  process.stdout.write(`${JSON.stringify({ bench: 'loop', seconds: Number(values.seconds), rows })}\n`)
}
