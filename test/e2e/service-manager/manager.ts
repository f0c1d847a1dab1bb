/** A service manager as far as a service sees it: a notify socket, and what came over it. */

import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Machine } from '../machine.ts'

export interface Message {
  readonly pid: string
  readonly lines: readonly string[]
  /** Milliseconds of `performance.now`. */
  readonly atMs: number
}

export interface Manager {
  readonly messages: readonly Message[]
  /** Messages that have `line` in them. */
  count(line: string): number
  /** The last of the lines that begin with `name=`, without that. */
  last(name: string): string | undefined
}

/** Starts to listen on `address`: a path, or `@` and a name. Ends with the machine. */
export async function startManager(machine: Machine, address: string): Promise<Manager> {
  const script = join(import.meta.dirname, 'listen.py')
  const child = machine.lab.spawn('/usr/bin/python3', [script, address], { inCgroup: false })
  const messages: Message[] = []
  const lines = createInterface({ input: child.stdout })
  lines.on('line', (line) => {
    const [pid = '', ...rest] = JSON.parse(line) as string[]
    messages.push({ pid, lines: rest, atMs: performance.now() })
  })
  await once(lines, 'line')
  messages.shift()
  return {
    messages,
    count: (line) => messages.filter((message) => message.lines.includes(line)).length,
    last: (name) =>
      messages
        .flatMap((message) => message.lines)
        .findLast((line) => line.startsWith(`${name}=`))
        ?.slice(name.length + 1),
  }
}
