/**
 * Takes the requests of one connection in turn.
 *
 * A client may write its next request before the last one was answered. The parser hands all of them over at once; run
 * side by side, a GET could overtake the PUT before it, and what follows a refusal that ends the connection would be
 * carried although its answer can never arrive.
 *
 * What waits is held in memory. When it weighs more than a handful of small requests, the socket is not read any further
 * until the line is empty: then a connection holds `MAX_WAITING_BYTES` and what one read brought (64 KiB), whatever its
 * client sends. While the socket rests, a client that leaves is noticed only when its next answer is written; the
 * limits of the request in work hold meanwhile. That is why small requests do not make it rest.
 * Source: RFC 9112 section 9.3.2.
 */

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { announcedBytes } from './body.ts'

export interface Turns {
  /** Starts a request when all before it are over, and never when the connection ends first. */
  take(response: ServerResponse, start: () => void): void
  /** Runs `last` when all requests are over, and takes no more. */
  end(last: () => void): void
  /** The request being answered; `undefined` while there is none. */
  current(): ServerResponse | undefined
  /** The latest request taken and not over; may be the current one. */
  latest(): ServerResponse | undefined
}

/**
 * Requests a connection may have waiting. More come only in one read of very small ones, since the socket rests long
 * before; clients that pipeline send a handful.
 */
const MAX_WAITING = 64

/** Weight of waiting requests from which on the socket is not read. */
const MAX_WAITING_BYTES = 16 * 1024

/** What a request weighs besides its text: the objects that stand for it. */
const REQUEST_BYTES = 1024

interface Turn {
  readonly response: ServerResponse
  readonly start: () => void
  /** 0 for one that did not have to wait. */
  readonly weightBytes: number
}

/** Makes the turns of a connection that is not closed yet. */
export function createTurns(socket: Socket): Turns {
  let turns: Turn[] = []
  let waitingBytes = 0
  let last: (() => void) | undefined
  const rest = createRest(socket)
  const next = () => {
    turns.shift()
    waitingBytes -= turns[0]?.weightBytes ?? 0
    if (!socket.writable) turns = []
    else if (turns[0] !== undefined) turns[0].start()
    else last?.()
    if (turns.length <= 1) rest.end()
  }
  socket.once('close', () => {
    turns = []
  })
  return {
    take(response, start) {
      if (last !== undefined || !socket.writable) return
      if (turns.length > MAX_WAITING) {
        socket.destroy()
        return
      }
      const weightBytes = turns.length === 0 ? 0 : weigh(response.req)
      turns.push({ response, start, weightBytes })
      response.once('close', next)
      if (turns.length === 1) return start()
      waitingBytes += weightBytes
      if (waitingBytes > MAX_WAITING_BYTES) rest.begin()
    },
    end(run) {
      last ??= run
      if (turns.length === 0) run()
    },
    current: () => turns[0]?.response,
    latest: () => turns.at(-1)?.response,
  }
}

/** Estimates the memory that a waiting request takes. A body of unknown length counts as too much. */
function weigh(request: IncomingMessage): number {
  let bytes = REQUEST_BYTES + (request.url?.length ?? 0) + (announcedBytes(request) ?? MAX_WAITING_BYTES)
  for (const text of request.rawHeaders) bytes += text.length
  return bytes
}

interface Rest {
  begin(): void
  end(): void
}

/**
 * Keeps a socket from being read. `pause()` alone does not: `node:http` resumes the socket whenever it wants the rest
 * of a request, or an answer has drained, and begins to read again on the `resume` event. It does so before us.
 */
function createRest(socket: Socket): Rest {
  let isResting = false
  let isListening = false
  const stay = () => {
    if (isResting) socket.pause()
  }
  return {
    begin() {
      isResting = true
      if (!isListening) socket.on('resume', stay)
      isListening = true
      socket.pause()
    },
    end() {
      if (!isResting) return
      isResting = false
      socket.resume()
    },
  }
}
