/** Cuts bytes the ways a network may: whole, byte by byte, and at places a seed chooses. */

/** Gives `text`, one character one byte, in several cuts. Each cut is a list of pieces in buffers of their own. */
export function* cuts(text: string): Generator<Buffer[]> {
  const bytes = Buffer.from(text, 'latin1')
  yield [bytes]
  yield Array.from(bytes, (byte) => Buffer.from([byte]))
  for (let at = 1; at < bytes.length; at++) yield [Buffer.from(bytes.subarray(0, at)), Buffer.from(bytes.subarray(at))]
}
