/** How the commands about rules read files and write text: 80 columns, and nothing that a terminal would obey. */

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

/** Reads a file of text, whatever bytes it holds. @returns the text, or why there is none. */
export function readText(file: string, readFile: ReadFile): string | Refusal {
  const refuse = (message: string): Refusal => ({
    file,
    position: { line: 1, column: 1 },
    finding: 'unreadable',
    message,
    hint: 'Name a file of rules that can be read.',
  })
  try {
    const bytes = readFile(file)
    return bytes.length > MAX_FILE_BYTES
      ? refuse('the file is too large for rules')
      : Buffer.from(bytes).toString('utf8')
  } catch (error) {
    const errno = (error as { errno?: unknown }).errno
    return refuse(`cannot read the file: ${typeof errno === 'number' ? describeErrno(errno) : String(error)}`)
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
export function formatRefusal({ file, position, finding, message, hint }: Refusal): string {
  return formatFinding(file, position, 'error', message, finding, hint)
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
