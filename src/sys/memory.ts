/** The memory of this process, as V8 and malloc keep it. */

import { readFileSync } from 'node:fs'
import { sysMadvise, sysMallocTrim, sysMallopt } from './libc.ts'

/** Source: malloc.h. */
const M_ARENA_MAX = -8

/** Source: asm-generic/mman-common.h. */
const MADV_DONTNEED = 4

/**
 * Lets threads share what malloc keeps. It would make room of its own for each, which is not given back; the few threads of
 * the agent allocate too seldom to stand in each other's way.
 * Source: mallopt(3).
 */
export function shareMallocArenas(): void {
  sysMallopt(M_ARENA_MAX, 1)
}

/**
 * Collects all garbage, hands the kernel what V8 and malloc do not use, and lets go of code that was needed once, such as
 * for the start. Stops this thread for tens of milliseconds.
 * Without `--expose-gc`, which the executable has built in, no garbage is collected.
 * Source: malloc_trim(3).
 */
export function giveMemoryBack(): void {
  globalThis.gc?.({ type: 'major', execution: 'sync', flavor: 'last-resort' })
  sysMallocTrim(0n)
  for (const { start, sizeBytes } of findFileOnly(readFileSync('/proc/self/smaps', 'latin1')))
    sysMadvise(start, sizeBytes, MADV_DONTNEED)
}

/** A piece of the address space. */
interface Range {
  readonly start: bigint
  readonly sizeBytes: bigint
}

const MAPPING = /^([0-9a-f]+)-([0-9a-f]+) (r-[-x]p) [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ [1-9]\d* /

/**
 * Finds what is in memory exactly as it is in its file, and cannot be written to: code and constants. What is dropped of it comes
 * back with the next access. A page that was ever written to, as those are that the dynamic linker prepares, is anonymous.
 * @param smaps text of /proc/PID/smaps
 * Source: proc_pid_smaps(5); madvise(2), MADV_DONTNEED.
 */
export function findFileOnly(smaps: string): Range[] {
  const ranges: Range[] = []
  let mapping: Range | undefined
  for (const line of smaps.split('\n')) {
    const found = MAPPING.exec(line)
    if (found !== null) {
      const start = BigInt(`0x${found[1]}`)
      mapping = { start, sizeBytes: BigInt(`0x${found[2]}`) - start }
    } else if (/^[0-9a-f]+-/.test(line)) mapping = undefined
    else if (mapping !== undefined && /^Anonymous: +0 kB$/.test(line)) ranges.push(mapping)
  }
  return ranges
}
