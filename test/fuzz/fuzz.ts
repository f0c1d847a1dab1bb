/**
 * Puts random requests, and random answers of the host, through the executable: in namespaces of its own, redirected by the
 * kernel, from a root and an ordinary user at once. Everything follows from a seed.
 */

import { once } from 'node:events'
import { mkdtempSync, readdirSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { memory } from '../bench/processes.ts'
import { createMachine, type Machine } from '../e2e/machine.ts'
import { SLOWNESS } from '../kernel/lab.ts'
import { compareRecords, recordFault } from './check-records.ts'
import type { ClientLine, Finding, Job, JobKind, Summary } from './fuzz-client.ts'
import { PLACES, type Place } from './requests.ts'

export interface FuzzOptions {
  readonly seed: number
  readonly seconds: number
  /** The one input to try, by its number; `undefined`: as many as there is time for. */
  readonly only?: number | undefined
}

export interface FuzzReport {
  /** Connections. */
  readonly inputs: number
  /** Requests that reached the host and were judged. */
  readonly forwarded: number
  /** Answers by status, as clients saw them. */
  readonly outcomes: Readonly<Record<string, number>>
  /** Before, and a while after: what the agent holds. */
  readonly descriptors: readonly [before: number, after: number]
  readonly privateMb: readonly [before: number, after: number]
  /** What must not be, as sentences. An input that shows it is in a file that the sentence names. */
  readonly faults: readonly string[]
}

const USERS = { root: {}, user: { uid: 1000, gid: 1000 } } as const

type Who = keyof typeof USERS

/** What the agent may hold more than before, when all is over: memory that its collector has not come to. */
const MOST_MORE_MB = 80
const MOST_MORE_DESCRIPTORS = 8

/** Until connections that linger, and idle ones to the host, have gone. */
const SETTLE_MS = 20_000 * SLOWNESS

/** Sound and unsound requests. */
export async function fuzzRequests(options: FuzzOptions): Promise<FuzzReport> {
  await using machine = await createMachine({ config: { fileLogLevel: 'Info' } })
  return await watch(machine, 'requests', options, await judgeRecords(machine))
}

/** Sound and unsound answers of the host. */
export async function fuzzAnswers(options: FuzzOptions): Promise<FuzzReport> {
  await using machine = await createMachine({
    hostArguments: ['--enforce', '--imds', '127.0.0.1:3082'],
    config: { fileLogLevel: 'Info' },
  })
  await startToldHost(machine, 'imds')
  return await watch(machine, 'answers', options)
}

export interface Comparison {
  /** Requests compared, and of these, one of a user, those that were refused and did not arrive, as they should. */
  readonly compared: number
  readonly outcomes: FuzzReport['outcomes']
  readonly faults: readonly string[]
}

/**
 * Sends sound requests and compares what the host parsed with what was meant, each signed right.
 * @param count requests, at least
 */
export async function compareRequests(seed: number, count: number): Promise<Comparison> {
  await using machine = await createMachine({ config: { fileLogLevel: 'Info' } })
  const outcomes: FuzzReport['outcomes'][] = []
  const faults: string[] = []
  let compared = 0
  // The host remembers the last ten thousand requests: a part at a time.
  for (let first = 0; compared < count && faults.length === 0; first += CONNECTIONS_A_PART) {
    const part = { seed, first, count: CONNECTIONS_A_PART }
    const results = await runClients(machine, { kind: 'sound', ...part, seconds: 60 * SLOWNESS })
    const records = (await machine.host.readRequests()).filter(({ target }) => !target.startsWith('/secure-channel/'))
    for (const { who, findings, summary } of results) {
      const result = compareRecords(records, { ...part, who })
      compared += result.compared
      outcomes.push(summary.outcomes)
      faults.push(...findings.map((finding) => tellFinding(seed, 'sound', who, finding)))
      faults.push(...result.differences.map(({ index, reason }) => `${reason}: seed ${seed}, sound ${index} of ${who}`))
    }
    for (const record of records) {
      const fault = recordFault(record)
      if (fault !== undefined) faults.push(`${record.method} ${record.target} reached ${record.endpoint}: ${fault}`)
    }
    await machine.host.clearRequests()
  }
  return { compared, outcomes: addUp(outcomes), faults }
}

/** Each carries four requests or so, for two users. */
const CONNECTIONS_A_PART = 700

/** Starts the host that answers as it is told in the place of services that the simulated host was told to leave. */
export async function startToldHost(machine: Machine, ...places: Place[]): Promise<void> {
  const script = join(import.meta.dirname, 'told-host.ts')
  const addresses = places.map((place) => `${PLACES[place].host}:${PLACES[place].port}`)
  const child = machine.lab.spawn(process.execPath, ['--disable-warning=ExperimentalWarning', script, ...addresses], {
    inCgroup: false,
  })
  child.stderr.pipe(process.stderr)
  await once(child.stdout, 'data')
}

/** Looks at what the host recorded since it was asked last. */
interface Judge {
  look(): Promise<void>
  readonly forwarded: number
  readonly faults: readonly string[]
}

async function judgeRecords(machine: Machine): Promise<Judge> {
  let seq = (await machine.host.readRequests()).at(-1)?.seq ?? 0
  let forwarded = 0
  const faults: string[] = []
  return {
    async look() {
      for (const record of await machine.host.readRequests(seq)) {
        seq = record.seq
        if (record.target.startsWith('/secure-channel/')) continue
        forwarded++
        const fault = recordFault(record)
        if (fault === undefined) continue
        const file = saveCase({ fault, record })
        faults.push(`${record.method} reached ${record.endpoint} and should not have: ${fault} (${file})`)
      }
    },
    get forwarded() {
      return forwarded
    },
    get faults() {
      return faults
    },
  }
}

/** Runs clients as both users, and judges what they saw, what the host saw, and what the agent holds afterwards. */
async function watch(
  machine: Machine,
  kind: JobKind,
  { seed, seconds, only }: FuzzOptions,
  judge?: Judge,
): Promise<FuzzReport> {
  const { agent } = machine
  const faults: string[] = []
  let hasEnded = false
  void agent.ended.then(({ code, signal }) => {
    hasEnded = true
    faults.push(`the agent ended: ${code ?? signal}\n${agent.output().slice(-4000)}`)
  })
  // What is loaded with the first requests is no growth, nor is a heap of the size that this takes.
  await runClient(machine, {
    kind,
    seed: seed + 1,
    who: 'root',
    first: 0,
    count: 3000,
    seconds: Math.min(10, seconds / 3),
  })
  await settle(agent.pid, 0)
  await judge?.look()
  const before = { descriptors: countDescriptors(agent.pid), privateMb: memory(agent.pid).privateMb }
  const looking = judge === undefined ? undefined : setInterval(() => void judge.look().catch(() => undefined), 500)
  const part = { first: only ?? 0, count: only === undefined ? Number.MAX_SAFE_INTEGER : 1 }
  const results = await runClients(machine, { kind, seed, ...part, seconds })
  clearInterval(looking)
  for (const { who, findings } of results)
    faults.push(...findings.map((finding) => tellFinding(seed, kind, who, finding)))
  if (hasEnded) return { ...EMPTY_REPORT, faults }
  await settle(agent.pid, before.descriptors + MOST_MORE_DESCRIPTORS)
  const after = { descriptors: countDescriptors(agent.pid), privateMb: memory(agent.pid).privateMb }
  if (after.descriptors > before.descriptors + MOST_MORE_DESCRIPTORS)
    faults.push(`the agent holds ${after.descriptors} descriptors, it had ${before.descriptors}`)
  if (after.privateMb > before.privateMb + MOST_MORE_MB)
    faults.push(`the agent holds ${Math.round(after.privateMb)} MB, it had ${Math.round(before.privateMb)}`)
  await judge?.look()
  const errors = machine
    .read('log', 'ProxyAgent.log')
    .split('\n')
    .filter((line) => line.includes('[ERROR]'))
  faults.push(...errors.slice(0, 5).map((line) => `the agent logged an error: ${line}`))
  return {
    inputs: results.reduce((sum, { summary }) => sum + summary.inputs, 0),
    forwarded: judge?.forwarded ?? 0,
    outcomes: addUp(results.map(({ summary }) => summary.outcomes)),
    descriptors: [before.descriptors, after.descriptors],
    privateMb: [before.privateMb, after.privateMb],
    faults: [...faults, ...(judge?.faults ?? [])],
  }
}

/** Keeps the case in a file. @returns a sentence that says which input it is */
function tellFinding(seed: number, kind: JobKind, who: Who, finding: Finding): string {
  return `${finding.reason}: seed ${seed}, ${kind} ${finding.index} of ${who} (${saveCase({ seed, kind, who, ...finding })})`
}

const EMPTY_REPORT = { inputs: 0, forwarded: 0, outcomes: {}, descriptors: [0, 0], privateMb: [0, 0] } as const

interface ClientResult {
  readonly who: Who
  readonly findings: readonly Finding[]
  readonly summary: Summary
}

/** Runs a client of each user, at once. */
function runClients(machine: Machine, job: Omit<Job, 'who'>): Promise<ClientResult[]> {
  return Promise.all((Object.keys(USERS) as Who[]).map((who) => runClient(machine, { ...job, who })))
}

async function runClient(machine: Machine, job: Job & { readonly who: Who }): Promise<ClientResult> {
  const script = join(import.meta.dirname, 'fuzz-client.ts')
  const args = ['--disable-warning=ExperimentalWarning', script, JSON.stringify(job)]
  const child = machine.lab.spawn(process.execPath, args, USERS[job.who])
  let stderr = ''
  child.stderr.on('data', (chunk) => {
    stderr += chunk
  })
  const closed = once(child, 'close')
  const findings: Finding[] = []
  let summary: Summary | undefined
  for await (const text of createInterface({ input: child.stdout })) {
    const line = JSON.parse(text) as ClientLine
    if ('finding' in line) findings.push(line.finding)
    else summary = line.summary
  }
  const [code, signal] = await closed
  if (summary === undefined) throw new Error(`a client ended without its summary, ${code ?? signal}: ${stderr}`)
  return { who: job.who, findings, summary }
}

/** Waits until the agent has no more than `most` descriptors, or there is nothing left to wait for. */
async function settle(pid: number, most: number): Promise<void> {
  const endMs = performance.now() + SETTLE_MS
  let last = -1
  for (let same = 0; performance.now() < endMs && same < 20; ) {
    const now = countDescriptors(pid)
    if (now <= most && now === last && same > 2) return
    same = now === last ? same + 1 : 0
    last = now
    await sleep(250)
  }
}

function countDescriptors(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length
}

function addUp(lists: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const sums: Record<string, number> = {}
  for (const list of lists) for (const [name, count] of Object.entries(list)) sums[name] = (sums[name] ?? 0) + count
  return sums
}

let folder: string | undefined

/** Writes a case to a file. @returns its path */
function saveCase(facts: object): string {
  folder ??= mkdtempSync(join(tmpdir(), 'apa-fuzz-'))
  const path = join(folder, `case-${readdirSync(folder).length}.json`)
  writeFileSync(path, JSON.stringify(facts, null, 2))
  return path
}

/** Two lines for people. */
export function describeComparison({ compared, outcomes }: Comparison): string {
  return `sound: ${compared} requests compared\n  ${describeOutcomes(outcomes)}`
}

/** Two lines for people. */
export function describeReport(name: string, report: FuzzReport): string {
  const { inputs, forwarded, outcomes, descriptors, privateMb } = report
  const held = `descriptors ${descriptors.join(' to ')}, private memory ${privateMb.map(Math.round).join(' to ')} MB`
  return `${name}: ${inputs} inputs, ${forwarded} forwarded and judged; ${held}\n  ${describeOutcomes(outcomes)}`
}

function describeOutcomes(outcomes: FuzzReport['outcomes']): string {
  return Object.entries(outcomes)
    .map(([outcome, count]) => `${outcome} ${count}`)
    .join(', ')
}
