/**
 * Connections to the guarded services that were opened before redirection began: they go around the agent for as long as
 * they last. They are told, and ended where the configuration says so; whoever held one connects again, and then is redirected.
 *
 * Looked for each time redirection of a destination begins, after it has begun, so that none is missed. The agent's own
 * connections to the host are told apart by what this process holds. Only this network namespace is seen.
 */

import type { InetAddress } from '../base/endpoints.ts'
import type { Log } from '../base/log.ts'
import type { Destruction } from '../sys/destroy-socket.ts'
import { TCP_STATE, type TcpSocket } from '../sys/tcp-table.ts'

/** What is called of the world. */
export interface StaleConnectionsEnv {
  /** @throws when the table cannot be read */
  readSockets(): readonly TcpSocket[]
  /** Of the sockets of this process. */
  ownInodes(): ReadonlySet<string>
  /** Who holds a socket, by inode. */
  findHolders(inodes: ReadonlySet<string>): ReadonlyMap<string, string>
  destroy(socket: TcpSocket): Destruction
}

/** In these a request can still be sent. */
const LIVING: ReadonlySet<number> = new Set([TCP_STATE.established, TCP_STATE.synSent, TCP_STATE.closeWait])

/** Each is a line in the log. */
const MAX_TOLD = 20

/**
 * Looks for connections to `destinations` that are not ours, and tells of them.
 * @param close whether to end them
 * @throws when the table of connections cannot be read
 */
export function handleStaleConnections(
  destinations: readonly InetAddress[],
  close: boolean,
  env: StaleConnectionsEnv,
  log: Log,
): void {
  const isOurs = env.ownInodes()
  const stale = env
    .readSockets()
    .filter(
      ({ state, remote, inode }) =>
        LIVING.has(state) &&
        !isOurs.has(inode) &&
        destinations.some(({ address, port }) => address === remote.address && port === remote.port),
    )
  if (stale.length === 0) return
  const told = stale.slice(0, MAX_TOLD)
  // Who holds one is asked before it is ended.
  const holders = env.findHolders(new Set(told.map(({ inode }) => inode)))
  const fates = stale.map((socket) => (close ? describeFate(env.destroy(socket)) : 'left as it is'))
  for (const [index, socket] of told.entries()) {
    const { local, remote, uid, inode } = socket
    log.warn(
      `A connection from before redirection goes around the agent: ${remote.address}:${remote.port} from port ${local.port}, ` +
        `user id ${uid}, held by ${holders.get(inode) ?? 'nobody to be seen'}: ${fates[index]}`,
    )
  }
  if (stale.length > told.length) log.warn(`There are ${stale.length - told.length} more such connections`)
  if (!close) log.warn('Set closeStaleConnections in the configuration to have such connections ended')
}

function describeFate(fate: Destruction): string {
  switch (fate.kind) {
    case 'ended':
      return 'ended'
    case 'gone':
      return 'it had ended already'
    case 'refused':
      return `it cannot be ended: ${fate.because}`
  }
}
