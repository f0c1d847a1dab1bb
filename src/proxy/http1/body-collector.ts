/** Collects a body that is wanted whole, in memory that goes with its bytes and not with the number of its pieces. */

export interface BodyCollector {
  readonly sizeBytes: number
  /** Adds a copy of a piece. */
  add(piece: Buffer): void
  /** Gives what was collected, and forgets it. */
  take(): Buffer
}

const EMPTY = Buffer.alloc(0)

/** Makes a collector for one body. */
export function createBodyCollector(): BodyCollector {
  let held: Buffer = EMPTY
  let sizeBytes = 0
  return {
    get sizeBytes() {
      return sizeBytes
    },
    add(piece) {
      const size = sizeBytes + piece.length
      if (size > held.length) {
        const larger = Buffer.allocUnsafeSlow(Math.max(2 * held.length, size))
        held.copy(larger, 0, 0, sizeBytes)
        held = larger
      }
      piece.copy(held, sizeBytes)
      sizeBytes = size
    },
    take() {
      const whole = held.subarray(0, sizeBytes)
      held = EMPTY
      sizeBytes = 0
      return whole
    },
  }
}
