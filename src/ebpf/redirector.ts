/**
 * The kernel side as the agent sees it: start it, tell it what to redirect, take who connected, stop it.
 *
 * Start-up, each step undone if a later one fails:
 *
 *     1  look what this kernel can do, and where it keeps what we read
 *     2  learn how it sees this process
 *     3  create the maps; write `self` and `served`; `policy` stays empty, so nothing is redirected yet
 *     4  load the programs, with less if this kernel refuses more
 *     5  attach: sockops first, so that whatever is redirected is also filed; hold before connect, likewise
 *
 * Everything hangs on descriptors of this process: when it dies, redirection ends at once. Where it is to fail closed,
 * links and maps are pinned besides, and stay when it dies. Then the next agent does not attach but adopts:
 *
 *     3  the maps, if they are laid out as ours are, with all that is in them; else new ones, with the policy of the old,
 *        and of the old ones those of records, if these are laid out as ours are
 *     5  each link, if it is at the same hook of the same cgroup: its program is replaced in one step
 *
 * so that at each moment there is one program at each hook. With adopted maps of records none is lost.
 */

import type { InetAddress } from '../base/endpoints.ts'
import { AgentError, describeError } from '../base/errors.ts'
import type { Fd } from '../sys/fd.ts'
import { allocate } from '../sys/libc.ts'
import { INITIAL_PID_NAMESPACE } from '../sys/process.ts'
import { attachToCgroup, isLinkAttached, openCgroup } from './attach.ts'
import { watchBell } from './bell.ts'
import { type Adopted, Estate } from './estate.ts'
import { examineKernel, type KernelView, REAL_REDIRECTOR_ENV, type RedirectorEnv } from './kernel-view.ts'
import { loadProgram, VerifierError } from './load.ts'
import { createMap, createMaps, type KernelMap, MapTaker } from './maps.ts'
import { type Hook, learnOwnIdentity, type OwnIdentity } from './own-identity.ts'
import { findPinFolder, openPinFolder } from './pins.ts'
import { isReduced } from './programs/caller.ts'
import { connect4Program } from './programs/connect4.ts'
import { connect6Program } from './programs/connect6.ts'
import { COUNTERS } from './programs/counters.ts'
import { holdProgram } from './programs/hold.ts'
import { BELL_MAP, LISTENING_MAP, type MapName, mapSpecs } from './programs/maps.ts'
import type { OtherNetns, PendingStore, PidView, ProgramOptions, ProgramSpec, TaskReader } from './programs/program.ts'
import { sockopsProgram } from './programs/sockops.ts'
import {
  type ConnectionRecord,
  decodeAsk,
  decodeEndpoint,
  decodeRecord,
  encodeEndpoint,
  encodeNetnsKey,
  encodeSelfKey,
  type NetnsAsk,
  POLICY_FOR_ALL,
  POLICY_FOR_OTHERS,
  writeConnectionKey,
} from './records.ts'

/** Where to attach, and where to send. */
export interface RedirectorOptions {
  /** A cgroup2 directory; see `findCgroup()`. */
  readonly cgroupPath: string
  /** IPv4 address and port (host byte order) on which the agent accepts, in the served network namespace. */
  readonly listener: InetAddress
  /**
   * Cookie of the agent's own network namespace, which is served from the start; see `findNetnsCookie()`.
   * `undefined`: that of this process, asked for by a connect, which kernels before 5.14 demand.
   */
  readonly servedNetns: bigint | undefined
  /**
   * A destination from which the agent itself is sent to the listener, so that it can try the whole way. It is redirected
   * for all from start to end, and is no part of the policy. Nobody should be there.
   */
  readonly probe?: InetAddress
  /** What happens to connects to guarded destinations from other network namespaces. Default: `direct`. */
  readonly containers?: ContainersPolicy
  /** Where an agent before this one may have left links and maps, and where ours are left if it is to fail closed. */
  readonly pins?: PinOptions
}

export interface PinOptions {
  /** In a bpf file system; see pins.ts. */
  readonly folder: string
  /** Whether links and maps shall outlive this process. If not, what is found is adopted and no longer pinned. */
  readonly failClosed: boolean
  /** What is redirected when an earlier agent's programs are at work and its policy cannot be read. */
  readonly guarded: readonly InetAddress[]
}

/** `serve`: by a listener that the agent opens there; `direct`: they are left alone; `deny`: they fail with EPERM. */
export type ContainersPolicy = 'serve' | 'direct' | 'deny'

/** Which options are in use on this kernel. For status texts; nothing is decided on it. */
export interface RedirectorFeatures {
  /** Whether the kernel's types could be read. */
  readonly btf: boolean
  /** How caller details are read; `none` gives reduced records. */
  readonly taskReader: TaskReader | 'none'
  /** Whether records carry start time and executable: without, rules on executables cannot match. */
  readonly fullRecords: boolean
  readonly pendingStore: PendingStore
  /** Whether a record is taken in one step. */
  readonly atomicTake: boolean
  /** Whether sock_ops can clear stale records even when nothing was remembered at connect. */
  readonly sockopsNetns: boolean
  /** How the agent's own process was found: by `run`, at a `connect`, or `outside` the cgroup, hence never redirected. */
  readonly ownIdentity: OwnIdentity['way'] | 'outside'
  /** Whether records carry pids: `initial` and `child` say in which pid namespace the agent lives. */
  readonly pidView: PidView['kind']
  readonly otherNetns: OtherNetns
  /** Whether links and maps are pinned, and what became of those of an earlier agent. */
  readonly failClosed: boolean
  readonly adopted: Adopted
  /** One sentence for each thing this kernel lacks; empty on a kernel in full. */
  readonly lacking: readonly string[]
}

/** A running redirection. */
export interface Redirector extends Disposable {
  /**
   * Takes what is filed about a connection accepted from `sourceAddress`:`sourcePort`. A second call finds nothing.
   * The record is about that connection only if the accepted socket is connected still *after* this call: ask
   * `isConnected()` of sys/socket.ts and drop the record otherwise. Why the two together suffice: programs/sockops.ts.
   * @param sourceAddress dotted IPv4; `::ffff:` in front is ignored
   * @param netns where the listener is that accepted it; default: the agent's own
   * @returns `undefined` when the connection was not redirected, or nothing could be remembered about it
   * @throws SyscallError code BPF_CALL_FAILED; AgentError code NOT_AN_IPV4_ADDRESS
   */
  takeRecord(sourceAddress: string, sourcePort: number, netns?: bigint): ConnectionRecord | undefined
  /**
   * Has connects from a network namespace sent to the listener there, which must exist, or not any more.
   * @throws SyscallError code BPF_CALL_FAILED, E2BIG when too many are served
   */
  setServed(netns: bigint, isServed: boolean): void
  /** Lists the namespaces that wait for an answer, at most `atMost`. @throws SyscallError code BPF_CALL_FAILED */
  readAsks(atMost: number): NetnsAsk[]
  /**
   * Has connects from a network namespace fail, until the answer is withdrawn.
   * @throws SyscallError code BPF_CALL_FAILED, E2BIG when `MAX_REFUSED` are refused
   */
  refuse(netns: bigint): void
  /** Withdraws an ask or the answer to it. @throws SyscallError code BPF_CALL_FAILED */
  withdraw(netns: bigint): void
  /**
   * Calls `onAsk` when a namespace may wait for an answer, until disposed.
   * @returns `undefined` where the kernel does not tell: then look with `readAsks()`
   */
  watchAsks(onAsk: () => void): Disposable | undefined
  /** Reads what the kernel redirects now, in no particular order. @throws SyscallError code BPF_CALL_FAILED */
  readPolicy(): InetAddress[]
  /**
   * Makes the kernel redirect exactly `desired`: reads, writes the differences, reads back.
   * Additions come before removals. Connections that exist are not affected.
   * @returns what is redirected since this call
   * @throws SyscallError code BPF_CALL_FAILED; AgentError code POLICY_NOT_APPLIED when the kernel's state is another one
   */
  reconcilePolicy(desired: readonly InetAddress[]): InetAddress[]
  /** Reads the counters of `programs/counters.ts`, summed over CPUs, since start. */
  counters(): Record<string, bigint>
  readonly features: RedirectorFeatures
  /**
   * Counts the records that were filed and not taken yet, up to `atMost`: each one is a system call.
   */
  countRecords(atMost: number): number
  /** Tells whether all programs are still attached. */
  isAttached(): boolean
  /**
   * Marks a listener as the agent's own, by its descriptor: where it fails closed, nothing is sent to another one.
   * @throws SyscallError code BPF_CALL_FAILED
   */
  admitListener(fd: number): void
  /** Pins again what somebody has unpinned, and tells whether there was something. @throws AgentError, SyscallError */
  restorePins(): boolean
  /** Stops redirecting, at once, unless it is pinned. Records of connections already made can still be taken. */
  detach(): void
}

/** Value of `self` and `refused`: that the key is there is all that counts. */
const PRESENT = Buffer.from([1, 0, 0, 0])

/** Value of `listening`, likewise. */
const MARK = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0])

const FOR_OTHERS = Buffer.from([POLICY_FOR_OTHERS, 0, 0, 0])
const FOR_ALL = Buffer.from([POLICY_FOR_ALL, 0, 0, 0])

/**
 * Starts redirecting; the policy is empty until `reconcilePolicy()`.
 * @throws AgentError, SyscallError or VerifierError with the reason; then nothing of it stays in the kernel
 */
export function startRedirector(options: RedirectorOptions, env: RedirectorEnv = REAL_REDIRECTOR_ENV): Redirector {
  using undo = new DisposableStack()
  using cgroup = openCgroup(options.cgroupPath)
  const kernel = examineKernel(env)
  const estate = openEstate(options.pins, kernel)
  if (estate !== undefined) undo.use(estate)
  const ways = env.ownIdentityWays.filter((way) => way === 'connect' || options.servedNetns !== undefined)
  const hook = { cgroup, cgroupPath: options.cgroupPath }
  const containers = chooseContainers(options, kernel)
  const bell = kernel.hasBell ? undo.use(createMap(BELL_MAP)) : undefined
  const { loaded, identity, features } = loadWithWhatIsThere(
    kernel,
    hook,
    { ...env, ownIdentityWays: ways },
    { listener: options.listener, containers, bell, estate },
    undo,
  )
  const { maps, programs } = loaded
  const self = identity && encodeSelfKey(identity.tgid, identity.startTimeNs)
  const servedNetns = options.servedNetns ?? requireNetns(identity)
  const served = encodeNetnsKey(servedNetns)
  if (self !== undefined) maps.self.update(self, PRESENT)
  maps.served.update(served, encodeEndpoint(options.listener))
  if (options.probe !== undefined) maps.policy.update(encodeEndpoint(options.probe), FOR_ALL)

  estate?.bequeathMaps(maps)
  const links = programs.map(([spec, program]) => {
    const adopted = estate?.adoptLink(spec, program, cgroup)
    return undo.use(adopted ?? attachToCgroup(program, spec.attachType!, cgroup, options.cgroupPath))
  })
  estate?.bequeathLinks(programs.map(([{ name }], index) => [name, links[index]!]))
  keepOnly(maps.self, self)
  keepOnly(maps.served, served)
  keepOnly(maps.refused, undefined)
  return new RunningRedirector({
    options,
    maps,
    bell,
    links,
    features: { ...features, ...describeEstate(estate) },
    servedNetns,
    possibleCpus: env.possibleCpus(),
    estate,
    owned: undo.move(),
  })
}

/** Agents before this one are gone, and so are their numbers. */
function keepOnly(map: KernelMap, key: Buffer | undefined): void {
  for (const each of map.keys()) if (key === undefined || !each.equals(key)) map.delete(each)
}

/** What is built for, besides this kernel. */
interface Wanted {
  readonly listener: InetAddress
  readonly containers: ContainersPolicy
  readonly bell: KernelMap | undefined
  readonly estate: Estate | undefined
}

/** A listener in another namespace could not be told from one elsewhere, so there is none. Doubt denies. */
function chooseContainers(options: RedirectorOptions, kernel: KernelView): ContainersPolicy {
  const { containers = 'direct', servedNetns } = options
  if (containers !== 'serve' || servedNetns !== undefined) return containers
  kernel.lacking.push('connects from other network namespaces are denied (the kernel does not tell their cookies)')
  return 'deny'
}

type Maps = Readonly<Record<MapName, KernelMap>> & { readonly listening?: KernelMap }

/** What is decided when the programs are loaded, before anything of an earlier agent has been taken over. */
type LoadFeatures = Omit<RedirectorFeatures, 'failClosed' | 'adopted'>

interface Loaded {
  readonly maps: Maps
  /** In the order of attaching. */
  readonly programs: readonly (readonly [ProgramSpec, Fd])[]
}

interface RunningParts {
  readonly options: RedirectorOptions
  readonly maps: Maps
  readonly bell: KernelMap | undefined
  readonly links: readonly Fd[]
  readonly features: RedirectorFeatures
  readonly servedNetns: bigint
  readonly possibleCpus: number
  readonly estate: Estate | undefined
  /** Goes with the redirector. */
  readonly owned: DisposableStack
}

class RunningRedirector implements Redirector {
  readonly features: RedirectorFeatures
  readonly #maps: Maps
  readonly #links: readonly Fd[]
  /** Name of the entry that is no part of the policy. */
  readonly #probe: string | undefined
  readonly #taker: MapTaker
  readonly #servedNetns: bigint
  readonly #bell: KernelMap | undefined
  readonly #listener: InetAddress
  readonly #possibleCpus: number
  readonly #estate: Estate | undefined
  readonly #owned: DisposableStack

  constructor(parts: RunningParts) {
    const { options, maps, features } = parts
    this.#maps = maps
    this.#bell = parts.bell
    this.#links = parts.links
    this.#listener = options.listener
    this.#probe = options.probe && nameOf(options.probe)
    this.features = features
    this.#servedNetns = parts.servedNetns
    this.#possibleCpus = parts.possibleCpus
    this.#estate = parts.estate
    this.#owned = parts.owned
    this.#taker = new MapTaker(maps.connections, features.atomicTake)
  }

  takeRecord(sourceAddress: string, sourcePort: number, netns = this.#servedNetns): ConnectionRecord | undefined {
    writeConnectionKey(this.#taker.key, netns, sourceAddress, sourcePort)
    if (!this.#taker.take()) return undefined
    return decodeRecord(this.#taker.value)
  }

  setServed(netns: bigint, isServed: boolean): void {
    if (isServed) this.#maps.served.update(encodeNetnsKey(netns), encodeEndpoint(this.#listener))
    else this.#maps.served.delete(encodeNetnsKey(netns))
  }

  readAsks(atMost: number): NetnsAsk[] {
    const { asked } = this.#maps
    return asked.keys(atMost).flatMap((key) => {
      const value = asked.lookup(key)
      return value === undefined ? [] : decodeAsk(key, value)
    })
  }

  refuse(netns: bigint): void {
    this.#maps.refused.update(encodeNetnsKey(netns), PRESENT)
    this.#maps.asked.delete(encodeNetnsKey(netns))
  }

  withdraw(netns: bigint): void {
    this.#maps.asked.delete(encodeNetnsKey(netns))
    this.#maps.refused.delete(encodeNetnsKey(netns))
  }

  watchAsks(onAsk: () => void): Disposable | undefined {
    return this.#bell && watchBell(this.#bell, onAsk)
  }

  readPolicy(): InetAddress[] {
    const entries = this.#maps.policy.keys().map((key) => decodeEndpoint(key))
    return entries.filter((entry) => nameOf(entry) !== this.#probe)
  }

  reconcilePolicy(desired: readonly InetAddress[]): InetAddress[] {
    const wanted = new Map(desired.map((entry) => [nameOf(entry), entry]))
    const present = new Map(this.readPolicy().map((entry) => [nameOf(entry), entry]))
    const added = [...wanted].filter(([name]) => !present.has(name)).map(([, entry]) => entry)
    for (const entry of added) this.#maps.policy.update(encodeEndpoint(entry), FOR_OTHERS)
    for (const [name, entry] of present) {
      if (!wanted.has(name)) this.#maps.policy.delete(encodeEndpoint(entry))
    }
    const now = this.readPolicy().map(nameOf).sort().join(', ')
    const want = [...wanted.keys()].sort().join(', ')
    if (now === want) return added
    throw new AgentError('POLICY_NOT_APPLIED', `Cannot apply the redirect policy: the kernel redirects [${now}]`, {
      desired: want,
    })
  }

  counters(): Record<string, bigint> {
    return Object.fromEntries(COUNTERS.map((name, index) => [name, this.#readCounter(index)]))
  }

  countRecords(atMost: number): number {
    return this.#maps.connections.keys(atMost).length
  }

  isAttached(): boolean {
    return this.#links.every(isLinkAttached)
  }

  admitListener(fd: number): void {
    const key = allocate(4)
    key.writeUInt32LE(fd)
    this.#maps.listening?.update(key, MARK)
  }

  restorePins(): boolean {
    return this.#estate?.restore() ?? false
  }

  /** In the reverse order of attaching: sockops last, so that no redirected connection goes unfiled. */
  detach(): void {
    for (const link of this.#links.toReversed()) link.close()
  }

  [Symbol.dispose](): void {
    this.detach()
    this.#owned.dispose()
  }

  #readCounter(index: number): bigint {
    const key = allocate(4)
    key.writeUInt32LE(index)
    const values = this.#maps.counters.lookup(key, 8 * this.#possibleCpus)!
    let sum = 0n
    for (let at = 0; at < values.length; at += 8) sum += values.readBigUInt64LE(at)
    return sum
  }
}

/**
 * Loads all programs with the first reader this kernel accepts. A reader can pass its probe and still be refused
 * in the full program, where the verifier follows more types; then the next one is tried, and the refusal is named.
 */
function loadWithWhatIsThere(
  kernel: KernelView,
  hook: Hook,
  env: RedirectorEnv,
  wanted: Wanted,
  undo: DisposableStack,
): { loaded: Loaded; identity: OwnIdentity | undefined; features: LoadFeatures } {
  const lacking = [...kernel.lacking]
  for (const reader of kernel.readers) {
    const reading = { fields: reader && kernel.fields, taskReader: reader ?? 'helper' }
    try {
      const identity = learnOwnIdentity(reading, hook, env.ownIdentityWays)
      const pidView = choosePidView(env.pidNamespace(), identity, lacking)
      const options: ProgramOptions = {
        ...kernel,
        ...reading,
        pidView,
        checksListener: wanted.estate?.failClosed === true,
        listener: wanted.listener,
        otherNetns: chooseOtherNetns(wanted, kernel, lacking),
      }
      const loaded = loadAll(options, wanted, undo)
      return { loaded, identity, features: describeFeatures(kernel, options, reader, identity, lacking) }
    } catch (error) {
      if (reader === undefined || !isVerifierRefusal(error)) throw error
      lacking.push(`reader "${reader}" unused (${error.message})`)
    }
  }
  throw new RangeError('Cannot load: no reader to try')
}

/** On failure what was loaded stays on `undo`; an attempt that fails leaves maps of a few megabytes there for a moment. */
function loadAll(options: ProgramOptions, { bell, estate }: Wanted, undo: DisposableStack): Loaded {
  using attempt = new DisposableStack()
  const specs = {
    ...mapSpecs(options.pendingStore),
    ...(options.checksListener ? { listening: LISTENING_MAP } : {}),
  }
  const adopted = estate?.adoptMaps(specs) ?? {}
  for (const map of Object.values(adopted)) attempt.use(map)
  const created = createMaps(Object.fromEntries(Object.entries(specs).filter(([name]) => !(name in adopted))))
  for (const map of Object.values(created)) attempt.use(map)
  const maps = { ...created, ...adopted } as Maps
  const byName = new Map<string, KernelMap>([...Object.entries(maps), ...(bell ? [['bell', bell] as const] : [])])
  const programs = [
    sockopsProgram(options),
    ...(options.otherNetns === 'hold' ? [holdProgram()] : []),
    connect6Program(options),
    connect4Program(options),
  ].map((spec) => [spec, attempt.use(loadProgram(spec, byName))] as const)
  undo.use(attempt.move())
  return { maps, programs }
}

/** To hold back a SYN takes data that is kept with the socket. */
function chooseOtherNetns({ containers }: Wanted, { pendingStore }: KernelView, lacking: string[]): OtherNetns {
  if (containers !== 'serve') return containers
  if (pendingStore === 'storage') return 'hold'
  lacking.push('the first connect from another network namespace fails (no socket storage)')
  return 'ask'
}

/**
 * In the initial pid namespace the kernel's numbers are ours. Deeper, the level must be known; and a process outside
 * the cgroup that could only be asked there stays unknown. Doubt gives records without pids, never wrong ones.
 */
function choosePidView(namespace: number, identity: OwnIdentity | undefined, lacking: string[]): PidView {
  if (namespace === INITIAL_PID_NAMESPACE) return { kind: 'initial' }
  if (identity?.pidLevel !== undefined) return { kind: 'child', level: identity.pidLevel, namespace }
  lacking.push('no pids in records (this process is in a child pid namespace, and the kernel does not tell which)')
  return { kind: 'unknown' }
}

function describeFeatures(
  kernel: KernelView,
  options: ProgramOptions,
  reader: TaskReader | undefined,
  identity: OwnIdentity | undefined,
  lacking: readonly string[],
): LoadFeatures {
  return {
    btf: kernel.fields !== undefined,
    taskReader: reader ?? 'none',
    fullRecords: !isReduced(options.fields),
    pendingStore: kernel.pendingStore,
    atomicTake: kernel.atomicTake,
    sockopsNetns: kernel.sockopsNetns,
    ownIdentity: identity?.way ?? 'outside',
    pidView: options.pidView.kind,
    otherNetns: options.otherNetns,
    lacking,
  }
}

/** What stands in the way of pinning is named, and the guard goes on without; but two agents cannot work in one folder. */
function openEstate(pins: PinOptions | undefined, kernel: KernelView): Estate | undefined {
  if (pins === undefined) return undefined
  const { failClosed } = pins
  try {
    const isAble = kernel.pendingStore === 'storage'
    if (failClosed && !isAble) kernel.lacking.push('does not fail closed: listeners cannot be marked')
    const folder = failClosed && isAble ? openPinFolder(pins.folder) : findPinFolder(pins.folder)
    return folder && new Estate(folder, failClosed && isAble, pins.guarded)
  } catch (error) {
    if (error instanceof AgentError && error.code === 'PINS_IN_USE') throw error
    kernel.lacking.push(`${failClosed ? 'does not fail closed' : 'pins of an earlier agent'}: ${describeError(error)}`)
    return undefined
  }
}

function describeEstate(estate: Estate | undefined): Pick<RedirectorFeatures, 'failClosed' | 'adopted'> {
  return { failClosed: estate?.failClosed ?? false, adopted: estate?.adopted ?? 'nothing' }
}

function isVerifierRefusal(error: unknown): error is Error {
  return error instanceof VerifierError || (error instanceof AgentError && error.cause instanceof VerifierError)
}

function requireNetns(identity: OwnIdentity | undefined): bigint {
  if (identity?.netnsCookie !== undefined) return identity.netnsCookie
  const hint = 'this kernel tells it only to processes inside the cgroup'
  throw new AgentError('NETNS_UNKNOWN', 'Cannot tell the network namespace of this process', { hint })
}

function nameOf({ address, port }: InetAddress): string {
  return `${address}:${port}`
}
