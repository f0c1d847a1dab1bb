/** Writes to a standard stream, at once, and does not mind a reader who has gone: the exit code says what matters. */

import { writeSync } from 'node:fs'

/** Writes `text` to descriptor 1 or 2, all of it as far as somebody reads. */
export function print(fd: 1 | 2, text: string): void {
  let rest = Buffer.from(text, 'utf8')
  try {
    while (rest.length > 0) rest = rest.subarray(writeSync(fd, rest))
  } catch {
    // Closed, or full: there is nobody left to tell.
  }
}
