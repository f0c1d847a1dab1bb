/**
 * What a request through the agent costs: requests a second, latency, CPU time, memory, start-up.
 *
 *   wrk ──► nginx as the host                     "direct"
 *   wrk ──► nginx as a plain proxy ──► host       "nginx": signs nothing, asks nobody
 *   wrk ──► kernel ──► agent ──► host             "agent", and any other executable that is named
 *
 * All in network namespaces with the real addresses and real redirection. What is measured has one processor, load and
 * host have another, so that a figure says what one processor carries. Rounds go through all subjects in turn, and
 * ratios are made within a round: a machine that is slow for a while is slow for all of them.
 */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { AGENT_UNDER_TEST, createMachine } from '../e2e/machine.ts'
import { PATHS, PLAIN_PROXY, startPlainProxy } from './nginx.ts'
import { cpuUs, memory, peakRssMb } from './processes.ts'
import { processors } from './processors.ts'
import { IMDS, measure, type Sample, type Scenario, type Subject, startMachine } from './subject.ts'
import { median, renderTable, round } from './table.ts'
import { WRK_SCRIPT } from './wrk.ts'

const SCENARIOS: readonly Scenario[] = [
  { name: 'keep-alive', path: PATHS.small, connections: 32 },
  { name: '64 KiB', path: PATHS.large, connections: 32 },
  { name: 'close', path: PATHS.small, connections: 32, isClosing: true },
  { name: 'one client', path: PATHS.small, connections: 1 },
  { name: 'half load', path: PATHS.small, connections: 64, share: 0.5, threads: 16 },
]

const USAGE = `Usage: npm run bench -- proxy [OPTIONS]

  --rounds N      rounds through all subjects (default 5)
  --seconds N     length of one load (default 3)
  --other PATH    another executable of the same kind to measure beside ours; may be given again
  --only NAME     one load alone, and no memory and start-up: ${SCENARIOS.map(({ name }) => name).join(', ')}
  --config JSON   keys of the agent's configuration to set
`

/** Each agent starts this often for the start-up figure. */
const STARTS = 5

/** Until a fresh start has let go of what it needed: in the second interval in which it looks whether it is quiet. */
const SETTLE_MS = 25_000

/** After the load, before memory is read again. */
const REST_MS = 60_000

interface Options {
  readonly rounds: number
  readonly seconds: number
  readonly executables: readonly string[]
  readonly scenarios: readonly Scenario[]
  /** One load alone, and nothing else. */
  readonly isPartial: boolean
  readonly config: Readonly<Record<string, unknown>>
}

function readOptions(): Options | undefined {
  const string = { type: 'string' } as const
  const { values } = parseArgs({
    options: {
      rounds: { ...string, default: '5' },
      seconds: { ...string, default: '3' },
      other: { ...string, multiple: true, default: [] },
      only: string,
      config: { ...string, default: '{}' },
      help: { type: 'boolean' },
    },
  })
  if (values.help) return undefined
  const only = values.only
  return {
    rounds: Number(values.rounds),
    seconds: Number(values.seconds),
    executables: [AGENT_UNDER_TEST, ...values.other],
    // A share is of what the first scenario gave.
    scenarios: SCENARIOS.filter(
      ({ name }, i) => only === undefined || only === name || (only === 'half load' && i === 0),
    ),
    isPartial: only !== undefined,
    config: JSON.parse(values.config),
  }
}

/** Pause of each connection that makes all of them ask `perSecond` times a second. */
function pauseFor(scenario: Scenario, samples: ReadonlyMap<string, readonly Sample[]>, agent: Subject): number {
  if (scenario.share === undefined) return 0
  const reached = samples.get(key(SCENARIOS[0] as Scenario, agent)) ?? []
  const perSecond = median(reached.map(({ requestsPerSecond }) => requestsPerSecond)) * scenario.share
  return Math.max(1, Math.round((1000 * scenario.connections) / perSecond))
}

function key(scenario: Scenario, subject: Subject): string {
  return `${scenario.name}\0${subject.name}`
}

async function runRounds(options: Options, subjects: readonly Subject[], script: string) {
  const samples = new Map<string, Sample[]>()
  const agent = subjects.find(({ isRedirected }) => isRedirected) as Subject
  for (let round = 0; round < options.rounds; round++) {
    for (const scenario of options.scenarios) {
      for (const subject of subjects) {
        const pauseMs = pauseFor(scenario, samples, agent)
        using _ = standStill(subjects.filter(({ machine }) => machine !== subject.machine))
        const sample = await measure(subject, scenario, script, options.seconds, pauseMs)
        const list = samples.get(key(scenario, subject)) ?? []
        samples.set(key(scenario, subject), [...list, sample])
      }
    }
    process.stderr.write(`round ${round + 1} of ${options.rounds} done\n`)
  }
  return samples
}

/** Stops processes for a while: an agent that was busy collects its garbage in the first quiet moment, on the same processor. */
function standStill(subjects: readonly Subject[]): Disposable {
  const pids = subjects.flatMap(({ pid }) => pid ?? [])
  for (const pid of pids) process.kill(pid, 'SIGSTOP')
  return {
    [Symbol.dispose]() {
      for (const pid of pids) process.kill(pid, 'SIGCONT')
    },
  }
}

/** One row a scenario and subject: medians, and the median of the rounds' ratios to the plain proxy. */
function summarise(
  scenarios: readonly Scenario[],
  subjects: readonly Subject[],
  samples: ReadonlyMap<string, Sample[]>,
) {
  const plain = subjects.find(({ name }) => name === 'nginx') as Subject
  return scenarios.flatMap((scenario) =>
    subjects.map((subject) => {
      const own = samples.get(key(scenario, subject)) ?? []
      const ofPlain = samples.get(key(scenario, plain)) ?? []
      const of = (read: (sample: Sample) => number) => median(own.map(read))
      const ratios = own.map((sample, i) => sample.requestsPerSecond / (ofPlain[i]?.requestsPerSecond ?? Number.NaN))
      return {
        load: scenario.name,
        through: subject.name,
        'req/s': Math.round(of((sample) => sample.requestsPerSecond)),
        '/nginx': round(median(ratios), 2),
        'p50 ms': round(of((sample) => sample.p50Ms)),
        'p99 ms': round(of((sample) => sample.p99Ms)),
        'CPU us': subject.pid === undefined ? '-' : round(of((sample) => sample.cpuUsPerRequest)),
      }
    }),
  )
}

/** Starts `executable` several times. @returns milliseconds until it is provisioned */
async function measureStart(executable: string, options: Options): Promise<number> {
  const provisionedMs: number[] = []
  await using machine = await createMachine({ executable, start: { agent: false }, config: options.config })
  for (let start = 0; start < STARTS; start++) {
    const startMs = performance.now()
    const agent = machine.startAgent()
    await machine.waitUntilProvisioned()
    provisionedMs.push(performance.now() - startMs)
    agent.kill('SIGTERM')
    await agent.ended
  }
  return median(provisionedMs)
}

/** Processor time per second of a running agent that nobody asks anything, in milliseconds. */
async function measureIdle(pid: number): Promise<number> {
  const seconds = 10
  const beforeUs = cpuUs(pid)
  await sleep(seconds * 1000)
  return (cpuUs(pid) - beforeUs) / 1000 / seconds
}

/** What the agents weigh before the load, at most, and after a minute's rest; and how fast they start. */
function watchMemory(agents: readonly Subject[]) {
  const before = new Map<Subject, { rssMb: number; privateMb: number; idleMs: number }>()
  return {
    async readIdle() {
      await sleep(SETTLE_MS)
      for (const agent of agents) {
        const pid = agent.pid as number
        before.set(agent, { ...memory(pid), idleMs: await measureIdle(pid) })
      }
    },
    async summarise(options: Options) {
      const peaks = agents.map(({ pid }) => peakRssMb(pid as number))
      await sleep(REST_MS)
      const after = agents.map(({ pid }) => memory(pid as number))
      const rows = []
      for (const [i, agent] of agents.entries()) {
        const idle = before.get(agent)
        rows.push({
          through: agent.name,
          'idle MB': round(idle?.rssMb ?? Number.NaN),
          'idle private MB': round(idle?.privateMb ?? Number.NaN),
          'idle CPU ms/s': round(idle?.idleMs ?? Number.NaN),
          'peak MB': round(peaks[i] ?? Number.NaN),
          'after MB': round(after[i]?.rssMb ?? Number.NaN),
          'after private MB': round(after[i]?.privateMb ?? Number.NaN),
          'provisioned ms': round(await measureStart(options.executables[i] as string, options)),
        })
      }
      return rows
    },
  }
}

async function run(options: Options): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'apa-bench-'))
  const script = join(folder, WRK_SCRIPT.name)
  writeFileSync(script, WRK_SCRIPT.text)
  await using machines = new AsyncDisposableStack()
  machines.defer(() => rmSync(folder, { recursive: true, force: true }))
  const agents: Subject[] = []
  for (const [i, executable] of options.executables.entries()) {
    const machine = machines.use(await startMachine(executable, options.config))
    const name = i === 0 ? 'agent' : `${basename(executable)} ${i}`
    agents.push({ name, base: `http://${IMDS}`, machine, isRedirected: true, pid: machine.agent.pid })
  }
  const { machine } = agents[0] as Subject
  const proxy = await startPlainProxy(machine.lab, machine.folder, IMDS, processors.subject)
  const subjects: Subject[] = [
    { name: 'direct', base: `http://${IMDS}`, machine, isRedirected: false, pid: undefined },
    { name: 'nginx', base: PLAIN_PROXY, machine, isRedirected: false, pid: proxy.pid },
    ...agents,
  ]
  const watch = options.isPartial ? undefined : watchMemory(agents)
  await watch?.readIdle()
  const samples = await runRounds(options, subjects, script)
  const loads = summarise(options.scenarios, subjects, samples)
  const weights = (await watch?.summarise(options)) ?? []
  process.stdout.write(`${renderTable(loads)}\n${renderTable(weights)}`)
  const setting = { rounds: options.rounds, seconds: options.seconds, processors: availableParallelism() }
  process.stdout.write(`${JSON.stringify({ bench: 'proxy', ...setting, loads, weights })}\n`)
  // In order, so that a profile that the runtime was told to keep is written.
  for (const { machine } of agents) {
    machine.agent.kill('SIGTERM')
    await machine.agent.ended
  }
}

const options = readOptions()
if (options === undefined) process.stdout.write(USAGE)
else await run(options)
