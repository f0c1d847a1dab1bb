/**
 * Random requests: sound ones out of a grammar, as odd as HTTP allows, and unsound ones, which are sound ones with a few
 * bytes changed. All text is latin1: one character, one byte.
 */

import { createHash } from 'node:crypto'
import type { Random } from './random.ts'

/** Where a request goes. */
export const PLACES = {
  wireserver: { host: '168.63.129.16', port: 80 },
  hostga: { host: '168.63.129.16', port: 32526 },
  imds: { host: '169.254.169.254', port: 80 },
  /** Around the redirection. */
  direct: { host: '127.0.0.1', port: 3080 },
} as const

export type Place = keyof typeof PLACES

/** A request that the agent has to forward. */
export interface SoundRequest {
  readonly method: string
  readonly target: string
  /** Names and values as they were meant: white space around values, which goes, is not in them. */
  readonly fields: readonly (readonly [name: string, value: string])[]
  /** After transfer decoding. */
  readonly body: Buffer
  /** Whether the connection ends with its answer. */
  readonly isLast: boolean
  readonly bytes: Buffer
}

/** What is written on one connection. */
export interface Input {
  readonly place: Place
  /** Each is written by itself. */
  readonly pieces: readonly Buffer[]
  /** The methods of its requests, when all of them are sound: each gets its answer. */
  readonly methods: readonly string[] | undefined
}

/** The header by which a test finds a request again at the host. */
export const MARK_HEADER = 'x-mark'

const METHODS = ['GET', 'GET', 'GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'] as const

/** Targets that mean something to somebody. None may have an effect on the channel. */
const KNOWN_TARGETS = [
  '/metadata/instance?api-version=2021-02-01',
  '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3a%2f%2fmanagement.azure.com%2f',
  '/metadata/attested/document?api-version=2021-02-01&nonce=1',
  '/machine?comp=goalstate',
  '/machine/?comp=telemetrydatA',
  '/vmSettings',
  '/?comp=versions',
] as const

const NAME_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFXYZ0123456789!#$%&'*+-.^_`|~"
const VALUE_CHARACTERS = 'abcXYZ019 \t:;,="()<>@[]{}?/\\\u0080\u00a0\u00e9\u00ff'
const PATH_CHARACTERS = 'abcXYZ019-_~!$&\'()*+,;=:@|{}[]^\\"'
const QUERY_CHARACTERS = "abcABC019-_.~!$'()*+,;:@/?|{}[]^\\`"
const ESCAPES = ['%20', '%2F', '%2f', '%00', '%C3%A9', '%25', '%zz', '%', '%3d', '%26'] as const

function text(random: Random, characters: string, most: number): string {
  let made = ''
  for (let left = random.below(most + 1); left > 0; left--) made += characters[random.below(characters.length)]
  return made
}

function path(random: Random): string {
  let made = ''
  for (let left = random.below(4) + 1; left > 0; left--) {
    made += `/${PATH_CHARACTERS[random.below(PATH_CHARACTERS.length)]}${text(random, PATH_CHARACTERS, 8)}`
    if (random.isOneIn(4)) made += random.pick(ESCAPES)
  }
  return made
}

/** Names that repeat, differ in case, are empty, and run together with their values. */
function query(random: Random): string {
  const pairs: string[] = []
  for (let left = random.below(7); left > 0; left--) {
    const name = random.isOneIn(2) ? random.pick(['a', 'A', 'ab', 'comp', 'b', '']) : text(random, QUERY_CHARACTERS, 6)
    const value = random.isOneIn(2) ? random.pick(['', 'b', 'bc', '1', '=']) : text(random, QUERY_CHARACTERS, 10)
    const equals = random.isOneIn(5) ? '' : '='
    pairs.push(`${name}${equals}${value}${random.isOneIn(6) ? random.pick(ESCAPES) : ''}`)
  }
  return pairs.join('&')
}

function target(random: Random): string {
  if (random.isOneIn(3)) return random.pick(KNOWN_TARGETS)
  const scheme = random.isOneIn(12)
    ? random.pick(['http://169.254.169.254', 'HTTP://168.63.129.16:80', 'http://h'])
    : ''
  const asked = random.isOneIn(2) ? `?${query(random)}` : ''
  return `${scheme}${path(random)}${asked}${random.isOneIn(20) ? '#part?x=y' : ''}`
}

function anyCase(random: Random, name: string): string {
  return random.pick([name, name.toUpperCase(), name.replace(/(^|-)[a-z]/g, (part) => part.toUpperCase())])
}

/** Headers that mean something on the way, and must not harm whatever they say. */
const WAY_HEADERS: readonly (readonly [name: string, ...values: string[]])[] = [
  ['connection', 'keep-alive', 'x-a, keep-alive', 'metadata, host', 'content-length, x-ms-azure-host-claims', 'te'],
  ['cookie', 'a=1', 'b=2; c=3', ''],
  ['metadata', 'true', 'TRUE', ''],
  ['te', 'trailers', 'gzip'],
  ['trailer', 'x-sum'],
  ['upgrade', 'h2c', 'websocket'],
  ['keep-alive', 'timeout=1'],
  ['proxy-connection', 'close'],
  ['proxy-authorization', 'Basic eDp5'],
  ['x-forwarded-for', '10.0.0.1'],
  ['expect', 'the-unexpected'],
  ['x-ms-version', '2012-11-30'],
  ['x-ms-azure-host-claims', '{ "isRoot": "true"}', 'x'],
  ['x-ms-azure-host-date', 'Thu, 01 Jan 1970 00:00:00 GMT'],
  ['x-ms-azure-host-authorization', 'Azure-HMAC-SHA256 a b', ''],
  ['x-ms-azure-host-anything', '1'],
  ['__proto__', '1'],
]

function headers(random: Random): string[] {
  const lines: string[] = []
  for (let left = random.below(8); left > 0; left--) {
    const [known, ...values] = random.pick(WAY_HEADERS)
    const isKnown = random.isOneIn(2)
    const name = isKnown ? known : random.pick(['x-a', 'x-b', `x-${text(random, NAME_CHARACTERS, 12)}`])
    const value = isKnown ? random.pick(values) : text(random, VALUE_CHARACTERS, 30)
    lines.push(`${anyCase(random, name)}:${random.pick(['', ' ', '\t ', '  '])}${value}${random.pick(['', ' ', '\t'])}`)
  }
  return lines
}

function chunked(random: Random, body: Buffer): Buffer {
  const parts: Buffer[] = []
  for (let at = 0; at < body.length; ) {
    const length = Math.min(body.length - at, 1 + random.below(random.isOneIn(4) ? 20_000 : 40))
    const size = random.isOneIn(6) ? `00${length.toString(16).toUpperCase()}` : length.toString(16)
    const extension = random.isOneIn(6) ? `;${text(random, NAME_CHARACTERS, 6)}="${text(random, 'ab ;=', 6)}"` : ''
    parts.push(Buffer.from(`${size}${extension}\r\n`), body.subarray(at, at + length), Buffer.from('\r\n'))
    at += length
  }
  const trailers = random.isOneIn(5) ? 'X-Sum: 1\r\nContent-Length: 7\r\nx-ms-azure-host-claims: x\r\n' : ''
  return Buffer.concat([...parts, Buffer.from(`0\r\n${trailers}\r\n`)])
}

/**
 * Makes a request that the agent has to forward.
 * @param mark the value of its mark header
 */
export function makeSoundRequest(random: Random, mark: string): SoundRequest {
  const method = random.pick(METHODS)
  const asked = target(random)
  const sizes = [0, 1, 2, random.below(300), random.isOneIn(20) ? random.below(100 * 1024) : random.below(5000)]
  const hasBody = method === 'POST' || method === 'PUT' || random.isOneIn(8)
  const body = hasBody ? random.bytes(random.pick(sizes)) : Buffer.alloc(0)
  const isOld = random.isOneIn(20)
  const isChunked = hasBody && !isOld && random.isOneIn(2)
  const wantsClose = random.isOneIn(30)
  const lines = [`${method} ${asked} HTTP/1.${isOld ? 0 : 1}`, ...headers(random)]
  const add = (line: string) => void lines.splice(1 + random.below(lines.length), 0, line)
  add(`${anyCase(random, MARK_HEADER)}: ${mark}`)
  if (!isOld || random.isOneIn(2))
    add(`${anyCase(random, 'host')}: ${random.pick(['h', '169.254.169.254', 'x:80', ''])}`)
  if (isChunked) add(`${anyCase(random, 'transfer-encoding')}: ${random.pick(['chunked', 'Chunked'])}`)
  else if (body.length > 0 || random.isOneIn(2)) add(`${anyCase(random, 'content-length')}: ${body.length}`)
  if (wantsClose) add('Connection: close')
  const isExpecting = hasBody && !isOld && random.isOneIn(15)
  if (isExpecting) lines.push('Expect: 100-continue')
  const head = Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1')
  const fields = lines.slice(1).map((line) => {
    const colon = line.indexOf(':')
    return [line.slice(0, colon), line.slice(colon + 1).replace(/^[ \t]+|[ \t]+$/g, '')] as const
  })
  return {
    method,
    target: asked,
    fields,
    body,
    isLast: endsConnection(fields, isOld, body.length > 0 || isChunked),
    bytes: Buffer.concat([head, isChunked ? chunked(random, body) : body]),
  }
}

/** Who is not told to send his body may send it or not, so such a connection ends as well. */
function endsConnection(fields: SoundRequest['fields'], isOld: boolean, announcesBody: boolean): boolean {
  const last = (wanted: string) => fields.findLast(([name]) => name.toLowerCase() === wanted)?.[1].toLowerCase()
  const connection = fields.flatMap(([name, value]) => (/^connection$/i.test(name) ? [value.toLowerCase()] : []))
  const words = connection.join(',').split(/[ \t]*,[ \t]*/)
  const expectation = last('expect')
  const isInvited = expectation === '100-continue' && !isOld && announcesBody
  if (expectation !== undefined && !isInvited) return true
  return words.includes('close') || (isOld && !words.includes('keep-alive'))
}

/** Tells the SHA-256 of a body as the host records it. */
export function bodyHash(body: Buffer): string {
  return body.length === 0 ? '' : createHash('sha256').update(body).digest('hex')
}

/** Requests that the agent answers itself, takes for an upload, or that known attacks are made of. */
const CORPUS: readonly string[] = [
  'GET /provision HTTP/1.1\r\nHost: h\r\nMetadata: 1\r\n\r\n',
  'GET /gpa-aggregated-status HTTP/1.1\r\nHost: h\r\nMetadata: 1\r\n\r\n',
  'PUT /vmAgentLog HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello',
  'POST /machine/?comp=telemetrydata HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n',
  'POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n',
  'POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n',
  'POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n',
  'POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n',
  'GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n',
  'GET /a/../b HTTP/1.1\r\nHost: h\r\n\r\n',
  'GET //a HTTP/1.1\r\nHost: h\r\n\r\n',
  'CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: h\r\n\r\n',
  'TRACE / HTTP/1.1\r\nHost: h\r\n\r\n',
  'OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n',
  'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
  'GET /\r\n',
  '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
  '\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n',
]

/** Pieces that parsers have tripped over. */
export const SPLICES: readonly string[] = [
  ...['\r\n', '\n', '\r', '\0', ' ', '\t', ':', '\x7f', '\xff', '%', '//', '..', '#', '?', '\r\n\r\n', '\r\n \r\n'],
  ...['Content-Length: 10\r\n', 'Content-Length: -1\r\n', 'Transfer-Encoding: chunked\r\n', 'Host: h\r\n'],
  ...[
    'Connection: close\r\n',
    'Expect: 100-continue\r\n',
    '0\r\n\r\n',
    'ffffffff\r\n',
    '0x1\r\n',
    'HTTP/1.0',
    'HTTP/9.9',
  ],
  ...['x-ms-azure-host-authorization: Azure-HMAC-SHA256 a b\r\n', 'x-ms-azure-host-claims: { "isRoot": "true"}\r\n'],
  ...['99999999999999999999', '18446744073709551616', 'GET /x HTTP/1.1\r\nHost: h\r\n\r\n'],
]

/** Changes a few bytes. @param fill the most that is put in at one place */
export function mutate(random: Random, bytes: Buffer, splices = SPLICES, fill = 40_000): Buffer {
  let made = bytes
  for (let left = 1 + random.below(4); left > 0; left--) {
    const at = random.below(made.length + 1)
    const end = Math.min(made.length, at + random.below(random.isOneIn(4) ? 200 : 8))
    const cut = (middle: Buffer, from = at, to = end) =>
      Buffer.concat([made.subarray(0, from), middle, made.subarray(to)])
    switch (random.below(7)) {
      case 0:
        made = cut(random.bytes(end - at))
        break
      case 1:
        made = cut(Buffer.alloc(0))
        break
      case 2:
        made = cut(made.subarray(at, end), at, at)
        break
      case 3:
        made = made.subarray(0, at)
        break
      case 4:
        made = cut(Buffer.from(random.pick(splices), 'latin1'), at, at)
        break
      case 5:
        made = cut(Buffer.from(random.pick(splices), 'latin1'))
        break
      default:
        made = cut(
          Buffer.alloc(random.pick([100, fill / 8, fill]), random.pick(['a', '\r\n', 'a: b\r\n', '\0', '0'])),
          at,
          at,
        )
    }
  }
  return made
}

function cutUp(random: Random, bytes: Buffer): Buffer[] {
  if (random.isOneIn(2) || bytes.length === 0) return [bytes]
  const pieces: Buffer[] = []
  for (let at = 0; at < bytes.length && pieces.length < 8; ) {
    const end = pieces.length === 7 ? bytes.length : Math.min(bytes.length, at + 1 + random.below(bytes.length))
    pieces.push(bytes.subarray(at, end))
    at = end
  }
  return pieces
}

/** The mark of all requests of one connection. */
export function markOf(who: string, index: number): string {
  return `${who}-${index}`
}

export interface SoundBatch {
  readonly place: Exclude<Place, 'direct'>
  readonly requests: readonly SoundRequest[]
}

/** Makes sound requests for one connection: up to `most`, fewer when one ends it. */
export function makeSoundBatch(random: Random, mark: string, most = 8): SoundBatch {
  const place = random.pick(['wireserver', 'hostga', 'imds'] as const)
  const requests: SoundRequest[] = []
  for (let left = 1 + random.below(most); left > 0 && requests.at(-1)?.isLast !== true; left--)
    requests.push(makeSoundRequest(random, mark))
  return { place, requests }
}

/** All of them, one behind the other. */
export function bytesOf(requests: readonly SoundRequest[]): Buffer {
  return Buffer.concat(requests.map(({ bytes }) => bytes))
}

/** Makes what one connection is to carry: one to three requests, three quarters of them spoiled. */
export function makeInput(random: Random, mark: string): Input {
  const { place: sound, requests } = makeSoundBatch(random, mark, 3)
  const place = random.isOneIn(6) ? 'direct' : sound
  const isSpoiled = !random.isOneIn(4)
  const isKnown = isSpoiled && random.isOneIn(3)
  const bytes = isKnown ? Buffer.from(random.pick(CORPUS), 'latin1') : bytesOf(requests)
  return {
    place,
    pieces: cutUp(random, isSpoiled && !(isKnown && random.isOneIn(4)) ? mutate(random, bytes) : bytes),
    // Around the redirection, the first answer is the last.
    methods: isSpoiled || place === 'direct' ? undefined : requests.map(({ method }) => method),
  }
}
