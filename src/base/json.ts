/**
 * A strict JSON reader that knows where everything stands.
 *
 * `JSON.parse` keeps the last of two equal members in silence, quotes the document in its errors, and turns a member named
 * `__proto__` into an inherited property once the result is copied carelessly. Documents from the host and from administrators
 * decide who may fetch tokens, and some hold keys, so this reader reports repeated members, never repeats the text it read,
 * and builds objects without a prototype.
 * Source: RFC 8259.
 */

import { AgentError } from './errors.ts'

/** Member names and array indexes from the root of a document to one of its values; empty for the root itself. */
export type JsonPath = readonly (string | number)[]

/** A place in the text: both count from 1; a column is one UTF-16 code unit. */
export interface JsonPosition {
  readonly line: number
  readonly column: number
}

/** A member whose name was already taken in its object. `path` leads to the object; the position is that of the later name. */
export interface DuplicateMember extends JsonPosition {
  readonly path: JsonPath
  readonly key: string
}

export interface JsonDocument {
  /** Plain JSON values; objects have no prototype, and of repeated members the last one counts. */
  readonly value: unknown
  /** In the order of the text. Whether they matter is for the reader of the document to say. */
  readonly duplicates: readonly DuplicateMember[]
  /** Finds where the value at `path` begins, or the innermost value around it when the document has no such path. */
  locate(path: JsonPath): JsonPosition
}

export interface JsonOptions {
  /** Accept a byte-order mark before the value, as editors on other systems leave one. Default false. */
  readonly skipByteOrderMark?: boolean
}

/** Arrays and objects inside each other. Ours need 6; beyond this a document is an attack on the stack. */
const MAX_DEPTH = 200

/**
 * Reads one JSON value and nothing after it, in time linear in the length of `text`.
 * @throws AgentError JSON_SYNTAX with `line` and `column` facts. Message and facts never hold text of the document.
 */
export function parseJson(text: string, options: JsonOptions = {}): JsonDocument {
  const body = options.skipByteOrderMark && text.charCodeAt(0) === 0xfeff ? text.slice(1) : text
  const reader = new Reader(body)
  const { value, place } = reader.readDocument()
  return {
    value,
    duplicates: reader.listDuplicates(),
    locate: (path) => reader.positionOf(findPlace(place, path).offset),
  }
}

/** Tells whether `value` is a JSON object: not null, not an array. */
export function isJsonObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Writes a path as people do: `rules.privileges[0].path`; names that are not plain words are quoted and cut at 64 characters. */
export function formatJsonPath(path: JsonPath): string {
  let text = ''
  for (const step of path) {
    if (typeof step === 'number') text += `[${step}]`
    else if (/^[A-Za-z_]\w{0,63}$/.test(step)) text += text === '' ? step : `.${step}`
    else text += `[${JSON.stringify(step.slice(0, 64))}]`
  }
  return text
}

/** Where a value begins, and the same for the values inside it. */
interface Place {
  readonly offset: number
  readonly inside?: ReadonlyMap<string | number, Place>
}

interface Placed {
  readonly value: unknown
  readonly place: Place
}

interface Repeat {
  readonly path: JsonPath
  readonly key: string
  readonly offset: number
}

function findPlace(root: Place, path: JsonPath): Place {
  let at = root
  for (const step of path) {
    const next = at.inside?.get(step)
    if (next === undefined) break
    at = next
  }
  return at
}

/** One pass over the text, by recursive descent; the depth limit keeps the stack small. */
class Reader {
  readonly #text: string
  #at = 0
  readonly #path: (string | number)[] = []
  readonly #repeats: Repeat[] = []
  #lineStarts: readonly number[] | undefined

  constructor(text: string) {
    this.#text = text
  }

  readDocument(): Placed {
    this.#skipSpace()
    const root = this.#readValue()
    this.#skipSpace()
    if (this.#at < this.#text.length) this.#fail('there is text after the value')
    return root
  }

  listDuplicates(): DuplicateMember[] {
    return this.#repeats.map(({ path, key, offset }) => ({ path, key, ...this.positionOf(offset) }))
  }

  /** The start of every line is found once, so that a thousand duplicates cost no more than one. */
  positionOf(offset: number): JsonPosition {
    this.#lineStarts ??= findLineStarts(this.#text)
    const starts = this.#lineStarts
    let low = 0
    let high = starts.length - 1
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (starts[middle]! <= offset) low = middle
      else high = middle - 1
    }
    return { line: low + 1, column: offset - starts[low]! + 1 }
  }

  #readValue(): Placed {
    const offset = this.#at
    switch (this.#text[offset]) {
      case '{':
        return this.#readObject()
      case '[':
        return this.#readArray()
      case '"':
        return { value: this.#readString(), place: { offset } }
      case 't':
        return { value: this.#readWord('true', true), place: { offset } }
      case 'f':
        return { value: this.#readWord('false', false), place: { offset } }
      case 'n':
        return { value: this.#readWord('null', null), place: { offset } }
      default:
        return { value: this.#readNumber(), place: { offset } }
    }
  }

  #readObject(): Placed {
    const offset = this.#enter()
    const value: Record<string, unknown> = Object.create(null)
    const inside = new Map<string | number, Place>()
    let path: JsonPath | undefined
    this.#skipSpace()
    if (this.#take('}')) return this.#leave({ value, place: { offset, inside } })
    for (;;) {
      const keyOffset = this.#at
      if (this.#text[keyOffset] !== '"') this.#fail('a member name in double quotes is expected')
      const key = this.#readString()
      if (inside.has(key)) {
        path ??= [...this.#path]
        this.#repeats.push({ path, key, offset: keyOffset })
      }
      this.#skipSpace()
      if (!this.#take(':')) this.#fail('a colon is expected')
      this.#skipSpace()
      this.#path.push(key)
      const member = this.#readValue()
      this.#path.pop()
      value[key] = member.value
      inside.set(key, member.place)
      this.#skipSpace()
      if (this.#take('}')) return this.#leave({ value, place: { offset, inside } })
      if (!this.#take(',')) this.#fail('a comma or a closing brace is expected')
      this.#skipSpace()
    }
  }

  #readArray(): Placed {
    const offset = this.#enter()
    const value: unknown[] = []
    const inside = new Map<string | number, Place>()
    this.#skipSpace()
    if (this.#take(']')) return this.#leave({ value, place: { offset, inside } })
    for (;;) {
      this.#path.push(value.length)
      const item = this.#readValue()
      this.#path.pop()
      inside.set(value.length, item.place)
      value.push(item.value)
      this.#skipSpace()
      if (this.#take(']')) return this.#leave({ value, place: { offset, inside } })
      if (!this.#take(',')) this.#fail('a comma or a closing bracket is expected')
      this.#skipSpace()
    }
  }

  #depth = 0

  /** Steps over an opening bracket and returns where it stands. */
  #enter(): number {
    if (++this.#depth > MAX_DEPTH) this.#fail(`values are nested deeper than ${MAX_DEPTH}`)
    return this.#at++
  }

  #leave(placed: Placed): Placed {
    this.#depth -= 1
    return placed
  }

  #readString(): string {
    let start = ++this.#at
    let result = ''
    for (;;) {
      const code = this.#text.charCodeAt(this.#at)
      if (code === 0x22) {
        result += this.#text.slice(start, this.#at++)
        return result
      }
      if (code === 0x5c) {
        result += this.#text.slice(start, this.#at) + this.#readEscape()
        start = this.#at
      } else if (code >= 0x20) this.#at += 1
      else
        this.#fail(Number.isNaN(code) ? 'the text ends inside a string' : 'a control character stands inside a string')
    }
  }

  #readEscape(): string {
    const letter = this.#text[this.#at + 1]
    if (letter === 'u') {
      const digits = this.#text.slice(this.#at + 2, this.#at + 6)
      if (!/^[0-9A-Fa-f]{4}$/.test(digits)) this.#fail('four hexadecimal digits are expected after \\u')
      this.#at += 6
      return String.fromCharCode(Number.parseInt(digits, 16))
    }
    const meaning = letter === undefined ? undefined : ESCAPES.get(letter)
    if (meaning === undefined) this.#fail('an escape is not one of those JSON knows')
    this.#at += 2
    return meaning
  }

  #readWord<Value>(word: string, value: Value): Value {
    if (!this.#text.startsWith(word, this.#at)) this.#fail('a value is expected')
    this.#at += word.length
    return value
  }

  #readNumber(): number {
    NUMBER.lastIndex = this.#at
    const match = NUMBER.exec(this.#text)
    if (match === null) this.#fail('a value is expected')
    this.#at += match[0].length
    return Number(match[0])
  }

  #skipSpace(): void {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at)
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return
      this.#at += 1
    }
  }

  #take(character: string): boolean {
    if (this.#text[this.#at] !== character) return false
    this.#at += 1
    return true
  }

  #fail(problem: string): never {
    const { line, column } = this.positionOf(this.#at)
    throw new AgentError('JSON_SYNTAX', `Cannot parse JSON: ${problem} at line ${line}, column ${column}`, {
      line,
      column,
    })
  }
}

const ESCAPES: ReadonlyMap<string, string> = new Map([
  ['"', '"'],
  ['\\', '\\'],
  ['/', '/'],
  ['b', '\b'],
  ['f', '\f'],
  ['n', '\n'],
  ['r', '\r'],
  ['t', '\t'],
])

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y

function findLineStarts(text: string): number[] {
  const starts = [0]
  for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) starts.push(at + 1)
  return starts
}
