/**
 * A small Azure machine for end-to-end tests and the demo: a lab with the metadata addresses, the simulated host on them,
 * and the executable under test, guarding the lab's cgroup.
 *
 * The agent is inside the cgroup it guards, as on a real machine: its own connections must find their way out.
 */

import type { ChildProcessWithoutNullStreams } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ChannelRules } from '../fabric/channel.ts'
import { FabricClient } from '../fabric/control-client.ts'
import type { RecordedRequest } from '../fabric/records.ts'
import { createLab, type Lab, type RunOptions, type RunResult, SLOWNESS } from '../kernel/lab.ts'

export const ROOT = dirname(dirname(import.meta.dirname))

/** The executable under test: `AGENT_UNDER_TEST`, or what the build leaves in dist/. */
export const AGENT_UNDER_TEST = process.env.AGENT_UNDER_TEST ?? join(ROOT, 'dist', 'azure-proxy-agent')

export interface MachineOptions {
  /** Rules of the host; default: everybody may do everything, enforced. */
  readonly rules?: ChannelRules
  /** Arguments of the simulated host in place of `--enforce`. */
  readonly hostArguments?: readonly string[]
  /** Keys of the configuration file to set or replace. */
  readonly config?: Readonly<Record<string, unknown>>
  /** Executable in place of the one under test. */
  readonly executable?: string
  /** Leave host or agent for the test to start. Default: both are started and provisioned. */
  readonly start?: { readonly host?: boolean; readonly agent?: boolean }
}

export interface Answer {
  /** 0 when there was no answer. */
  readonly status: number
  /** Lower-case names; of repeated headers the last. */
  readonly headers: ReadonlyMap<string, string>
  readonly body: string
  /** What curl said when there was no answer. */
  readonly error: string
}

export interface AgentProcess {
  readonly pid: number
  /** Both outputs so far, in order. */
  output(): string
  /** Resolves when the process has ended. */
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
  kill(signal: NodeJS.Signals): void
  readonly stdin: ChildProcessWithoutNullStreams['stdin']
}

/** The parts, and short ways to ask them. */
export class Machine implements AsyncDisposable {
  readonly lab: Lab
  readonly host: FabricClient
  /** Temporary directory with the configuration and all that the agent writes. */
  readonly folder: string
  readonly #options: MachineOptions
  #agent: AgentProcess | undefined
  #startedAtMs = 0
  /** What each agent started here said. */
  readonly #outputs: (() => string)[] = []
  /** The lab has ended all processes by then, as it registered first. */
  readonly #atExit = () => rmSync(this.folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 20 })

  constructor(options: MachineOptions) {
    this.#options = options
    this.lab = createLab()
    this.folder = mkdtempSync(join(tmpdir(), 'apa-machine-'))
    process.once('exit', this.#atExit)
    this.host = new FabricClient({ path: join(this.folder, 'host.sock') })
    this.writeConfig({})
  }

  get configPath(): string {
    return join(this.folder, 'proxy-agent.json')
  }

  get controlSocket(): string {
    return join(this.folder, 'agent.sock')
  }

  /** The agent started last. @throws Error when none was */
  get agent(): AgentProcess {
    if (this.#agent === undefined) throw new Error('no agent was started on this machine')
    return this.#agent
  }

  /** Writes the configuration anew, with `changes` on top of the options'. */
  writeConfig(changes: Readonly<Record<string, unknown>>): void {
    const config = {
      logFolder: join(this.folder, 'log'),
      eventFolder: join(this.folder, 'events'),
      latchKeyFolder: join(this.folder, 'keys'),
      statusFolder: join(this.folder, 'status'),
      controlSocket: this.controlSocket,
      monitorIntervalInSeconds: 60,
      pollKeyStatusIntervalInSeconds: 1,
      ebpfProgramName: 'ebpf_cgroup.o',
      cgroupRoot: this.lab.cgroup,
      fileLogLevel: 'Trace',
      fileLogLevelForSystemEvents: 'Info',
      ...this.#options.config,
      ...changes,
    }
    writeFileSync(this.configPath, JSON.stringify(config, null, 2))
  }

  /** Starts the simulated host on the real addresses of the namespace. */
  async startHost(): Promise<void> {
    const { rules, hostArguments } = this.#options
    const rulesPath = join(this.folder, 'rules.json')
    if (rules !== undefined) writeFileSync(rulesPath, JSON.stringify(rules))
    const args = hostArguments ?? (rules === undefined ? ['--enforce'] : ['--rules', rulesPath])
    const script = join(ROOT, 'test', 'fabric', 'main.ts')
    const control = join(this.folder, 'host.sock')
    const child = this.lab.spawn(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', script, '--listen', 'real', '--quiet', '--control', control, ...args],
      { inCgroup: false },
    )
    const said = collect(child)
    await waitFor(() => said().includes('fabric: ready'), 'the simulated host to be ready', said)
  }

  /** Starts the executable under test; `args` go in front of a possible command. Does not wait. */
  startAgent(
    args: readonly string[] = [],
    options: RunOptions = {},
    executable = this.#options.executable ?? AGENT_UNDER_TEST,
  ): AgentProcess {
    this.#startedAtMs = Date.now()
    const child = this.lab.spawn(executable, ['--config', this.configPath, ...args], options)
    const output = collect(child)
    this.#outputs.push(output)
    const ended = once(child, 'close').then(([code, signal]) => ({
      code: code as number | null,
      signal: signal as NodeJS.Signals | null,
    }))
    const { pid, stdin } = child
    stdin.on('error', () => undefined)
    this.#agent = { pid: pid as number, stdin, output, ended, kill: (signal) => child.kill(signal) }
    return this.#agent
  }

  /** Waits until the agent has declared provisioning finished without error. */
  async waitUntilProvisioned(timeoutMs = 15_000 * SLOWNESS): Promise<void> {
    const tag = join(this.folder, 'keys', 'status.tag')
    // A tag of an earlier run on this machine does not count.
    const isDone = () =>
      existsSync(tag) && statSync(tag).mtimeMs >= this.#startedAtMs && readFileSync(tag, 'utf8') === ''
    await waitFor(isDone, 'provisioning to finish', () => this.agent.output(), timeoutMs)
  }

  /** Runs curl with `args`, by default as root in the guarded cgroup. */
  async curl(args: readonly string[], options: RunOptions = {}): Promise<Answer> {
    const result = await this.lab.run(
      'curl',
      ['--silent', '--show-error', '--include', '--max-time', '10', ...args],
      options,
    )
    return parseCurl(result)
  }

  /** Asks for a page of the control socket, such as `/metrics`, as root. @param args further ones of curl */
  readControl(page: string, args: readonly string[] = []): Promise<Answer> {
    return this.curl(['--unix-socket', this.controlSocket, ...args, `http://localhost${page}`])
  }

  /** What the host recorded while `action` ran, its own channel calls left out. */
  async requestsDuring<T>(action: () => Promise<T>): Promise<{ result: T; requests: RecordedRequest[] }> {
    const before = (await this.host.readRequests()).at(-1)?.seq ?? 0
    const result = await action()
    const requests = (await this.host.readRequests(before)).filter(
      ({ target }) => !target.startsWith('/secure-channel/'),
    )
    return { result, requests }
  }

  /** Reads a file that the agent writes, below the machine's folder; empty while it is not there. */
  read(...path: string[]): string {
    const file = join(this.folder, ...path)
    return existsSync(file) ? readFileSync(file, 'utf8') : ''
  }

  /**
   * Waits until the connection log says `what` of the request with `who=…` in its target.
   * @returns all that it says of that request
   */
  async toldOf(who: string, what: RegExp): Promise<string> {
    const lines = () => {
      const all = this.read('log', 'ProxyAgent.Connection.log').split('\n')
      const first = all.find((line) => line.includes(' - Got request ') && line.includes(`who=${who}`))
      const id = / (\d+\[\d+\]) - /.exec(first ?? '')?.[1]
      return id === undefined ? '' : all.filter((line) => line.includes(` ${id} - `)).join('\n')
    }
    await waitFor(() => what.test(lines()), `the log to say ${what} of ${who}`, lines)
    return lines()
  }

  /** Every key and signature of this machine so far, and every text that the agent wrote. */
  async findSecrets(): Promise<{ secrets: string[]; texts: string[] }> {
    // A host that was not started, or has gone, recorded nothing.
    const requests = await this.host.readRequests().catch(() => [])
    const signatures = requests.flatMap(({ rawHeaders }) =>
      rawHeaders.filter((_, i) => rawHeaders[i - 1]?.toLowerCase() === 'x-ms-azure-host-authorization'),
    )
    const keys = this.#files('keys').flatMap((text) => /"key": "([0-9A-Fa-f]{64})"/.exec(text)?.[1] ?? [])
    const secrets = [...keys, ...signatures.map((value) => value.split(' ')[2] ?? '')]
    const files = ['log', 'status', 'events'].flatMap((name) => this.#files(name))
    const texts = [...this.#outputs.map((output) => output()), ...files]
    return { secrets: secrets.filter((text) => /^[0-9A-Fa-f]{64}$/.test(text)), texts }
  }

  /** The contents of the files in a directory of the machine; none while it is not there. */
  #files(name: string): string[] {
    const folder = join(this.folder, name)
    if (!existsSync(folder)) return []
    return readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => readFileSync(join(folder, entry.name), 'utf8'))
  }

  /** Takes everything down. @throws Error when a secret was written anywhere */
  async [Symbol.asyncDispose](): Promise<void> {
    const { secrets, texts } = await this.findSecrets()
    const all = texts.join('\n').toLowerCase()
    const isLeaked = secrets.some((secret) => all.includes(secret.toLowerCase()))
    await this.lab[Symbol.asyncDispose]()
    process.off('exit', this.#atExit)
    this.#atExit()
    if (isLeaked) throw new Error('A key or a signature is in an output, a log or a status document of the agent')
  }
}

/** Makes a machine; unless told otherwise its host runs and its agent is provisioned. Use with `await using`. */
export async function createMachine(options: MachineOptions = {}): Promise<Machine> {
  const machine = new Machine(options)
  try {
    if (options.start?.host !== false) await machine.startHost()
    if (options.start?.agent !== false) {
      machine.startAgent()
      if (options.start?.host !== false) await machine.waitUntilProvisioned()
    }
    return machine
  } catch (error) {
    await machine[Symbol.asyncDispose]()
    throw error
  }
}

/** Waits for a condition. @throws Error that names what was awaited and what was said meanwhile. */
export async function waitFor(
  condition: () => boolean | Promise<boolean>,
  what: string,
  context: () => string = () => '',
  timeoutMs = 15_000 * SLOWNESS,
): Promise<void> {
  const endMs = performance.now() + timeoutMs
  while (!(await condition())) {
    if (performance.now() > endMs) throw new Error(`Waited ${timeoutMs} ms in vain for ${what}\n${context()}`)
    await sleep(20)
  }
}

/** Where users may not make namespaces, impostors who need one cannot be played. Elsewhere they must be. */
export function reasonForNoNamespaces(): string | undefined {
  const read = (name: string) => {
    const path = `/proc/sys/${name}`
    return existsSync(path) ? readFileSync(path, 'latin1').trim() : undefined
  }
  if (read('user/max_user_namespaces') === '0') return 'user namespaces are switched off'
  if (read('kernel/unprivileged_userns_clone') === '0') return 'user namespaces are for root alone'
  if (read('kernel/apparmor_restrict_unprivileged_userns') === '1') return 'AppArmor restricts user namespaces'
  return undefined
}

/** Keeps both outputs of a child, in order of arrival. */
function collect(child: ChildProcessWithoutNullStreams): () => string {
  let text = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8')
    stream.on('data', (chunk: string) => {
      text += chunk
    })
  }
  return () => text
}

/** Reads `curl --include`: of several heads, such as a 100 before the answer, the last counts. */
function parseCurl({ stdout, stderr }: RunResult): Answer {
  let rest = stdout
  let status = 0
  let headers = new Map<string, string>()
  while (/^HTTP\/1\.[01] /.test(rest)) {
    const end = rest.indexOf('\r\n\r\n')
    const [statusLine = '', ...lines] = rest.slice(0, end).split('\r\n')
    status = Number(statusLine.split(' ')[1])
    headers = new Map(
      lines.map((line) => {
        const colon = line.indexOf(':')
        return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()]
      }),
    )
    rest = rest.slice(end + 4)
  }
  return { status, headers, body: rest, error: stderr.trim() }
}
