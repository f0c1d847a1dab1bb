/** How the commands about rules read files and write text: 80 columns, and nothing that a terminal would obey. */

import { isUtf8 } from 'node:buffer'
import { describeErrno } from '../base/errors.ts'
import type { JsonPosition } from '../base/json.ts'
import { escapeControls } from '../base/text.ts'

const COLUMNS = 80

/** Files of rules are some kilobytes; this keeps a wrong name from filling the memory. */
const MAX_FILE_BYTES = 64 * 1024 * 1024

/** @throws an error of the file system */
export type ReadFile = (path: string) => Uint8Array

/** What a command of the family says: to standard output, to standard error, and by its exit code. */
export interface Answer {
  readonly out: string
  readonly err: string
  readonly exitCode: number
}

/** A file that a command cannot work with. `finding` is a code in kebab case. */
export interface Refusal {
  readonly file: string
  readonly position: JsonPosition
  readonly finding: string
  readonly message: string
  readonly hint: string
}

/** Reads a file of text. @returns the text, or why there is none. */
export function readText(file: string, readFile: ReadFile): string | Refusal {
  const refuse = (message: string): Refusal => ({
    file,
    position: { line: 1, column: 1 },
    finding: 'unreadable',
    message,
    hint: 'Name a file of rules that can be read.',
  })
  let bytes: Uint8Array
  try {
    bytes = readFile(file)
  } catch (error) {
    const errno = (error as { errno?: unknown }).errno
    return refuse(`cannot read the file: ${typeof errno === 'number' ? describeErrno(errno) : String(error)}`)
  }
  if (bytes.length > MAX_FILE_BYTES) return refuse('the file is too large for rules')
  return isUtf8(bytes) ? Buffer.from(bytes).toString('utf8') : refuseEncoding(file, bytes)
}

/** The agent takes no other encoding: what one reader guesses at, another reads otherwise. */
function refuseEncoding(file: string, bytes: Uint8Array): Refusal {
  const before = readValidText(bytes)
  const culprit = bytes[Buffer.byteLength(before)]
  const lines = before.replace(/^\ufeff/, '').split('\n')
  const position = { line: lines.length, column: (lines.at(-1)?.length ?? 0) + 1 }
  const isUtf16 = (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff)
  const message = isUtf16 ? 'the file is UTF-16' : `byte 0x${culprit?.toString(16)} is not UTF-8`
  return { file, position, finding: 'encoding', message, hint: 'Save the file as UTF-8.' }
}

/** Reads the text before the first byte that is no UTF-8, which is looked for by halves. */
function readValidText(bytes: Uint8Array): string {
  let low = 0
  let high = bytes.length
  while (low < high) {
    const middle = (low + high + 1) >> 1
    if (readBeginning(bytes.subarray(0, middle)) === undefined) high = middle - 1
    else low = middle
  }
  return readBeginning(bytes.subarray(0, low)) ?? ''
}

/** @returns what is whole of a text that may end inside a character; `undefined` when no end would make a text of it */
function readBeginning(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes, { stream: true })
  } catch {
    return undefined
  }
}

/** Writes one finding as compilers do, its hint below. */
export function formatFinding(
  file: string,
  { line, column }: JsonPosition,
  severity: string,
  message: string,
  code: string,
  hint: string,
): string {
  const first = `${file}:${line}:${column}: ${severity}: ${message} (${code})`
  return `${escapeControls(first)}\n${wrap(hint, '    ')}`
}

/** Writes a refusal as the one error of its file. */
function formatRefusal({ file, position, finding, message, hint }: Refusal): string {
  return formatFinding(file, position, 'error', message, finding, hint)
}

/** Ends a command that cannot work with a file: in words for people, and for programs as the one member `error`. */
export function answerRefusal(refusal: Refusal, json: boolean): Answer {
  const { file, position, finding: code, message, hint } = refusal
  const out = json ? formatJson({ error: { code, message, hint, file, ...position } }) : ''
  return { out, err: formatRefusal(refusal), exitCode: 1 }
}

/**
 * Breaks `text` at spaces into lines of 80 columns and ends the last; a longer word stays whole.
 * @param indent of all lines; `first` stands instead in the first one
 */
export function wrap(text: string, indent: string, first = indent): string {
  const lines: string[] = []
  let line = first
  let isEmpty = true
  for (const word of escapeControls(text).split(' ')) {
    if (!isEmpty && line.length + 1 + word.length > COLUMNS) {
      lines.push(line)
      line = indent
      isEmpty = true
    }
    line += isEmpty ? word : ` ${word}`
    isEmpty = false
  }
  return `${[...lines, line].join('\n')}\n`
}

/** Writes JSON for programs. Text of others is escaped in it, should a person look. */
export function formatJson(value: unknown): string {
  const text = JSON.stringify(value, undefined, 2)
  return `${text.replace(UNSAFE_IN_JSON, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`)}\n`
}

/** JSON.stringify escapes controls below 0x20 and lone surrogates itself. */
const UNSAFE_IN_JSON = /[\x7f-\x9f\u2028\u2029\ufeff]|\p{Bidi_Control}/gu
