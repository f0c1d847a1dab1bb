/** A client that writes exactly the bytes it is given and shows the bytes that came back. Text is latin1. */

import { connect, type Socket } from 'node:net'

/** One answer taken out of the bytes received. */
export interface ClientAnswer {
  readonly status: number
  /** Status line and headers, as received. */
  readonly head: string
  /** By lower-case name; of doubles the last. */
  readonly headers: Readonly<Record<string, string>>
  /** After transfer decoding. */
  readonly body: string
  /** False when the connection ended inside the body. */
  readonly isWhole: boolean
}

export interface RawClient {
  readonly socket: Socket
  write(bytes: string | Uint8Array): void
  /** Resolves with the first `count` answers, or with fewer when the connection ends. @throws when neither happens. */
  answers(count: number, withinMs?: number): Promise<ClientAnswer[]>
  /** Resolves when the other side has ended the connection. */
  readonly ended: Promise<'closed' | 'reset'>
  received(): string
  destroy(): void
}

export interface RawClientOptions {
  /** The methods asked, since the answer to HEAD has no body whatever it says. */
  readonly methods?: readonly string[]
  /** Address to connect from. */
  readonly localAddress?: string
}

/** Connects to a loopback port. */
export function connectClient(port: number, options: RawClientOptions = {}): RawClient {
  const { methods = [], localAddress } = options
  const socket = connect({ host: '127.0.0.1', port, ...(localAddress === undefined ? {} : { localAddress }) })
  let text = ''
  let hasEnded = false
  const waiting = new Set<() => void>()
  const wake = () => {
    for (const each of waiting) each()
  }
  const ended = new Promise<'closed' | 'reset'>((resolve) => {
    const end = (how: 'closed' | 'reset') => {
      hasEnded = true
      resolve(how)
      wake()
    }
    socket.on('end', () => end('closed'))
    socket.on('error', () => end('reset'))
    socket.on('close', () => end('closed'))
  })
  socket.on('data', (chunk) => {
    text += chunk.toString('latin1')
    wake()
  })
  return {
    socket,
    ended,
    write: (bytes) => void (typeof bytes === 'string' ? socket.write(bytes, 'latin1') : socket.write(bytes)),
    received: () => text,
    destroy: () => socket.destroy(),
    answers: (count, withinMs = 5000) =>
      new Promise((resolve, reject) => {
        const look = () => {
          const found = parseAnswers(text, methods, hasEnded)
          if (!hasEnded && (found.length < count || found.some((answer) => !answer.isWhole))) return
          clearTimeout(timer)
          waiting.delete(look)
          resolve(found.slice(0, count))
        }
        const timer = setTimeout(() => {
          waiting.delete(look)
          reject(new Error(`no ${count} answers after ${withinMs} ms, only: ${JSON.stringify(text)}`))
        }, withinMs)
        waiting.add(look)
        look()
      }),
  }
}

/** Takes answers apart. The last one may not be whole. */
function parseAnswers(text: string, methods: readonly string[], hasEnded: boolean): ClientAnswer[] {
  const found: ClientAnswer[] = []
  let at = 0
  while (text.includes('\r\n\r\n', at)) {
    const headEnd = text.indexOf('\r\n\r\n', at)
    const head = text.slice(at, headEnd)
    const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(head)?.[1])
    at = headEnd + 4
    if (status < 200) continue
    const headers = Object.fromEntries(
      head
        .split('\r\n')
        .slice(1)
        .map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]),
    )
    const rest = text.slice(at)
    const isBodiless = methods[found.length] === 'HEAD' || status === 204 || status === 304
    const { body, isWhole, length } = isBodiless
      ? { body: '', isWhole: true, length: 0 }
      : parseBody(rest, headers, hasEnded)
    found.push({ status, head, headers, body, isWhole })
    at += length
  }
  return found
}

function parseBody(
  rest: string,
  headers: Readonly<Record<string, string>>,
  hasEnded: boolean,
): { body: string; isWhole: boolean; length: number } {
  if (headers['transfer-encoding'] === 'chunked') return parseChunks(rest)
  const announced = headers['content-length']
  if (announced === undefined) return { body: rest, isWhole: hasEnded, length: rest.length }
  const length = Math.min(Number(announced), rest.length)
  return { body: rest.slice(0, length), isWhole: length === Number(announced), length }
}

function parseChunks(rest: string): { body: string; isWhole: boolean; length: number } {
  const body: string[] = []
  let at = 0
  for (;;) {
    const lineEnd = rest.indexOf('\r\n', at)
    const size = lineEnd === -1 ? Number.NaN : Number.parseInt(rest.slice(at, lineEnd), 16)
    if (Number.isNaN(size)) return { body: body.join(''), isWhole: false, length: rest.length }
    const start = lineEnd + 2
    body.push(rest.slice(start, start + size))
    at = start + size + 2
    if (at > rest.length) return { body: body.join(''), isWhole: false, length: rest.length }
    if (size === 0) return { body: body.join(''), isWhole: true, length: at }
  }
}
