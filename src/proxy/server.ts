/**
 * The listener: accepts redirected connections, has their requests read strictly, and hands them to the pipeline.
 *
 * The record of a connection is taken the moment it is accepted, before a byte is read: later it might be somebody
 * else's.
 */

import { createServer, type Server, Socket } from 'node:net'
import { AgentError, describeErrno } from '../base/errors.ts'
import { parseRequestTarget } from '../base/request-target.ts'
import { type ClientConnection, openConnection } from './exchange.ts'
import { type ConnectionLimits, ServerConnection, type Turn } from './http1/server-connection.ts'
import { handleRequest } from './pipeline.ts'
import { createShares } from './shares.ts'
import type { ProxyStages } from './stages.ts'

export interface ProxyServer {
  /**
   * Binds the listener, or goes on with one that is bound there already.
   * @param inherited its descriptor, ours from then on; whoever waits in its queue is served
   * @throws AgentError `LISTEN_FAILED` with the system's code in its facts
   */
  listen(address: string, port: number, inherited?: number): Promise<void>
  /**
   * Accepts connections on another socket that listens, in another network namespace. They count among all others.
   * @param fd is owned by the server from now on
   * @param netns cookie of that namespace, handed to `stages.attribute()` with each connection
   * @returns ends that; connections which have been accepted stay
   */
  adopt(fd: number, netns: bigint): Disposable
  /** Descriptor of the listening socket, for questions to the kernel; `undefined` while not listening. */
  descriptor(): number | undefined
  /** How many connections of clients are open. */
  openConnections(): number
  /** Resolves when the listener has closed, for whatever reason. */
  readonly closed: Promise<void>
  /** Takes no more connections, waits up to `graceMs` for requests in flight, then cuts what is left. */
  close(graceMs: number): Promise<void>
}

export interface ProxyServerOptions extends ConnectionLimits {
  /** Connections at one time; further ones are closed at once. */
  readonly maxConnections: number
  /** Connections of one user at one time, root excepted; see `shares.ts`. */
  readonly maxConnectionsPerUser: number
  /** Of `maxConnections`, those that only root can have. */
  readonly reservedConnections: number
}

/**
 * A connection whose head is not complete holds up to `maxHeadBytes` for `headTimeoutMs`: 32 MiB for one user, 512 MiB
 * for as many users as it takes to use all connections up.
 */
export const PROXY_SERVER_DEFAULTS: ProxyServerOptions = {
  maxConnections: 16_384,
  maxConnectionsPerUser: 1024,
  reservedConnections: 1024,
  maxHeadBytes: 32 * 1024,
  maxHeaders: 100,
  headTimeoutMs: 10_000,
  // Uploads of 100 MiB need some time.
  requestTimeoutMs: 300_000,
  idleTimeoutMs: 60_000,
  // A client that asks and then never reads its answer would hold a connection to the host for ever.
  stallTimeoutMs: 300_000,
}

const LISTENER_OPTIONS = {
  // What a client still sends after its last answer is read, also when it has ended its side: see the connection.
  allowHalfOpen: true,
  noDelay: true,
} as const

/** Connections that may wait to be accepted. */
export const BACKLOG = 4096

/** How many are accepted when the kernel tells of one. Each takes some system calls to know who it is. */
const MAX_ACCEPTED_AT_ONCE = 128

/** How often the time limits of connections are looked at. */
const CHECK_INTERVAL_MS = 1000

/** Makes the server; nothing is bound before `listen`. */
export function createProxyServer(
  stages: ProxyStages,
  monotonicMs: () => number,
  options: ProxyServerOptions = PROXY_SERVER_DEFAULTS,
): ProxyServer {
  const shares = createShares(options.maxConnectionsPerUser, options.maxConnections - options.reservedConnections)
  const open = new Map<Socket, { readonly facts: ClientConnection; readonly connection: ServerConnection }>()
  let lastConnectionId = 0
  let isClosing = false
  /** The last connection has ended, after the end of the listeners. */
  const emptied = Promise.withResolvers<void>()
  const adopted = new Set<Server>()

  /** Counts a connection among those of its user, and closes one that is too much. Root has no share: there is a reserve. */
  const takeShare = (socket: Socket, uid: number | undefined) => {
    if (uid === 0) return
    const surplus = shares.add(uid, socket)
    const client = surplus && open.get(surplus.socket)
    if (client === undefined) return
    const reason = `Closed a connection: the user has ${options.maxConnectionsPerUser} others, or all users have theirs`
    stages.observer.dismissed(client.facts, surplus?.uid === undefined ? undefined : `uid ${surplus.uid}`, reason)
    surplus?.socket.destroy()
  }

  const serve = (connection: ClientConnection, turn: Turn) => {
    const { method, target: rawTarget } = turn.head
    const isExempt = connection.endpoint?.name !== 'imds' && stages.isExemptUpload(method, rawTarget)
    const target = parseRequestTarget(rawTarget)
    const startedAtMs = monotonicMs()
    handleRequest({ connection, turn, method, rawTarget, target, isExempt, id: 0, startedAtMs }, stages)
  }

  const accept = (socket: Socket, netns: bigint | undefined) => {
    if (open.size >= options.maxConnections) {
      stages.observer.listenerFailed(`${options.maxConnections} connections are open, no more fit`)
      socket.destroy()
      return
    }
    const id = ++lastConnectionId
    const { remoteAddress: address, remotePort: port = 0 } = socket
    if (address === undefined) {
      // The client has reset it before we came to accept it: there is nobody to answer, and no source to look up.
      const facts = openConnection(id, { address: '', port }, undefined)
      stages.observer.dismissed(facts, undefined, 'Closed a connection: its client had left already')
      socket.destroy()
      return
    }
    const peer = { address, port }
    const attribution = stages.attribute(peer, socket, netns)
    const facts = openConnection(id, peer, attribution)
    const connection = new ServerConnection(socket, options, monotonicMs, {
      onRequest: (turn) => serve(facts, turn),
      onRefused: (status, detail) =>
        stages.observer.rejected(facts, status, `ProxyListener serve_connection error: ${detail}`),
    })
    open.set(socket, { facts, connection })
    socket.once('close', () => {
      open.delete(socket)
      if (isClosing && open.size === 0) emptied.resolve()
    })
    const doubt = attribution === undefined ? 'no record of a redirected connection' : undefined
    stages.observer.connected(facts, doubt)
    takeShare(socket, attribution?.uid)
    if (isClosing) connection.finish()
  }
  /**
   * Takes connections that wait behind one that was accepted. The event loop takes one a round, in the order in which they
   * came: whoever has opened many, and makes rounds long, would make all others wait for as many rounds.
   */
  const acceptWaiting = (listener: Server, netns: bigint | undefined) => {
    for (let left = MAX_ACCEPTED_AT_ONCE; left > 0; left--) {
      const descriptor = descriptorOf(listener)
      const fd = descriptor === undefined ? undefined : stages.acceptWaiting(descriptor)
      if (fd === undefined) return
      const socket = new Socket({ fd, allowHalfOpen: LISTENER_OPTIONS.allowHalfOpen })
      accept(socket.setNoDelay(LISTENER_OPTIONS.noDelay), netns)
    }
  }
  const createListener = (netns?: bigint) => {
    const listener = createServer(LISTENER_OPTIONS, (socket) => {
      accept(socket, netns)
      acceptWaiting(listener, netns)
    })
    return listener
  }
  const server = createListener()
  // A connection that cannot be accepted, for want of memory or descriptors, must not end the agent.
  const onError = (error: Error) => stages.observer.listenerFailed(error.message)

  const intervalMs = Math.min(CHECK_INTERVAL_MS, options.headTimeoutMs / 4, options.idleTimeoutMs / 4)
  const timer = setInterval(() => {
    const nowMs = monotonicMs()
    for (const { connection } of open.values()) connection.expire(nowMs)
  }, intervalMs).unref()
  server.once('close', () => clearInterval(timer))

  return {
    async listen(address, port, inherited) {
      await listen(server, address, port, inherited)
      server.on('error', onError)
    },
    adopt(fd, netns) {
      const listener = createListener(netns)
      adopted.add(listener)
      listener.once('close', () => adopted.delete(listener))
      listener.on('error', onError)
      listener.listen({ fd, backlog: BACKLOG })
      return { [Symbol.dispose]: () => void listener.close() }
    },
    descriptor: () => descriptorOf(server),
    openConnections: () => open.size,
    closed: new Promise((resolve) => server.once('close', resolve)),
    async close(graceMs) {
      isClosing = true
      if (!server.listening) return
      const closing = [server, ...adopted].map(
        (listener) => new Promise<void>((resolve) => void listener.close(() => resolve())),
      )
      if (open.size === 0) emptied.resolve()
      for (const { connection } of open.values()) connection.finish()
      const cut = setTimeout(() => {
        for (const socket of open.keys()) socket.destroy()
      }, graceMs)
      await Promise.all([...closing, emptied.promise])
      clearTimeout(cut)
    },
  }
}

/** Node keeps it in a private handle. */
function descriptorOf(server: Server): number | undefined {
  return (server as unknown as { _handle?: { fd?: number } })._handle?.fd
}

function listen(server: Server, address: string, port: number, inherited: number | undefined): Promise<void> {
  const source = inherited === undefined ? { host: address, port, exclusive: true } : { fd: inherited }
  return new Promise((resolve, reject) => {
    const onError = (error: NodeJS.ErrnoException) => {
      server.off('listening', onListening)
      reject(
        new AgentError(
          'LISTEN_FAILED',
          `IO error: Failed to bind TcpListener '${address}:${port}': ${error.errno === undefined ? error.message : describeErrno(error.errno)}`,
          { errno: error.code },
        ),
      )
    }
    const onListening = () => {
      server.off('error', onError)
      const bound = server.address()
      const where = typeof bound === 'object' && bound !== null ? `${bound.address}:${bound.port}` : String(bound)
      if (inherited === undefined || where === `${address}:${port}`) return resolve()
      server.close()
      reject(
        new AgentError('LISTEN_FAILED', `The listener that was handed over is at ${where}, not ${address}:${port}`),
      )
    }
    server.once('error', onError)
    server.once('listening', onListening)
    server.listen({ ...source, backlog: BACKLOG })
  })
}
