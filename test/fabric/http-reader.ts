/**
 * Reads HTTP/1 requests from the bytes of one connection and keeps what a witness needs: the target byte for byte,
 * every header line in order of arrival, repeated ones included.
 *
 * The reader is strict where parsers are known to disagree (both framings at once, bare LF, folded lines, space before
 * a colon, an empty line before the request line). Whatever it refuses is a finding about the sender, so it never repairs.
 * Text is latin-1: one character per byte.
 *
 * Source: RFC 9112 sections 2 to 7; RFC 9110 section 5.6.2 (token).
 */

/** How the length of a request body is told. */
export type BodyFraming = { kind: 'none' } | { kind: 'length'; sizeBytes: number } | { kind: 'chunked' }

/** A request line and its header lines. */
export interface RequestHead {
  readonly method: string
  /** As received, never decoded or normalised. */
  readonly target: string
  readonly minorVersion: 0 | 1
  /** name, value, name, value …; white space before a value is removed, white space after it is kept. */
  readonly rawHeaders: readonly string[]
  readonly framing: BodyFraming
  readonly keepAlive: boolean
  /** The value of `Expect`, lower case; empty when there is none. */
  readonly expectation: string
}

/** What the next bytes mean. After `malformed` nothing more is read. */
export type ReaderEvent =
  | { kind: 'head'; head: RequestHead }
  | { kind: 'body'; bytes: Buffer }
  | { kind: 'end' }
  | { kind: 'malformed'; reason: string; head?: RequestHead }

/** Longest request line and header section, in bytes. More than any client of ours sends. */
const MAX_HEAD_BYTES = 64 * 1024
const MAX_CHUNK_LINE_BYTES = 256

const HEAD_END = Buffer.from('\r\n\r\n')
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/
const REQUEST_LINE = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP\/1\.([01])$/
// biome-ignore lint/suspicious/noControlCharactersInRegex: finding control characters is the purpose
const FORBIDDEN_IN_VALUE = /[\x00-\x08\x0a-\x1f\x7f]/

type Expecting = 'head' | 'length' | 'chunk-size' | 'chunk-data' | 'chunk-end' | 'trailers' | 'end' | 'nothing'

/**
 * Turns pushed bytes into events, pulled one at a time. Pulling is what lets a connection leave a pipelined request
 * untouched until the answer to the one before it is out.
 */
export class RequestReader {
  #pending: Buffer = Buffer.alloc(0)
  #expecting: Expecting = 'head'
  #leftBytes = 0
  #head: RequestHead | undefined

  /** Tells whether a request has begun and is not complete: what an early end of the connection would cut off. */
  get isMidRequest(): boolean {
    return this.#expecting !== 'nothing' && (this.#expecting !== 'head' || this.#pending.length > 0)
  }

  push(bytes: Buffer): void {
    this.#pending = this.#pending.length === 0 ? bytes : Buffer.concat([this.#pending, bytes])
  }

  /** Returns the next event, or `undefined` when more bytes are needed. */
  next(): ReaderEvent | undefined {
    for (;;) {
      const before = this.#expecting
      const event = this.#step()
      if (event !== undefined || this.#expecting === before) return event
    }
  }

  #step(): ReaderEvent | undefined {
    switch (this.#expecting) {
      case 'head':
        return this.#readHead()
      case 'length':
        return this.#readPiece('end')
      case 'chunk-size':
        return this.#readChunkSize()
      case 'chunk-data':
        return this.#readPiece('chunk-end')
      case 'chunk-end':
        return this.#readChunkEnd()
      case 'trailers':
        return this.#readTrailers()
      case 'end':
        this.#expecting = 'head'
        return { kind: 'end' }
      case 'nothing':
        return undefined
    }
  }

  #readHead(): ReaderEvent | undefined {
    const end = this.#pending.indexOf(HEAD_END)
    if (end === -1) {
      return this.#pending.length > MAX_HEAD_BYTES ? this.#malformed('header section too large') : undefined
    }
    if (end > MAX_HEAD_BYTES) return this.#malformed('header section too large')
    const text = this.#pending.toString('latin1', 0, end)
    this.#pending = this.#pending.subarray(end + HEAD_END.length)
    const parsed = parseHead(text)
    if (typeof parsed === 'string') return this.#malformed(parsed)
    this.#head = parsed
    if (parsed.framing.kind === 'chunked') this.#expecting = 'chunk-size'
    else if (parsed.framing.kind === 'length' && parsed.framing.sizeBytes > 0) {
      this.#leftBytes = parsed.framing.sizeBytes
      this.#expecting = 'length'
    } else this.#expecting = 'end'
    return { kind: 'head', head: parsed }
  }

  #readPiece(then: Expecting): ReaderEvent | undefined {
    if (this.#pending.length === 0) return undefined
    const bytes = this.#take(Math.min(this.#leftBytes, this.#pending.length))
    this.#leftBytes -= bytes.length
    if (this.#leftBytes === 0) this.#expecting = then
    return { kind: 'body', bytes }
  }

  #readChunkSize(): ReaderEvent | undefined {
    const end = this.#pending.indexOf('\r\n')
    if (end === -1) {
      return this.#pending.length > MAX_CHUNK_LINE_BYTES ? this.#malformed('chunk size line too long') : undefined
    }
    const line = this.#pending.toString('latin1', 0, end)
    const digits = /^([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t\x20-\x7e]*)?$/.exec(line)?.[1]
    if (digits === undefined) return this.#malformed('chunk size is not hexadecimal')
    this.#pending = this.#pending.subarray(end + 2)
    this.#leftBytes = Number.parseInt(digits, 16)
    this.#expecting = this.#leftBytes === 0 ? 'trailers' : 'chunk-data'
    return undefined
  }

  #readChunkEnd(): ReaderEvent | undefined {
    if (this.#pending.length < 2) return undefined
    if (this.#take(2).toString('latin1') !== '\r\n') return this.#malformed('chunk is longer than its size says')
    this.#expecting = 'chunk-size'
    return undefined
  }

  #readTrailers(): ReaderEvent | undefined {
    if (this.#pending.length >= 2 && this.#pending.toString('latin1', 0, 2) === '\r\n') {
      this.#pending = this.#pending.subarray(2)
      this.#expecting = 'end'
      return undefined
    }
    const end = this.#pending.indexOf(HEAD_END)
    if (end === -1) return this.#pending.length > MAX_HEAD_BYTES ? this.#malformed('trailers too large') : undefined
    this.#pending = this.#pending.subarray(end + HEAD_END.length)
    this.#expecting = 'end'
    return undefined
  }

  #take(sizeBytes: number): Buffer {
    const bytes = this.#pending.subarray(0, sizeBytes)
    this.#pending = this.#pending.subarray(sizeBytes)
    return bytes
  }

  #malformed(reason: string): ReaderEvent {
    this.#expecting = 'nothing'
    return this.#head === undefined ? { kind: 'malformed', reason } : { kind: 'malformed', reason, head: this.#head }
  }
}

/**
 * Finds the last value sent under `name` (lower case), without white space around it; `undefined` when there is none.
 * The last one counts because that is the one a signature covers.
 */
export function lastHeader(rawHeaders: readonly string[], name: string): string | undefined {
  for (let at = rawHeaders.length - 2; at >= 0; at -= 2) {
    const candidate = rawHeaders[at]!
    if (candidate.length === name.length && candidate.toLowerCase() === name) return trimWhiteSpace(rawHeaders[at + 1]!)
  }
  return undefined
}

/** Counts the header lines called `name` (lower case). */
export function countHeader(rawHeaders: readonly string[], name: string): number {
  let count = 0
  for (let at = 0; at < rawHeaders.length; at += 2) {
    if (rawHeaders[at]!.toLowerCase() === name) count++
  }
  return count
}

/** Removes spaces and tabs at both ends, and nothing else: `String.trim` would also take bytes such as 0xA0. */
export function trimWhiteSpace(text: string): string {
  let start = 0
  let end = text.length
  while (start < end && isBlank(text.charCodeAt(start))) start++
  while (end > start && isBlank(text.charCodeAt(end - 1))) end--
  return start === 0 && end === text.length ? text : text.slice(start, end)
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09
}

/** Parses a header section without its closing empty line. @returns the head, or why it is refused. */
function parseHead(text: string): RequestHead | string {
  const lines = text.split('\r\n')
  const requestLine = REQUEST_LINE.exec(lines[0]!)
  if (requestLine === null) return 'request line is malformed'
  const minorVersion = requestLine[3] === '1' ? 1 : 0
  const rawHeaders: string[] = []
  for (let at = 1; at < lines.length; at++) {
    const line = lines[at]!
    const colon = line.indexOf(':')
    if (colon <= 0) return 'header line without a name'
    const name = line.slice(0, colon)
    if (!TOKEN.test(name)) return 'header name is not a token'
    let start = colon + 1
    while (start < line.length && isBlank(line.charCodeAt(start))) start++
    const value = line.slice(start)
    if (FORBIDDEN_IN_VALUE.test(value)) return 'header value holds a control character'
    rawHeaders.push(name, value)
  }
  const framing = findFraming(rawHeaders, minorVersion)
  if (typeof framing === 'string') return framing
  const hosts = countHeader(rawHeaders, 'host')
  if (hosts > 1) return 'more than one Host'
  if (hosts === 0 && minorVersion === 1) return 'no Host'
  return {
    method: requestLine[1]!,
    target: requestLine[2]!,
    minorVersion,
    rawHeaders,
    framing,
    keepAlive: wantsKeepAlive(rawHeaders, minorVersion),
    expectation: (lastHeader(rawHeaders, 'expect') ?? '').toLowerCase(),
  }
}

function findFraming(rawHeaders: readonly string[], minorVersion: 0 | 1): BodyFraming | string {
  const lengths = countHeader(rawHeaders, 'content-length')
  const encodings = countHeader(rawHeaders, 'transfer-encoding')
  if (lengths > 1) return 'more than one Content-Length'
  if (encodings > 0 && lengths > 0) return 'Transfer-Encoding beside Content-Length'
  if (encodings > 1) return 'more than one Transfer-Encoding'
  if (encodings === 1) {
    if (minorVersion === 0) return 'Transfer-Encoding in HTTP/1.0'
    if (lastHeader(rawHeaders, 'transfer-encoding')?.toLowerCase() !== 'chunked') return 'unknown Transfer-Encoding'
    return { kind: 'chunked' }
  }
  if (lengths === 0) return { kind: 'none' }
  const text = lastHeader(rawHeaders, 'content-length')!
  if (!/^[0-9]{1,15}$/.test(text)) return 'Content-Length is not a number'
  return { kind: 'length', sizeBytes: Number(text) }
}

function wantsKeepAlive(rawHeaders: readonly string[], minorVersion: 0 | 1): boolean {
  const connection = (lastHeader(rawHeaders, 'connection') ?? '').toLowerCase()
  const options = connection === '' ? [] : connection.split(',').map(trimWhiteSpace)
  return minorVersion === 1 ? !options.includes('close') : options.includes('keep-alive')
}
