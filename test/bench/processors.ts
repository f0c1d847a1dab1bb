/** Who runs on which processor: the measured on one, load and host on another. On a machine with one, all share it. */

import { execFileSync } from 'node:child_process'
import { availableParallelism } from 'node:os'

const hasTwo = availableParallelism() >= 2

/** Commands to put in front. */
export const processors = {
  subject: hasTwo ? ['taskset', '-c', '0'] : [],
  load: hasTwo ? ['taskset', '-c', '1'] : [],
} as const

/** Binds all threads of a running process to the processor of the measured. */
export function bindProcess(pid: number): void {
  if (hasTwo) execFileSync('taskset', ['-a', '-p', '-c', '0', String(pid)], { stdio: 'ignore' })
}
