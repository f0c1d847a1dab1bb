/** What a load goes through, and one load on it. */

import { createMachine, type Machine } from '../e2e/machine.ts'
import { PATHS, startFastHost } from './nginx.ts'
import { cpuUs } from './processes.ts'
import { bindProcess, processors } from './processors.ts'
import { type LoadResult, runWrk } from './wrk.ts'

export const IMDS = '169.254.169.254'

export interface Subject {
  readonly name: string
  /** In front of the paths. */
  readonly base: string
  readonly machine: Machine
  readonly isRedirected: boolean
  /** Whose CPU time counts; `undefined`: nobody is in between. */
  readonly pid: number | undefined
}

export interface Scenario {
  readonly name: string
  readonly path: string
  readonly connections: number
  readonly isClosing?: boolean
  /** Requests a second as a share of what the agent carried in the first scenario. */
  readonly share?: number
  /** Threads of the load. The pauses of one end on the same tick of a millisecond: only threads ask independently of each other. */
  readonly threads?: number
}

export interface Sample extends LoadResult {
  readonly cpuUsPerRequest: number
}

/**
 * A machine whose metadata service is the fast stand-in; the rest of its host is the simulated one.
 * @param prepare called before the agent starts
 */
export async function startMachine(
  executable: string,
  config: Readonly<Record<string, unknown>>,
  prepare?: (machine: Machine) => void,
): Promise<Machine> {
  const machine = await createMachine({
    executable,
    start: { agent: false },
    hostArguments: ['--enforce', '--imds', '127.0.0.1:3082'],
    config: {
      fileLogLevel: 'Info',
      fileLogLevelForSystemEvents: 'Error',
      pollKeyStatusIntervalInSeconds: 15,
      ...config,
    },
  })
  prepare?.(machine)
  machine.startAgent()
  await machine.waitUntilProvisioned()
  await startFastHost(machine.lab, machine.folder, IMDS, processors.load)
  bindProcess(machine.agent.pid)
  const signed = await machine.curl(['-H', 'Metadata: true', `http://${IMDS}${PATHS.check}`])
  if (!signed.body.startsWith('Azure-HMAC-SHA256 ')) throw new Error(`${executable} does not sign: ${signed.body}`)
  return machine
}

/** One load on one subject. */
export async function measure(
  subject: Subject,
  scenario: Scenario,
  script: string,
  seconds: number,
  pauseMs: number,
): Promise<Sample> {
  const beforeUs = subject.pid === undefined ? 0 : cpuUs(subject.pid)
  const result = await runWrk(subject.machine.lab, script, processors.load, {
    url: `${subject.base}${scenario.path}`,
    connections: scenario.connections,
    isClosing: scenario.isClosing ?? false,
    inCgroup: subject.isRedirected,
    seconds,
    pauseMs,
    threads: scenario.threads ?? 1,
  })
  const spentUs = subject.pid === undefined ? 0 : cpuUs(subject.pid) - beforeUs
  return { ...result, cpuUsPerRequest: spentUs / result.requests }
}
