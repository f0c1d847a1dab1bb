/**
 * Remembers for a moment what was proven of a process, for its next connections: many clients open one for each request, and
 * to read /proc costs more than to serve the request.
 *
 * Invariant: what is remembered is given only for a record that the kernel made of the same process running the same
 * file: pid and start time, and the inode, device, change time and size of the executable, are those of the record that was proven.
 * So an exec between two connections, or a pid that was given away, is a miss. What may be late by `MAX_AGE_NS` is the
 * command line, which decides nothing, and the name of the file: it was its name on the host within that time.
 */

import type { ConnectionRecord } from '../ebpf/records.ts'

export interface KnownPrograms<Facts> {
  /** @returns what was remembered of the process and program in `record`, when it is about as old as the record */
  find(record: ConnectionRecord): Facts | undefined
  /** Remembers `facts`, which were proven for `record`. */
  remember(record: ConnectionRecord, facts: Facts): void
}

const MAX_AGE_NS = 1_000_000_000n

/** A process that connects once takes a place, too. */
const MAX_ENTRIES = 1024

/** Makes an empty memory. */
export function createKnownPrograms<Facts>(): KnownPrograms<Facts> {
  const known = new Map<number, { readonly record: ConnectionRecord; readonly facts: Facts }>()
  return {
    find(record) {
      const entry = known.get(record.pid)
      return entry !== undefined && isSameProgram(entry.record, record) ? entry.facts : undefined
    },
    remember(record, facts) {
      // Where the kernel does not tell when the file changed, its inode number may have been given to another.
      if (record.reduced || record.pid === 0 || record.exeChangedAtNs === 0n) return
      known.delete(record.pid)
      if (known.size >= MAX_ENTRIES) known.delete(known.keys().next().value as number)
      known.set(record.pid, { record, facts })
    },
  }
}

/** Records may be taken in another order than they were made in. */
function isSameProgram(one: ConnectionRecord, other: ConnectionRecord): boolean {
  const apartNs = one.recordedAtNs - other.recordedAtNs
  return (
    apartNs <= MAX_AGE_NS &&
    apartNs >= -MAX_AGE_NS &&
    !other.reduced &&
    one.pid === other.pid &&
    one.startTimeNs === other.startTimeNs &&
    one.exeInode === other.exeInode &&
    one.exeDevice === other.exeDevice &&
    one.exeChangedAtNs === other.exeChangedAtNs &&
    one.exeSizeBytes === other.exeSizeBytes &&
    one.cgroupId === other.cgroupId &&
    one.mountNamespace === other.mountNamespace &&
    one.pidNamespace === other.pidNamespace
  )
}
