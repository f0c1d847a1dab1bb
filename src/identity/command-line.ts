/** Turns the argument vector of a caller into a line for people. It is the caller's own text and decides nothing. */

import { redactSecrets } from '../base/redact.ts'
import { cutUtf8, escapeControls } from '../base/text.ts'

const MAX_ARGUMENTS = 4
const MAX_BYTES = 256

/** Longest piece of a vector looked at: four arguments can be megabytes. */
const MAX_RAW_BYTES = 8192

/**
 * Joins the first four arguments that are not empty, redacts, escapes and cuts them.
 * @param vector content of /proc/PID/cmdline: arguments separated by NUL.
 */
export function renderCommandLine(vector: Buffer): string {
  const joined = vector
    .subarray(0, MAX_RAW_BYTES)
    .toString('utf8')
    .split('\0')
    .filter((argument) => argument !== '')
    .slice(0, MAX_ARGUMENTS)
    .join(' ')
  return cutUtf8(escapeControls(redactSecrets(joined)), MAX_BYTES, '...')
}
