/**
 * Turns a connection record into a `Caller`: the kernel's word, checked against the process that is there now.
 *
 * The record was made inside connect(2); we read /proc later. In between the process may have exited, its pid may have
 * been given away, or it may have become another program by exec. So the start time must be the recorded one, the
 * executable must be the recorded inode, and its path must be the host's (executable.ts); otherwise the executable is
 * unknown. uid and gid are the kernel's and stand. What was proven a moment ago of the same process and executable is not
 * proven again: see known-programs.ts.
 */

import type { InetAddress } from '../base/endpoints.ts'
import { type ConnectionRecord, isSameStart } from '../ebpf/records.ts'
import { INITIAL_USER_NAMESPACE } from '../sys/process.ts'
import { type Caller, UNDEFINED_TEXT } from './caller.ts'
import type { Cgroups, Workload } from './cgroup.ts'
import { renderCommandLine } from './command-line.ts'
import type { ContentHashes } from './content-hash.ts'
import { isRecordedLocalFile, nameExecutable } from './executable.ts'
import type { KnownPrograms } from './known-programs.ts'
import type { Executable, HostNamespaces, ProcessView, ProcReader } from './process.ts'
import type { UserDirectory } from './users.ts'

/** What identification calls of the world. */
export interface IdentityEnv {
  readonly proc: ProcReader
  readonly users: UserDirectory
  readonly namespaces: HostNamespaces
  readonly cgroups: Cgroups
  readonly hashes: ContentHashes
  readonly programs: KnownPrograms<ProcessFacts>
  /** Tells whether a rule asks for the hash of an executable. */
  asksForHash(): boolean
  /** When it was that CLOCK_MONOTONIC showed `monotonicNs`, epoch milliseconds. */
  epochMsOf(monotonicNs: bigint): number
}

export interface IdentityOptions {
  /** Whether root inside a container counts as root. */
  readonly containerRootIsElevated: boolean
}

/** What /proc tells of a process. */
export interface ProcessFacts {
  readonly exePath: string | undefined
  readonly commandLine: string
  readonly doubt: string | undefined
  readonly workload: Workload
  /** Of the executable, being computed. */
  readonly hash: Promise<string | undefined> | undefined
}

/**
 * Identifies who made the connection. Reads /proc at once, before the first await, so that call it when accepting.
 * Never rejects: what is not known says so in the result.
 * @param peer address and port as accepted, port in host byte order.
 */
export async function identify(
  record: ConnectionRecord,
  peer: InetAddress,
  env: IdentityEnv,
  options: IdentityOptions,
): Promise<Caller> {
  const facts = findProcess(record, env)
  const [names, exeSha256] = await Promise.all([env.users.lookUp(record.uid), facts.hash])
  return {
    uid: record.uid,
    gid: record.gid,
    userName: names.userName,
    groups: names.groups,
    pid: record.pid,
    exePath: facts.exePath,
    processName: facts.exePath?.slice(facts.exePath.lastIndexOf('/') + 1),
    commandLine: facts.commandLine,
    elevated: isElevated(record, env.namespaces, options),
    ...facts.workload,
    exeSha256,
    foreignNamespaces: findForeignNamespaces(record, env.namespaces),
    clientAddress: peer.address,
    clientPort: peer.port,
    doubt: facts.doubt,
  }
}

/**
 * Tells whether the caller is root as the host means it. The recorded uid is that of the initial user namespace, but
 * uid 0 can be mapped into another one, whose root rules over less: not elevated.
 */
function isElevated(record: ConnectionRecord, namespaces: HostNamespaces, options: IdentityOptions): boolean {
  if (record.uid !== 0) return false
  if (!record.reduced && record.userNamespace !== INITIAL_USER_NAMESPACE) return false
  if (options.containerRootIsElevated) return true
  return !record.reduced && record.pidNamespace !== 0 && record.pidNamespace === namespaces.ownPid
}

/** What was not recorded, or cannot be read, is not called foreign. */
function findForeignNamespaces(record: ConnectionRecord, namespaces: HostNamespaces): Caller['foreignNamespaces'] {
  const { hostMount, ownMount, ownPid } = namespaces
  const known = {
    mount: [hostMount, ownMount],
    user: [INITIAL_USER_NAMESPACE],
    pid: [ownPid],
  } as const
  const recorded = { mount: record.mountNamespace, user: record.userNamespace, pid: record.pidNamespace }
  return (['mount', 'user', 'pid'] as const).filter((kind) => {
    const machines: readonly number[] = known[kind]
    return recorded[kind] !== 0 && !machines.includes(recorded[kind]) && !machines.includes(0)
  })
}

/** The hash of an executable has a memory of its own, which looks at the file. */
function findProcess(record: ConnectionRecord, env: IdentityEnv): ProcessFacts {
  if (env.asksForHash()) return readProcess(record, env)
  const known = env.programs.find(record)
  if (known !== undefined) return known
  const facts = readProcess(record, env)
  if (facts.doubt === undefined) env.programs.remember(record, facts)
  return facts
}

function readProcess(record: ConnectionRecord, env: IdentityEnv): ProcessFacts {
  using view = env.proc.open(record.pid)
  const workload = env.cgroups.find(record.cgroupId, () => view?.cgroup())
  const unknown = (doubt: string) => ({
    exePath: undefined,
    commandLine: UNDEFINED_TEXT,
    doubt,
    workload,
    hash: undefined,
  })
  if (record.reduced) return unknown('the kernel gives no type data to record the executable with')
  if (view === undefined) return unknown('the process is gone')
  const ticks = view.startTicks()
  if (ticks === undefined || !isSameStart(record, ticks))
    return unknown('the process id belongs to another process by now')
  return { ...readExecutable(record, view, env), workload }
}

function readExecutable(record: ConnectionRecord, view: ProcessView, env: IdentityEnv): Omit<ProcessFacts, 'workload'> {
  const readCommandLine = () => {
    const vector = view.commandLine()
    return vector === undefined ? UNDEFINED_TEXT : renderCommandLine(vector)
  }
  const exe = view.executable()
  if (exe === undefined) {
    const doubt = 'the executable cannot be read'
    return { exePath: undefined, commandLine: readCommandLine(), doubt, hash: undefined }
  }
  const name = nameExecutable(exe, record, env.proc.host, env.namespaces)
  if (name.kind === 'replaced') {
    const doubt = 'the process runs another program than when it connected'
    return { exePath: undefined, commandLine: UNDEFINED_TEXT, doubt, hash: undefined }
  }
  const [exePath, doubt] = name.kind === 'known' ? [name.path, undefined] : [undefined, name.doubt]
  return { exePath, commandLine: readCommandLine(), doubt, hash: startHash(exe, record, view, env) }
}

function startHash(
  exe: Executable,
  record: ConnectionRecord,
  view: ProcessView,
  env: IdentityEnv,
): Promise<string | undefined> | undefined {
  if (!env.asksForHash() || !isRecordedLocalFile(exe, record, view.mounts(), env.proc.host)) return undefined
  const fd = exe.open()
  return fd === undefined ? undefined : env.hashes.hash(fd, record.uid, env.epochMsOf(record.recordedAtNs))
}
