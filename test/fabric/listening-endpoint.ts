/** A listener that a test can shut, reopen on the same port, or make rude to new connections. */

import { createServer, type Server, type Socket } from 'node:net'
import type { Address, ListenerMode } from './host-control.ts'

/** One address that can be opened, closed and made to misbehave at the level of connections. */
export class ListeningEndpoint {
  readonly #serve: (socket: Socket, number: number) => void
  readonly #sockets = new Set<Socket>()
  #address: Address
  #server: Server | undefined
  #accepted = 0
  mode: ListenerMode = 'refuse'

  constructor(address: Partial<Address> | undefined, serve: (socket: Socket, number: number) => void) {
    this.#address = { host: address?.host ?? '127.0.0.1', port: address?.port ?? 0 }
    this.#serve = serve
  }

  /** The port is the real one once it has listened; it stays the same when it listens again. */
  get address(): Address {
    return this.#address
  }

  async setMode(mode: ListenerMode): Promise<void> {
    this.mode = mode
    if (mode !== 'normal') for (const socket of this.#sockets) socket.destroy()
    if (mode === 'refuse') await this.#close()
    else if (this.#server === undefined) await this.#listen()
  }

  async #listen(): Promise<void> {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.#accept(socket))
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen({ ...this.#address, backlog: 1024 }, resolve)
    })
    const bound = server.address()
    if (bound !== null && typeof bound === 'object') this.#address = { host: this.#address.host, port: bound.port }
    this.#server = server
  }

  async #close(): Promise<void> {
    const server = this.#server
    this.#server = undefined
    if (server === undefined) return
    await new Promise<void>((resolve) => server.close(() => resolve()))
  }

  #accept(socket: Socket): void {
    if (this.mode === 'close') {
      socket.destroy()
      return
    }
    this.#sockets.add(socket)
    socket.on('close', () => this.#sockets.delete(socket))
    if (this.mode === 'silent') socket.on('error', () => socket.destroy())
    else this.#serve(socket, ++this.#accepted)
  }
}
