/** An agent under a service manager that keeps its listener, and clients that do not stop asking meanwhile. */

import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { PYTHON } from '../../kernel/agent.ts'
import { AGENT_UNDER_TEST, type Machine, waitFor } from '../machine.ts'

/** See store.py. */
export interface Service {
  start(): Promise<void>
  /** Ends the process, and waits until it has ended. */
  end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void>
  /** Waits until the process started last has said that it is ready. */
  ready(): Promise<void>
  /** Names of the descriptors that are kept. */
  stored(): readonly string[]
  /** What the agents said. */
  output(): string
  pid(): number
}

interface Event {
  readonly event: 'listening' | 'started' | 'ended' | 'message'
  readonly pid?: number
  readonly lines?: readonly string[]
  readonly stored?: readonly string[]
}

/** Makes the manager; nothing is started yet. Ends with the machine. */
export async function createService(machine: Machine): Promise<Service> {
  const address = `@apa-store-${machine.lab.netns}`
  const args = [join(import.meta.dirname, 'store.py'), address, AGENT_UNDER_TEST, '--config', machine.configPath]
  const child = machine.lab.spawn(PYTHON, args)
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  const events: Event[] = []
  const lines = createInterface({ input: child.stdout })
  lines.on('line', (line) => events.push(JSON.parse(line) as Event))
  await once(lines, 'line')
  const next = async (kind: Event['event'], from: number) => {
    const found = () => events.slice(from).find(({ event }) => event === kind)
    await waitFor(
      () => found() !== undefined,
      `'${kind}' of the agent`,
      () => said,
    )
    return found() as Event
  }
  let started = 0
  let pid = 0
  return {
    async start() {
      started = events.length
      child.stdin.write('start\n')
      pid = (await next('started', started)).pid as number
    },
    async end(signal) {
      const from = events.length
      child.stdin.write(`${signal}\n`)
      await next('ended', from)
    },
    async ready() {
      const isReady = () => events.slice(started).some(({ lines }) => lines?.includes('READY=1'))
      await waitFor(isReady, 'the agent to be ready', () => said)
    },
    stored: () => events.findLast(({ stored }) => stored !== undefined)?.stored ?? [],
    output: () => said,
    pid: () => pid,
  }
}

/** How attempts ended, by what they ended with: a status, `refused`, `broken` and so on. */
export interface Load {
  readonly counts: Readonly<Record<string, number>>
  readonly longestGapMs: number
}

/** Runs so many clients in each place while `action` does. @param places network namespaces; `undefined`: the machine's own */
export async function loadDuring(
  machine: Machine,
  places: readonly (string | undefined)[],
  clients: number,
  action: () => Promise<void>,
): Promise<Load[]> {
  const ends = await Promise.all(places.map((netns) => startLoad(machine, netns, clients)))
  await action()
  return Promise.all(ends.map((end) => end()))
}

async function startLoad(machine: Machine, netns: string | undefined, clients: number): Promise<() => Promise<Load>> {
  const args = [join(import.meta.dirname, 'load.py'), String(clients)]
  const child = machine.lab.spawn(PYTHON, args, netns === undefined ? {} : { netns })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  await lines.next()
  return async () => {
    child.stdin.end()
    const { value } = await lines.next()
    if (value === undefined) throw new Error(`the clients ended without a word: ${said}`)
    return JSON.parse(value) as Load
  }
}
