/** The HMAC key shared with the host, in a form that cannot be printed by accident. */

import { createSecretKey, type KeyObject } from 'node:crypto'
import { inspect } from 'node:util'
import { AgentError } from '../base/errors.ts'

const KEY_HEX = /^[0-9A-Fa-f]{64}$/

/** A 256-bit key. Text, JSON and inspection all give `[secret]`; only the key store asks for its digits. */
export class SecretKey {
  readonly #object: KeyObject

  /** @throws AgentError `KEY_INVALID` when `hex` is not exactly 64 hexadecimal digits; the text is not repeated. */
  constructor(hex: string) {
    if (!KEY_HEX.test(hex)) {
      throw new AgentError('KEY_INVALID', 'Cannot use the key: it is not 64 hexadecimal digits', { length: hex.length })
    }
    this.#object = createSecretKey(hex, 'hex')
  }

  /** The key as OpenSSL takes it; its bytes stay outside the JavaScript heap. */
  get keyObject(): KeyObject {
    return this.#object
  }

  /** Gives the 64 digits, upper case, for the key file. Nothing else may call this. */
  revealHex(): string {
    return this.#object.export().toString('hex').toUpperCase()
  }

  /** Tells whether both hold the same bytes. */
  equals(other: SecretKey): boolean {
    return this.#object.equals(other.#object)
  }

  toString(): string {
    return '[secret]'
  }

  toJSON(): string {
    return '[secret]'
  }

  [inspect.custom](): string {
    return '[secret]'
  }
}

/** A key together with the id the host knows it by. Always replaced whole, so that the two never part. */
export interface LatchedKey {
  /** Validated by `isKeyGuid`, hence safe in a path, a file name and a header. */
  readonly guid: string
  readonly incarnationId: number | undefined
  readonly key: SecretKey
  /** Kept as received; may not be a valid date. */
  readonly issued: string
}

/** Tells whether `text` has the form of a key id. Anything else could leave the key directory or split a header. */
export function isKeyGuid(text: string): boolean {
  return /^[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$/.test(text)
}
