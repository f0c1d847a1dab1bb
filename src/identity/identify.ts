/**
 * Turns a connection record into a `Caller`: the kernel's word, checked against the process that is there now.
 *
 * The record was made inside connect(2); we read /proc later. In between the process may have exited, its pid may have
 * been given away, or it may have become another program by exec. So the start time must be the recorded one, the
 * executable must be the recorded inode, and its path must be the host's (executable.ts); otherwise the executable is
 * unknown. uid and gid are the kernel's and stand.
 */

import { type ConnectionRecord, isSameStart } from '../ebpf/records.ts'
import { type Caller, UNDEFINED_TEXT } from './caller.ts'
import { renderCommandLine } from './command-line.ts'
import { nameExecutable } from './executable.ts'
import type { HostNamespaces, ProcessView, ProcReader } from './process.ts'
import type { UserDirectory } from './users.ts'

/** What identification calls of the world. */
export interface IdentityEnv {
  readonly proc: ProcReader
  readonly users: UserDirectory
  readonly namespaces: HostNamespaces
}

export interface IdentityOptions {
  /** Whether root inside a container counts as root. */
  readonly containerRootIsElevated: boolean
}

/** Inode number of the initial user namespace. Source: include/linux/proc_ns.h, PROC_USER_INIT_INO. */
const INITIAL_USER_NAMESPACE = 0xeffffffd

interface ProcessFacts {
  readonly exePath: string | undefined
  readonly commandLine: string
  readonly doubt: string | undefined
}

/**
 * Identifies who made the connection. Reads /proc at once, before the first await, so that call it when accepting.
 * Never rejects: what is not known says so in the result.
 * @param peer address and port as accepted, port in host byte order.
 */
export async function identify(
  record: ConnectionRecord,
  peer: { readonly address: string; readonly port: number },
  env: IdentityEnv,
  options: IdentityOptions,
): Promise<Caller> {
  const facts = readProcess(record, env.proc, env.namespaces)
  const names = await env.users.lookUp(record.uid)
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

function readProcess(record: ConnectionRecord, proc: ProcReader, namespaces: HostNamespaces): ProcessFacts {
  const unknown = (doubt: string) => ({ exePath: undefined, commandLine: UNDEFINED_TEXT, doubt })
  if (record.reduced) return unknown('the kernel gives no type data to record the executable with')
  using view = proc.open(record.pid)
  if (view === undefined) return unknown('the process is gone')
  const ticks = view.startTicks()
  if (ticks === undefined || !isSameStart(record, ticks))
    return unknown('the process id belongs to another process by now')
  return readExecutable(record, view, proc, namespaces)
}

function readExecutable(
  record: ConnectionRecord,
  view: ProcessView,
  proc: ProcReader,
  namespaces: HostNamespaces,
): ProcessFacts {
  const commandLine = () => {
    const vector = view.commandLine()
    return vector === undefined ? UNDEFINED_TEXT : renderCommandLine(vector)
  }
  const unknown = (doubt: string) => ({ exePath: undefined, commandLine: commandLine(), doubt })
  const exe = view.executable()
  if (exe === undefined) return unknown('the executable cannot be read')
  const name = nameExecutable(exe, record, proc.host, namespaces)
  if (name.kind === 'known') return { exePath: name.path, commandLine: commandLine(), doubt: undefined }
  if (name.kind === 'unknown') return unknown(name.doubt)
  return {
    exePath: undefined,
    commandLine: UNDEFINED_TEXT,
    doubt: 'the process runs another program than when it connected',
  }
}
