/**
 * Keeps the control socket: in a directory that is root's alone to change, private from the start, one agent's at a time.
 *
 * A socket file outlives a process that was killed. It is replaced only when nobody answers behind it, and in one step: the
 * new one is bound under another name, made private, and renamed.
 */

import type { Stats } from 'node:fs'
import { chmod, lstat, mkdir, rename, unlink } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { dirname } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { aborted } from '../base/clock.ts'
import { describeError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import type { ControlServer } from '../proxy/control-server.ts'
import { INITIAL_USER_NAMESPACE, readNamespaceId } from '../sys/process.ts'
import { fdOfSocket, readPeerCredentials } from '../sys/socket.ts'

const FIRST_RETRY_MS = 1000
const MAX_RETRY_MS = 60_000
const DIRECTORY_MODE = 0o755
const SOCKET_MODE = 0o600
const WRITABLE_BY_OTHERS = 0o022

/**
 * Binds `server` to `path` and keeps it there until `signal` is aborted; then the file is removed. What is in the way is
 * told once and looked at again later. Never rejects.
 */
export async function keepControlSocket(
  path: string,
  server: ControlServer,
  clock: Clock,
  log: Log,
  signal: AbortSignal,
): Promise<void> {
  let retryMs = FIRST_RETRY_MS
  let lastFailure = ''
  while (!signal.aborted) {
    try {
      const bound = await bind(path, server)
      await aborted(signal)
      await removeOwn(path, bound)
      break
    } catch (error) {
      const failure = `Cannot offer the control socket ${path}: ${describeError(error)}`
      if (failure !== lastFailure) log.warn(failure)
      lastFailure = failure
    }
    await clock.sleep(retryMs, signal)
    retryMs = Math.min(retryMs * 2, MAX_RETRY_MS)
  }
  await server.close()
}

/** Binds and puts in place. @returns the file, to know it again */
async function bind(path: string, server: ControlServer): Promise<Stats> {
  const directory = dirname(path)
  await mkdir(directory, { recursive: true, mode: DIRECTORY_MODE })
  const { uid, mode } = await lstat(directory)
  if (uid !== 0 || (mode & WRITABLE_BY_OTHERS) !== 0) {
    throw new Error(`${directory} is not root's, or others may write there`)
  }
  await refuseOccupied(path)
  const fresh = `${path}.new`
  await unlink(fresh).catch(ignoreMissing)
  await server.listen(fresh)
  try {
    await chmod(fresh, SOCKET_MODE)
    const bound = await lstat(fresh)
    await rename(fresh, path)
    return bound
  } catch (error) {
    await server.close()
    throw error
  }
}

/** @throws Error unless `path` is free, or a socket behind which nobody listens */
async function refuseOccupied(path: string): Promise<void> {
  const there = await lstat(path).catch(ignoreMissing)
  if (there === undefined) return
  if (!there.isSocket()) throw new Error('something that is no socket is there')
  if (await isAnswered(path)) throw new Error('another process listens there')
}

function isAnswered(path: string): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>()
  const socket = connect({ path })
  socket.on('connect', () => resolve(true))
  // A socket whose queue is full is somebody's; only a refusal proves that nobody is there.
  socket.on('error', (error: NodeJS.ErrnoException) =>
    resolve(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'),
  )
  return promise.finally(() => socket.destroy())
}

/** Another agent may have put its own there. */
async function removeOwn(path: string, bound: Stats): Promise<void> {
  const there = await lstat(path).catch(() => undefined)
  if (there?.ino === bound.ino && there.dev === bound.dev) await unlink(path).catch(() => undefined)
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error
}

/**
 * Says why the client behind `socket` may not ask; `undefined` when it is root of the initial user namespace. The kernel
 * gives the user in our numbers; a root of another user namespace can still be user 0 in them, hence the second look. Its
 * process may be gone by then: a client that does not wait for its answer gets none.
 */
export function findObjection(socket: Socket): string | undefined {
  try {
    const { pid, uid } = readPeerCredentials(fdOfSocket(socket))
    if (uid !== 0) return 'this is for root alone'
    if (readNamespaceId('user', pid) === INITIAL_USER_NAMESPACE) return undefined
    return 'this is for root of the initial user namespace alone'
  } catch (error) {
    return `who asks cannot be told: ${describeError(error)}`
  }
}
