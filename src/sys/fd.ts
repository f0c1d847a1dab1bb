/** A file descriptor that closes itself: `using link = new Fd(...)`. */

import { closeSync } from 'node:fs'

/** Owns one file descriptor from the call that made it until `close()`. */
export class Fd implements Disposable {
  /** What it refers to, for messages: `map "policy"`. */
  readonly label: string
  #number: number

  constructor(number: number, label: string) {
    this.#number = number
    this.label = label
  }

  /**
   * The descriptor's number, for a system call.
   * @throws Error when it was closed: the number may belong to another file by now.
   */
  get number(): number {
    if (this.#number < 0) throw new Error(`Cannot use ${this.label}: it is closed`)
    return this.#number
  }

  /** Tells whether `close()` has run. */
  get isClosed(): boolean {
    return this.#number < 0
  }

  /** Closes it once; later calls do nothing. */
  close(): void {
    if (this.#number < 0) return
    const number = this.#number
    this.#number = -1
    closeSync(number)
  }

  [Symbol.dispose](): void {
    this.close()
  }
}
