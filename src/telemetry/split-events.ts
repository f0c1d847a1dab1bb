/**
 * Finds the elements of a JSON array in the bytes of a file, without reading them: a file of ten megabytes, parsed in one
 * piece, would keep every request waiting. Whether an element is JSON is for its reader to say.
 */

/** An element: from byte `start` up to byte `end`. */
export interface Slice {
  readonly start: number
  readonly end: number
}

const OPEN_BRACKET = 0x5b
const CLOSE_BRACKET = 0x5d
const OPEN_BRACE = 0x7b
const CLOSE_BRACE = 0x7d
const COMMA = 0x2c
const QUOTE = 0x22
const BACKSLASH = 0x5c

/** More elements than events of the least size in a file of the largest: such a file holds something else. */
const MAX_ELEMENTS = 100_000

/** Bytes looked at between two turns of the event loop. */
const PIECE_BYTES = 16 * 1024

/**
 * Splits `bytes`.
 * @param turn called every now and then; waits when it is time to let others work
 * @returns `undefined` when this is no array, not a whole one, or one of too many elements
 */
export async function splitJsonArray(
  bytes: Buffer,
  turn: () => Promise<void> | undefined,
): Promise<Slice[] | undefined> {
  const slices: Slice[] = []
  let depth = 0
  let isInString = false
  let isEnded = false
  let start = -1
  let nextTurn = 0
  for (let at = startOfText(bytes); at < bytes.length; at++) {
    if (at >= nextTurn) {
      nextTurn = at + PIECE_BYTES
      await turn()
    }
    const byte = bytes[at] as number
    if (isInString) {
      if (byte === BACKSLASH) at++
      else if (byte === QUOTE) isInString = false
      continue
    }
    if (isBlank(byte)) continue
    if (isEnded || (depth === 0 && byte !== OPEN_BRACKET) || slices.length > MAX_ELEMENTS) return undefined
    if (depth === 1 && (byte === COMMA || byte === CLOSE_BRACKET)) {
      if (start !== -1) slices.push({ start, end: at })
      else if (byte === COMMA) return undefined
      start = -1
      isEnded = byte === CLOSE_BRACKET
      continue
    }
    if (depth === 1 && start === -1) start = at
    if (byte === OPEN_BRACKET || byte === OPEN_BRACE) depth++
    else if (byte === CLOSE_BRACKET || byte === CLOSE_BRACE) depth--
    else if (byte === QUOTE) isInString = true
  }
  return isEnded ? slices : undefined
}

/** Behind a byte-order mark. */
function startOfText(bytes: Buffer): number {
  return bytes.subarray(0, 3).toString('latin1') === '\xef\xbb\xbf' ? 3 : 0
}

function isBlank(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09
}
