/** Drives the processes of a lab: the agent's stand-in, the host's, and clients. */

import type { ChildProcessWithoutNullStreams } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { AgentSetup } from './agent-process.ts'
import type { Lab, RunOptions } from './lab.ts'

/** The client's source, for `python3 -c`: the file itself may lie where other users cannot read. */
export const CLIENT = readFileSync(join(import.meta.dirname, 'client.py'), 'utf8')

/** Debian's own, which every uid can run; a version manager's may lie in a private home. */
export const PYTHON = '/usr/bin/python3'

/** A record as it crosses the pipe: BigInts are decimal strings. */
export interface ToldRecord {
  readonly destination: { address: string; port: number }
  readonly netnsCookie: string
  readonly pid: number
  readonly uid: number
  readonly gid: number
  readonly startTimeNs: string
  readonly exeInode: string
  readonly exeDevice: number
  readonly exeChangedAtNs: string
  readonly exeSizeBytes: string
  readonly cgroupId: string
  readonly mountNamespace: number
  readonly userNamespace: number
  readonly pidNamespace: number
  readonly comm: string
  readonly recordedAtNs: string
  readonly reduced: boolean
}

/** What a client says about itself, from /proc. */
export interface Me {
  /** In its own pid namespace. */
  readonly pid: number
  /** In the pid namespace of the /proc it sees. */
  readonly procPid: number
  readonly uid: number
  readonly gid: number
  readonly ticks: string
  readonly exeInode: string
  readonly exeDevice: number
  readonly mountNamespace: number
  readonly userNamespace: number
  readonly pidNamespace: number
  readonly comm: string
}

/** What a client prints. */
export interface Told {
  readonly me: Me
  readonly answer?: Answer
  readonly error?: string
}

/** Who answered; the listener adds what it took, and the host nothing. */
export interface Answer {
  readonly who: 'host' | 'listener'
  readonly record?: ToldRecord
  readonly ageNs?: string
  readonly peer?: string
}

/** The agent's stand-in, running. */
export interface Agent {
  /** Sends a command and waits for its answer. @throws Error with what the process answered instead */
  ask<Result = unknown>(command: Record<string, unknown>): Promise<Result>
  readonly child: ChildProcessWithoutNullStreams
}

/** Starts the agent's stand-in. @throws Error with its reason when the redirector does not start */
export async function startAgent(
  lab: Lab,
  without: AgentSetup['without'] = [],
  prefix: string[] = [],
  more: Pick<AgentSetup, 'containers' | 'serveAfterMs'> = {},
): Promise<Agent> {
  const setup: AgentSetup = { cgroupPath: lab.cgroup, without: without ?? [], ...more }
  const script = join(import.meta.dirname, 'agent-process.ts')
  const [command, ...args] = [
    ...prefix,
    process.execPath,
    '--disable-warning=ExperimentalWarning',
    script,
    JSON.stringify(setup),
  ]
  const child = lab.spawn(command!, args)
  let stderr = ''
  child.stderr.on('data', (chunk) => {
    stderr += chunk
  })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async (): Promise<Record<string, unknown>> => {
    const line = await lines.next()
    if (line.done) throw new Error(`the agent process ended: ${stderr}`)
    return JSON.parse(line.value) as Record<string, unknown>
  }
  const first = await next()
  if (first.ready !== true) throw new Error(String(first.failed))
  return {
    child,
    async ask<Result>(request: Record<string, unknown>) {
      child.stdin.write(`${JSON.stringify(request)}\n`)
      const answer = await next()
      if (answer.error !== undefined) throw new Error(String(answer.error))
      return answer.answer as Result
    },
  }
}

/** Starts the host's stand-in in a namespace of the lab, outside its cgroup. */
export async function startHost(lab: Lab, netns = lab.netns): Promise<void> {
  const script = join(import.meta.dirname, 'host-process.ts')
  const child = lab.spawn(process.execPath, [script], { inCgroup: false, netns })
  for await (const line of createInterface({ input: child.stdout })) {
    if (line === 'ready') return
  }
  throw new Error('the host process ended')
}

/** Runs the client. */
export async function connect(
  lab: Lab,
  to: string,
  args: readonly string[] = [],
  options: RunOptions = {},
): Promise<Told> {
  const at = to.lastIndexOf(':')
  const target = [to.slice(0, at), to.slice(at + 1)]
  const { stdout, stderr } = await lab.run(PYTHON, ['-c', CLIENT, ...target, ...args], options)
  if (stdout === '') throw new Error(`the client printed nothing: ${stderr}`)
  return JSON.parse(stdout) as Told
}
