/** What the programs count. A counter tells an operator that something happens; nothing is decided on it. */

import { mov64 } from '../asm/alu.ts'
import { FP, type Line, label, R0, R1, R2 } from '../asm/instruction.ts'
import { call, jumpEq64 } from '../asm/jump.ts'
import { atomicAdd64, loadMap, stackAddress, store, Word } from '../asm/load-store.ts'
import { STACK } from './stack.ts'

/** In the order of their index in the map. */
export const COUNTERS = [
  /** connects to a guarded destination that were sent to the listener */
  'redirected',
  /** connects to a guarded destination by the agent itself, left alone */
  'skippedSelf',
  /** connects to a guarded destination from a network namespace without a listener, left alone */
  'notServed',
  /** connects to a guarded destination held until their network namespace has a listener; counted as redirected, too */
  'held',
  /** connects to a guarded destination refused with EPERM, because their network namespace is not served */
  'denied',
  /** connects refused with EPERM, because nothing could be remembered about the caller */
  'refused',
  /** records filed for accept; less than `redirected` by the connects that failed */
  'recorded',
  /** records that could not be filed: the connection arrives unattributed */
  'recordLost',
  /** connections to the listener about which nothing was remembered: they arrive unattributed */
  'pendingLost',
  /** callers remembered for a connect that failed, or that went elsewhere in the end, forgotten when that showed */
  'pendingStale',
  /** connections that callers made to the listener themselves, once established: they arrive unattributed */
  'direct',
  /** connects to a guarded destination that were refused, because no listener of the agent was there */
  'shut',
] as const

export type Counter = (typeof COUNTERS)[number]

/**
 * Emits `counters[counter] += 1`.
 * Clobbers r0 to r5.
 */
export function count(counter: Counter): Line[] {
  const done = `${counter} counted`
  return [
    store(FP, STACK.counterKey, COUNTERS.indexOf(counter), Word), // u32 key = index of the counter
    loadMap(R1, 'counters'), // r1 = &counters
    ...stackAddress(R2, STACK.counterKey), // r2 = &key
    call('map_lookup_elem'), // r0 = this CPU's counter
    jumpEq64(R0, 0, done), // never: the array has this index, but the kernel asks for the check
    mov64(R1, 1),
    atomicAdd64(R0, 0, R1), // *r0 += 1
    label(done),
  ]
}
