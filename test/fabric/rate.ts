/** Counts calls in a sliding window, for the limits that a host can be told to keep. */
export class SlidingWindow {
  readonly #limit: number
  readonly #windowMs: number
  #times: number[] = []

  /** Allows `limit` calls in any `windowMs`. */
  constructor(limit: number, windowMs: number) {
    this.#limit = limit
    this.#windowMs = windowMs
  }

  /** Takes one call at `nowMs`. @returns whether it is within the limit; one that is not is not counted. */
  take(nowMs: number): boolean {
    this.#times = this.#times.filter((time) => time > nowMs - this.#windowMs)
    if (this.#times.length >= this.#limit) return false
    this.#times.push(nowMs)
    return true
  }
}
