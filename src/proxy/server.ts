/**
 * The listener: accepts redirected connections, has their requests read strictly, and hands them to the pipeline.
 *
 * The record of a connection is taken the moment it is accepted, before a byte is read: later it might be somebody
 * else's.
 */

import { Socket } from 'node:net'
import { getSystemErrorName } from 'node:util'
import type { InetAddress } from '../base/endpoints.ts'
import { AgentError, describeErrno, describeError } from '../base/errors.ts'
import { parseRequestTarget } from '../base/request-target.ts'
import { type ListenerSockets, startAccepting } from './acceptor.ts'
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
   * @param fd is owned by the server from now on; closed, should this throw
   * @param netns cookie of that namespace, handed to `stages.attribute()` with each connection
   * @throws SyscallError or AgentError when the runtime cannot watch it
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

/** Connections that may wait to be accepted. */
export const BACKLOG = 4096

/** Where all connections are read into: what arrives is handed on within the call, and who keeps of it copies it. */
const READ_BUFFER = Buffer.allocUnsafeSlow(64 * 1024)

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
  const closed = Promise.withResolvers<void>()
  /** Descriptor of the socket that `listen` has bound. */
  let main: number | undefined

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

  const accept = (fd: number, peer: InetAddress | undefined, netns: bigint | undefined) => {
    if (open.size >= options.maxConnections) {
      stages.observer.listenerFailed(`${options.maxConnections} connections are open, no more fit`)
      return stages.sockets.close(fd)
    }
    const id = ++lastConnectionId
    if (peer === undefined) {
      // The client has reset it before we came to accept it: there is nobody to answer, and no source to look up.
      const facts = openConnection(id, { address: '', port: 0 }, undefined)
      stages.observer.dismissed(facts, undefined, 'Closed a connection: its client had left already')
      return stages.sockets.close(fd)
    }
    const attribution = stages.attribute(peer, fd, netns)
    const facts = openConnection(id, peer, attribution)
    const socket = openSocket(fd, (bytes) => connection.take(bytes))
    if (typeof socket === 'string') {
      stages.observer.listenerFailed(socket)
      return stages.sockets.close(fd)
    }
    const connection = new ServerConnection(socket, options, monotonicMs, {
      onRequest: (turn) => serve(facts, turn),
      onRefused: (status, detail) =>
        stages.observer.rejected(facts, status, `ProxyListener serve_connection error: ${detail}`),
    })
    open.set(socket, { facts, connection })
    socket.once('close', () => {
      open.delete(socket)
      settle()
    })
    const doubt = attribution === undefined ? 'no record of a redirected connection' : undefined
    stages.observer.connected(facts, doubt)
    takeShare(socket, attribution?.uid)
    if (isClosing) connection.finish()
  }

  /** Sockets that listen, by descriptor; each closes with its entry. */
  const listeners = new Map<number, Disposable>()
  const closeListener = (fd: number) => {
    const accepting = listeners.get(fd)
    if (accepting === undefined) return
    listeners.delete(fd)
    accepting[Symbol.dispose]()
    if (fd === main) {
      main = undefined
      closed.resolve()
      settle()
    }
    stages.sockets.close(fd)
  }
  /** @returns ends it @throws when the runtime cannot watch it; it is closed then */
  const startListening = (fd: number, netns: bigint | undefined): Disposable => {
    try {
      const accepting = startAccepting(fd, stages.sockets, {
        onConnection: (connected, peer) => accept(connected, peer, netns),
        // A connection that cannot be accepted must not end the agent.
        onRefused: (errno) => stages.observer.listenerFailed(describeErrno(errno)),
        onLost() {
          // The descriptor of another keeps its number until who adopted it lets go: it may be a name for it elsewhere.
          if (fd === main) closeListener(fd)
        },
      })
      listeners.set(fd, accepting)
      return {
        [Symbol.dispose]: () => {
          // By now the number may be that of another.
          if (listeners.get(fd) === accepting) closeListener(fd)
        },
      }
    } catch (error) {
      stages.sockets.close(fd)
      throw error
    }
  }
  /** Ends what ends with the last connection, after the listener. */
  const settle = () => {
    if (main !== undefined || open.size > 0) return
    clearInterval(timer)
    if (isClosing) emptied.resolve()
  }

  const intervalMs = Math.min(CHECK_INTERVAL_MS, options.headTimeoutMs / 4, options.idleTimeoutMs / 4)
  const expire = () => {
    const nowMs = monotonicMs()
    for (const { connection } of open.values()) connection.expire(nowMs)
  }
  let timer: NodeJS.Timeout | undefined

  return {
    async listen(address, port, inherited) {
      const fd = inherited ?? stages.sockets.listen(address, port, BACKLOG)
      if (fd < 0) {
        const message = `IO error: Failed to bind TcpListener '${address}:${port}': ${describeErrno(fd)}`
        throw new AgentError('LISTEN_FAILED', message, { errno: getSystemErrorName(fd) })
      }
      if (inherited !== undefined) checkInherited(fd, stages.sockets, address, port)
      startListening(fd, undefined)
      main = fd
      timer = setInterval(expire, intervalMs)
    },
    adopt: startListening,
    descriptor: () => main,
    openConnections: () => open.size,
    closed: closed.promise,
    async close(graceMs) {
      isClosing = true
      for (const fd of [...listeners.keys()]) closeListener(fd)
      settle()
      for (const { connection } of open.values()) connection.finish()
      const cut = setTimeout(() => {
        for (const socket of open.keys()) socket.destroy()
      }, graceMs)
      await emptied.promise
      clearTimeout(cut)
    },
  }
}

/** @param onRead its bytes are used again afterwards @returns why there is none: the descriptor is the caller's then */
function openSocket(fd: number, onRead: (bytes: Buffer) => void): Socket | string {
  const callback = (length: number) => {
    onRead(READ_BUFFER.subarray(0, length))
    return true
  }
  try {
    // What a client still sends after its last answer is read, also when it has ended its side: see the connection.
    return new Socket({ fd, allowHalfOpen: true, onread: { buffer: READ_BUFFER, callback } })
  } catch (error) {
    return describeError(error)
  }
}

/** @throws AgentError `LISTEN_FAILED` when a descriptor that was handed over, closed then, is not the listener that is wanted */
function checkInherited(fd: number, sockets: ListenerSockets, address: string, port: number): void {
  try {
    const bound = sockets.boundTo(fd)
    if (bound.address === address && bound.port === port) return
    const message = `The listener that was handed over is at ${bound.address}:${bound.port}, not ${address}:${port}`
    throw new AgentError('LISTEN_FAILED', message)
  } catch (error) {
    sockets.close(fd)
    throw error
  }
}
