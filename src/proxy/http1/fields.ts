/**
 * Reads the head of an HTTP/1 message: finds its end, and takes its header lines apart.
 *
 * Strict, since whoever stands behind us must read the same message: lines end in CRLF and nothing else, names are
 * tokens, values hold no control character, nothing is folded, no blank stands before a colon. All text is latin1: one
 * character, one byte.
 * Source: RFC 9112 sections 2.2 and 5; RFC 9110 section 5.6.2 for tokens.
 */

/** Header lines: names and values in turn, as received; white space around values is gone. */
export type Fields = readonly string[]

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/

/** Everything but tab, visible characters, blanks and bytes above ASCII. */
const FORBIDDEN = /[^\t\x20-\x7e\x80-\xff]/

/** @returns where the empty line that ends a head begins (at its preceding CRLF), -1 while there is none. */
export function findHeadEnd(bytes: Buffer, from = 0): number {
  return bytes.indexOf('\r\n\r\n', from, 'latin1')
}

/**
 * Reads the header lines of `head`, a head without the empty line at its end.
 * @param start where the first header line begins: behind the CRLF of the first line, or at the end of `head`
 * @returns `undefined` when a line is malformed
 */
export function parseFields(head: string, start: number): string[] | undefined {
  const fields: string[] = []
  for (let at = start; at < head.length; ) {
    const found = head.indexOf('\r\n', at)
    const end = found === -1 ? head.length : found
    const colon = head.indexOf(':', at)
    if (colon === -1 || colon >= end) return undefined
    const name = head.slice(at, colon)
    const value = trimBlanks(head, colon + 1, end)
    if (!TOKEN.test(name) || FORBIDDEN.test(value)) return undefined
    fields.push(name, value)
    at = end + 2
  }
  return fields
}

/** Tells whether `text` may stand on one line of a head. */
export function isLineText(text: string): boolean {
  return !FORBIDDEN.test(text)
}

function trimBlanks(text: string, start: number, end: number): string {
  while (start < end && isBlank(text.charCodeAt(start))) start++
  while (end > start && isBlank(text.charCodeAt(end - 1))) end--
  return text.slice(start, end)
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09
}

/**
 * Reads a content length. @returns bytes; `undefined` when the value is anything but digits, or beyond what a number holds
 * Source: RFC 9110 section 8.6.
 */
export function parseLength(value: string): number | undefined {
  return /^\d{1,15}$/.test(value) ? Number(value) : undefined
}
