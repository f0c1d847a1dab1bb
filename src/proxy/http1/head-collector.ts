/** Collects the head of a message that arrives in pieces, in work that is linear in its bytes however small the pieces. */

import { findHeadEnd } from './fields.ts'

/** A whole head: `bytes` from `start` to the empty line at `end`; what follows the empty line stands behind it. */
export interface WholeHead {
  readonly bytes: Buffer
  readonly start: number
  readonly end: number
}

export interface HeadCollector {
  /**
   * Adds what stands in `bytes` from `at` on.
   * @returns the head once it is whole; most arrive in one piece, which is then not copied. `line-too-large`: it is the
   *   first line that does not fit
   */
  add(bytes: Buffer, at: number): WholeHead | 'more' | 'too-large' | 'line-too-large'
  /** Whether a head has begun and is not whole. */
  readonly isStarted: boolean
}

const FIRST_BYTES = 1024

const EMPTY = Buffer.alloc(0)

/** Makes a collector. @param maxBytes the size of a head, without the empty line, that is still accepted */
export function createHeadCollector(maxBytes: number): HeadCollector {
  let held: Buffer = EMPTY
  let heldBytes = 0
  const isTooLarge = (end: number, start: number, length: number) =>
    end === -1 ? length - start > maxBytes + 3 : end - start > maxBytes
  const refuse = (bytes: Buffer, start: number) => {
    const lineEnd = bytes.indexOf('\r\n', start, 'latin1')
    return lineEnd === -1 || lineEnd - start > maxBytes ? 'line-too-large' : 'too-large'
  }
  return {
    add(bytes, at) {
      if (heldBytes === 0) {
        const end = findHeadEnd(bytes, at)
        if (isTooLarge(end, at, bytes.length)) return refuse(bytes, at)
        if (end !== -1) return { bytes, start: at, end }
      }
      const from = Math.max(0, heldBytes - 3)
      const length = heldBytes + bytes.length - at
      if (length > held.length) {
        const larger = Buffer.allocUnsafeSlow(Math.max(FIRST_BYTES, 2 * held.length, length))
        held.copy(larger, 0, 0, heldBytes)
        held = larger
      }
      bytes.copy(held, heldBytes, at)
      heldBytes = length
      const end = findHeadEnd(held.subarray(0, length), from)
      if (isTooLarge(end, 0, length)) return refuse(held.subarray(0, length), 0)
      if (end === -1) return 'more'
      const whole = { bytes: held.subarray(0, length), start: 0, end }
      held = EMPTY
      heldBytes = 0
      return whole
    },
    get isStarted() {
      return heldBytes > 0
    },
  }
}
