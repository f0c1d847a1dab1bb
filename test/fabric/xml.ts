/**
 * Checks that a text is well-formed XML 1.0 and gives it as a tree.
 *
 * Only what telemetry and health reports use: elements, attributes, text, CDATA, comments, a declaration, the five
 * entities and character references. A document type declaration is refused. The strictness is the purpose: what a real
 * host would reject must be rejected here.
 *
 * Source: Extensible Markup Language (XML) 1.0 (Fifth Edition), productions 1 to 44, 66.
 */

export interface XmlElement {
  readonly name: string
  readonly attributes: ReadonlyMap<string, string>
  readonly children: readonly XmlElement[]
  /** Text and CDATA directly inside, joined. */
  readonly text: string
}

/** Says where and why a text is not well-formed. `at` counts UTF-16 code units from 0. */
export class XmlError extends Error {
  override name = 'XmlError'
  readonly at: number

  constructor(reason: string, at: number) {
    super(`Cannot parse XML: ${reason} at ${at}`)
    this.at = at
  }
}

const NAME = /[A-Za-z_:\u00c0-\ufffd][A-Za-z0-9_:.\-\u00b7-\ufffd]*/y
/** Nesting is read by recursion; no document of ours comes near. */
const MAX_DEPTH = 100
const SPACE = /[ \t\r\n]+/y
const ENTITIES: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }

/** Decodes bytes as UTF-8 and parses them. @throws XmlError also for bytes that are not UTF-8. */
export function parseXmlBytes(bytes: Uint8Array): XmlElement {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new XmlError('bytes are not UTF-8', 0)
  }
  return parseXml(text)
}

/** Parses a document with one root element. @throws XmlError when it is not well-formed. */
export function parseXml(text: string): XmlElement {
  const parser = new Parser(text)
  parser.declaration()
  parser.misc()
  const root = parser.element()
  parser.misc()
  if (!parser.isAtEnd) throw parser.error('text after the root element')
  return root
}

/** Parses a run of elements without a root, as found inside a CDATA section. Only white space may stand between them. */
export function parseXmlFragment(text: string): XmlElement[] {
  const parser = new Parser(text)
  const elements: XmlElement[] = []
  for (;;) {
    parser.misc()
    if (parser.isAtEnd) return elements
    elements.push(parser.element())
  }
}

/** Returns the children called `name`. */
export function childrenNamed(element: XmlElement, name: string): XmlElement[] {
  return element.children.filter((child) => child.name === name)
}

/** Escapes text for an attribute or an element. */
export function escapeXml(text: string): string {
  return text.replace(/[&<>"']/g, (found) => `&${Object.keys(ENTITIES).find((name) => ENTITIES[name] === found)};`)
}

class Parser {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    for (let at = 0; at < text.length; ) {
      const code = text.codePointAt(at)!
      if (!isXmlChar(code)) throw new XmlError(`character U+${code.toString(16).padStart(4, '0')} is forbidden`, at)
      at += code > 0xffff ? 2 : 1
    }
    this.#text = text
  }

  get isAtEnd(): boolean {
    return this.#at === this.#text.length
  }

  error(reason: string): XmlError {
    return new XmlError(reason, this.#at)
  }

  declaration(): void {
    if (!this.#text.startsWith('<?xml', this.#at)) return
    const end = this.#text.indexOf('?>', this.#at)
    const body = end === -1 ? '' : this.#text.slice(this.#at + 5, end)
    if (!/^\s+version\s*=\s*(["'])1\.[0-9]+\1(\s+encoding\s*=\s*(["'])[A-Za-z][\w.-]*\3)?\s*$/.test(body)) {
      throw this.error('malformed declaration')
    }
    this.#at = end + 2
  }

  /** Skips white space and comments. */
  misc(): void {
    for (;;) {
      this.#match(SPACE)
      if (!this.#text.startsWith('<!--', this.#at)) return
      this.#skipComment()
    }
  }

  element(depth = 0): XmlElement {
    if (depth > MAX_DEPTH) throw this.error(`more than ${MAX_DEPTH} elements deep`)
    if (!this.#take('<')) throw this.error('an element must begin here')
    const name = this.#name('element')
    const attributes = this.#attributes()
    if (this.#take('/>')) return { name, attributes, children: [], text: '' }
    if (!this.#take('>')) throw this.error(`tag "${name}" does not end`)
    const children: XmlElement[] = []
    let text = ''
    for (;;) {
      if (this.isAtEnd) throw this.error(`element "${name}" is not closed`)
      if (this.#take('</')) {
        const closing = this.#name('closing tag')
        if (closing !== name) throw this.error(`element "${name}" is closed by "${closing}"`)
        this.#match(SPACE)
        if (!this.#take('>')) throw this.error('closing tag does not end')
        return { name, attributes, children, text }
      }
      if (this.#take('<![CDATA[')) text += this.#until(']]>', 'CDATA section')
      else if (this.#text.startsWith('<!--', this.#at)) this.#skipComment()
      else if (this.#text[this.#at] === '<') children.push(this.element(depth + 1))
      else text += this.#characters()
    }
  }

  #attributes(): ReadonlyMap<string, string> {
    const attributes = new Map<string, string>()
    for (;;) {
      const spaced = this.#match(SPACE) !== undefined
      const next = this.#text[this.#at]
      if (next === '>' || next === '/' || next === undefined) return attributes
      if (!spaced) throw this.error('white space must stand before an attribute')
      const name = this.#name('attribute')
      this.#match(SPACE)
      if (!this.#take('=')) throw this.error(`attribute "${name}" has no value`)
      this.#match(SPACE)
      const quote = this.#text[this.#at]
      if (quote !== '"' && quote !== "'") throw this.error(`value of "${name}" is not quoted`)
      this.#at++
      const value = this.#until(quote, `value of "${name}"`)
      if (value.includes('<')) throw this.error(`value of "${name}" holds "<"`)
      if (attributes.has(name)) throw this.error(`attribute "${name}" is repeated`)
      attributes.set(name, this.#decode(value))
    }
  }

  #characters(): string {
    const end = this.#text.indexOf('<', this.#at)
    const raw = this.#text.slice(this.#at, end === -1 ? this.#text.length : end)
    if (raw.includes(']]>')) throw this.error('"]]>" in text')
    this.#at += raw.length
    return this.#decode(raw)
  }

  #decode(raw: string): string {
    if (!raw.includes('&')) return raw
    return raw.replace(/&([^;&]*);?/g, (whole, reference: string) => {
      const decoded = whole.endsWith(';') ? this.#reference(reference) : undefined
      if (decoded === undefined) throw this.error(`"${whole.slice(0, 16)}" is no known reference`)
      return decoded
    })
  }

  #reference(name: string): string | undefined {
    const digits = /^#(?:x([0-9A-Fa-f]{1,6})|([0-9]{1,7}))$/.exec(name)
    if (digits === null) return Object.hasOwn(ENTITIES, name) ? ENTITIES[name] : undefined
    const code = digits[1] === undefined ? Number(digits[2]) : Number.parseInt(digits[1], 16)
    return isXmlChar(code) ? String.fromCodePoint(code) : undefined
  }

  #skipComment(): void {
    this.#at += 4
    if (this.#until('-->', 'comment').includes('--')) throw this.error('"--" in a comment')
  }

  #name(what: string): string {
    const name = this.#match(NAME)
    if (name === undefined) throw this.error(`${what} without a name`)
    return name
  }

  #until(mark: string, what: string): string {
    const end = this.#text.indexOf(mark, this.#at)
    if (end === -1) throw this.error(`${what} does not end`)
    const found = this.#text.slice(this.#at, end)
    this.#at = end + mark.length
    return found
  }

  #take(mark: string): boolean {
    if (!this.#text.startsWith(mark, this.#at)) return false
    this.#at += mark.length
    return true
  }

  #match(expression: RegExp): string | undefined {
    expression.lastIndex = this.#at
    const found = expression.exec(this.#text)?.[0]
    if (found !== undefined) this.#at += found.length
    return found
  }
}

/** Production 2, Char. A lone surrogate is a code point of its own in JavaScript, and forbidden. */
function isXmlChar(code: number): boolean {
  if (code < 0x20) return code === 0x09 || code === 0x0a || code === 0x0d
  return code <= 0xd7ff || (code >= 0xe000 && code <= 0xfffd) || (code >= 0x10000 && code <= 0x10ffff)
}
