/**
 * The key store where its disk may hang: nobody waits for it longer than a while, and one operation at a time is begun.
 *
 * An operation cannot be taken back: it goes on, and may end much later. Until then no other one is begun, so that none overtakes
 * it, and so that hanging ones do not pile up. Its late outcome counts for nothing: what it wrote is a whole key under its own
 * id, which the next attempt finds or writes again; what it removes lay there before any key that could be written since.
 */

import { type Clock, endsWithin } from '../base/clock.ts'
import { AgentError } from '../base/errors.ts'
import type { KeyStore } from './key-store.ts'

/** How long a poll waits for a disk. */
export const DISK_PATIENCE_MS = 10_000

/** Bounds every operation of `store`: it rejects with the code `KEY_DISK_HANGS` while the disk does not answer. */
export function boundKeyStore(store: KeyStore, clock: Clock): KeyStore {
  let pending: Promise<unknown> | undefined

  const inTime = async <T>(running: Promise<T>): Promise<T> => {
    if (!(await endsWithin(running, DISK_PATIENCE_MS, clock))) throw hangs()
    return running
  }
  const bounded = <T>(operation: () => Promise<T>): Promise<T> => {
    if (pending !== undefined) return Promise.reject(hangs())
    const running = operation()
    pending = running
    const settle = () => {
      pending = undefined
    }
    running.then(settle, settle)
    return inTime(running)
  }

  return {
    // Touches no key: a disk that takes no writes may still be read, and hold the key.
    prepare: () => inTime(store.prepare()),
    read: (guid) => bounded(() => store.read(guid)),
    write: (key, heldGuid) => bounded(() => store.write(key, heldGuid)),
    check: (key) => bounded(() => store.check(key)),
    removeOthers: (guid) => bounded(() => store.removeOthers(guid)),
  }
}

/** One sentence for all, since status lines and logs tell a change. */
function hangs(): AgentError {
  return new AgentError('KEY_DISK_HANGS', `the disk of the keys hangs, no answer within ${DISK_PATIENCE_MS / 1000} s`)
}
