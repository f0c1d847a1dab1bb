/**
 * Messages on their way to the service manager. Any local user can fill its socket, so what it has no room for waits here, and
 * is tried again until it has been taken: words before descriptors, since a missing beat ends the service.
 *
 * What waits is bounded: of each word the last one, and of each descriptor what the manager shall have and what it has
 * taken. A message that fails for another reason is told once and given up; only what it shall not have any more is tried
 * again with the next message, for what it keeps lives on.
 */

import type { Log } from '../base/log.ts'
import type { NotifySocket } from '../sys/notify-socket.ts'

/** The messages without a descriptor. */
export type Word = 'READY' | 'RELOADING' | 'STOPPING' | 'STATUS' | 'WATCHDOG'

export interface Outbox {
  /** Sends it now, or as soon as there is room. */
  say(word: Word, text: string): void
  /** Whether `READY` has been taken. */
  isReady(): boolean
  /** Leaves a descriptor with the manager, which must be open until it is dropped. */
  keep(name: string, descriptor: number): void
  drop(name: string): void
  /** From now on what cannot be left at once is given up: the service closes it without a word. */
  stopWaiting(): void
}

export interface OutboxEnv {
  /** Microseconds of CLOCK_MONOTONIC. */
  readonly monotonicUs: () => bigint
  /** Calls `action` after `ms`, if the process lives that long for other reasons. */
  readonly later: (action: () => void, ms: number) => void
}

/** The manager's socket has no room, or the kernel none. Source: unix(7), send(2). */
const NO_ROOM: ReadonlySet<string | undefined> = new Set(['EAGAIN', 'ENOBUFS'])

const RETRY_MS = 20

/** A manager that is busy for a moment is not worth a word. */
const NO_ROOM_TOLD_AFTER_US = 1_000_000n

/** Stands for a descriptor that the manager has and shall not have. */
const TAKEN_BACK = -1

/**
 * Makes an empty one.
 * @param socket without it nothing is sent
 * @param inherited what the manager has already, by name
 */
export function createOutbox(
  socket: NotifySocket | undefined,
  inherited: ReadonlyMap<string, number>,
  log: Log,
  env: OutboxEnv,
): Outbox {
  const words = new Map<Word, string>()
  const descriptors = createDescriptors(inherited)
  let isReady = false
  let isStopping = false
  let isRetrying = false
  let noRoomSinceUs: bigint | undefined
  let lastFailure: string | undefined

  const tell = (failure: string | undefined) => {
    if (failure !== undefined && failure !== lastFailure) log.warn(`The service manager does not listen: ${failure}`)
    lastFailure = failure
  }
  /** @returns whether the next message may be tried */
  const hadRoom = (failure: string | undefined) => {
    if (!NO_ROOM.has(failure)) {
      noRoomSinceUs = undefined
      tell(failure)
      return true
    }
    const nowUs = env.monotonicUs()
    noRoomSinceUs ??= nowUs
    if (nowUs - noRoomSinceUs >= NO_ROOM_TOLD_AFTER_US) tell(`${failure}, what it is to be told waits`)
    if (!isRetrying) env.later(retry, RETRY_MS)
    isRetrying = true
    return false
  }
  const retry = () => {
    isRetrying = false
    drain()
  }
  const drain = () => {
    if (socket === undefined) return
    for (const [word, text] of words) {
      const failure = socket.send(text)
      if (!hadRoom(failure)) return
      words.delete(word)
      if (word === 'READY' && failure === undefined) isReady = true
    }
    for (const name of descriptors.unsettled) if (!hadRoom(descriptors.settle(socket, name))) return
  }
  return {
    say(word, text) {
      // To the end: what was said last counts.
      words.delete(word)
      words.set(word, text)
      drain()
    },
    isReady: () => isReady,
    keep(name, descriptor) {
      descriptors.keep(name, descriptor)
      drain()
      if (isStopping) descriptors.giveUp()
    },
    drop(name) {
      descriptors.drop(name)
      drain()
    },
    stopWaiting() {
      isStopping = true
      descriptors.giveUp()
    },
  }
}

interface Descriptors {
  /** Names about which there may be something to tell. */
  readonly unsettled: ReadonlySet<string>
  /** Tells what is to be told about one. @returns why it could not be */
  settle(socket: NotifySocket, name: string): string | undefined
  keep(name: string, descriptor: number): void
  drop(name: string): void
  /** Does not ask for what has not been taken. */
  giveUp(): void
}

function createDescriptors(inherited: ReadonlyMap<string, number>): Descriptors {
  const wanted = new Map(inherited)
  const held = new Map(inherited)
  const unsettled = new Set<string>()

  const takeBack = (socket: NotifySocket, name: string) => {
    if (!held.has(name)) return undefined
    const failure = socket.send(`FDSTOREREMOVE=1\nFDNAME=${name}`)
    if (failure === undefined) held.delete(name)
    return failure
  }
  const leave = (socket: NotifySocket, name: string, descriptor: number) => {
    const failure = socket.sendWithDescriptor(`FDSTORE=1\nFDNAME=${name}`, descriptor)
    if (failure === undefined) held.set(name, descriptor)
    return failure
  }
  return {
    unsettled,
    settle(socket, name) {
      const descriptor = wanted.get(name)
      let failure: string | undefined
      if (held.get(name) !== descriptor) {
        // Two under one name could not be told apart: first the old one goes.
        failure = takeBack(socket, name)
        if (failure === undefined && descriptor !== undefined) failure = leave(socket, name, descriptor)
      }
      if (!NO_ROOM.has(failure) && held.get(name) !== TAKEN_BACK) unsettled.delete(name)
      return failure
    },
    keep(name, descriptor) {
      wanted.set(name, descriptor)
      unsettled.add(name)
    },
    drop(name) {
      wanted.delete(name)
      if (!held.has(name)) return void unsettled.delete(name)
      // The next one under this name may have the same number.
      held.set(name, TAKEN_BACK)
      unsettled.add(name)
    },
    giveUp() {
      for (const [name, descriptor] of wanted) if (held.get(name) !== descriptor) wanted.delete(name)
    },
  }
}
