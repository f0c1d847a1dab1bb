/**
 * A host that answers each request as its `x-answer` header tells it: `node told-host.ts ADDRESS:PORT …`, in a namespace that
 * has the addresses. It prints `ready`. So whoever asks knows what was answered, down to the byte, and nothing is shared.
 */

import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { deflateRawSync, inflateRawSync } from 'node:zlib'
import { type RequestHead, RequestReader } from '../fabric/http-reader.ts'

/** A `HostScript` as JSON, deflated, since a head has its limit, and in base64. */
export const ANSWER_HEADER = 'x-answer'

export interface HostScript {
  /** Whether the answer comes before the body of the request was read. */
  readonly isEarly?: boolean
  readonly steps: readonly HostStep[]
}

/** What to do, one after the other. Text is latin1. */
export type HostStep =
  | { readonly write: string; readonly times?: number }
  /** Answer 200 and tell the request as JSON, see `Echo`. */
  | { readonly echo: true }
  /** Answer 200 and tell as JSON the methods and targets of the last thousand requests, in order of their heads. */
  | { readonly tellAll: true }
  | { readonly pauseMs: number }
  | { readonly end: 'close' | 'reset' }
  /** Read no more of the request. */
  | { readonly stopReading: true }
  /** Read nothing for so long, then what has come. */
  | { readonly restMs: number }

/** A request as it stood on the wire. */
export interface Echo {
  readonly method: string
  readonly target: string
  readonly minorVersion: number
  readonly rawHeaders: readonly string[]
  /** Latin1, after transfer decoding. */
  readonly body: string
  /** Counts the connections of this host from 1, and the requests on this one. */
  readonly connection: number
  readonly nth: number
}

/** Writes a script as the value of the header. */
export function encodeScript(script: HostScript): string {
  return deflateRawSync(JSON.stringify(script)).toString('base64')
}

let connections = 0
let all: string[] = []

function serve(socket: Socket): void {
  const connection = ++connections
  const reader = new RequestReader()
  let nth = 0
  let head: RequestHead | undefined
  let pieces: Buffer[] = []
  let doing = Promise.resolve()
  const act = (about: RequestHead, body: string) => {
    const script = scriptOf(about)
    const echo = { ...about, body, connection, nth } satisfies Echo & RequestHead
    doing = doing.then(() => perform(socket, script, echo)).catch(() => void socket.destroy())
  }
  socket.on('error', () => socket.destroy())
  socket.on('data', (bytes: Buffer) => {
    reader.push(bytes)
    for (let event = reader.next(); event !== undefined; event = reader.next()) {
      if (event.kind === 'head') {
        nth++
        head = event.head
        all = [...all.slice(-999), `${head.method} ${head.target}`]
        pieces = []
        if (scriptOf(head).isEarly) act(head, '')
      } else if (event.kind === 'body') pieces.push(event.bytes)
      else if (event.kind === 'end' && head !== undefined) {
        if (!scriptOf(head).isEarly) act(head, Buffer.concat(pieces).toString('latin1'))
      } else {
        // What the agent sends is sound: whoever asked finds this in place of an answer.
        socket.end(
          `HTTP/1.1 599 Malformed\r\nContent-Length: 0\r\nX-Reason: ${(event as { reason: string }).reason}\r\n\r\n`,
        )
        return
      }
    }
  })
}

function scriptOf({ rawHeaders }: RequestHead): HostScript {
  const at = rawHeaders.findIndex((name, i) => i % 2 === 0 && name.toLowerCase() === ANSWER_HEADER)
  if (at === -1) return { steps: [{ echo: true }] }
  return JSON.parse(inflateRawSync(Buffer.from(rawHeaders[at + 1] as string, 'base64')).toString()) as HostScript
}

async function perform(socket: Socket, { steps }: HostScript, echo: Echo & RequestHead): Promise<void> {
  for (const step of steps) {
    if (socket.destroyed) return
    if ('write' in step) await write(socket, Buffer.from(step.write.repeat(step.times ?? 1), 'latin1'))
    else if ('echo' in step) {
      const { method, target, minorVersion, rawHeaders, body, connection, nth } = echo
      const told: Echo = { method, target, minorVersion, rawHeaders, body, connection, nth }
      await write(socket, jsonAnswer(told))
    } else if ('tellAll' in step) await write(socket, jsonAnswer(all))
    else if ('pauseMs' in step) await sleep(step.pauseMs)
    else if ('stopReading' in step) socket.pause()
    else if ('restMs' in step) {
      socket.pause()
      await sleep(step.restMs)
      socket.resume()
      await sleep(10)
    } else if (step.end === 'reset') socket.resetAndDestroy()
    else socket.end()
  }
}

function jsonAnswer(value: unknown): Buffer {
  const text = Buffer.from(JSON.stringify(value))
  const top = `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${text.length}\r\n\r\n`
  return Buffer.concat([Buffer.from(top), text])
}

async function write(socket: Socket, bytes: Buffer): Promise<void> {
  if (socket.write(bytes)) return
  await new Promise<void>((resolve) => {
    const done = () => {
      socket.off('drain', done)
      socket.off('close', done)
      resolve()
    }
    socket.once('drain', done)
    socket.once('close', done)
  })
}

if (import.meta.main) {
  for (const address of process.argv.slice(2)) {
    const [host, port] = address.split(':')
    const server = createServer({ noDelay: true }, serve).listen({ host, port: Number(port), backlog: 4096 })
    await once(server, 'listening')
  }
  process.stdout.write('ready\n')
}
