/**
 * XML as far as telemetry needs it: values made safe to stand in an attribute, and a reader of the host's documents.
 *
 * The documents are small and plain. So the reader takes elements, attributes, text and CDATA, knows the five entities of
 * XML itself and no others, and refuses document types: there is nothing that could grow, or be fetched from elsewhere.
 * Source: Extensible Markup Language (XML) 1.0, fifth edition.
 */

import { AgentError } from '../base/errors.ts'

export interface XmlElement {
  /** As written, prefix included. */
  readonly name: string
  readonly attributes: ReadonlyMap<string, string>
  readonly children: readonly XmlElement[]
  /** The text directly within, white space at its ends taken off. */
  readonly text: string
}

const ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  "'": '&apos;',
  '"': '&quot;',
  '<': '&lt;',
  '>': '&gt;',
}

/** Controls other than white space, halves of characters, and two that are none. Source: production 2, Char. */
const NOT_XML = /(?![\t\n\r])[\p{Control}\p{Surrogate}\ufffe\uffff]/gu

/**
 * Renders `text` as the value of an attribute. Characters that XML has no place for become U+FFFD: one of them would make
 * a reader refuse all that stands around it. As `>` is escaped, no value ends a CDATA section.
 */
export function escapeXml(text: string): string {
  return text.replace(NOT_XML, '\ufffd').replace(/[&'"<>]/g, (char) => ESCAPES[char] as string)
}

/** Elements inside each other; documents of the host have seven. */
const MAX_DEPTH = 32

/** Larger documents are refused: they would keep the event loop, and those of the host are some kilobytes. */
const MAX_LENGTH = 256 * 1024

const NAME = String.raw`[\p{L}_:][\p{L}\p{N}_:.-]*`
const ATTRIBUTE = String.raw`\s+(${NAME})\s*=\s*("[^"<]*"|'[^'<]*')`
const ATTRIBUTES = new RegExp(ATTRIBUTE, 'gu')

/** One piece of markup, or the text up to the next. */
const PIECE = new RegExp(
  [
    String.raw`<!--[^]*?-->|<\?[^]*?\?>`,
    String.raw`<!\[CDATA\[(?<cdata>[^]*?)\]\]>`,
    String.raw`</(?<end>${NAME})\s*>`,
    String.raw`<(?<start>${NAME})(?<attributes>(?:${ATTRIBUTE.replaceAll('(', '(?:')})*)\s*(?<empty>/?)>`,
    '(?<text>[^<]+)',
  ].join('|'),
  'uy',
)

interface OpenElement {
  readonly name: string
  readonly attributes: Map<string, string>
  readonly children: XmlElement[]
  text: string
}

/**
 * Reads a document.
 * @param what it is, for messages: `Cannot read <what>: ...`
 * @returns the element that holds all others
 * @throws AgentError `XML_INVALID`; the message never repeats the text
 */
export function readXml(document: string, what: string): XmlElement {
  const refuse = (reason: string): never => {
    throw new AgentError('XML_INVALID', `Cannot read ${what}: ${reason}`)
  }
  if (document.length > MAX_LENGTH) return refuse(`it is longer than ${MAX_LENGTH} characters`)
  const text = document.replace(/^\ufeff/, '')
  const top: OpenElement = { name: '', attributes: new Map(), children: [], text: '' }
  const open: OpenElement[] = [top]
  PIECE.lastIndex = 0
  while (PIECE.lastIndex < text.length) {
    const at = PIECE.lastIndex
    const { start, end, cdata, text: words, attributes = '', empty } = PIECE.exec(text)?.groups ?? NOTHING
    const current = open.at(-1) as OpenElement
    if (PIECE.lastIndex === 0) return refuse(`there is no XML at character ${at + 1}`)
    if (start !== undefined) {
      if (open.length > MAX_DEPTH) return refuse(`more than ${MAX_DEPTH} elements are inside each other`)
      if (open.length === 1 && top.children.length > 0) return refuse('there is more than one element on top')
      const element = { name: start, attributes: readAttributes(attributes, refuse), children: [], text: '' }
      current.children.push(element)
      if (empty === '') open.push(element)
    } else if (end !== undefined) {
      if (open.length === 1 || end !== current.name)
        return refuse(`an element ends at character ${at + 1} that is not open`)
      current.text = current.text.trim()
      open.pop()
    } else if (open.length > 1) {
      current.text += cdata ?? decode(words ?? '', refuse)
    } else if (cdata !== undefined || words?.trim()) {
      return refuse(`there is text outside of all elements at character ${at + 1}`)
    }
  }
  if (open.length > 1) return refuse('it ends within an element')
  return top.children[0] ?? refuse('it is empty')
}

const NOTHING: Readonly<Record<string, string | undefined>> = {}

function readAttributes(text: string, refuse: (reason: string) => never): Map<string, string> {
  const attributes = new Map<string, string>()
  for (const [, name = '', quoted = ''] of text.matchAll(ATTRIBUTES)) {
    if (attributes.has(name)) refuse('an attribute is repeated')
    attributes.set(name, decode(quoted.slice(1, -1), refuse))
  }
  return attributes
}

const ENTITIES: Readonly<Record<string, string>> = { amp: '&', apos: "'", quot: '"', lt: '<', gt: '>' }

function decode(text: string, refuse: (reason: string) => never): string {
  return text.replace(/&(?:#x([0-9A-Fa-f]{1,6});|#([0-9]{1,7});|(amp|apos|quot|lt|gt);)?/g, (_, hex, decimal, name) => {
    if (name !== undefined) return ENTITIES[name] as string
    const code = Number.parseInt(hex ?? decimal ?? '', hex === undefined ? 10 : 16)
    if (!(code <= 0x10ffff)) return refuse('there is an entity that is not known')
    return String.fromCodePoint(code)
  })
}

/** Follows a path of element names, taking the first of each. */
export function findElement(root: XmlElement, ...path: readonly string[]): XmlElement | undefined {
  let at: XmlElement | undefined = root
  for (const name of path) at = at?.children.find((child) => child.name === name)
  return at
}
