/**
 * Reads the head of a request: what is asked, and how its body is framed. What could be read in two ways is refused.
 * Source: RFC 9112 sections 3 and 6.
 */

import { type Fields, parseFields, parseLength } from './fields.ts'

/** A request as it was received. Text is latin1: one character, one byte. */
export interface RequestHead {
  readonly method: string
  /** With a fragment, if there was one. */
  readonly target: string
  /** Whether it is HTTP/1.0. */
  readonly isOld: boolean
  readonly rawHeaders: Fields
  /** Announced size of the body; 0: it has none; `undefined`: it comes in chunks. */
  readonly bodyBytes: number | undefined
  /** Value of the `expect` header. */
  readonly expect: string | undefined
  /** Whether the client wants the connection to stay open. */
  readonly keepsOpen: boolean
}

/** A request that is answered before anybody looks at what it asks. */
export interface Refusal {
  readonly status: 400 | 431
  /** For the log: a fixed sentence, without a word of the client. */
  readonly detail: string
}

const REQUEST_LINE = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~\x80-\xff]+) HTTP\/(\d)\.(\d)$/

/** Reads `head`, the text of a head without its empty line. */
export function parseRequest(head: string, maxHeaders: number): RequestHead | Refusal {
  const found = head.indexOf('\r\n')
  const lineEnd = found === -1 ? head.length : found
  const line = REQUEST_LINE.exec(found === -1 ? head : head.slice(0, found))
  if (line === null) return refuse('it does not begin with a request line')
  const [, method = '', target = '', major, minor] = line
  if (major !== '1' || (minor !== '0' && minor !== '1'))
    return refuse('its version of HTTP is none that is spoken here')
  const rawHeaders = parseFields(head, lineEnd + 2)
  if (rawHeaders === undefined) return refuse('a header is malformed')
  if (rawHeaders.length > 2 * maxHeaders) return { status: 431, detail: `it has more than ${maxHeaders} headers` }
  const isOld = minor === '0'
  const known = readKnown(rawHeaders)
  if (known === undefined) return refuse('it frames its body or names its host more than once')
  const { host, length, encoding, expect, connection } = known
  if (host === undefined && !isOld) return refuse('it names no host')
  // HTTP/1.0 knows no chunks: the next hop might take them for the body itself.
  if (encoding !== undefined && isOld) return refuse('an HTTP/1.0 request encodes its body')
  const announced = length === undefined ? 0 : parseLength(length)
  if (announced === undefined) return refuse('the length of its body is no number')
  return {
    method,
    target,
    isOld,
    rawHeaders,
    bodyBytes: encoding === undefined ? announced : undefined,
    expect,
    keepsOpen: isOld
      ? hasWord(connection, 'keep-alive') && !hasWord(connection, 'close')
      : !hasWord(connection, 'close'),
  }
}

/** Finds the last value of a header. @param lowerName in lower case */
export function findHeader(rawHeaders: Fields, lowerName: string): string | undefined {
  for (let i = rawHeaders.length - 2; i >= 0; i -= 2) {
    const name = rawHeaders[i] as string
    if (name.length === lowerName.length && name.toLowerCase() === lowerName) return rawHeaders[i + 1]
  }
  return undefined
}

interface Known {
  host: string | undefined
  length: string | undefined
  encoding: string | undefined
  expect: string | undefined
  connection: string
}

/** @returns `undefined` when the body is framed in two ways or with an encoding of another name, or the host is named twice. */
function readKnown(rawHeaders: Fields): Known | undefined {
  const known: Known = { host: undefined, length: undefined, encoding: undefined, expect: undefined, connection: '' }
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] as string
    const value = rawHeaders[i + 1] as string
    // The length of a name tells most of them apart.
    switch (name.length) {
      case 4:
        if (name.toLowerCase() !== 'host') break
        if (known.host !== undefined) return undefined
        known.host = value
        break
      case 6:
        if (name.toLowerCase() === 'expect') known.expect = value
        break
      case 10:
        if (name.toLowerCase() === 'connection') known.connection += `,${value}`
        break
      case 14:
        if (name.toLowerCase() !== 'content-length') break
        if (known.length !== undefined) return undefined
        known.length = value
        break
      case 17:
        if (name.toLowerCase() !== 'transfer-encoding') break
        if (known.encoding !== undefined || value.toLowerCase() !== 'chunked') return undefined
        known.encoding = value
        break
    }
  }
  return known.length !== undefined && known.encoding !== undefined ? undefined : known
}

function hasWord(list: string, word: string): boolean {
  return (
    list !== '' &&
    list
      .toLowerCase()
      .split(',')
      .some((each) => each.trim() === word)
  )
}

function refuse(detail: string): Refusal {
  return { status: 400, detail }
}
