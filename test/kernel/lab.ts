/**
 * A laboratory for tests that need the kernel: a network namespace and a cgroup of one's own.
 *
 * The metadata addresses sit on `lo` of the namespace, which has no other interface and no route, so nothing a test does
 * can reach a real host. Programs are attached to the lab's cgroup, never above it. What a test starts through the
 * lab is in both by default, and is gone after `await using`, also when the test process itself ends early.
 */

import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync } from 'node:fs'
import { release } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { findCgroup } from '../../src/ebpf/cgroup.ts'

/** Put on `lo` of every namespace of a lab, besides 127.0.0.0/8. */
const METADATA_ADDRESSES = ['169.254.169.254', '168.63.129.16'] as const

/** How many times slower than usual this machine is; a time bound is multiplied by it. An emulated one says 8. */
export const SLOWNESS = Number(process.env.TEST_SLOWNESS ?? 1)

/** How long a child has to end after SIGKILL before the lab gives up on its cgroup. */
const EMPTY_WITHIN_MS = 2_000 * SLOWNESS

/** The signals by which a test run is ended early; without a listener they skip the exit handlers. */
const SIGNALS = ['SIGINT', 'SIGTERM'] as const

/** How a command is run. */
export interface RunOptions {
  /** Default: 0 and 0. Other groups are cleared when either is given. */
  readonly uid?: number
  readonly gid?: number
  /** Default: true. */
  readonly inCgroup?: boolean
  /** Name of a namespace of this lab; default: `lab.netns`. */
  readonly netns?: string
  readonly env?: NodeJS.ProcessEnv
  /** Written to standard input, which is then closed. */
  readonly input?: string
  /** The command is killed after this; default 20 000. */
  readonly timeoutMs?: number
}

/** How a command ended. */
export interface RunResult {
  /** `null` when it was killed. */
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** See above. */
export interface Lab extends AsyncDisposable {
  /** Name of the first namespace, as in /run/netns. */
  readonly netns: string
  /** The cgroup2 directory. */
  readonly cgroup: string
  /** Makes another namespace, with the same addresses on `lo`. */
  addNamespace(): string
  /** Runs a command to its end. */
  run(command: string, args: readonly string[], options?: RunOptions): Promise<RunResult>
  /** Starts a command; it is killed with the lab. `pid` is the command's own: what leads to it replaces itself. */
  spawn(command: string, args: readonly string[], options?: RunOptions): ChildProcessWithoutNullStreams
}

/** Says why a lab cannot be made here, or `undefined` when it can: then a failure is a failure, not a reason to skip. */
export function reasonToSkip(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root, to make namespaces and load programs'
  try {
    findCgroup(undefined)
  } catch (error) {
    return (error as Error).message
  }
  return undefined
}

/** Tells whether the running kernel is of this version or a later one. */
export function isKernelSince(major: number, minor: number): boolean {
  const [ours = 0, oursMinor = 0] = release()
    .split('.')
    .map((part) => Number.parseInt(part, 10))
  return ours > major || (ours === major && oursMinor >= minor)
}

let labs = 0

/** Makes a lab. @throws Error when the machine does not allow it; see `reasonToSkip()` */
export function createLab(): Lab {
  return new RealLab(`apa-${process.pid}-${labs++}`)
}

class RealLab implements Lab {
  readonly netns: string
  readonly cgroup: string
  readonly #namespaces: string[] = []
  readonly #children = new Set<ChildProcessWithoutNullStreams>()
  readonly #atExit = () => this.#removeAtExit()
  readonly #atSignal = () => process.exit(1)

  constructor(name: string) {
    process.once('exit', this.#atExit)
    for (const signal of SIGNALS) process.once(signal, this.#atSignal)
    this.cgroup = join(findCgroup(undefined).path, name)
    mkdirSync(this.cgroup)
    this.netns = name
    this.#makeNamespace(name)
  }

  addNamespace(): string {
    const name = `${this.netns}-${this.#namespaces.length}`
    this.#makeNamespace(name)
    return name
  }

  async run(command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    const child = this.spawn(command, args, options)
    child.stdin.on('error', () => {}) // a command may end without reading its input
    child.stdin.end(options.input ?? '')
    const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs ?? 20_000 * SLOWNESS)
    const output = Promise.all([readAll(child.stdout), readAll(child.stderr)])
    const [code] = (await once(child, 'close')) as [number | null]
    clearTimeout(timer)
    const [stdout, stderr] = await output
    return { code, stdout, stderr }
  }

  spawn(command: string, args: readonly string[], options: RunOptions = {}): ChildProcessWithoutNullStreams {
    const cgroup = (options.inCgroup ?? true) ? this.cgroup : ''
    const script = 'if [ -n "$0" ]; then echo $$ > "$0/cgroup.procs" || exit 125; fi; exec "$@"'
    const enter = ['nsenter', `--net=/run/netns/${options.netns ?? this.netns}`]
    const child = spawn('/bin/sh', ['-c', script, cgroup, ...enter, ...identity(options), command, ...args], {
      env: options.env ?? process.env,
      stdio: 'pipe',
    })
    this.#children.add(child)
    child.once('close', () => this.#children.delete(child))
    return child
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const until = Date.now() + EMPTY_WITHIN_MS
    // A process that is ending still occupies its cgroup after it has left the list, so only the removal itself tells.
    for (this.#removeNow(); existsSync(this.cgroup) && Date.now() < until; this.#removeNow()) await sleep(10)
    process.off('exit', this.#atExit)
    for (const signal of SIGNALS) process.off(signal, this.#atSignal)
    if (existsSync(this.cgroup)) throw new Error(`Cannot remove ${this.cgroup}: still in use by ${this.#processes()}`)
  }

  #makeNamespace(name: string): void {
    ip('netns', 'add', name)
    this.#namespaces.push(name)
    ip('-n', name, 'link', 'set', 'lo', 'up')
    for (const address of METADATA_ADDRESSES) ip('-n', name, 'addr', 'add', `${address}/32`, 'dev', 'lo')
  }

  /** The children we know, and whoever they left in our cgroup: nobody else can be in there. */
  #kill(): void {
    for (const child of this.#children) child.kill('SIGKILL')
    for (const pid of this.#processes()) tryTo(() => process.kill(pid, 'SIGKILL'))
  }

  #processes(): number[] {
    return cgroupTree(this.cgroup).flatMap((path) => {
      try {
        return readFileSync(join(path, 'cgroup.procs'), 'latin1').split('\n').filter(Boolean).map(Number)
      } catch {
        return [] // removed already
      }
    })
  }

  /** Nothing asynchronous runs any more, so the wait for dying processes blocks. */
  #removeAtExit(): void {
    const pause = new Int32Array(new SharedArrayBuffer(4))
    const until = Date.now() + EMPTY_WITHIN_MS
    for (this.#removeNow(); existsSync(this.cgroup) && Date.now() < until; this.#removeNow())
      Atomics.wait(pause, 0, 0, 10)
  }

  #removeNow(): void {
    this.#kill()
    for (const name of this.#namespaces.splice(0)) tryTo(() => ip('netns', 'del', name))
    for (const path of cgroupTree(this.cgroup)) tryTo(() => rmdirSync(path))
  }
}

/** Lists a cgroup and those below it, the deepest first: a test may have made some and failed before it removed them. */
export function cgroupTree(path: string): string[] {
  if (!existsSync(path)) return []
  const below = readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory())
  return [...below.flatMap((entry) => cgroupTree(join(path, entry.name))), path]
}

function identity({ uid, gid }: RunOptions): string[] {
  if (uid === undefined && gid === undefined) return []
  return ['setpriv', `--reuid=${uid ?? 0}`, `--regid=${gid ?? 0}`, '--clear-groups', '--']
}

function ip(...args: string[]): void {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] })
}

async function readAll(stream: NodeJS.ReadableStream): Promise<string> {
  let text = ''
  stream.setEncoding('utf8')
  for await (const chunk of stream) text += chunk
  return text
}

/** Cleaning up goes on whatever fails: what is gone already is what we want. */
function tryTo(action: () => void): void {
  try {
    action()
  } catch {
    // see above
  }
}
