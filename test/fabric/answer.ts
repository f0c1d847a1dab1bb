/** What the host answers: a status, headers and a body, before anything is done to it on the wire. */

/** A body made of a repeated pattern, written as fast as the reader takes it and never held whole. */
export interface PatternBody {
  readonly patternSizeBytes: number
}

export interface Answer {
  readonly status: number
  /** name, value pairs; `Date`, `Content-Length` and `Connection` are added when the answer is sent. */
  readonly headers: readonly (readonly [string, string])[]
  readonly body: Buffer | PatternBody
}

/** What an endpoint sees of a request: read, recorded and let in. */
export interface HostRequest {
  readonly method: string
  readonly target: string
  /** Lower case, still percent-encoded, without a query. */
  readonly path: string
  /** Decoded names in lower case and decoded values, in order, repeated ones included. */
  readonly query: readonly (readonly [string, string])[]
  readonly rawHeaders: readonly string[]
  /** Empty for an upload that is only counted. */
  readonly body: Buffer
  readonly bodySizeBytes: number
  /** Hexadecimal; empty for an empty body. */
  readonly bodySha256: string
}

export const XML_TYPE = 'text/xml; charset=utf-8'
export const JSON_TYPE = 'application/json; charset=utf-8'
export const TEXT_TYPE = 'text/plain; charset=utf-8'

const NO_BODY = Buffer.alloc(0)

export function emptyAnswer(status: number, headers: readonly (readonly [string, string])[] = []): Answer {
  return { status, headers, body: NO_BODY }
}

export function textAnswer(status: number, contentType: string, text: string): Answer {
  return { status, headers: [['Content-Type', contentType]], body: Buffer.from(text) }
}

export function jsonAnswer(status: number, value: unknown): Answer {
  return textAnswer(status, JSON_TYPE, JSON.stringify(value))
}

/** Answers 405 with the methods that would have been right. */
export function wrongMethod(...allowed: string[]): Answer {
  return emptyAnswer(405, [['Allow', allowed.join(', ')]])
}

/** Splits and decodes a query; what cannot be decoded stays as it is. */
export function parseQuery(query: string): readonly (readonly [string, string])[] {
  if (query === '') return []
  return query
    .split('&')
    .filter((piece) => piece !== '')
    .map((piece) => {
      const mark = piece.indexOf('=')
      const name = mark === -1 ? piece : piece.slice(0, mark)
      return [decode(name).toLowerCase(), mark === -1 ? '' : decode(piece.slice(mark + 1))] as const
    })
}

/** Returns the values given for `name` (lower case), in order. */
export function queryValues(request: HostRequest, name: string): string[] {
  return request.query.filter(([key]) => key === name).map(([, value]) => value)
}

/** Parses JSON; `undefined` when it is none. */
export function parseJson(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString())
  } catch {
    return undefined
  }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    return text
  }
}
