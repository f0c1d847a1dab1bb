/**
 * The host's first word: which rules, which modes, which key. Connections can come before it where redirection outlived an
 * agent before this one. They wait for it, for a while, and are refused while it has not come.
 */

import type { Clock } from '../base/clock.ts'

export interface FirstWord {
  isHeard(): boolean
  heard(): void
  /** Gives what `value` gives, but not before the word has come or everybody has waited long enough. */
  after<T>(value: Promise<T>): Promise<T>
}

/** From start-up on. A host that answers does so within a fraction of it. */
const MAX_WAIT_MS = 10_000

/** Makes the part; the wait begins now. */
export function createFirstWord(clock: Clock): FirstWord {
  const { promise, resolve } = Promise.withResolvers<void>()
  const patience = Promise.race([promise, clock.sleep(MAX_WAIT_MS)])
  let isHeard = false
  return {
    isHeard: () => isHeard,
    heard() {
      isHeard = true
      resolve()
    },
    after: (value) => (isHeard ? value : patience.then(() => value)),
  }
}
