/**
 * Serves other network namespaces: opens a listener in each one that asks for it, and closes it when nobody lives there.
 *
 * A namespace asks by its first connect to a guarded destination, which the kernel holds meanwhile; one that never connects costs
 * nothing. The kernel sends connects there only while the listener is there. An answer of no makes connects fail for a moment,
 * then the next one asks again: whatever was in the way may be gone.
 *
 * A listener keeps its namespace alive, with all devices in it, so it must go with the last process. For each namespace one of
 * its processes is remembered, which costs one look each time; only when that one has gone are all processes looked at.
 *
 * Where the redirection outlives the agent its listeners do, too: the service manager keeps them, clients wait in their queues, and
 * the next agent goes on with those in whose namespace somebody lives.
 *
 * Where the limits fall: a user can make namespaces without end, so each one but root has a share, and all of them together
 * leave room for those of root, which are those of container engines.
 */

import type { Clock } from '../base/clock.ts'
import { LISTENER } from '../base/endpoints.ts'
import { AgentError, describeError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { MAX_REFUSED, MAX_SERVED } from '../ebpf/programs/maps.ts'
import { ipv4Bytes, type NetnsAsk } from '../ebpf/records.ts'
import type { Redirector } from '../ebpf/redirector.ts'
import { BACKLOG, type ProxyServer } from '../proxy/server.ts'
import { Fd } from '../sys/fd.ts'
import type { NetworkNamespace } from '../sys/network-namespace.ts'
import { createToldLately } from '../telemetry/told-lately.ts'

/** What is called of the world. */
export interface ContainersEnv {
  /** @param path of /proc/PID/ns/net @throws AgentError when it is gone */
  openNamespace(path: string): NetworkNamespace
  /** Inode of the network namespace of a process; `undefined` when it is gone, or not for us to see. */
  namespaceOf(pid: number): number | undefined
  /** All processes. */
  pids(): readonly number[]
  /** Whether the socket under this descriptor still listens: who is root in its namespace can destroy it. */
  isListening(descriptor: number): boolean
  /** The namespace of a listener. @throws AgentError when it does not listen, or is in another one than `expectedCookie` says */
  openNamespaceOf(descriptor: number, expectedCookie: bigint): NetworkNamespace
}

/** Keeps listeners for the next agent. */
export interface ListenerStore {
  /** What an agent before this one left, by the cookie of the namespace; ours to close from now on. */
  readonly inherited: ReadonlyMap<bigint, number>
  keep(netns: bigint, descriptor: number): void
  drop(netns: bigint): void
}

export interface ContainersOptions {
  readonly env: ContainersEnv
  readonly clock: Clock
  readonly log: Log
  readonly store: ListenerStore
  readonly limits?: ContainersLimits
}

/** How many namespaces are served at one time. */
export interface ContainersLimits {
  readonly all: number
  /** Of `all`: those that belong to users other than root. */
  readonly unprivileged: number
  /** Those of one user other than root. */
  readonly perUser: number
}

/** One place in the kernel's table is for our own namespace. */
export const CONTAINERS_LIMITS: ContainersLimits = { all: MAX_SERVED - 1, unprivileged: 512, perUser: 64 }

/** Why a namespace was refused. */
export type Refusal = 'limit' | 'port_taken' | 'loopback_down' | 'not_found' | 'error'

export interface ContainersState {
  /** Namespaces with a listener now, besides our own. */
  readonly served: number
  /** Namespaces refused so far, each as often as it asked. */
  readonly refused: Readonly<Record<Refusal, number>>
}

export interface Containers {
  /** Answers what is asked, and looks after what is served, until `signal` is aborted. */
  run(signal: AbortSignal): Promise<void>
  /** Whose connections these are; `undefined` while there is none: then nothing is served. */
  setServer(server: ProxyServer | undefined): void
  /** What sends connects; `undefined` while nothing does. Another one is told what is served. */
  setRedirector(redirector: Redirector | undefined): void
  state(): ContainersState
}

/** Also how long a namespace outlives its last process. */
const LOOK_INTERVAL_MS = 2000

/** Where the kernel does not wake us. A held connect is tried again within this time, and for seconds. */
const LOOK_INTERVAL_WITHOUT_BELL_MS = 20

/** How long an answer of no stands. */
const REFUSAL_MS = 2000

/** No process: to be looked for. */
const NOBODY = 0

/** Answered in one go; then others get their turn. */
const MAX_ASKS_AT_ONCE = 32

interface Served {
  readonly netns: bigint
  readonly inode: number
  readonly ownerUid: number
  /** Descriptor of the listener; closed by the next. */
  readonly fd: number
  readonly listener: Disposable
  /** One of those who live there, as far as known. */
  pid: number
}

/** Makes the part; nothing is opened before somebody asks. */
export function createContainers(options: ContainersOptions): Containers {
  const { env, clock, log, store, limits = CONTAINERS_LIMITS } = options
  const toldLately = createToldLately(clock.monotonicMs)
  const served = new Map<bigint, Served>()
  /** When each answer of no ends. */
  const refusals = new Map<bigint, number>()
  const refused: Record<Refusal, number> = { limit: 0, port_taken: 0, loopback_down: 0, not_found: 0, error: 0 }
  let inherited = [...store.inherited]
  let server: ProxyServer | undefined
  let redirector: Redirector | undefined
  let bell: Disposable | undefined

  const answer = (kernel: Redirector, proxy: ProxyServer, ask: NetnsAsk) => {
    const known = served.get(ask.netnsCookie)
    try {
      if (known !== undefined) {
        // The kernel may have refused it when it was told.
        serve(kernel, known)
        return kernel.withdraw(ask.netnsCookie)
      }
      using namespace = findNamespace(env, ask)
      checkLimits(namespace.ownerUid)
      using undo = new DisposableStack()
      const fd = namespace.listen(ipv4Bytes(LISTENER.address), LISTENER.port, BACKLOG, ask.netnsCookie)
      const listener = undo.use(proxy.adopt(fd.number, ask.netnsCookie))
      const each = { netns: ask.netnsCookie, inode: namespace.inode, ownerUid: namespace.ownerUid, fd: fd.number }
      serve(kernel, each)
      undo.move()
      served.set(ask.netnsCookie, { ...each, listener, pid: ask.pid })
      store.keep(ask.netnsCookie, fd.number)
      kernel.withdraw(ask.netnsCookie)
      log.debug(`Serving network namespace ${each.inode} of user id ${each.ownerUid}, for pid ${ask.pid}`)
    } catch (error) {
      refuse(kernel, ask, error)
    }
  }
  /** Goes on with what was left. Who lives there is found with the next look, which closes the others. */
  const adoptInherited = (proxy: ProxyServer) => {
    const left = inherited
    inherited = []
    for (const [netns, fd] of left) {
      const each = describeInherited(netns, fd)
      if (each !== undefined) tryTo(() => goOnWith(proxy, each))
    }
    if (left.length > 0) log.info(`Went on with the listeners of ${served.size} other network namespaces`)
  }
  const goOnWith = (proxy: ProxyServer, each: Omit<Served, 'listener' | 'pid'>) => {
    try {
      served.set(each.netns, { ...each, listener: proxy.adopt(each.fd, each.netns), pid: NOBODY })
    } catch (error) {
      store.drop(each.netns)
      throw error
    }
    if (redirector !== undefined) serve(redirector, each)
  }
  const describeInherited = (netns: bigint, fd: number) => {
    try {
      using namespace = env.openNamespaceOf(fd, netns)
      return { netns, fd, inode: namespace.inode, ownerUid: namespace.ownerUid }
    } catch (error) {
      new Fd(fd, 'listener of an earlier agent').close()
      store.drop(netns)
      log.warn(`A listener that was left in another network namespace cannot be used: ${describeError(error)}`)
      return undefined
    }
  }
  const serve = (kernel: Redirector, { netns, fd }: Pick<Served, 'netns' | 'fd'>) => {
    kernel.admitListener(fd)
    kernel.setServed(netns, true)
  }
  const checkLimits = (ownerUid: number) => {
    const others = [...served.values()].filter((each) => each.ownerUid !== 0)
    const own = others.filter((each) => each.ownerUid === ownerUid)
    const isFull =
      served.size >= limits.all ||
      (ownerUid !== 0 && (own.length >= limits.perUser || others.length >= limits.unprivileged))
    if (isFull) throw new AgentError('TOO_MANY_NETNS', 'Cannot serve another network namespace', { ownerUid })
  }
  const refuse = (kernel: Redirector, { netnsCookie, pid }: NetnsAsk, error: unknown) => {
    const refusal = classify(error)
    refused[refusal]++
    // Who asked has gone: the next one may be found.
    if (refusal === 'not_found' || refusals.size >= MAX_REFUSED) return kernel.withdraw(netnsCookie)
    kernel.refuse(netnsCookie)
    refusals.set(netnsCookie, clock.monotonicMs() + REFUSAL_MS)
    const whose = env.namespaceOf(pid) ?? 'that is gone by now'
    const untold = toldLately.ask(refusal, String(whose))
    if (untold === undefined) return
    log.warn(`Connects from network namespace ${whose} are refused (pid ${pid}): ${REFUSED[refusal](error)}`)
  }
  const answerAsks = () => {
    if (redirector === undefined || server === undefined) return
    const asks = redirector.readAsks(MAX_ASKS_AT_ONCE)
    for (const ask of asks) answer(redirector, server, ask)
    if (asks.length === MAX_ASKS_AT_ONCE) setImmediate(tryTo, answerAsks)
  }
  const endRefusals = () => {
    const nowMs = clock.monotonicMs()
    for (const [netns, untilMs] of refusals) {
      if (nowMs < untilMs) continue
      refusals.delete(netns)
      redirector?.withdraw(netns)
    }
  }
  const closeDeaf = () => {
    for (const each of served.values()) tryTo(() => env.isListening(each.fd) || close(each))
  }
  const closeEmpty = () => {
    const lost = [...served.values()].filter((each) => env.namespaceOf(each.pid) !== each.inode)
    if (lost.length === 0) return
    const inhabitants = findInhabitants(env)
    for (const each of lost) {
      const pid = inhabitants.get(each.inode)
      if (pid === undefined) close(each)
      else each.pid = pid
    }
  }
  const close = ({ netns, inode, listener }: Served) => {
    served.delete(netns)
    try {
      // First no more connects, then no listener.
      redirector?.setServed(netns, false)
    } finally {
      store.drop(netns)
      listener[Symbol.dispose]()
    }
    log.debug(`Network namespace ${inode} is not served any more`)
  }
  const closeAll = () => {
    for (const each of served.values()) tryTo(() => close(each))
  }
  /** What the kernel refuses here is told; what is still to be done is tried again with the next look. */
  const tryTo = (action: () => void) => {
    try {
      action()
    } catch (error) {
      if (toldLately.ask('', describeError(error)) === undefined) return
      log.error(`Cannot look after network namespaces: ${describeError(error)}`)
    }
  }
  return {
    async run(signal) {
      while (!signal.aborted) {
        for (const task of [answerAsks, endRefusals, closeDeaf, closeEmpty]) tryTo(task)
        const isWoken = bell !== undefined || redirector === undefined
        await clock.sleep(isWoken ? LOOK_INTERVAL_MS : LOOK_INTERVAL_WITHOUT_BELL_MS, signal)
      }
    },
    setServer(next) {
      if (next !== server) closeAll()
      server = next
      if (next !== undefined) tryTo(() => adoptInherited(next))
      tryTo(answerAsks)
    },
    setRedirector(next) {
      bell?.[Symbol.dispose]()
      refusals.clear()
      redirector = next
      bell = undefined
      if (next === undefined) return
      for (const each of served.values()) tryTo(() => serve(next, each))
      tryTo(() => {
        bell = next.watchAsks(() => tryTo(answerAsks))
        answerAsks()
      })
    },
    state: () => ({ served: served.size, refused: { ...refused } }),
  }
}

/** The thread's own namespace counts; a thread that has gone leaves that of its process. */
function findNamespace(env: ContainersEnv, { pid, tid }: NetnsAsk): NetworkNamespace {
  if (tid === 0 || tid === pid) return env.openNamespace(`/proc/${pid}/ns/net`)
  try {
    return env.openNamespace(`/proc/${pid}/task/${tid}/ns/net`)
  } catch {
    return env.openNamespace(`/proc/${pid}/ns/net`)
  }
}

/** One process of each network namespace that has any, by inode. */
function findInhabitants(env: ContainersEnv): Map<number, number> {
  const found = new Map<number, number>()
  for (const pid of env.pids()) {
    const inode = env.namespaceOf(pid)
    if (inode !== undefined && !found.has(inode)) found.set(inode, pid)
  }
  return found
}

function classify(error: unknown): Refusal {
  if (!(error instanceof AgentError)) return 'error'
  if (error.code === 'TOO_MANY_NETNS') return 'limit'
  if (error.code === 'NETNS_LOOPBACK_DOWN') return 'loopback_down'
  if (error.code === 'NETNS_NOT_OPENED' || error.code === 'NETNS_IS_ANOTHER') return 'not_found'
  return error.code === 'LISTEN_REFUSED' && error.facts.errno === 'EADDRINUSE' ? 'port_taken' : 'error'
}

const REFUSED: Readonly<Record<Exclude<Refusal, 'not_found'>, (error: unknown) => string>> = {
  limit: () => 'as many are served as may be, of this user or of all',
  port_taken: () => `port ${LISTENER.port} is taken there`,
  loopback_down: () => 'its loopback interface is down',
  error: describeError,
}
