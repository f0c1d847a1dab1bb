/**
 * Does at the end of a round of the event loop what many connections have to write in it.
 *
 * A peer on another processor that has gone to sleep is woken by the write, and that costs the writer more than all the rest of
 * it. Between two writes that follow each other at once nobody falls asleep: of a round's writes only the first wakes.
 */

let due: (() => void)[] = []

/** Has `write` called when all that this round has read is dealt with. It must not throw. */
export function atRoundEnd(write: () => void): void {
  if (due.length === 0) setImmediate(writeAll)
  due.push(write)
}

function writeAll(): void {
  const writes = due
  due = []
  for (const write of writes) write()
}
