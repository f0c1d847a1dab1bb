/** Random choices that a seed repeats: the same seed gives the same choices on every machine. */

export interface Random {
  /** A whole number from 0 up to, and not including, `limit`. */
  below(limit: number): number
  /** Tells yes once in `times`. */
  isOneIn(times: number): boolean
  pick<T>(list: readonly T[]): T
  bytes(length: number): Buffer
}

/** Makes a source of choices. @param seed any whole number @param index makes many sources of one seed */
export function createRandom(seed: number, index = 0): Random {
  let state = (Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(index + 1, 0xc2b2ae35)) | 0
  // Source: mulberry32, a public-domain generator with 32 bits of state.
  const next = () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return (mixed ^ (mixed >>> 14)) >>> 0
  }
  const below = (limit: number) => next() % limit
  return {
    below,
    isOneIn: (times) => below(times) === 0,
    pick: (list) => list[below(list.length)] as (typeof list)[number],
    bytes: (length) => Buffer.from(Uint8Array.from({ length }, () => below(256))),
  }
}
