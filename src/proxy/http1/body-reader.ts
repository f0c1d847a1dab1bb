/** Takes a body out of the bytes of a connection, however it is framed. */

import { createChunkedReader } from './chunked.ts'

export type BodyState = 'more' | 'done' | 'malformed' | 'overhead'

export interface BodyReader {
  /** Gives the body's part of `bytes` from `at` on to `onData`, as views. */
  read(bytes: Buffer, at: number, onData: (piece: Buffer) => void): BodyState
  /** Where the last `read` stopped. */
  readonly position: number
}

/** Makes a reader. @param sizeBytes `undefined`: the body comes in chunks */
export function createBodyReader(sizeBytes: number | undefined): BodyReader {
  return sizeBytes === undefined ? createChunkedReader() : createSizedReader(sizeBytes)
}

function createSizedReader(sizeBytes: number): BodyReader {
  let remaining = sizeBytes
  let position = 0
  return {
    read(bytes, at, onData) {
      position = Math.min(bytes.length, at + remaining)
      remaining -= position - at
      if (position > at) onData(bytes.subarray(at, position))
      return remaining === 0 ? 'done' : 'more'
    },
    get position() {
      return position
    },
  }
}
