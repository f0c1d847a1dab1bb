/** A host on loopback that shows the bytes it received and answers with the bytes it is told. */

import { createServer, type Socket } from 'node:net'

/** One request as it stood on the wire. Text is latin1: one character, one byte. */
export interface HostCall {
  /** Counts the connections of this host from 1. */
  readonly connection: number
  readonly method: string
  readonly target: string
  /** Request line and headers as received, without the empty line. */
  readonly head: string
  /** Names and values in turn, as received. */
  readonly rawHeaders: readonly string[]
  /** After transfer decoding. */
  readonly body: Buffer
  readonly socket: Socket
  /** Writes an answer with a `content-length`. */
  answer(status: number, headers: Readonly<Record<string, string>>, body?: string): void
}

export interface RawHost {
  readonly port: number
  /** All requests that arrived whole. */
  readonly calls: HostCall[]
  /** Body bytes received, those of requests that are not whole included. */
  bodyBytes(): number
  /** Connections accepted so far. */
  connections(): number
  /** Connections that have ended, on either side. */
  closed(): number
  /** What to do with a request; 200 with the body `ok` at first. */
  onCall(script: (call: HostCall) => void): void
  /** What to do as soon as a head has arrived. */
  onHead(script: (head: string, socket: Socket) => void): void
  close(): Promise<void>
}

/** Starts a host on an ephemeral loopback port. @param keepsBodies false: bodies are counted and not kept. */
export async function startRawHost(keepsBodies = true): Promise<RawHost> {
  const calls: HostCall[] = []
  const sockets = new Set<Socket>()
  let connections = 0
  let bodyBytes = 0
  let closed = 0
  let onCall = (call: HostCall) => call.answer(200, {}, 'ok')
  let onHead = (_head: string, _socket: Socket): void => undefined

  const server = createServer((socket) => {
    const connection = ++connections
    sockets.add(socket)
    socket.on('close', () => {
      sockets.delete(socket)
      closed++
    })
    socket.on('error', () => undefined)
    let head: Head | undefined
    let pieces: Buffer[] = []
    let headText = ''
    let received = 0
    const takeBody = (chunk: Buffer) => {
      bodyBytes += chunk.length
      received += chunk.length
      if (keepsBodies) pieces.push(chunk)
    }
    socket.on('data', (chunk: Buffer) => {
      if (head === undefined) {
        headText += chunk.toString('latin1')
        const end = headText.indexOf('\r\n\r\n')
        if (end === -1) return
        const rest = Buffer.from(headText.slice(end + 4), 'latin1')
        head = parseHead(headText.slice(0, end))
        onHead(head.text, socket)
        takeBody(rest)
      } else takeBody(chunk)
      const whole = wholeBody(head, pieces, received)
      if (whole === undefined) return
      const { method, target, text, rawHeaders } = head
      const call: HostCall = {
        connection,
        method,
        target,
        head: text,
        rawHeaders,
        body: whole,
        socket,
        answer: (status, headers, body = '') => {
          const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
          socket.write(
            `HTTP/1.1 ${status} X\r\n${lines.join('')}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
          )
        },
      }
      head = undefined
      headText = ''
      pieces = []
      received = 0
      calls.push(call)
      onCall(call)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as { port: number }).port,
    calls,
    bodyBytes: () => bodyBytes,
    connections: () => connections,
    closed: () => closed,
    onCall(script) {
      onCall = script
    },
    onHead(script) {
      onHead = script
    },
    async close() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

interface Head {
  readonly text: string
  readonly method: string
  readonly target: string
  readonly rawHeaders: readonly string[]
}

function parseHead(text: string): Head {
  const [line = '', ...fields] = text.split('\r\n')
  const [method = '', target = ''] = line.split(' ')
  const rawHeaders = fields.flatMap((field) => {
    const colon = field.indexOf(':')
    return [field.slice(0, colon), field.slice(colon + 1).trim()]
  })
  return { text, method, target, rawHeaders }
}

/** @returns the body after transfer decoding, `undefined` while some of it is missing. */
function wholeBody(head: Head, pieces: readonly Buffer[], received: number): Buffer | undefined {
  if (/^transfer-encoding: *chunked/im.test(head.text)) return decodeChunks(Buffer.concat(pieces))
  const length = Number(/^content-length: *(\d+)/im.exec(head.text)?.[1] ?? 0)
  return received < length ? undefined : Buffer.concat(pieces)
}

function decodeChunks(wire: Buffer): Buffer | undefined {
  const chunks: Buffer[] = []
  let at = 0
  for (;;) {
    const lineEnd = wire.indexOf('\r\n', at)
    if (lineEnd === -1) return undefined
    const size = Number.parseInt(wire.toString('latin1', at, lineEnd), 16)
    const start = lineEnd + 2
    if (wire.length < start + size + 2) return undefined
    if (size === 0) return Buffer.concat(chunks)
    chunks.push(wire.subarray(start, start + size))
    at = start + size + 2
  }
}
