/**
 * What can be told to and asked of a simulated host, the same for the object in this process (`Fabric`) and for one in
 * another process (`FabricClient`). Every method may be awaited; in the same process most act at once.
 */

import type { ChannelLevel, ChannelOptions, ChannelRules, ChannelState, EndpointName, Mode } from './channel.ts'
import type { VmDocuments } from './documents.ts'
import type { FaultRule } from './faults.ts'
import type { ScheduledEvent } from './imds.ts'
import type { Counters, RecordedRequest } from './records.ts'
import type { TelemetryPost } from './telemetry.ts'

/** A value now, or later. */
export type Awaitable<T> = T | Promise<T>

/** How an endpoint takes connections: properly, not at all, closing each at once, or taking each and saying nothing. */
export type ListenerMode = 'normal' | 'refuse' | 'close' | 'silent'

export interface Address {
  readonly host: string
  /** In host byte order. */
  readonly port: number
}

/** The host at one moment. Keys are left out; guids are there. */
export interface HostState {
  readonly addresses: Readonly<Record<EndpointName, Address>>
  readonly channel: ChannelState
  readonly options: ChannelOptions
  readonly latchedGuid: string | undefined
  readonly offeredGuid: string | undefined
  readonly keyIncarnationId: number
  readonly modes: Readonly<Record<EndpointName, Mode>>
  readonly listeners: Readonly<Record<EndpointName, ListenerMode>>
  readonly clockSkewMs: number
  readonly goalStateIncarnation: number
  readonly faults: readonly { id: number; rule: FaultRule }[]
  readonly counters: Readonly<Counters>
  readonly lastSeq: number
  /** Telemetry posts kept, oldest first. */
  readonly telemetry: readonly TelemetryPost[]
  readonly healthReports: readonly ('Ready' | 'NotReady')[]
  readonly logUploads: readonly { sizeBytes: number; sha256: string }[]
}

export interface HostControl {
  /** Returns the remembered requests after the one numbered `seq`, oldest first. */
  readRequests(afterSeq?: number): Awaitable<readonly RecordedRequest[]>
  /** Waits for a request, remembered or to come. @throws Error when none that fits comes within `timeoutMs` (5 s). */
  waitForRequest(predicate: (request: RecordedRequest) => boolean, timeoutMs?: number): Promise<RecordedRequest>
  /** Forgets requests, counts and what was kept of posts. */
  clearRequests(): Awaitable<void>
  readState(): Awaitable<HostState>

  /** Sends these rule documents from now on, with the channel enabled; protocol 2.0. */
  setRules(rules: ChannelRules): Awaitable<void>
  /** Sends this state from now on; protocol 1.0. */
  setState(level: ChannelLevel): Awaitable<void>
  /** Changes any of the channel's settings. */
  setChannel(changes: Partial<ChannelOptions>): Awaitable<void>
  /** Makes the host itself stricter or laxer than it says; `undefined` follows what it says again. */
  setHostModes(modes: Partial<Record<EndpointName, Mode>> | undefined): Awaitable<void>
  /** Raises the key incarnation and forgets the key. */
  rotateKey(): Awaitable<void>
  /** Makes this key the latched one, without an exchange. */
  latchKey(key: { guid: string; keyHex: string }): Awaitable<void>

  /** Adds a fault. @returns its number. */
  addFault(rule: FaultRule): Awaitable<number>
  removeFault(id: number): Awaitable<void>
  clearFaults(): Awaitable<void>
  /** Sets the host's clock apart from this machine's; positive is ahead. */
  setClockSkew(skewMs: number): Awaitable<void>
  /** Changes how an endpoint takes connections; open ones are cut unless the mode is `normal`. */
  setListener(endpoint: EndpointName, mode: ListenerMode): Promise<void>

  /** Changes the machine's documents. */
  setDocuments(changes: Partial<VmDocuments>): Awaitable<void>
  /** Raises the incarnation of the goal state: earlier URLs and configuration names are stale. */
  raiseIncarnation(): Awaitable<void>
  setScheduledEvents(events: readonly ScheduledEvent[]): Awaitable<void>
}
