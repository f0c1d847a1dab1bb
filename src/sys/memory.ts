/** The memory of this process, as V8 and malloc keep it. */

import { readFileSync, statSync } from 'node:fs'
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
 * Source: malloc_trim(3); madvise(2), MADV_DONTNEED.
 */
export function giveMemoryBack(): void {
  globalThis.gc?.({ type: 'major', execution: 'sync', flavor: 'last-resort' })
  sysMallocTrim(0n)
  let ranges: Range[]
  try {
    const inode = statSync('/proc/self/exe', { bigint: true }).ino
    ranges = findFileOnly(readFileSync('/proc/self/smaps', 'latin1'), inode)
  } catch {
    // It costs memory and nothing else: no descriptor may be free, or /proc not there.
    return
  }
  for (const { start, sizeBytes } of ranges) sysMadvise(start, sizeBytes, MADV_DONTNEED)
}

/** A piece of the address space. */
interface Range {
  readonly start: bigint
  readonly sizeBytes: bigint
}

/** Address, end, access of what is private and cannot be written to, and inode. */
const MAPPING = /^([0-9a-f]+)-([0-9a-f]+) (?:r-[-x]p [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ (\d+) )?/

/**
 * Finds what is in memory exactly as it is in its file, and cannot be written to: code and constants. What is dropped of it comes
 * back with the next access. A page that was ever written to, as those are that the dynamic linker prepares, is anonymous, or was
 * and is swapped out now.
 * @param smaps text of /proc/PID/smaps
 * @param inode of the file: one that stays mapped as long as the process lives
 * Source: proc_pid_smaps(5).
 */
export function findFileOnly(smaps: string, inode: bigint): Range[] {
  const ranges: Range[] = []
  let mapping: Range | undefined
  for (const line of smaps.split('\n')) {
    const found = MAPPING.exec(line)
    if (found !== null) {
      const start = BigInt(`0x${found[1]}`)
      const isOurs = found[3] === String(inode)
      mapping = isOurs ? { start, sizeBytes: BigInt(`0x${found[2]}`) - start } : undefined
    } else if (/^Anonymous: +[1-9]/.test(line)) mapping = undefined
    // It stands behind the other.
    else if (mapping !== undefined && /^Swap: +0 kB$/.test(line)) ranges.push(mapping)
  }
  return ranges
}
