/**
 * The stack frame of all our programs, as offsets from the frame pointer. One picture for all, so that a block
 * can be moved between programs. The kernel grants 512 bytes; keys are aligned to 8.
 *
 *     -104  record          104 bytes, see records.ts
 *     -112  cookie            8   key of `pending` where that is a map
 *     -128  selfKey          16
 *     -144  connectionKey    16
 *     -152  scratch           8   what a read of kernel memory returns
 *     -160  counterKey        4
 */

import { RECORD_BYTES } from '../records.ts'

export const STACK = {
  record: -RECORD_BYTES,
  cookie: -112,
  selfKey: -128,
  connectionKey: -144,
  scratch: -152,
  counterKey: -160,
} as const
