/** Who opened a connection: what rules are matched against, and what logs and summaries say. */

import { cutList, cutUtf8, MAX_GROUPS_BYTES, MAX_PATH_BYTES } from '../base/text.ts'

/**
 * A caller, fixed for the life of its connection.
 *
 * uid, gid and pid come from the kernel at the moment of connect(2). The executable is given only when the process that
 * is there now is proven to be the one that connected, still running the same file; otherwise it is unknown and no
 * rule that names an executable matches.
 */
export interface Caller {
  readonly uid: number
  readonly gid: number
  /** `undefined` as a text when the system knows no such user, as existing tools expect. */
  readonly userName: string
  /** Names of the user's groups in the order of their numbers. */
  readonly groups: readonly string[]
  /** Process id in the agent's own pid namespace; 0 when it has none there. */
  readonly pid: number
  /** Path of the executable; `undefined`: unknown. */
  readonly exePath: string | undefined
  /** Last component of the path; `undefined`: unknown. */
  readonly processName: string | undefined
  /** First four arguments, redacted, escaped and cut. For people only. `undefined` as a text when unreadable. */
  readonly commandLine: string
  /** Root, as far as the host is concerned: uid 0 of the initial user namespace. */
  readonly elevated: boolean
  /** Where it runs; each is `undefined` when there is none or it is not known. See cgroup.ts. */
  readonly cgroupPath: string | undefined
  readonly systemdUnit: string | undefined
  readonly containerId: string | undefined
  /** SHA-256 of the executable, lower case; `undefined` while no rule asks for one, and when it cannot be told. */
  readonly exeSha256: string | undefined
  /** Namespaces it lives in that are not those of the machine, as far as they were recorded. */
  readonly foreignNamespaces: readonly ('mount' | 'user' | 'pid')[]
  /** Peer address of the connection and port, host byte order. */
  readonly clientAddress: string
  readonly clientPort: number
  /** Why the executable is unknown, for the log; `undefined` when it is known. */
  readonly doubt: string | undefined
}

/** Name and command line of what cannot be found out; a contract with readers of logs and status documents. */
export const UNDEFINED_TEXT = 'undefined'

/** A user can make cgroups with long names below his own. */
const MAX_CGROUP_PATH_BYTES = 512

/** Names of groups and the path of a program are cut so that the claims fit into a line of the log. */

/** As container engines print an id; a log takes the whole of it for a secret. */
const SHORT_ID = 12

/** Renders the claims as one JSON line, members in the order that existing tools read, ours behind them. */
export function claimsJson(caller: Caller): string {
  return JSON.stringify({
    userId: caller.uid,
    userName: caller.userName,
    userGroups: cutList(caller.groups, MAX_GROUPS_BYTES),
    processId: caller.pid,
    processName: caller.processName ?? '',
    processFullPath: cutUtf8(caller.exePath ?? '', MAX_PATH_BYTES, '...'),
    processCmdLine: caller.commandLine,
    runAsElevated: caller.elevated,
    clientIp: caller.clientAddress,
    clientPort: caller.clientPort,
    cgroupPath: cutUtf8(caller.cgroupPath ?? '', MAX_CGROUP_PATH_BYTES, '...'),
    containerId: caller.containerId?.slice(0, SHORT_ID) ?? '',
    foreignNamespaces: caller.foreignNamespaces,
  })
}
