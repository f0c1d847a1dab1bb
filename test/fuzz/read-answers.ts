/**
 * Reads what the agent wrote on one connection, as strictly as a client may: everything must be whole answers, one after
 * the other, framed in one way, with no header that concerns the connection to the host.
 */

export interface FuzzAnswer {
  readonly status: number
  /** Lower-case names and values in turn. */
  readonly fields: readonly string[]
  /** Latin1, after transfer decoding. */
  readonly body: string
  /** False while some of it is missing. */
  readonly isWhole: boolean
}

export interface Reading {
  /** Interim answers are left out. The last one may not be whole. */
  readonly answers: readonly FuzzAnswer[]
  /** What no agent should write, `undefined` when there is no such thing. */
  readonly fault: string | undefined
}

/** Headers that the agent makes itself, and the host's are never seen. */
const FROM_AGENT: Readonly<Record<string, RegExp>> = {
  connection: /^(?:close|keep-alive)$/,
  'transfer-encoding': /^chunked$/,
  'x-ms-azure-host-authorization': /^value$/,
}

const NEVER = [
  ...['expect', 'http2-settings', 'keep-alive', 'proxy-authenticate', 'proxy-authentication-info', 'te', 'trailer'],
  ...['proxy-authorization', 'proxy-connection', 'upgrade'],
]

/**
 * Reads all that was received.
 * @param methods what was asked, in order; `undefined`: nobody knows, so an answer may have its body or not
 * @param hasEnded whether the connection has ended
 */
export function readAnswers(text: string, methods: readonly string[] | undefined, hasEnded: boolean): Reading {
  const answers: FuzzAnswer[] = []
  let at = 0
  while (at < text.length) {
    const headEnd = text.indexOf('\r\n\r\n', at)
    if (headEnd === -1) break
    const head = readHead(text.slice(at, headEnd))
    if (typeof head === 'string') return { answers, fault: head }
    at = headEnd + 4
    if (head.status === 100) continue
    const body = readBody(text, at, head, methods?.[answers.length], hasEnded)
    if (typeof body === 'string') return { answers, fault: body }
    answers.push({ ...head, body: body.text, isWhole: body.isWhole })
    at = body.end
  }
  if (at === text.length || methods === undefined || answers.length < methods.length) {
    const isOdd =
      at < text.length && !'HTTP/1.1 '.startsWith(text.slice(at, at + 9)) && !text.startsWith('HTTP/1.1 ', at)
    return { answers, fault: isOdd ? 'there are bytes that begin no answer' : undefined }
  }
  return { answers, fault: 'there is more than the answers to what was asked' }
}

type Head = Pick<FuzzAnswer, 'status' | 'fields'>

/** @returns a sentence about what is wrong with it */
function readHead(text: string): Head | string {
  const [first = '', ...lines] = text.split('\r\n')
  const status = Number(/^HTTP\/1\.1 (\d{3}) [\t\x20-\x7e]*$/.exec(first)?.[1] ?? Number.NaN)
  if (Number.isNaN(status)) return 'an answer does not begin with a status line'
  if (status < 200 && status !== 100) return `it passed on an interim answer, ${status}`
  const fields: string[] = []
  for (const line of lines) {
    const [, name, value] = /^([!#$%&'*+.^_`|~0-9a-z-]+): ([\t\x20-\x7e\x80-\xff]*)$/.exec(line) ?? []
    if (name === undefined || value === undefined) return 'a header of an answer is malformed'
    if (NEVER.includes(name) || FROM_AGENT[name]?.test(value) === false) return `it passed on the header ${name}`
    fields.push(name, value)
  }
  return status === 100 && fields.length > 0 ? 'it passed on an interim answer, 100' : { status, fields }
}

type Body = { readonly text: string; readonly isWhole: boolean; readonly end: number }

/** @returns a sentence about what is wrong with it */
function readBody(text: string, at: number, head: Head, method: string | undefined, hasEnded: boolean): Body | string {
  const all = (wanted: string) => head.fields.filter((_, i) => i % 2 === 1 && head.fields[i - 1] === wanted)
  const lengths = all('content-length')
  const encodings = all('transfer-encoding')
  for (const name of Object.keys(FROM_AGENT)) if (all(name).length > 1) return `an answer has two of ${name}`
  if (lengths.length + encodings.length > 1) return 'an answer is framed in two ways'
  if (lengths.some((value) => !/^\d+$/.test(value))) return 'the length of an answer is no number'
  const none: Body = { text: '', isWhole: true, end: at }
  if (method === 'HEAD' || head.status === 204 || head.status === 304) return none
  if (encodings.length > 0) return readChunks(text, at)
  if (lengths.length === 0) return { text: text.slice(at), isWhole: hasEnded, end: text.length }
  // Of what was asked, something may have been HEAD.
  if (method === undefined && (at === text.length || text.startsWith('HTTP/1.1 ', at))) return none
  const end = Math.min(text.length, at + Number(lengths[0]))
  return { text: text.slice(at, end), isWhole: end === at + Number(lengths[0]), end }
}

function readChunks(text: string, start: number): Body | string {
  let body = ''
  for (let at = start; ; ) {
    const lineEnd = text.indexOf('\r\n', at)
    if (lineEnd === -1) return { text: body, isWhole: false, end: text.length }
    const line = text.slice(at, lineEnd)
    if (!/^[0-9a-f]+$/.test(line)) return 'a chunk of an answer is malformed'
    const size = Number.parseInt(line, 16)
    const end = lineEnd + 2 + size
    body += text.slice(lineEnd + 2, end)
    if (text.length < end + 2) return { text: body, isWhole: false, end: text.length }
    if (text.slice(end, end + 2) !== '\r\n') return 'a chunk of an answer is malformed'
    if (size === 0) return { text: body, isWhole: true, end: end + 2 }
    at = end + 2
  }
}
