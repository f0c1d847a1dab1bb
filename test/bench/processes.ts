/** What a process costs: CPU time and memory, as the kernel accounts for them. */

import { readdirSync, readFileSync } from 'node:fs'

/**
 * CPU time of all threads of `pid` so far, user and system, in microseconds. Threads that have ended are not in it: the
 * processes measured here keep theirs.
 * Source: proc(5), /proc/PID/task/TID/schedstat, first field, in nanoseconds.
 */
export function cpuUs(pid: number): number {
  let sumNs = 0
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    sumNs += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'latin1').split(' ')[0])
  }
  return sumNs / 1000
}

export interface Memory {
  /** Pages in memory, those of the executable file included. */
  readonly rssMb: number
  /** Anonymous pages of its own: what the process costs besides its file, which the page cache could drop. */
  readonly privateMb: number
}

/** Memory of `pid` now. Source: proc_pid_smaps(5), smaps_rollup. */
export function memory(pid: number): Memory {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1')
  const mb = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1]) / 1024
  return { rssMb: mb('Rss'), privateMb: mb('Pss_Anon') }
}

/** Largest number of pages in memory since the process began, in MB. Source: proc_pid_status(5), VmHWM. */
export function peakRssMb(pid: number): number {
  return Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]) / 1024
}
