/** The end of a process that can no longer be trusted: short, and whatever hangs. */

import { endWithin } from '../sys/process.ts'

/** Time for all last steps together: to write some kilobytes, or to find that nobody takes them. */
const GRACE_SECONDS = 3

/**
 * Takes `steps` one after the other, also when one fails, and ends the process with `code`. Where that hangs, as a write to
 * a disk that does not answer does, the kernel ends the process by SIGALRM: either way the service manager starts it anew.
 * The event loop gets no other turn.
 */
export function endByFault(code: number, steps: readonly (() => void)[]): never {
  endWithin(GRACE_SECONDS)
  for (const step of steps) {
    try {
      step()
    } catch {
      // The others still count.
    }
  }
  // Waits for what is on its way to disks and readers, and no longer than that.
  process.exit(code)
}
