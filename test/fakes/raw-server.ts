/** A server on loopback that answers with the bytes it is given and keeps the bytes it received. */

import { createServer, type Socket } from 'node:net'
import type { TestContext } from 'node:test'

export interface RawServer {
  readonly port: number
  /** What each connection sent, byte for byte, one character for one byte, in the order of connecting. */
  readonly received: readonly string[]
  /** Sockets in the order of connecting. */
  readonly sockets: readonly Socket[]
}

/**
 * Listens on an ephemeral port until test `t` ends. Each connection whose request is whole, by its content-length, is
 * handed to `answer`, which writes to the socket and ends it, or does not.
 */
export async function startRawServer(
  t: TestContext,
  answer: (socket: Socket, request: string) => void,
): Promise<RawServer> {
  const received: string[] = []
  const sockets: Socket[] = []
  const server = createServer((socket) => {
    const index = sockets.push(socket) - 1
    received.push('')
    let isAnswered = false
    socket.on('error', () => undefined)
    socket.on('data', (chunk: Buffer) => {
      received[index] += chunk.toString('latin1')
      if (isAnswered || !isWhole(received[index] as string)) return
      isAnswered = true
      answer(socket, received[index] as string)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { port: (server.address() as { port: number }).port, received, sockets }
}

/** Renders an answer with an exact content-length. */
export function rawAnswer(status: string, body: string | Buffer, ...headers: string[]): Buffer {
  const bytes = Buffer.from(body)
  const head = [`HTTP/1.1 ${status}`, `content-length: ${bytes.length}`, ...headers, '', ''].join('\r\n')
  return Buffer.concat([Buffer.from(head, 'latin1'), bytes])
}

/** Finds a loopback port where nobody listens, by letting the system choose one and giving it back. */
export async function findClosedPort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}

function isWhole(request: string): boolean {
  const headEnd = request.indexOf('\r\n\r\n')
  if (headEnd === -1) return false
  const length = /^content-length: *(\d+)/im.exec(request.slice(0, headEnd))?.[1]
  return request.length >= headEnd + 4 + Number(length ?? 0)
}
