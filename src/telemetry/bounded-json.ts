/** Objects as lines of JSON that stay JSON however long their members are: what is too long is cut inside its member. */

import { redactSecrets } from '../base/redact.ts'
import { cutUtf8, escapeControls } from '../base/text.ts'

/** Texts, numbers, truth values, and lists of texts. */
export type FlatRecord = Readonly<Record<string, string | number | boolean | readonly string[]>>

const MARK = '...'

/**
 * Renders `record` in one line of at most `maxBytes` bytes of UTF-8, free of secrets and control characters. While it is
 * longer, its longest text or list loses the second half. Names, numbers and truth values are never cut: `maxBytes` must
 * be enough for them.
 */
export function boundedJson(record: FlatRecord, maxBytes: number): string {
  // Secrets first: half of one no longer looks like one.
  let line = escapeControls(redactSecrets(JSON.stringify(record)))
  if (line.length * 3 <= maxBytes || Buffer.byteLength(line) <= maxBytes) return line
  const members: Record<string, FlatRecord[string]> = JSON.parse(line)
  while (Buffer.byteLength(line) > maxBytes) {
    const cut = longest(members)
    if (cut === undefined) break
    const [name, value] = cut
    members[name] = firstHalf(value)
    line = escapeControls(JSON.stringify(members))
  }
  return line
}

/** Finds the member that takes most room, of those that can be cut. */
function longest(members: FlatRecord): [name: string, value: string | readonly string[]] | undefined {
  let found: [string, string | readonly string[]] | undefined
  let foundBytes = 0
  for (const [name, value] of Object.entries(members)) {
    if (typeof value === 'number' || typeof value === 'boolean' || value.length === 0) continue
    const sizeBytes = Buffer.byteLength(escapeControls(JSON.stringify(value)))
    if (sizeBytes > foundBytes) [found, foundBytes] = [[name, value], sizeBytes]
  }
  return found
}

function firstHalf(value: string | readonly string[]): string | readonly string[] {
  if (typeof value !== 'string') return value.slice(0, value.length >> 1)
  const half = (Buffer.byteLength(value) >> 1) - MARK.length
  return half > 0 ? cutUtf8(value, half, MARK) : ''
}
