/** The body of a request on its way in, from pieces to the few facts that a witness keeps. */

import { createHash, type Hash } from 'node:crypto'
import type { SignatureCheck } from './verify.ts'

const NO_BYTES = Buffer.alloc(0)

/** Counts, hashes and checks a body while it arrives, and keeps as much of it as is wanted. */
export class IncomingBody {
  readonly #maxBytes: number
  readonly #keepBytes: number
  readonly #check: SignatureCheck
  readonly #pieces: Buffer[] = []
  #keptBytes = 0
  #hash: Hash | undefined
  #sha256: string | undefined
  sizeBytes = 0

  constructor(maxBytes: number, keepBytes: number, check: SignatureCheck) {
    this.#maxBytes = maxBytes
    this.#keepBytes = keepBytes
    this.#check = check
  }

  take(bytes: Buffer): 'go-on' | 'too-large' {
    this.sizeBytes += bytes.length
    if (this.sizeBytes > this.#maxBytes) return 'too-large'
    this.#hash ??= createHash('sha256')
    this.#hash.update(bytes)
    this.#check.update(bytes)
    if (this.#keptBytes < this.#keepBytes) {
      const kept = bytes.subarray(0, this.#keepBytes - this.#keptBytes)
      this.#pieces.push(kept)
      this.#keptBytes += kept.length
    }
    return 'go-on'
  }

  /** What is kept of the body, in one piece. */
  get bytes(): Buffer {
    if (this.#pieces.length > 1) this.#pieces.splice(0, this.#pieces.length, Buffer.concat(this.#pieces))
    return this.#pieces[0] ?? NO_BYTES
  }

  /** Hexadecimal; empty for an empty body. Closes the hash at first use. */
  get sha256(): string {
    this.#sha256 ??= this.#hash?.digest('hex') ?? ''
    return this.#sha256
  }
}
