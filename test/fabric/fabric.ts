/**
 * A simulated Azure host: WireServer with the secure channel, HostGAPlugin and IMDS, on three listeners.
 *
 * It is a witness first. Every request is read by a strict reader of its own, its signature is computed anew from the
 * bytes received, and what was found is recorded, whatever the answer. Nothing here comes from the agent's sources.
 *
 *   bytes ─▶ http-reader ─▶ connection ─▶ Fabric.#begin ─▶ verify ─▶ wireserver / hostga / imds ─▶ faults ─▶ bytes
 *                                                             └────▶ records
 */

import type { Socket } from 'node:net'
import { type Answer, emptyAnswer, type HostRequest, parseQuery } from './answer.ts'
import { AttestedSigner } from './attested-document.ts'
import {
  Channel,
  type ChannelLevel,
  type ChannelOptions,
  type ChannelRules,
  ENDPOINT_NAMES,
  type EndpointName,
  type Mode,
} from './channel.ts'
import { type Exchange, HostConnection, type Outcome } from './connection.ts'
import { DEFAULT_VM, type VmDocuments } from './documents.ts'
import { combineFaults, type FaultEffect, FaultList, type FaultRule } from './faults.ts'
import type { Address, HostControl, HostState, ListenerMode } from './host-control.ts'
import { answerHostga, isLogUpload, type LogUpload, type StatusUpload } from './hostga.ts'
import type { RequestHead } from './http-reader.ts'
import { answerImds, isIdentityPath, type ScheduledEvent, type ScheduledEvents } from './imds.ts'
import { IncomingBody } from './incoming-body.ts'
import { ListeningEndpoint } from './listening-endpoint.ts'
import { SlidingWindow } from './rate.ts'
import { type Counters, DEFAULT_RECORD_LIMITS, type RecordedRequest, type RecordLimits, Records } from './records.ts'
import { splitTarget } from './string-to-sign.ts'
import type { TelemetryPost } from './telemetry.ts'
import {
  ALL_STRICT,
  type Findings,
  findOut,
  judge,
  NOT_STRICT,
  SignatureCheck,
  type SignatureVerdict,
  type StrictOptions,
} from './verify.ts'
import { answerWireserver, attestedGuid } from './wireserver.ts'

/** How a simulated host is set up. Everything has a default: three free loopback ports and a disabled channel. */
export interface FabricOptions {
  wireserver?: Partial<Address>
  hostga?: Partial<Address>
  imds?: Partial<Address>
  /** Version of the status document (default 2.0). */
  protocol?: '1.0' | '2.0'
  /** Protocol 2.0: rule documents; given ones enable the channel. */
  rules?: ChannelRules
  /** Protocol 1.0: the state (default Disabled). */
  level?: ChannelLevel
  /** Any other setting of the channel. */
  channel?: Partial<ChannelOptions>
  /** Short for a channel in which all endpoints enforce and the rules allow everybody (default false). */
  enforce?: boolean
  /** Demand a signature although no key is latched yet (default false: there is nothing to sign with). */
  demandBeforeLatch?: boolean
  /** A key that is latched from the start. */
  latchedKey?: { guid: string; keyHex: string }
  /** Stricter demands: all of them, or some (default none). */
  strict?: boolean | Partial<StrictOptions>
  /** How far the host's clock is ahead of this machine's (default 0). */
  clockSkewMs?: number
  /** How far a request's date may be from the host's clock (default 5 minutes). */
  dateToleranceMs?: number
  /** Keep the documented limits: IMDS 5/s, tokens 20/s, telemetry 15 in 15 s (default false). */
  rateLimit?: boolean
  documents?: Partial<VmDocuments>
  /** Largest body that is held (default 16 MiB); log uploads are counted, up to 100 MiB. */
  maxBodyBytes?: number
  records?: Partial<RecordLimits>
  /** Called with each request when it has been answered for. */
  onRequest?: (request: RecordedRequest) => void
  /** Answers in the endpoint's place when it returns something; for tests that need what no fault offers. */
  respond?: (endpoint: EndpointName, request: HostRequest) => Answer | undefined
}

/** Addresses of the real host, for use inside a network namespace that has them. */
export const REAL_ADDRESSES: Readonly<Record<EndpointName, Address>> = {
  wireserver: { host: '168.63.129.16', port: 80 },
  hostga: { host: '168.63.129.16', port: 32526 },
  imds: { host: '169.254.169.254', port: 80 },
}

const MAX_LOG_BYTES = 100 * 1024 * 1024
const DEFAULT_MAX_BODY_BYTES = 16 * 1024 * 1024
const DEFAULT_TOLERANCE_MS = 5 * 60 * 1000
const KEPT_POSTS = 1000
const ALLOW_ALL: ChannelRules = {
  wireserver: { defaultAccess: 'allow', mode: 'enforce' },
  imds: { defaultAccess: 'allow', mode: 'enforce' },
}
const NO_BYTES = Buffer.alloc(0)

/**
 * Starts a simulated host and resolves when it listens on all three addresses.
 * @throws Error from the system when an address cannot be bound; what was bound is released first.
 */
export async function startFabric(options: FabricOptions = {}): Promise<Fabric> {
  const fabric = new Fabric(options)
  try {
    for (const endpoint of ENDPOINT_NAMES) await fabric.setListener(endpoint, 'normal')
  } catch (error) {
    await fabric.close()
    throw error
  }
  return fabric
}

/** Finds the last value of a header of a recorded request, without white space around it; `name` in any case. */
export function header(request: RecordedRequest, name: string): string | undefined {
  return headers(request, name).at(-1)
}

/** Finds all values of a header of a recorded request, in order; `name` in any case. */
export function headers(request: RecordedRequest, name: string): string[] {
  const wanted = name.toLowerCase()
  return request.rawHeaders
    .filter((_, at) => at % 2 === 1 && request.rawHeaders[at - 1]!.toLowerCase() === wanted)
    .map((value) => value.trim())
}

/** A running host. See `HostControl` for what can be changed while it runs. */
export class Fabric implements HostControl {
  readonly #options: FabricOptions
  readonly #channel: Channel
  readonly #records: Records
  readonly #faults = new FaultList()
  readonly #signer = new AttestedSigner()
  readonly #strict: StrictOptions
  readonly #endpoints: Record<EndpointName, ListeningEndpoint>
  readonly #telemetry: TelemetryPost[] = []
  readonly #health: ('Ready' | 'NotReady')[] = []
  readonly #statusUploads: StatusUpload[] = []
  readonly #logUploads: LogUpload[] = []
  readonly #imdsRate = new SlidingWindow(5, 1000)
  readonly #tokenRate = new SlidingWindow(20, 1000)
  readonly #telemetryRate = new SlidingWindow(15, 15_000)
  #vm: VmDocuments
  #scheduled: ScheduledEvents = { incarnation: 1, events: [] }
  #hostModes: Partial<Record<EndpointName, Mode>> | undefined
  #clockSkewMs: number
  #dateAtS = -1
  #dateText = ''

  /** Prepares a host that does not listen yet; `startFabric` is the way in. */
  constructor(options: FabricOptions) {
    this.#options = options
    this.#clockSkewMs = options.clockSkewMs ?? 0
    this.#channel = new Channel(channelOptions(options), () => this.nowMs)
    if (options.latchedKey !== undefined) this.#channel.latch(options.latchedKey)
    this.#records = new Records({ ...DEFAULT_RECORD_LIMITS, ...options.records })
    this.#vm = { ...DEFAULT_VM, ...options.documents }
    this.#strict = options.strict === true ? ALL_STRICT : { ...NOT_STRICT, ...(options.strict || {}) }
    const serve = (endpoint: EndpointName) => (socket: Socket, number: number) => this.#serve(endpoint, socket, number)
    this.#endpoints = {
      wireserver: new ListeningEndpoint(options.wireserver, serve('wireserver')),
      hostga: new ListeningEndpoint(options.hostga, serve('hostga')),
      imds: new ListeningEndpoint(options.imds, serve('imds')),
    }
  }

  /** Where each endpoint listens. */
  get addresses(): Readonly<Record<EndpointName, Address>> {
    return mapEndpoints((endpoint) => this.#endpoints[endpoint].address)
  }

  /** The requests remembered, oldest first. */
  get requests(): readonly RecordedRequest[] {
    return this.#records.list
  }

  get counters(): Readonly<Counters> {
    return this.#records.counters
  }

  get channel(): Channel {
    return this.#channel
  }

  get telemetry(): readonly TelemetryPost[] {
    return this.#telemetry
  }

  get statusUploads(): readonly StatusUpload[] {
    return this.#statusUploads
  }

  get logUploads(): readonly LogUpload[] {
    return this.#logUploads
  }

  /** The certificate of attested documents, in DER form. */
  get attestedCertificate(): Buffer {
    return this.#signer.certificate
  }

  /** The host's clock, epoch milliseconds. */
  get nowMs(): number {
    return Date.now() + this.#clockSkewMs
  }

  readRequests(afterSeq = 0): readonly RecordedRequest[] {
    return this.#records.after(afterSeq, Number.POSITIVE_INFINITY)
  }

  waitForRequest(predicate: (request: RecordedRequest) => boolean, timeoutMs = 5000): Promise<RecordedRequest> {
    return this.#records.waitFor(predicate, timeoutMs)
  }

  clearRequests(): void {
    this.#records.clear()
    for (const kept of [this.#telemetry, this.#health, this.#statusUploads, this.#logUploads]) kept.length = 0
  }

  readState(): HostState {
    return {
      addresses: this.addresses,
      channel: this.#channel.state,
      options: this.#channel.options,
      latchedGuid: this.#channel.latchedGuid,
      offeredGuid: this.#channel.offeredGuid,
      keyIncarnationId: this.#channel.incarnationId,
      modes: mapEndpoints((endpoint) => this.#modeOf(endpoint)),
      listeners: mapEndpoints((endpoint) => this.#endpoints[endpoint].mode),
      clockSkewMs: this.#clockSkewMs,
      goalStateIncarnation: this.#vm.incarnation,
      faults: this.#faults.list(),
      counters: this.#records.counters,
      lastSeq: this.#records.lastSeq,
      telemetry: [...this.#telemetry],
      healthReports: [...this.#health],
      logUploads: [...this.#logUploads],
    }
  }

  setRules(rules: ChannelRules): void {
    this.#channel.configure({ protocol: '2.0', enabled: true, rules })
  }

  setState(level: ChannelLevel): void {
    this.#channel.configure({ protocol: '1.0', level })
  }

  setChannel(changes: Partial<ChannelOptions>): void {
    this.#channel.configure(changes)
  }

  setHostModes(modes: Partial<Record<EndpointName, Mode>> | undefined): void {
    this.#hostModes = modes
  }

  rotateKey(): void {
    this.#channel.rotate()
  }

  latchKey(key: { guid: string; keyHex: string }): void {
    this.#channel.latch(key)
  }

  addFault(rule: FaultRule): number {
    return this.#faults.add(rule)
  }

  removeFault(id: number): void {
    this.#faults.remove(id)
  }

  clearFaults(): void {
    this.#faults.clear()
  }

  setClockSkew(skewMs: number): void {
    this.#clockSkewMs = skewMs
    this.#dateAtS = -1
  }

  async setListener(endpoint: EndpointName, mode: ListenerMode): Promise<void> {
    await this.#endpoints[endpoint].setMode(mode)
  }

  setDocuments(changes: Partial<VmDocuments>): void {
    this.#vm = { ...this.#vm, ...changes }
  }

  raiseIncarnation(): void {
    this.#vm = { ...this.#vm, incarnation: this.#vm.incarnation + 1 }
  }

  setScheduledEvents(events: readonly ScheduledEvent[]): void {
    this.#scheduled = { incarnation: this.#scheduled.incarnation + 1, events }
  }

  /** Stops listening and cuts every connection. */
  async close(): Promise<void> {
    await Promise.all(ENDPOINT_NAMES.map((endpoint) => this.#endpoints[endpoint].setMode('refuse')))
  }

  #modeOf(endpoint: EndpointName): Mode {
    return this.#hostModes?.[endpoint] ?? this.#channel.modeOf(endpoint)
  }

  #date(): string {
    const nowMs = this.nowMs
    const nowS = Math.floor(nowMs / 1000)
    if (nowS !== this.#dateAtS) {
      this.#dateAtS = nowS
      this.#dateText = new Date(nowMs).toUTCString()
    }
    return this.#dateText
  }

  #serve(endpoint: EndpointName, socket: Socket, number: number): void {
    this.#records.countConnection()
    const remote = `${socket.remoteAddress}:${socket.remotePort}`
    const peer = { endpoint, connection: number, remote }
    new HostConnection(socket, {
      begin: (head, nth) => this.#begin(head, { ...peer, nthOnConnection: nth }),
      malformed: (reason, head, nth) => this.#recordMalformed(reason, head, { ...peer, nthOnConnection: nth }),
      date: () => this.#date(),
    })
  }

  #begin(head: RequestHead, peer: Peer): Exchange | 'stuck' {
    const { path: rawPath, query } = splitTarget(head.target)
    const path = rawPath.toLowerCase()
    const faults = this.#faults.take(peer.endpoint, head.method, rawPath, head.target)
    const isSigned = peer.endpoint === 'wireserver' ? attestedGuid(rawPath) : undefined
    const check = new SignatureCheck(head, (guid) => this.#channel.findKey(guid), isSigned)
    const isCounted = peer.endpoint === 'hostga' && isLogUpload(head.method, path)
    const body = new IncomingBody(
      isCounted ? MAX_LOG_BYTES : (this.#options.maxBodyBytes ?? DEFAULT_MAX_BODY_BYTES),
      isCounted ? this.#records.limits.bodyBytes : Number.POSITIVE_INFINITY,
      check,
    )
    const pending: Pending = { head, peer, path, rawPath, query, check, body, effect: combineFaults(faults), faults }
    if (faults.some((fault) => fault.kind === 'stop-reading')) {
      this.#record(pending, { decision: 'cut-off', reason: 'the host stopped reading', status: 0 })
      return 'stuck'
    }
    return {
      body: (bytes) => body.take(bytes),
      end: () => this.#finish(pending),
      cutOff: (reason) => {
        this.#record(pending, { decision: 'cut-off', reason, status: 0 })
      },
    }
  }

  #finish(pending: Pending): Outcome {
    const { effect, peer } = pending
    const findings = this.#findOut(pending, pending.check.verdict())
    const verdict = judge(findings, {
      mode: this.#modeOf(peer.endpoint),
      isExempt: isExempt(peer.endpoint, pending.head.method, pending.path, pending.query),
      canDemand: this.#channel.latchedGuid !== undefined || this.#options.demandBeforeLatch === true,
      requiredClaims: this.#channel.options.requiredClaims,
      strict: this.#strict,
    })
    let answer = emptyAnswer(401)
    if (verdict.decision !== 'refused') {
      answer = effect?.takesEffect === false ? emptyAnswer(200) : this.#answer(pending, findings.signature)
    }
    if (effect !== undefined) answer = effect.alter(effect.instead ?? answer)
    const status = effect?.isAnswered === false ? 0 : answer.status
    this.#record(pending, { ...verdict, status }, findings)
    return effect === undefined ? { answer } : { answer, delivery: effect.delivery }
  }

  #findOut({ head, check }: Pick<Pending, 'head' | 'check'>, signature: SignatureVerdict): Findings {
    const toleranceMs = this.#options.dateToleranceMs ?? DEFAULT_TOLERANCE_MS
    return findOut(head, signature, check.guid, this.nowMs, toleranceMs)
  }

  #answer(pending: Pending, signature: RecordedRequest['signature']): Answer {
    const { head, peer, path, rawPath, query, body } = pending
    const request: HostRequest = {
      method: head.method,
      target: head.target,
      path,
      query: parseQuery(query),
      rawHeaders: head.rawHeaders,
      body: body.bytes,
      bodySizeBytes: body.sizeBytes,
      bodySha256: body.sha256,
    }
    const own = this.#options.respond?.(peer.endpoint, request)
    if (own !== undefined) return own
    switch (peer.endpoint) {
      case 'wireserver':
        return answerWireserver(request, rawPath, {
          vm: this.#vm,
          channel: this.#channel,
          strict: this.#strict,
          signature,
          mayPostTelemetry: () => this.#isWithin(this.#telemetryRate),
          keepTelemetry: (post) => keep(this.#telemetry, post),
          keepHealth: (state) => keep(this.#health, state),
        })
      case 'hostga':
        return answerHostga(request, {
          vm: this.#vm,
          keepStatus: (upload) => keep(this.#statusUploads, upload),
          keepLog: (upload) => keep(this.#logUploads, upload),
        })
      case 'imds':
        if (!this.#isWithin(isIdentityPath(path) ? this.#tokenRate : this.#imdsRate)) {
          return emptyAnswer(429, [['Retry-After', '1']])
        }
        return answerImds(request, {
          vm: this.#vm,
          nowMs: this.nowMs,
          scheduled: this.#scheduled,
          startEvents: (ids) => this.#startEvents(ids),
          attestedDocument: (content) => this.#signer.sign(content),
        })
    }
  }

  #isWithin(rate: SlidingWindow): boolean {
    return this.#options.rateLimit !== true || rate.take(Date.now())
  }

  #startEvents(ids: readonly string[]): void {
    this.setScheduledEvents(
      this.#scheduled.events.map((event) =>
        ids.includes(event.EventId) ? { ...event, EventStatus: 'Started' } : event,
      ),
    )
  }

  #record(
    { head, peer, body, faults, check }: Pending,
    outcome: Pick<RecordedRequest, 'decision' | 'status'> & Partial<Pick<RecordedRequest, 'objection' | 'reason'>>,
    findings = this.#findOut({ head, check }, check.guid === undefined ? 'absent' : 'unchecked'),
  ): void {
    const { signature, guid, date, claims, isRoot } = findings
    const recorded = this.#records.add({
      atMs: Date.now(),
      ...peer,
      method: head.method,
      target: head.target,
      rawHeaders: head.rawHeaders,
      bodySizeBytes: body.sizeBytes,
      bodySha256: body.sha256,
      body: body.bytes.subarray(0, this.#records.limits.bodyBytes),
      signature,
      date,
      mode: this.#modeOf(peer.endpoint),
      ...outcome,
      ...(guid !== undefined && { guid }),
      ...(claims !== undefined && { claims }),
      ...(isRoot !== undefined && { isRoot }),
      ...(faults.length > 0 && { fault: faults.map((fault) => fault.kind).join('+') }),
    })
    this.#options.onRequest?.(recorded)
  }

  #recordMalformed(reason: string, head: RequestHead | undefined, peer: Peer): void {
    const recorded = this.#records.add({
      atMs: Date.now(),
      ...peer,
      method: head?.method ?? '',
      target: head?.target ?? '',
      rawHeaders: head?.rawHeaders ?? [],
      bodySizeBytes: 0,
      bodySha256: '',
      body: NO_BYTES,
      signature: 'absent',
      date: 'absent',
      mode: this.#modeOf(peer.endpoint),
      decision: 'malformed',
      reason,
      status: reason === 'unknown expectation' ? 417 : 400,
    })
    this.#options.onRequest?.(recorded)
  }
}

/** Who sent a request. */
interface Peer {
  readonly endpoint: EndpointName
  readonly connection: number
  readonly nthOnConnection: number
  readonly remote: string
}

/** A request between its head and its record. */
interface Pending {
  readonly head: RequestHead
  readonly peer: Peer
  /** Lower case. */
  readonly path: string
  readonly rawPath: string
  readonly query: string
  readonly check: SignatureCheck
  readonly body: IncomingBody
  readonly effect: FaultEffect | undefined
  readonly faults: readonly { kind: string }[]
}

/** Tells whether a request is one of those that never need a signature, in any mode. `path` in lower case. */
function isExempt(endpoint: EndpointName, method: string, path: string, query: string): boolean {
  if (endpoint === 'hostga') return isLogUpload(method, path)
  if (endpoint === 'imds') return false
  if (path.startsWith('/secure-channel/')) return true
  return (
    method === 'POST' && (path === '/machine' || path === '/machine/') && query.toLowerCase() === 'comp=telemetrydata'
  )
}

function channelOptions(options: FabricOptions): Partial<ChannelOptions> {
  const protocol = options.protocol ?? '2.0'
  const rules = options.rules ?? (options.enforce === true ? ALLOW_ALL : undefined)
  return {
    protocol,
    level: options.level ?? (options.enforce === true ? 'WireserverAndImds' : 'Disabled'),
    enabled: rules !== undefined,
    ...(rules !== undefined && { rules }),
    ...options.channel,
  }
}

function mapEndpoints<T>(of: (endpoint: EndpointName) => T): Record<EndpointName, T> {
  return { wireserver: of('wireserver'), hostga: of('hostga'), imds: of('imds') }
}

function keep<T>(list: T[], item: T): void {
  list.push(item)
  if (list.length > KEPT_POSTS) list.shift()
}
