/** Makes untrusted text safe and short enough for a log line, a status document or an error. */

/** Characters that could forge a line, move a cursor, reverse the reading order, or are half of one. */
const UNSAFE = /[\p{Control}\p{Line_Separator}\p{Paragraph_Separator}\p{Bidi_Control}\p{Surrogate}\ufeff]/gu

/** Cheaper to look for than `UNSAFE`, and in every text that has one of those. */
const UNUSUAL = /[^ -~]/

/**
 * Replaces every control and direction character by a visible escape such as `\x0a` or `\u2028`.
 * What JSON leaves as it is inside strings, from U+007F on, becomes an escape that JSON knows.
 */
export function escapeControls(text: string): string {
  if (!UNUSUAL.test(text)) return text
  return text.replace(UNSAFE, (char) => {
    const code = char.charCodeAt(0)
    return code < 0x20 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`
  })
}

/** Cuts `text` to at most `maxBytes` bytes of UTF-8 on a character boundary, and appends `mark` when it had to cut. */
export function cutUtf8(text: string, maxBytes: number, mark = ''): string {
  if (text.length * 3 <= maxBytes) return text
  const bytes = Buffer.from(text, 'utf8')
  if (bytes.length <= maxBytes) return text
  let end = maxBytes
  while (end > 0 && ((bytes[end] as number) & 0xc0) === 0x80) end--
  return bytes.toString('utf8', 0, end) + mark
}

/** Longest list of groups, and longest path, in what is told of a caller: bytes of UTF-8. */
export const MAX_GROUPS_BYTES = 2048
export const MAX_PATH_BYTES = 1024

/** Takes texts from the front of a list, `maxBytes` of UTF-8 in all at most, and says how many are left out. */
export function cutList(texts: readonly string[], maxBytes: number): readonly string[] {
  let sizeBytes = 0
  const end = texts.findIndex((text) => {
    sizeBytes += Buffer.byteLength(text)
    return sizeBytes > maxBytes
  })
  return end === -1 ? texts : [...texts.slice(0, end), `... ${texts.length - end} more`]
}
