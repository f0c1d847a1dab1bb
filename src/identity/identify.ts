/**
 * Turns a connection record into a `Caller`: the kernel's word, checked against the process that is there now.
 *
 * The record was made inside connect(2); we read /proc later. In between the process may have exited, its pid may have
 * been given away, or it may have become another program by exec. So the start time must be the recorded one and the
 * executable must be the recorded inode; otherwise the executable is unknown. uid and gid are the kernel's and stand.
 */

import { type ConnectionRecord, isSameStart } from '../ebpf/records.ts'
import { type Caller, UNDEFINED_TEXT } from './caller.ts'
import { renderCommandLine } from './command-line.ts'
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
  const exe = view.executable()
  const commandLine = () => {
    const vector = view.commandLine()
    return vector === undefined ? UNDEFINED_TEXT : renderCommandLine(vector)
  }
  if (exe === undefined)
    return { exePath: undefined, commandLine: commandLine(), doubt: 'the executable cannot be read' }
  if (exe.inode !== record.exeInode || exe.device !== BigInt(record.exeDevice)) {
    return {
      exePath: undefined,
      commandLine: UNDEFINED_TEXT,
      doubt: 'the process runs another program than when it connected',
    }
  }
  const path = exe.path.endsWith(DELETED) ? exe.path.slice(0, -DELETED.length) : exe.path
  if (!isHostMount(record, namespaces) && !isHostFile(path, record, proc)) {
    const doubt = `the executable '${path}' lies in another mount namespace and is not the host's file of that name`
    return { exePath: undefined, commandLine: commandLine(), doubt }
  }
  return { exePath: path, commandLine: commandLine(), doubt: undefined }
}

/** The kernel's mark of a replaced or removed file. The inode was verified, so the name in front of it was its name. */
const DELETED = ' (deleted)'

/** In these namespaces only root decides what stands at a path. */
function isHostMount({ mountNamespace }: ConnectionRecord, { hostMount, ownMount }: HostNamespaces): boolean {
  return mountNamespace !== 0 && (mountNamespace === hostMount || mountNamespace === ownMount)
}

/** A sandboxed service sees the host's files in a mount namespace of its own: the very file proves itself. */
function isHostFile(path: string, record: ConnectionRecord, proc: ProcReader): boolean {
  return proc.hostFiles(path).some((file) => file.inode === record.exeInode && file.device === BigInt(record.exeDevice))
}
