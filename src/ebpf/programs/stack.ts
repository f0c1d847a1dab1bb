/**
 * The stack frame of all our programs, as offsets from the frame pointer. One picture for all, so that a block
 * can be moved between programs. The kernel grants 512 bytes; keys are aligned to 8.
 *
 *     -120  record          120 bytes, see records.ts
 *     -128  cookie            8   key of `pending` where that is a map
 *     -144  selfKey          16
 *     -160  connectionKey    16
 *     -168  scratch           8   what a read of kernel memory returns
 *     -172  policyValue       4   of the destination, while r7 is used for reading
 *     -176  counterKey        4
 *     -184  ask               8
 */

import { RECORD_BYTES } from '../records.ts'

export const STACK = {
  record: -RECORD_BYTES,
  cookie: -128,
  selfKey: -144,
  connectionKey: -160,
  scratch: -168,
  policyValue: -172,
  counterKey: -176,
  ask: -184,
} as const
