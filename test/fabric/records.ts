/**
 * Remembers what reached the host, for assertions: exact counters for ever, the last requests in full.
 *
 * Bounded on purpose, since the host also serves the benchmark: a fixed number of records, and a budget for the bodies
 * kept with them (the oldest bodies go first; size and SHA-256 stay).
 */

import type { EndpointName, Mode } from './channel.ts'
import type { DateVerdict, Decision, Objection, SignatureVerdict } from './verify.ts'

/** One request as the host saw it, and what the host did with it. */
export interface RecordedRequest {
  /** Counts from 1, over all endpoints, in order of completion. */
  readonly seq: number
  /** When the request was complete, epoch milliseconds of this machine (the host's own clock may be set apart). */
  readonly atMs: number
  readonly endpoint: EndpointName
  /** Number of the connection at the host, and how many requests it carried, this one included. */
  readonly connection: number
  readonly nthOnConnection: number
  /** The sender's address and port. */
  readonly remote: string
  readonly method: string
  /** As received, byte for byte. */
  readonly target: string
  /** name, value, name, value …, in order, repeated ones included. `header()` finds one. */
  readonly rawHeaders: readonly string[]
  readonly bodySizeBytes: number
  /** Hexadecimal; empty for an empty body. */
  readonly bodySha256: string
  /** The first part of the body; compare lengths to see whether it is whole. */
  body: Buffer
  readonly signature: SignatureVerdict
  readonly guid?: string
  readonly date: DateVerdict
  readonly claims?: string
  readonly isRoot?: boolean
  readonly mode: Mode
  readonly decision: Decision | 'malformed' | 'cut-off'
  readonly objection?: Objection
  /** What was wrong with a malformed request, or with one that the sender did not finish. */
  readonly reason?: string
  /** The status answered; 0 when no answer was given. */
  readonly status: number
  /** The kinds of faults applied, joined by `+`. */
  readonly fault?: string
}

/** Exact totals since the start or the last `clear()`. */
export interface Counters {
  requests: number
  byEndpoint: Record<string, number>
  bySignature: Record<string, number>
  byDecision: Record<string, number>
  byStatus: Record<string, number>
  connections: number
}

/** How much is remembered. */
export interface RecordLimits {
  /** Records kept. */
  records: number
  /** First bytes kept of one body. */
  bodyBytes: number
  /** Bytes kept of all bodies together. */
  allBodiesBytes: number
}

export const DEFAULT_RECORD_LIMITS: RecordLimits = {
  records: 10_000,
  bodyBytes: 64 * 1024,
  allBodiesBytes: 32 * 1024 * 1024,
}

interface Waiter {
  predicate: (request: RecordedRequest) => boolean
  resolve: (request: RecordedRequest) => void
}

const NO_BODY = Buffer.alloc(0)

/** A bounded list of requests with counters and waiters. */
export class Records {
  readonly #limits: RecordLimits
  readonly #waiters = new Set<Waiter>()
  #list: RecordedRequest[] = []
  #bodiesBytes = 0
  #withBody: RecordedRequest[] = []
  #counters = noCounts()
  #lastSeq = 0

  constructor(limits: RecordLimits) {
    this.#limits = limits
  }

  get limits(): RecordLimits {
    return this.#limits
  }

  /** The requests remembered, oldest first. */
  get list(): readonly RecordedRequest[] {
    return this.#list.slice(-this.#limits.records)
  }

  get lastSeq(): number {
    return this.#lastSeq
  }

  get counters(): Readonly<Counters> {
    return structuredClone(this.#counters)
  }

  countConnection(): void {
    this.#counters.connections++
  }

  add(request: Omit<RecordedRequest, 'seq'>): RecordedRequest {
    const recorded: RecordedRequest = { seq: ++this.#lastSeq, ...request }
    this.#list.push(recorded)
    // Dropping half of the list at a time keeps the cost per request constant.
    if (this.#list.length >= 2 * this.#limits.records) this.#list = this.#list.slice(-this.#limits.records)
    this.#keepBodies(recorded)
    this.#count(recorded)
    for (const waiter of this.#waiters) {
      if (!waiter.predicate(recorded)) continue
      this.#waiters.delete(waiter)
      waiter.resolve(recorded)
    }
    return recorded
  }

  /** Returns remembered requests after `seq`, oldest first. */
  after(seq: number, limit: number): readonly RecordedRequest[] {
    const list = this.list
    const start = list.findIndex((request) => request.seq > seq)
    return start === -1 ? [] : list.slice(start, start + limit)
  }

  /**
   * Waits for a request, remembered or to come, that `predicate` likes.
   * @throws Error when none comes within `timeoutMs`; the message lists what did come last.
   */
  async waitFor(predicate: (request: RecordedRequest) => boolean, timeoutMs: number): Promise<RecordedRequest> {
    const known = this.list.find(predicate)
    if (known !== undefined) return known
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        predicate,
        resolve: (request) => {
          clearTimeout(timer)
          resolve(request)
        },
      }
      const timer = setTimeout(() => {
        this.#waiters.delete(waiter)
        reject(
          new Error(`Cannot find the awaited request: none came within ${timeoutMs} ms; last ones: ${this.#tail()}`),
        )
      }, timeoutMs)
      this.#waiters.add(waiter)
    })
  }

  /** Forgets requests and counts; sequence numbers go on. */
  clear(): void {
    this.#list = []
    this.#withBody = []
    this.#bodiesBytes = 0
    this.#counters = noCounts()
  }

  #tail(): string {
    const last = this.#list.slice(-5).map((request) => `${request.endpoint} ${request.method} ${request.target}`)
    return last.length === 0 ? 'none at all' : last.join(', ')
  }

  #keepBodies(recorded: RecordedRequest): void {
    if (recorded.body.length === 0) return
    this.#bodiesBytes += recorded.body.length
    this.#withBody.push(recorded)
    const oldestSeqKept = this.#lastSeq - this.#limits.records + 1
    while (this.#withBody[0]!.seq < oldestSeqKept || this.#bodiesBytes > this.#limits.allBodiesBytes) {
      if (this.#withBody.length === 1) return
      const oldest = this.#withBody.shift()!
      this.#bodiesBytes -= oldest.body.length
      oldest.body = NO_BODY
    }
  }

  #count(recorded: RecordedRequest): void {
    const counters = this.#counters
    counters.requests++
    raise(counters.byEndpoint, recorded.endpoint)
    raise(counters.bySignature, recorded.signature)
    raise(counters.byDecision, recorded.decision)
    raise(counters.byStatus, String(recorded.status))
  }
}

function noCounts(): Counters {
  return { requests: 0, byEndpoint: {}, bySignature: {}, byDecision: {}, byStatus: {}, connections: 0 }
}

function raise(counts: Record<string, number>, name: string): void {
  counts[name] = (counts[name] ?? 0) + 1
}
