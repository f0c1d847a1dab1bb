/**
 * Reads the answers on a connection to the host.
 *
 * What frames an answer is taken strictly: two lengths, a length beside an encoding, or an encoding other than `chunked`
 * have no meaning that both sides must share, and end the connection.
 * Source: RFC 9112 sections 4 and 6.3; RFC 9110 section 15.2 for interim answers.
 */

import { type ChunkedReader, createChunkedReader } from './chunked.ts'
import { type Fields, isLineText, parseFields, parseLength } from './fields.ts'
import { createHeadCollector } from './head-collector.ts'

/** Largest head of an answer, status line and all. */
export const MAX_ANSWER_HEAD_BYTES = 16 * 1024

export interface AnswerEvents {
  onHead(status: number, fields: Fields): void
  /** @param piece a view that is good during the call only */
  onData(piece: Buffer): void
  /** @param isReusable whether the connection may carry another request */
  onEnd(isReusable: boolean): void
  /** What the host sent is no answer. @param reason a fixed sentence */
  onMalformed(reason: string): void
}

export interface AnswerReader {
  /** Takes what arrived. After `onEnd` nothing is read until `begin`, after `onMalformed` nothing at all. */
  read(bytes: Buffer): void
  /** Takes the end of the connection. @returns false when it came in the middle of an answer */
  end(): boolean
  /** Expects an answer; the one before it has ended. @param hasBody false for an answer to HEAD */
  begin(hasBody: boolean): void
}

/** The empty line, with the end of the line before it. */
const HEAD_END_BYTES = 4

const STATUS_LINE = /^HTTP\/1\.([01]) ([1-9]\d\d)(?: (.*))?$/s

const BEGINNING = Buffer.from('HTTP/1.', 'latin1')

const NO_STATUS_LINE = 'its answer does not begin with a status line'

/** How the body of an answer ends. */
type Body =
  | { readonly kind: 'length'; remaining: number }
  | { readonly kind: 'chunked'; readonly reader: ChunkedReader }
  | { readonly kind: 'to-close' }

interface Head {
  readonly status: number
  readonly fields: Fields
  readonly body: Body
  readonly isReusable: boolean
}

/** Makes a reader for one connection. */
export function createAnswerReader(events: AnswerEvents): AnswerReader {
  let isExpecting = false
  let mayHaveBody = true
  let head: Head | undefined
  const collector = createHeadCollector(MAX_ANSWER_HEAD_BYTES)

  const finish = (isReusable: boolean) => {
    isExpecting = false
    head = undefined
    events.onEnd(isReusable)
  }
  const fail = (reason: string) => {
    isExpecting = false
    events.onMalformed(reason)
  }

  /** @returns the bytes in which a body begins, and where; `undefined` when there is nothing to do with the rest */
  const readHead = (chunk: Buffer, from: number): { bytes: Buffer; at: number } | undefined => {
    const isBeginning = !collector.isStarted
    const whole = collector.add(chunk, from)
    // No need to wait for the end of what is no answer from its first byte.
    if (whole === 'more' && isBeginning && !beginsAnswer(chunk, from)) {
      fail(NO_STATUS_LINE)
      return undefined
    }
    if (typeof whole === 'string') {
      if (whole !== 'more') fail('the head of its answer is too large')
      return undefined
    }
    const { bytes, start, end } = whole
    const parsed = parseHead(bytes.toString('latin1', start, end), mayHaveBody)
    if (typeof parsed === 'string') {
      fail(parsed)
      return undefined
    }
    if (parsed.status >= 200) {
      head = parsed
      events.onHead(parsed.status, parsed.fields)
    } else if (parsed.status === 101) {
      fail('it switches protocols, which nobody asked for')
      return undefined
    }
    return { bytes, at: end + HEAD_END_BYTES }
  }

  const readBody = (bytes: Buffer, at: number) => {
    const { body, isReusable } = head as Head
    if (body.kind === 'to-close') {
      if (at < bytes.length) events.onData(bytes.subarray(at))
      return
    }
    if (body.kind === 'length') {
      const end = Math.min(bytes.length, at + body.remaining)
      body.remaining -= end - at
      if (end > at) events.onData(bytes.subarray(at, end))
      // Bytes behind an answer are answers to nothing: whoever sends them is out of step.
      if (body.remaining === 0 && isExpecting) finish(isReusable && end === bytes.length)
      return
    }
    const state = body.reader.read(bytes, at, (piece) => {
      if (isExpecting) events.onData(piece)
    })
    if (!isExpecting || state === 'more') return
    if (state === 'done') finish(isReusable && body.reader.position === bytes.length)
    else fail('its chunked body is malformed')
  }

  return {
    read(chunk) {
      let place: { bytes: Buffer; at: number } | undefined = { bytes: chunk, at: 0 }
      // Interim answers are for the connection alone; the one that counts follows.
      while (place !== undefined && isExpecting && head === undefined && place.at < place.bytes.length)
        place = readHead(place.bytes, place.at)
      if (place !== undefined && isExpecting && head !== undefined) readBody(place.bytes, place.at)
    },
    end() {
      if (!isExpecting) return true
      if (head?.body.kind !== 'to-close') return false
      finish(false)
      return true
    },
    begin(hasBody) {
      mayHaveBody = hasBody
      isExpecting = true
    },
  }
}

/** Tells whether the bytes from `at` on can become a status line. */
function beginsAnswer(bytes: Buffer, at: number): boolean {
  const length = Math.min(BEGINNING.length, bytes.length - at)
  return bytes.compare(BEGINNING, 0, length, at, at + length) === 0
}

/** @returns a sentence about what is wrong with it */
function parseHead(text: string, mayHaveBody: boolean): Head | string {
  const found = text.indexOf('\r\n')
  const lineEnd = found === -1 ? text.length : found
  const line = STATUS_LINE.exec(text.slice(0, lineEnd))
  if (line === null || !isLineText(line[3] ?? '')) return NO_STATUS_LINE
  const fields = parseFields(text, lineEnd + 2)
  if (fields === undefined) return 'a header of its answer is malformed'
  const isOld = line[1] === '0'
  const status = Number(line[2])
  let length: string | undefined
  let encoding: string | undefined
  let keepsOpen = !isOld
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string
    const value = fields[i + 1] as string
    // Lengths of the names that matter: most names need no more than that.
    if (name.length === 14 && name.toLowerCase() === 'content-length') {
      if (length !== undefined) return 'its answer has two lengths'
      length = value
    } else if (name.length === 17 && name.toLowerCase() === 'transfer-encoding') {
      if (encoding !== undefined) return 'its answer is encoded twice'
      encoding = value
    } else if (name.length === 10 && name.toLowerCase() === 'connection') {
      if (/(?:^|,)[ \t]*close[ \t]*(?:,|$)/i.test(value)) keepsOpen = false
      else if (isOld && /(?:^|,)[ \t]*keep-alive[ \t]*(?:,|$)/i.test(value)) keepsOpen = true
    }
  }
  if (encoding !== undefined && (length !== undefined || isOld)) return 'its answer is framed in two ways'
  if (encoding !== undefined && encoding.toLowerCase() !== 'chunked') return 'its answer has an unknown encoding'
  const bytes = length === undefined ? undefined : parseLength(length)
  if (length !== undefined && bytes === undefined) return 'the length of its answer is no number'
  const head = (body: Body) => ({ status, fields, body, isReusable: keepsOpen && body.kind !== 'to-close' })
  if (!mayHaveBody || status < 200 || status === 204 || status === 304) return head({ kind: 'length', remaining: 0 })
  if (encoding !== undefined) return head({ kind: 'chunked', reader: createChunkedReader() })
  return head(bytes === undefined ? { kind: 'to-close' } : { kind: 'length', remaining: bytes })
}
