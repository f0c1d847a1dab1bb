/**
 * The answers the agent makes itself. A refusal closes the connection and says no more than its status does (405 and 413
 * carry the fixed words of the contract): what was wrong is for the log of the machine's owner, not for the caller.
 */

import type { Turn } from './http1/server-connection.ts'

export interface Answer {
  readonly status: number
  /** Names and values in turn, lower case. */
  readonly headers: readonly string[]
  readonly body: string
  /** Whether the connection ends with this answer. */
  readonly isLast: boolean
}

const TEXT = ['content-type', 'text/plain; charset=utf-8'] as const

export const ALLOWED_METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'] as const

export const DONE = closed(200)
export const BAD_REQUEST = closed(400)
export const FORBIDDEN = closed(403)
/** A request without an attribution record: a direct connection, or a redirected one whose record was lost. */
export const MISDIRECTED = closed(421)
export const REQUEST_TIMEOUT = closed(408)
export const TOO_MUCH_OVERHEAD = closed(431)
export const INTERNAL_ERROR = closed(500)
export const BAD_GATEWAY = closed(502)
export const SERVICE_UNAVAILABLE = closed(503)

export const METHOD_NOT_ALLOWED: Answer = {
  status: 405,
  headers: ['allow', ALLOWED_METHODS.join(', '), ...TEXT],
  body: 'Method Not Allowed',
  isLast: true,
}

/** The log's sentence for a method that is refused. */
export function unsupportedMethod(method: string): string {
  return `Rejected unsupported HTTP method '${method}'`
}

export const CONTENT_TOO_LARGE: Answer = { status: 413, headers: TEXT, body: 'length limit exceeded', isLast: true }

/** A JSON document on a connection that stays open. `body` is text that is JSON already. */
export function jsonAnswer(body: string): Answer {
  return { status: 200, headers: ['content-type', 'application/json; charset=utf-8'], body, isLast: false }
}

/** Sends `answer`, if no other was sent and the client is still there. */
export function sendAnswer(turn: Turn, { status, headers, body, isLast }: Answer): void {
  turn.answer(status, headers, Buffer.from(body, 'utf8'), isLast)
}

function closed(status: number): Answer {
  return { status, headers: [], body: '', isLast: true }
}
