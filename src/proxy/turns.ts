/**
 * Takes the requests of one connection in turn.
 *
 * A client may write its next request before the last one was answered. The parser hands all of them over at once; run
 * side by side, a GET could overtake the PUT before it, and what follows a refusal that ends the connection would be
 * carried although its answer can never arrive.
 * Source: RFC 9112 section 9.3.2.
 */

import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

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

/** Requests a connection may have waiting. Clients that pipeline send a handful. */
const MAX_WAITING = 64

interface Turn {
  readonly response: ServerResponse
  readonly start: () => void
}

/** Makes the turns of a connection that is not closed yet. */
export function createTurns(socket: Socket): Turns {
  let turns: Turn[] = []
  let last: (() => void) | undefined
  const next = () => {
    turns.shift()
    if (!socket.writable) turns = []
    else if (turns[0] !== undefined) turns[0].start()
    else last?.()
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
      turns.push({ response, start })
      response.once('close', next)
      if (turns.length === 1) start()
    },
    end(run) {
      last ??= run
      if (turns.length === 0) run()
    },
    current: () => turns[0]?.response,
    latest: () => turns.at(-1)?.response,
  }
}
