/** Finds out which process listens on a TCP port, to say so when it is ours that is taken. */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

const LISTEN_STATE = '0A'

/**
 * Describes the process that listens on `port` in this network namespace, such as `python3 (pid 4711)`.
 * @param port host byte order
 * @returns `undefined` when there is none, or it cannot be seen from here
 * Source: proc_net(5) /proc/net/tcp; proc_pid_fd(5).
 */
export function describePortHolder(port: number): string | undefined {
  const inode = findListenInode(readFileSync('/proc/net/tcp', 'latin1'), port)
  if (inode === undefined) return undefined
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid) || !holdsSocket(pid, inode)) continue
    let name = '?'
    try {
      name = readFileSync(`/proc/${pid}/comm`, 'utf8').trim()
    } catch {
      // Gone between two reads: the number still helps.
    }
    return `${name} (pid ${pid})`
  }
  return undefined
}

/** Finds the inode of the listening socket in the text of /proc/net/tcp; ports there are hexadecimal, host order. */
export function findListenInode(table: string, port: number): string | undefined {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  for (const line of table.split('\n')) {
    const fields = line.trim().split(/\s+/)
    if (fields[3] === LISTEN_STATE && fields[1]?.endsWith(suffix)) return fields[9]
  }
  return undefined
}

function holdsSocket(pid: string, inode: string): boolean {
  try {
    const folder = `/proc/${pid}/fd`
    return readdirSync(folder).some((fd) => readlinkSync(`${folder}/${fd}`) === `socket:[${inode}]`)
  } catch {
    return false
  }
}
