/**
 * A process in the lab with many connections: `node crowd-client.ts CROWD`, `CROWD` as JSON. Each line on standard input is
 * something that all of them do, see `CrowdDeed`; each is answered by one line of JSON, a `CrowdState`.
 */

import { connect, type Socket } from 'node:net'
import { createInterface } from 'node:readline'

export interface Crowd {
  readonly to: { readonly host: string; readonly port: number }
  readonly count: number
}

export type CrowdDeed =
  /** Connect, and wait until all are connected or refused. */
  | { readonly open: true }
  /** Write on each, and wait until each has read an answer of this text, or has ended. Text is latin1. */
  | { readonly ask: string; readonly until: string; readonly withinMs: number }
  /** Write on each, and wait for nothing. From then on nothing is read, if so asked. */
  | { readonly write: string; readonly isDeaf?: boolean }
  /** Say how it stands. */
  | { readonly look: true }

export interface CrowdState {
  readonly open: number
  /** Of the last `ask`: how many were answered, and how long that took, in milliseconds. */
  readonly answered: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly mostMs: number
}

interface Member {
  readonly socket: Socket
  received: string
  isOpen: boolean
  wake: () => void
}

const crowd = JSON.parse(process.argv[2] as string) as Crowd
const members: Member[] = []

function join(): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect({ ...crowd.to, noDelay: true })
    const member: Member = { socket, received: '', isOpen: true, wake: resolve }
    members.push(member)
    const leave = () => {
      member.isOpen = false
      member.wake()
    }
    socket.on('connect', () => member.wake())
    socket.on('data', (bytes) => {
      member.received += bytes.toString('latin1')
      member.wake()
    })
    socket.on('error', leave)
    socket.on('end', leave)
    socket.on('close', leave)
  })
}

/** @returns how long the answer took, `undefined` when there was none */
function ask(member: Member, text: string, until: string, withinMs: number): Promise<number | undefined> {
  return new Promise((resolve) => {
    const startMs = performance.now()
    const finish = (tookMs: number | undefined) => {
      clearTimeout(timer)
      member.wake = () => undefined
      resolve(tookMs)
    }
    const timer = setTimeout(() => finish(undefined), withinMs)
    member.received = ''
    member.wake = () => {
      if (member.received.includes(until)) finish(performance.now() - startMs)
      else if (!member.isOpen) finish(undefined)
    }
    if (member.isOpen) member.socket.write(text, 'latin1')
    member.wake()
  })
}

async function act(deed: CrowdDeed): Promise<number[]> {
  if ('open' in deed) {
    // The kernel's queue of the listener is not endless.
    for (let left = crowd.count; left > 0; left -= 200)
      await Promise.all(Array.from({ length: Math.min(left, 200) }, join))
  } else if ('ask' in deed) {
    const took = await Promise.all(members.map((member) => ask(member, deed.ask, deed.until, deed.withinMs)))
    return took.filter((each) => each !== undefined)
  } else if ('write' in deed)
    for (const { socket, isOpen } of members) {
      if (deed.isDeaf) socket.pause()
      if (isOpen) socket.write(deed.write, 'latin1')
    }
  return []
}

for await (const line of createInterface({ input: process.stdin })) {
  const took = (await act(JSON.parse(line) as CrowdDeed)).sort((a, b) => a - b)
  const at = (share: number) => Math.round(took[Math.min(took.length - 1, Math.floor(took.length * share))] ?? 0)
  const open = members.filter(({ isOpen }) => isOpen).length
  const state: CrowdState = { open, answered: took.length, p50Ms: at(0.5), p99Ms: at(0.99), mostMs: at(1) }
  process.stdout.write(`${JSON.stringify(state)}\n`)
}
process.exit(0)
