/**
 * Takes a chunked body out of its wire form, piece by piece as it arrives.
 *
 *     4 CRLF  Wiki CRLF  5;ext CRLF  pedia CRLF  0 CRLF  trailer: dropped CRLF  CRLF
 *
 * Strict: sizes are hexadecimal digits alone, lines end in CRLF. Extensions and trailers are read over, both within a limit:
 * they would be a way to send without end.
 * Source: RFC 9112 section 7.1.
 */

import { isLineText, parseFields } from './fields.ts'

/** Bytes of chunk extensions, and of trailers, that one body may have. */
export const MAX_OVERHEAD_BYTES = 16 * 1024

/** Digits of a chunk's size: no body here has a chunk of a terabyte. */
const MAX_SIZE_DIGITS = 10

const CR = 0x0d
const LF = 0x0a
const SEMICOLON = 0x3b

export type ChunkedState = 'more' | 'done' | 'malformed' | 'overhead'

type Expecting = 'size' | 'extension' | 'size-lf' | 'data' | 'data-cr' | 'data-lf' | 'trailer' | 'end'

export interface ChunkedReader {
  /**
   * Reads `bytes` from `at` on and gives what is body to `onData`, as views of `bytes`.
   * @returns how it stands: `done` after the last byte of the body, which is at `position`
   */
  read(bytes: Buffer, at: number, onData: (piece: Buffer) => void): ChunkedState
  /** Where the last `read` stopped; what follows after `done` is not of this body. */
  readonly position: number
}

/** Makes a reader for one body. */
export function createChunkedReader(): ChunkedReader {
  let expecting: Expecting = 'size'
  let size = 0
  let digits = 0
  let remaining = 0
  let overheadBytes = 0
  let text = ''
  let position = 0

  /** Takes one byte of what is not data. */
  const step = (byte: number): ChunkedState => {
    switch (expecting) {
      case 'size': {
        const digit = hexDigit(byte)
        if (digit >= 0) {
          size = size * 16 + digit
          return ++digits > MAX_SIZE_DIGITS ? 'malformed' : 'more'
        }
        if (digits === 0) return 'malformed'
        if (byte === CR) expecting = 'size-lf'
        else if (byte === SEMICOLON) expecting = 'extension'
        else return 'malformed'
        return 'more'
      }
      case 'extension':
        if (byte === CR) {
          if (!isLineText(text)) return 'malformed'
          text = ''
          expecting = 'size-lf'
          return 'more'
        }
        text += String.fromCharCode(byte)
        return ++overheadBytes > MAX_OVERHEAD_BYTES ? 'overhead' : 'more'
      case 'size-lf':
        if (byte !== LF) return 'malformed'
        remaining = size
        expecting = size === 0 ? 'trailer' : 'data'
        size = 0
        digits = 0
        return 'more'
      case 'data-cr':
        expecting = 'data-lf'
        return byte === CR ? 'more' : 'malformed'
      case 'data-lf':
        expecting = 'size'
        return byte === LF ? 'more' : 'malformed'
      case 'trailer':
        text += String.fromCharCode(byte)
        if (++overheadBytes > MAX_OVERHEAD_BYTES) return 'overhead'
        if (byte !== LF || (text !== '\r\n' && !text.endsWith('\r\n\r\n'))) return 'more'
        expecting = 'end'
        return parseFields(text.slice(0, text === '\r\n' ? 0 : -4), 0) === undefined ? 'malformed' : 'done'
      default:
        return 'malformed'
    }
  }
  return {
    read(bytes, at, onData) {
      position = at
      while (position < bytes.length) {
        if (expecting === 'data') {
          const end = Math.min(bytes.length, position + remaining)
          onData(bytes.subarray(position, end))
          remaining -= end - position
          position = end
          if (remaining === 0) expecting = 'data-cr'
          continue
        }
        const state = step(bytes[position] as number)
        position++
        if (state !== 'more') return state
      }
      return 'more'
    },
    get position() {
      return position
    },
  }
}

function hexDigit(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30
  const lower = byte | 0x20
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1
}
