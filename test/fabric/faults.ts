/**
 * Scripted misbehaviour of the host. A fault is data, so that it can be set from a test or over the control socket.
 *
 * Some faults stand in the endpoint's place, and the request has no effect at the host (`status`, `raw`, `stop-reading`,
 * and `never-answer`, `close`, `reset` unless told otherwise). All others change how the endpoint's answer travels. Faults of one request add up, in the order in which they were set.
 */

import type { Answer } from './answer.ts'
import type { EndpointName } from './channel.ts'

/** What goes wrong. Times in milliseconds, sizes in bytes, raw bytes as base64. */
export type Fault =
  /** Answer this instead; `retryAfterS` adds Retry-After. */
  | { kind: 'status'; status: number; headers?: [string, string][]; body?: string; retryAfterS?: number }
  /** Answer properly, but this much later. */
  | { kind: 'delay'; delayMs: number }
  /** Take the request and say nothing; with `takesEffect` the endpoint acts on it all the same. */
  | { kind: 'never-answer'; takesEffect?: boolean }
  /** Take the request and close without an answer. */
  | { kind: 'close'; takesEffect?: boolean }
  /** Take the request and reset the connection. */
  | { kind: 'reset'; takesEffect?: boolean }
  /** Stop reading once the head is there: the sender's body gets stuck. */
  | { kind: 'stop-reading' }
  /** Reset after this many bytes of the body (default: half of it). */
  | { kind: 'reset-mid-body'; afterBytes?: number }
  /** Close after this many bytes of the body, although Content-Length promised more (default: half of it). */
  | { kind: 'truncate'; afterBytes?: number }
  /** Right head, senseless body (default: 64 bytes that are neither JSON, XML nor UTF-8). */
  | { kind: 'garbage-body'; bodyBase64?: string }
  /** Replace members of a JSON body; `undefined` members of `remove` go. A key that is no key is made with this. */
  | { kind: 'patch-json'; set?: Record<string, unknown>; remove?: string[] }
  /** Send the body chunked, in pieces of this size (default 7). */
  | { kind: 'chunked'; chunkBytes?: number }
  /** Send the body without a length, ended by closing. */
  | { kind: 'until-close' }
  /** Send the body in small pieces with pauses. */
  | { kind: 'slow-body'; pieceBytes: number; everyMs: number }
  /** Send interim answers first. */
  | { kind: 'informational'; status: number; count?: number; headers?: [string, string][] }
  /** Replace the body by a pattern of this size. */
  | { kind: 'huge-body'; sizeBytes: number }
  /** Add header lines; `fillBytes` adds one of that many bytes. */
  | { kind: 'headers'; headers?: [string, string][]; fillBytes?: number }
  /** Close after the answer without announcing it: a pooled connection goes stale. */
  | { kind: 'close-after' }
  /** Write these bytes in place of any answer, then close. */
  | { kind: 'raw'; bytesBase64: string }

/** Which requests a fault meets, and how often. What is left out does not narrow the choice. */
export interface FaultRule {
  endpoint?: EndpointName
  method?: string
  /** The path without query, ignoring case; `*` stands for any run of characters. */
  path?: string
  /** A part of the whole target, ignoring case, for instance `comp=goalstate`. */
  targetIncludes?: string
  /** Let this many matching requests pass first. */
  skip?: number
  /** Meet this many requests, then vanish. */
  times?: number
  fault: Fault
}

/** How an answer is put on the wire. */
export interface Delivery {
  delayMs: number
  informational: { status: number; headers: readonly (readonly [string, string])[] }[]
  framing: 'length' | 'chunked' | 'until-close'
  /** Size of one piece, for chunked and slow bodies. */
  pieceBytes: number
  pieceEveryMs: number
  /** Bytes of the body after which the connection ends; `half` of it. */
  cutAfterBytes: number | 'half' | undefined
  /** How an early end looks, with or without a part of the answer. */
  end: 'none' | 'close' | 'reset' | 'silence'
  closeAfter: boolean
  raw: Buffer | undefined
}

/** What the faults of one request come to. */
export interface FaultEffect {
  /** Answered in the endpoint's place. */
  readonly instead: Answer | undefined
  /** Whether the endpoint acts on the request. */
  readonly takesEffect: boolean
  readonly delivery: Delivery
  /** Whether the connection answers at all. */
  readonly isAnswered: boolean
  /** Changes the endpoint's answer before it is sent. */
  alter(answer: Answer): Answer
}

/** Ready-made rules for what a key exchange can meet. */
export const KEY_FAULTS = {
  acquireRefused: { path: '/secure-channel/key', fault: { kind: 'status', status: 403 } },
  attestRefused: { path: '/secure-channel/key/*/key-attestation', fault: { kind: 'status', status: 403 } },
  /** The host latches the key, but its answer is lost. */
  attestAnswerLost: { path: '/secure-channel/key/*/key-attestation', fault: { kind: 'close', takesEffect: true } },
  keyNotHex: {
    path: '/secure-channel/key',
    fault: { kind: 'patch-json', set: { key: `Y${'A'.repeat(63)}` } },
  },
  keyOddLength: { path: '/secure-channel/key', fault: { kind: 'patch-json', set: { key: 'A'.repeat(63) } } },
  keyTooShort: { path: '/secure-channel/key', fault: { kind: 'patch-json', set: { key: 'AB'.repeat(16) } } },
  keyMissing: { path: '/secure-channel/key', fault: { kind: 'patch-json', remove: ['key'] } },
  /** A guid that would leave the key folder if it were used as a file name unchecked. */
  guidTraversal: {
    path: '/secure-channel/key',
    fault: { kind: 'patch-json', set: { guid: '../../../../tmp/not-a-guid' } },
  },
  guidLineBreak: {
    path: '/secure-channel/key',
    fault: { kind: 'patch-json', set: { guid: '4d3c2b1a-0000-4000-8000-000000000001\r\nx-evil: 1' } },
  },
  unknownScheme: {
    path: '/secure-channel/key',
    fault: { kind: 'patch-json', set: { authorizationScheme: 'Azure-HMAC-MD5' } },
  },
  statusWithoutVersion: { path: '/secure-channel/status', fault: { kind: 'patch-json', remove: ['version'] } },
} as const satisfies Record<string, FaultRule>

const GARBAGE = Buffer.from(Array.from({ length: 64 }, (_, at) => (at * 151 + 128) & 0xff))
const NO_FAULT_DELIVERY: Readonly<Delivery> = {
  delayMs: 0,
  informational: [],
  framing: 'length',
  pieceBytes: 0,
  pieceEveryMs: 0,
  cutAfterBytes: undefined,
  end: 'none',
  closeAfter: false,
  raw: undefined,
}

const RULE_MEMBERS: Readonly<Record<keyof FaultRule, true>> = {
  endpoint: true,
  method: true,
  path: true,
  targetIncludes: true,
  skip: true,
  times: true,
  fault: true,
}

const KINDS: Readonly<Record<Fault['kind'], true>> = {
  status: true,
  delay: true,
  'never-answer': true,
  close: true,
  reset: true,
  'stop-reading': true,
  'reset-mid-body': true,
  truncate: true,
  'garbage-body': true,
  'patch-json': true,
  chunked: true,
  'until-close': true,
  'slow-body': true,
  informational: true,
  'huge-body': true,
  headers: true,
  'close-after': true,
  raw: true,
}

/** A rule with its number and what is left of its counts. */
export interface ActiveFault {
  readonly id: number
  readonly rule: FaultRule
  skipLeft: number
  timesLeft: number
}

/** The faults in force. */
export class FaultList {
  #active: (ActiveFault & { matchesPath: (path: string) => boolean })[] = []
  #lastId = 0

  /**
   * Adds a rule behind the others. @returns the number to remove it by.
   * @throws Error for a kind or a member that does not exist: a fault with a slip in it would meet nothing, or everything.
   */
  add(rule: FaultRule): number {
    const unknown = Object.keys(rule).find((name) => !Object.hasOwn(RULE_MEMBERS, name))
    if (unknown !== undefined) throw new Error(`Cannot add a fault: a rule has no member "${unknown}"`)
    const kind: unknown = rule.fault?.kind
    if (typeof kind !== 'string' || !Object.hasOwn(KINDS, kind))
      throw new Error(`Cannot add a fault: no kind "${kind}"`)
    const id = ++this.#lastId
    this.#active.push({
      id,
      rule,
      skipLeft: rule.skip ?? 0,
      timesLeft: rule.times ?? Number.POSITIVE_INFINITY,
      matchesPath: pathMatcher(rule.path),
    })
    return id
  }

  remove(id: number): void {
    this.#active = this.#active.filter((fault) => fault.id !== id)
  }

  clear(): void {
    this.#active = []
  }

  list(): { id: number; rule: FaultRule }[] {
    return this.#active.map(({ id, rule }) => ({ id, rule }))
  }

  /** Takes the faults that meet this request, counting them down. @returns an empty list for nearly every request. */
  take(endpoint: EndpointName, method: string, path: string, target: string): readonly Fault[] {
    if (this.#active.length === 0) return []
    const met: Fault[] = []
    for (const active of this.#active) {
      const { rule } = active
      if (rule.endpoint !== undefined && rule.endpoint !== endpoint) continue
      if (rule.method !== undefined && rule.method !== method) continue
      if (!active.matchesPath(path)) continue
      if (rule.targetIncludes !== undefined && !includesIgnoringCase(target, rule.targetIncludes)) continue
      if (active.skipLeft > 0) {
        active.skipLeft--
        continue
      }
      active.timesLeft--
      met.push(rule.fault)
    }
    this.#active = this.#active.filter((active) => active.timesLeft > 0)
    return met
  }
}

/** Adds faults up to one effect; `undefined` for none, which is the fast way. */
export function combineFaults(faults: readonly Fault[]): FaultEffect | undefined {
  if (faults.length === 0) return undefined
  const delivery: Delivery = { ...NO_FAULT_DELIVERY, informational: [] }
  const alterations: ((answer: Answer) => Answer)[] = []
  let instead: Answer | undefined
  let takesEffect = true
  for (const fault of faults) {
    const alteration = alterationOf(fault)
    if (alteration !== undefined) alterations.push(alteration)
    shapeDelivery(delivery, fault)
    if (fault.kind === 'status') instead = statusAnswer(fault)
    if (fault.kind === 'status' || fault.kind === 'raw' || fault.kind === 'stop-reading') takesEffect = false
    if (fault.kind === 'never-answer' || fault.kind === 'close' || fault.kind === 'reset') {
      takesEffect &&= fault.takesEffect === true
    }
  }
  const isAnswered = delivery.raw !== undefined || delivery.end === 'none' || delivery.cutAfterBytes !== undefined
  return {
    instead,
    takesEffect,
    delivery,
    isAnswered,
    alter: (answer) => alterations.reduce((altered, alteration) => alteration(altered), answer),
  }
}

function statusAnswer(fault: Extract<Fault, { kind: 'status' }>): Answer {
  const headers: (readonly [string, string])[] = [...(fault.headers ?? [])]
  if (fault.retryAfterS !== undefined) headers.push(['Retry-After', String(fault.retryAfterS)])
  if (fault.body !== undefined && !headers.some(([name]) => name.toLowerCase() === 'content-type')) {
    headers.push(['Content-Type', 'text/plain; charset=utf-8'])
  }
  return { status: fault.status, headers, body: Buffer.from(fault.body ?? '') }
}

function alterationOf(fault: Fault): ((answer: Answer) => Answer) | undefined {
  switch (fault.kind) {
    case 'garbage-body': {
      const body = fault.bodyBase64 === undefined ? GARBAGE : Buffer.from(fault.bodyBase64, 'base64')
      return (answer) => ({ ...answer, body })
    }
    case 'huge-body':
      return (answer) => ({ ...answer, body: { patternSizeBytes: fault.sizeBytes } })
    case 'patch-json':
      return (answer) => patchJson(answer, fault.set ?? {}, fault.remove ?? [])
    case 'headers': {
      const added: [string, string][] = [...(fault.headers ?? [])]
      if (fault.fillBytes !== undefined) added.push(['x-fill', 'f'.repeat(fault.fillBytes)])
      return (answer) => ({ ...answer, headers: [...answer.headers, ...added] })
    }
    default:
      return undefined
  }
}

function patchJson(answer: Answer, set: Record<string, unknown>, remove: readonly string[]): Answer {
  if (!Buffer.isBuffer(answer.body)) return answer
  let document: unknown
  try {
    document = JSON.parse(answer.body.toString())
  } catch {
    return answer
  }
  if (typeof document !== 'object' || document === null || Array.isArray(document)) return answer
  const patched = Object.fromEntries(Object.entries({ ...document, ...set }).filter(([name]) => !remove.includes(name)))
  return { ...answer, body: Buffer.from(JSON.stringify(patched)) }
}

function shapeDelivery(delivery: Delivery, fault: Fault): void {
  switch (fault.kind) {
    case 'delay':
      delivery.delayMs += fault.delayMs
      return
    case 'never-answer':
    case 'stop-reading':
      delivery.end = 'silence'
      return
    case 'close':
    case 'reset':
      delivery.end = fault.kind
      return
    case 'reset-mid-body':
    case 'truncate':
      delivery.end = fault.kind === 'truncate' ? 'close' : 'reset'
      delivery.cutAfterBytes = fault.afterBytes ?? 'half'
      return
    case 'chunked':
      delivery.framing = 'chunked'
      delivery.pieceBytes = fault.chunkBytes ?? 7
      return
    case 'until-close':
      delivery.framing = 'until-close'
      delivery.closeAfter = true
      return
    case 'slow-body':
      delivery.pieceBytes = fault.pieceBytes
      delivery.pieceEveryMs = fault.everyMs
      return
    case 'informational':
      for (let sent = 0; sent < (fault.count ?? 1); sent++) {
        delivery.informational.push({ status: fault.status, headers: fault.headers ?? [] })
      }
      return
    case 'close-after':
      delivery.closeAfter = true
      return
    case 'raw':
      delivery.raw = Buffer.from(fault.bytesBase64, 'base64')
      return
    default:
      return
  }
}

function pathMatcher(pattern: string | undefined): (path: string) => boolean {
  if (pattern === undefined) return () => true
  const parts = pattern.split('*').map((part) => part.replace(/[\\^$.|?+()[\]{}]/g, '\\$&'))
  const expression = new RegExp(`^${parts.join('.*')}$`, 'i')
  return (path) => expression.test(path)
}

function includesIgnoringCase(text: string, part: string): boolean {
  return text.toLowerCase().includes(part.toLowerCase())
}
