/**
 * The TCP sockets of this network namespace, as /proc/net/tcp and tcp6 list them, and who holds them.
 *
 *     sl  local_address rem_address   st tx:rx tr:when retrnsmt   uid  timeout inode …
 *      0: 0100007F:0C08 00000000:0000 0A …                          0        0 12345 …
 *
 * Addresses are words in the byte order of the machine, which is little-endian wherever we run.
 * Source: proc_net(5); kernel net/ipv4/tcp_ipv4.c, `get_tcp4_sock()`; net/tcp_states.h.
 */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

/** The states that somebody here asks for. */
export const TCP_STATE = { established: 1, synSent: 2, closeWait: 8, listen: 10 } as const

export interface TcpSocket {
  /** Whether the socket is of the IPv6 family; its addresses are given as IPv4 all the same. */
  readonly isIpv6: boolean
  readonly local: TcpAddress
  readonly remote: TcpAddress
  /** One of `TCP_STATE`, or another number. */
  readonly state: number
  /** Of who made it. */
  readonly uid: number
  /** Names it in /proc/PID/fd; `0` when no process holds it. */
  readonly inode: string
}

/** Dotted IPv4, and a port in host byte order. */
export interface TcpAddress {
  readonly address: string
  readonly port: number
}

/** Lists the sockets with IPv4 addresses, also those of the IPv6 family that use mapped ones. @throws Error from open(2) */
export function readTcpSockets(): TcpSocket[] {
  return [
    ...parseTcpTable(readFileSync('/proc/net/tcp', 'latin1'), false),
    ...parseTcpTable(readIfThere('/proc/net/tcp6'), true),
  ]
}

/** Reads the text of one of the two tables. What has an IPv6 address that is not a mapped one is left out. */
export function parseTcpTable(table: string, isIpv6: boolean): TcpSocket[] {
  return table.split('\n').flatMap((line) => {
    const [, localText = '', remoteText = '', state = '', , , , uid, , inode] = line.trim().split(/\s+/)
    const [local, remote] = [parseAddress(localText), parseAddress(remoteText)]
    if (local === undefined || remote === undefined || inode === undefined) return []
    return { isIpv6, local, remote, state: Number.parseInt(state, 16), uid: Number(uid), inode }
  })
}

/** Lists the sockets that this process holds, by inode. */
export function ownSocketInodes(): ReadonlySet<string> {
  return new Set(socketsOf('self'))
}

/**
 * Finds out who holds the sockets with these inodes, such as `curl (pid 4711)`; one that nobody is seen to hold is absent.
 * Looks at the descriptors of every process, which takes milliseconds.
 * Source: proc_pid_fd(5).
 */
export function findSocketHolders(inodes: ReadonlySet<string>): Map<string, string> {
  const found = new Map<string, string>()
  if (inodes.size === 0) return found
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue
    for (const inode of socketsOf(pid)) {
      if (inodes.has(inode) && !found.has(inode)) found.set(inode, `${nameOf(pid)} (pid ${pid})`)
    }
    if (found.size === inodes.size) break
  }
  return found
}

function parseAddress(text: string): TcpAddress | undefined {
  const match = /^(?:0{16}FFFF0000)?([0-9A-F]{8}):([0-9A-F]{4})$/.exec(text)
  if (match === null) return undefined
  const bytes = Buffer.from(match[1] as string, 'hex').reverse()
  return { address: bytes.join('.'), port: Number.parseInt(match[2] as string, 16) }
}

function socketsOf(pid: string): string[] {
  try {
    const folder = `/proc/${pid}/fd`
    return readdirSync(folder).flatMap((fd) => /^socket:\[(\d+)\]$/.exec(linkOf(`${folder}/${fd}`))?.[1] ?? [])
  } catch {
    return [] // gone, or not for us to see
  }
}

/** A descriptor may be closed between two looks. */
function linkOf(path: string): string {
  try {
    return readlinkSync(path)
  } catch {
    return ''
  }
}

function nameOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim()
  } catch {
    return '?' // gone between two reads: the number still helps
  }
}

/** Without IPv6 there is no table of it. */
function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return ''
  }
}
