/** The memory of this process, as V8 and malloc keep it. */

import { sysMallocTrim, sysMallopt } from './libc.ts'

/** Source: malloc.h. */
const M_ARENA_MAX = -8

/**
 * Lets threads share what malloc keeps. It would make room of its own for each, which is not given back; the few threads of
 * the agent allocate too seldom to stand in each other's way.
 * Source: mallopt(3).
 */
export function shareMallocArenas(): void {
  sysMallopt(M_ARENA_MAX, 1)
}

/**
 * Collects all garbage, and hands the kernel what V8 and malloc do not use. Stops this thread for tens of milliseconds.
 * Without `--expose-gc`, which the executable has built in, only malloc's part is done.
 * Source: malloc_trim(3).
 */
export function giveMemoryBack(): void {
  globalThis.gc?.({ type: 'major', execution: 'sync', flavor: 'last-resort' })
  sysMallocTrim(0n)
}
