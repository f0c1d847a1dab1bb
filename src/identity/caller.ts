/** Who opened a connection: what rules are matched against, and what logs and summaries say. */

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
  /** Peer address of the connection and port, host byte order. */
  readonly clientAddress: string
  readonly clientPort: number
  /** Why the executable is unknown, for the log; `undefined` when it is known. */
  readonly doubt: string | undefined
}

/** Name and command line of what cannot be found out; a contract with readers of logs and status documents. */
export const UNDEFINED_TEXT = 'undefined'

/** Renders the claims as one JSON line, members in the order that existing tools read. */
export function claimsJson(caller: Caller): string {
  return JSON.stringify({
    userId: caller.uid,
    userName: caller.userName,
    userGroups: caller.groups,
    processId: caller.pid,
    processName: caller.processName ?? '',
    processFullPath: caller.exePath ?? '',
    processCmdLine: caller.commandLine,
    runAsElevated: caller.elevated,
    clientIp: caller.clientAddress,
    clientPort: caller.clientPort,
  })
}
