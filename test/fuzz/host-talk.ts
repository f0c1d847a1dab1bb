/**
 * Random answers of a host: sound ones in every framing, and unsound ones. Each goes with the request that makes the host
 * in the lab say it, see `told-host.ts`.
 *
 * Whatever the host says bears the name of the request it belongs to, so that a client that gets any of it in place of its own
 * answer knows. A host that sends more bytes after the agent has asked the next thing on that connection cannot be told
 * from one that answers: so unsound answers go out in one write, as bytes that arrive together do.
 */

import { createHash } from 'node:crypto'
import type { Random } from './random.ts'
import type { FuzzAnswer } from './read-answers.ts'
import { MARK_HEADER, mutate, SPLICES } from './requests.ts'
import { ANSWER_HEADER, encodeScript, type HostStep } from './told-host.ts'

/** A request, and what the host is going to say to it. */
export interface HostTalk {
  /** Stands in all that the host says to it. */
  readonly name: string
  readonly method: string
  readonly request: Buffer
  /** What the client must get; `undefined`: the answer is unsound. */
  readonly expected: { readonly status: number; readonly body: string } | undefined
}

const METHODS = ['GET', 'GET', 'GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS'] as const

const STATUSES = [200, 200, 200, 200, 201, 204, 206, 302, 304, 400, 404, 410, 429, 500, 503, 599] as const

/** Headers of hosts, some of which must not come through. */
const FIELDS = [
  ...[
    'Connection: keep-alive',
    'Keep-Alive: timeout=5',
    'Connection: x-hop',
    'X-Hop: 1',
    'Upgrade: h2c',
    'TE: trailers',
  ],
  ...['Trailer: x-sum', 'Set-Cookie: a=1', 'Set-Cookie: b=2', 'Date: Thu, 01 Jan 1970 00:00:00 GMT', 'Server: x\xe9'],
  ...[
    'x-ms-azure-host-authorization: Azure-HMAC-SHA256 a b',
    'Proxy-Authenticate: Basic',
    'X-Empty:',
    'Retry-After: 1',
  ],
] as const

/** Makes one to four requests for one connection. */
export function makeTalk(random: Random, mark: string): HostTalk[] {
  return Array.from({ length: 1 + random.below(4) }, (_, nth) => makeOne(random, `${mark}.${nth}`))
}

function makeOne(random: Random, mark: string): HostTalk {
  const name = `${mark}.${checksum(mark)}`
  const method = random.pick(METHODS)
  const isSound = random.isOneIn(2)
  const answer = soundAnswer(random, name, method)
  const steps: HostStep[] = isSound ? cutUp(random, answer.bytes) : [{ write: spoil(random, answer.bytes, name) }]
  if (!isSound)
    steps.push({ pauseMs: random.pick([0, 0, 30]) }, { end: random.pick(['close', 'close', 'reset'] as const) })
  else if (answer.endsByClose) steps.push({ end: 'close' })
  const body = method === 'POST' || method === 'PUT' ? 'x'.repeat(random.below(3000)) : ''
  const head = [
    `${method} /x HTTP/1.1`,
    'Host: h',
    `${MARK_HEADER}: ${name}`,
    `${ANSWER_HEADER}: ${encodeScript({ steps })}`,
    ...(body === '' ? [] : [`Content-Length: ${body.length}`]),
  ]
  const { status, body: expectedBody } = answer
  const expected = isSound ? { status, body: expectedBody } : undefined
  return { name, method, request: Buffer.from(`${head.join('\r\n')}\r\n\r\n${body}`, 'latin1'), expected }
}

/** By it a name that was changed on the way is known to be none. */
function checksum(mark: string): string {
  return createHash('sha256').update(mark).digest('hex').slice(0, 12)
}

function soundAnswer(random: Random, name: string, method: string) {
  const status = random.pick(STATUSES)
  const hasNone = method === 'HEAD' || status === 204 || status === 304
  const body =
    `name=${name};`.repeat(random.below(random.isOneIn(10) ? 200 : 4)) + (random.isOneIn(3) ? '\r\n\r\n' : '')
  const framing = random.pick(['length', 'length', 'chunks', 'chunks', 'close'] as const)
  const fields = Array.from({ length: random.below(5) }, () => random.pick(FIELDS) as string)
  fields.push(`X-Name: name=${name};`)
  const isClosing = random.isOneIn(8)
  if (isClosing) fields.push(random.pick(['Connection: close', 'connection:x-y,Close']))
  if (framing === 'length' && status !== 204) fields.push(`Content-Length: ${body.length}`)
  if (framing === 'chunks' && status !== 204) fields.push('Transfer-Encoding: Chunked')
  const interim = random.isOneIn(4) ? interimAnswers(random) : ''
  const version = random.isOneIn(15) && framing !== 'chunks' ? '1.0' : '1.1'
  const reason = random.pick([' OK', ' ', ' Not what \xe9 it seems', ''])
  const top = `${interim}HTTP/${version} ${status}${reason}\r\n${fields.join('\r\n')}\r\n\r\n`
  const sent = hasNone ? '' : framing === 'chunks' ? chunks(random, body) : body
  return {
    status,
    body: hasNone ? '' : body,
    bytes: top + sent,
    endsByClose: isClosing || version === '1.0' || (!hasNone && framing === 'close'),
  }
}

function interimAnswers(random: Random): string {
  const one = random.pick([
    'HTTP/1.1 100 Continue\r\n\r\n',
    'HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n',
    'HTTP/1.1 102\r\n\r\n',
  ])
  return one.repeat(random.pick([1, 1, 2, 100]))
}

function chunks(random: Random, body: string): string {
  let made = ''
  for (let at = 0; at < body.length; ) {
    const piece = body.slice(at, at + 1 + random.below(200))
    made += `${piece.length.toString(16)}${random.isOneIn(6) ? ';a="b c"' : ''}\r\n${piece}\r\n`
    at += piece.length
  }
  return `${made}0\r\n${random.isOneIn(5) ? 'X-Sum: 1\r\nContent-Length: 7\r\n' : ''}\r\n`
}

function cutUp(random: Random, bytes: string): HostStep[] {
  const steps: HostStep[] = []
  for (let left = random.below(4), at = 0; ; left--) {
    const end = left <= 0 ? bytes.length : at + random.below(bytes.length - at)
    if (end > at) steps.push({ write: bytes.slice(at, end) })
    if (left <= 0) return steps
    if (random.isOneIn(2)) steps.push({ pauseMs: random.below(4) })
    at = end
  }
}

/** Answers that are unsound in ways that matter, and ones with bytes changed at random. */
function spoil(random: Random, bytes: string, name: string): string {
  const said = `name=${name};`
  const second = `HTTP/1.1 200 OK\r\nContent-Length: ${said.length}\r\n\r\n${said}`
  const known = [
    `${bytes}${second}`,
    `HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n${second}`,
    `HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: ${second.length}\r\n\r\n${second}`,
    `HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${second}`,
    `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${second}`,
    `HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n${second}`,
    `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n${second}`,
    `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n${second}`,
    `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n${second}`,
    `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel\r\n0\r\n\r\n${second}`,
    `HTTP/1.1 204 No Content\r\nContent-Length: ${second.length}\r\n\r\n${second}`,
    `HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${second}`,
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n${second}`,
    `HTTP/1.1 103 Early Hints\r\nContent-Length: ${second.length}\r\n\r\n${second}${second}`,
    `HTTP/1.1 200 OK\nContent-Length: 0\n\n${second}`,
    `HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n${second}`,
    `HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n${second}`,
    `HTTP/2 200\r\n\r\n${said}`,
    `HTTP/1.1 99 X\r\n\r\n${second}`,
    `\r\n${second}`,
    `${'HTTP/1.1 100 Continue\r\n\r\n'.repeat(1000)}${said}`,
    `HTTP/1.1 200 OK\r\nX: ${'a'.repeat(17_000)}\r\n\r\n`,
    `HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n${said}`,
    `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n${said}`,
    '',
    'SSH-2.0-x\r\n',
  ]
  if (random.isOneIn(3)) return random.pick(known)
  const base = random.isOneIn(3) ? random.pick(known) : bytes
  const splices = [...SPLICES, second, 'HTTP/1.1 200 OK\r\n', 'HTTP/1.1 100 Continue\r\n\r\n']
  return mutate(random, Buffer.from(base, 'latin1'), splices, 20_000).toString('latin1').slice(0, 40_000)
}

/** @returns a sentence about what a client should not get as its answer; `undefined` when it is well */
export function answerFault(
  { name, expected }: HostTalk,
  answer: FuzzAnswer | undefined,
  end: string | undefined,
): string | undefined {
  if (answer === undefined) {
    if (end === undefined) return 'there is neither an answer nor an end'
    return expected === undefined ? undefined : `a sound answer did not come: ${end}`
  }
  const text = `${answer.fields.join('\n')}\n${answer.body}`
  for (const [, mark = '', sum] of text.matchAll(/name=([\w-]+\.\d+)\.([0-9a-f]{12});/g))
    if (checksum(mark) === sum && name !== `${mark}.${sum}`) return `${name} got what was said to ${mark}`
  if (answer.status === 599 && answer.fields.includes('x-reason')) return 'the host could not read what the agent sent'
  const isFromHost = answer.fields.includes('x-ms-azure-host-authorization')
  if (!isFromHost) {
    const isClean = [502, 503].includes(answer.status) && answer.isWhole && answer.body === ''
    return isClean ? undefined : `the agent answered ${answer.status} by itself`
  }
  if (expected === undefined) return undefined
  if (answer.status !== expected.status) return `status ${answer.status} in place of ${expected.status}`
  if (!answer.isWhole || answer.body !== expected.body) return 'the body is not the one that the host sent'
  return undefined
}
