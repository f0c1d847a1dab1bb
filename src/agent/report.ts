/** All that root may know of the running service: the status in full, the page of metrics, health. */

import { type Clock, processAgeMs } from '../base/clock.ts'
import { ENDPOINTS, type EndpointName } from '../base/endpoints.ts'
import { describeError } from '../base/errors.ts'
import type { ChannelSnapshot } from '../channel/key-machine.ts'
import type { Redirector } from '../ebpf/redirector.ts'
import type { Denial } from '../telemetry/denials.ts'
import { byLabel, counter, gauge, type Metric, renderMetrics } from '../telemetry/metrics.ts'
import type { StatusDocument } from '../telemetry/status.ts'
import type { ContainersState } from './containers.ts'
import { type Health, judgeHealth } from './health.ts'
import type { Logs } from './logs.ts'
import type { CheckState } from './self-check.ts'
import type { Telemetry, TelemetryState } from './telemetry.ts'
import type { Telling } from './telling.ts'
import type { Vitals } from './vitals.ts'

/** What `GET /status` answers. Members of the status document come first, as in status.json. */
export interface ServiceStatus extends StatusDocument {
  readonly health: { readonly isHealthy: boolean; readonly reason: string }
  readonly process: { readonly pid: number; readonly uptimeSeconds: number; readonly openConnections: number }
  readonly selfCheck: { readonly result: CheckState['result']; readonly reason: string; readonly ageSeconds: number }
  readonly channel: {
    readonly state: string
    /** `undefined` where the host has not spoken. */
    readonly modes?: Readonly<Record<EndpointName, string>>
    readonly keyGuid?: string
    readonly keyAgeSeconds?: number
    /** Since the host last gave a good answer. */
    readonly lastGoodPollAgeSeconds?: number
  }
  readonly redirection: {
    /** What the kernel redirects now, as address and port. */
    readonly policy: readonly string[]
    /** Whether it outlives the agent. */
    readonly failsClosed: boolean
    /** What this kernel lacks. */
    readonly lacking: readonly string[]
    readonly counters: Readonly<Record<string, number>>
  }
  /** Other network namespaces. */
  readonly containers: ContainersState
  readonly decisions: Readonly<Record<'ok' | 'audit' | 'forbidden', number>>
  readonly attributionFailures: number
  readonly lostLogEntries: number
  readonly telemetry: TelemetryState
  readonly lastDenials: readonly Denial[]
}

export interface ReportParts {
  readonly version: string
  readonly clock: Clock
  readonly telling: Telling
  readonly vitals: Vitals
  readonly channel: () => ChannelSnapshot
  readonly redirector: () => Redirector | undefined
  readonly containers: () => ContainersState
  readonly openConnections: () => number
  readonly check: () => CheckState
  readonly telemetry: () => Pick<Telemetry, 'state' | 'metrics'>
  readonly isStopping: () => boolean
}

export interface Report {
  status(): ServiceStatus
  metrics(): string
  health(): Health
  /** The host gave a good answer. */
  polled(): void
  /** This is the channel now: the age of its key counts from when it was first seen. */
  seen(snapshot: ChannelSnapshot): void
}

/** Records are counted up to here: each one is a system call. */
const MAX_COUNTED_RECORDS = 4096

const MODES = ['disabled', 'audit', 'enforce'] as const

/** Makes the report. */
export function createReport(parts: ReportParts): Report {
  const { clock, telling, vitals } = parts
  let polledAtMs: number | undefined
  let key: { readonly guid: string; readonly sinceMs: number } | undefined

  const secondsSince = (ms: number | undefined) =>
    ms === undefined ? undefined : Math.max(0, clock.monotonicMs() - ms) / 1000
  const keyAgeSeconds = () => secondsSince(key && (ageOfIssue() ?? key.sinceMs))
  /** The host says when it issued the key; before the clock was set that may lie ahead. */
  const ageOfIssue = () => {
    const issuedMs = Date.parse(parts.channel().key?.issued ?? '')
    const ageMs = clock.nowMs() - issuedMs
    return ageMs >= 0 ? clock.monotonicMs() - ageMs : undefined
  }
  const health = () => judgeHealth(telling.board, parts.check(), parts.channel(), parts.isStopping())

  return {
    health,
    polled() {
      polledAtMs = clock.monotonicMs()
    },
    seen(snapshot) {
      const guid = snapshot.key?.guid
      if (guid !== key?.guid) key = guid === undefined ? undefined : { guid, sinceMs: clock.monotonicMs() }
    },
    status() {
      const { stateText, state } = parts.channel()
      const check = parts.check()
      const lastGoodPollAgeSeconds = secondsSince(polledAtMs)
      const ageSeconds = keyAgeSeconds()
      return {
        ...telling.board.document(),
        health: health(),
        process: {
          pid: process.pid,
          uptimeSeconds: Math.floor(processAgeMs() / 1000),
          openConnections: parts.openConnections(),
        },
        selfCheck: { result: check.result, reason: check.reason, ageSeconds: secondsSince(check.atMs) as number },
        channel: {
          state: stateText,
          ...(state && { modes: state.modes }),
          ...(key && { keyGuid: key.guid }),
          ...(ageSeconds !== undefined && { keyAgeSeconds: ageSeconds }),
          ...(lastGoodPollAgeSeconds !== undefined && { lastGoodPollAgeSeconds }),
        },
        redirection: readRedirection(parts.redirector()),
        containers: parts.containers(),
        decisions: telling.metrics.outcomes(),
        attributionFailures: telling.metrics.attributionFailures(),
        lostLogEntries: sum(telling.logs.dropped()),
        telemetry: parts.telemetry().state(),
        lastDenials: telling.denials.read(),
      }
    },
    metrics: () =>
      renderMetrics([
        {
          name: 'azure_proxy_agent_build_info',
          help: 'Always 1; the labels say what runs.',
          type: 'gauge',
          samples: [{ labels: { version: parts.version, runtime: process.version, arch: process.arch }, value: 1 }],
        },
        gauge('azure_proxy_agent_healthy', '1 when the service does its work.', health().isHealthy ? 1 : 0),
        gauge('azure_proxy_agent_self_check_passed', CHECK_HELP, parts.check().result === 'passed' ? 1 : 0),
        counter('azure_proxy_agent_requests_total', 'Requests read, numbered as in the log.', telling.requestCount()),
        ...telling.metrics.metrics(),
        gauge('azure_proxy_agent_open_connections', 'Connections of clients that are open.', parts.openConnections()),
        ...channelMetrics(parts.channel()),
        gauge(
          'azure_proxy_agent_last_good_poll_age_seconds',
          'Since the host last answered well.',
          secondsSince(polledAtMs),
        ),
        gauge('azure_proxy_agent_key_age_seconds', 'Since the key in use was issued.', keyAgeSeconds()),
        ...kernelMetrics(parts.redirector()),
        ...containersMetrics(parts.containers()),
        ...logMetrics(telling.logs),
        ...parts.telemetry().metrics(),
        ...vitals.metrics(),
      ]),
  }
}

const CHECK_HELP = '1 when the last connection of the agent to itself, through the redirection, was answered.'

/** What cannot be read is left out: it may be detached this moment. */
function readRedirection(redirector: Redirector | undefined): ServiceStatus['redirection'] {
  const { lacking = [], failClosed: failsClosed = false } = redirector?.features ?? {}
  try {
    const policy = redirector?.readPolicy().map(({ address, port }) => `${address}:${port}`) ?? []
    const counters = Object.entries(redirector?.counters() ?? {}).map(([name, count]) => [name, Number(count)])
    return { policy, failsClosed, lacking, counters: Object.fromEntries(counters) }
  } catch (error) {
    return { policy: [], failsClosed, lacking: [...lacking, describeError(error)], counters: {} }
  }
}

function channelMetrics({ state, isLatched }: ChannelSnapshot): Metric[] {
  const samples = ENDPOINTS.flatMap(({ name }) =>
    MODES.map((mode) => ({ labels: { endpoint: name, mode }, value: state?.modes[name] === mode ? 1 : 0 })),
  )
  return [
    gauge('azure_proxy_agent_channel_latched', '1 when there is a key, or the host wants none.', isLatched ? 1 : 0),
    {
      name: 'azure_proxy_agent_channel_mode',
      help: '1 for the mode of each guarded service.',
      type: 'gauge',
      samples: state === undefined ? [] : samples,
    },
  ]
}

function kernelMetrics(redirector: Redirector | undefined): Metric[] {
  if (redirector === undefined) return []
  try {
    const counters = Object.entries(redirector.counters()).map(([name, count]): [string, number] => [
      name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
      Number(count),
    ])
    const help = 'What the programs in the kernel counted since they were attached.'
    return [
      byLabel('counter', 'azure_proxy_agent_kernel_events_total', help, 'event', Object.fromEntries(counters)),
      gauge(
        'azure_proxy_agent_fails_closed',
        '1 when the redirection outlives the agent.',
        redirector.features.failClosed ? 1 : 0,
      ),
      gauge(
        'azure_proxy_agent_connection_records',
        `Records of connections that were made and not taken yet, counted up to ${MAX_COUNTED_RECORDS}.`,
        redirector.countRecords(MAX_COUNTED_RECORDS),
      ),
    ]
  } catch {
    return [] // detached this moment: nothing is known
  }
}

function containersMetrics({ served, refused }: ContainersState): Metric[] {
  const help = 'How often a network namespace asked for a listener and did not get one.'
  return [
    gauge('azure_proxy_agent_served_namespaces', 'Other network namespaces that have a listener.', served),
    byLabel('counter', 'azure_proxy_agent_refused_namespaces_total', help, 'reason', refused),
  ]
}

function logMetrics(logs: Logs): Metric[] {
  const help = 'Log entries that were lost because the reader or the disk did not take them.'
  return [byLabel('counter', 'azure_proxy_agent_log_entries_lost_total', help, 'log', { ...logs.dropped() })]
}

function sum(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((total, each) => total + each, 0)
}
