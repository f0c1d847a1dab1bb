/**
 * Counts what happens to requests. Each event costs a few additions; text is made when somebody reads.
 *
 * Every label has its values in a table below, so that no caller can make new series.
 */

import type { EndpointName } from '../base/endpoints.ts'
import type { Outcome, Verdict } from '../rules/decide.ts'
import { byLabel, counter, Histogram, type Metric, type Sample } from './metrics.ts'

/** `local`: the agent's own endpoints. `none`: nobody knows where the request was going. */
export type MeasuredEndpoint = EndpointName | 'local' | 'none'

/** Why a connection came without a record of who made it. */
export type AttributionFailure = 'no_record' | 'record_too_old' | 'connection_gone' | 'not_redirecting' | 'error'

export interface RequestMetrics {
  decided(endpoint: EndpointName, verdict: Verdict, isExecutableKnown: boolean): void
  /** A request was answered. @param seconds `undefined` when it was refused before it was read */
  answered(endpoint: MeasuredEndpoint, status: number, seconds: number | undefined): void
  /** The head of the host's answer came. */
  hostAnswered(endpoint: EndpointName, seconds: number): void
  notAttributed(reason: AttributionFailure): void
  /** Decisions by outcome, for people. */
  outcomes(): Readonly<Record<Outcome, number>>
  attributionFailures(): number
  /** What was counted, for the page of metrics. */
  metrics(): Metric[]
}

type ReasonKind = Verdict['reason']['kind']

const GUARDED: readonly EndpointName[] = ['wireserver', 'imds', 'hostga']
const MEASURED: readonly MeasuredEndpoint[] = [...GUARDED, 'local', 'none']
const OUTCOMES: readonly Outcome[] = ['ok', 'audit', 'forbidden']
const FAILURES: readonly AttributionFailure[] = [
  'no_record',
  'record_too_old',
  'connection_gone',
  'not_redirecting',
  'error',
]

/** A record rather than a list: the compiler tells when a reason is missing. */
const REASONS = Object.keys({
  granted: 0,
  'not-granted': 0,
  'default-access': 0,
  'canonical-error': 0,
  'mode-disabled': 0,
  'no-rules': 0,
  'elevated-only': 0,
  'skip-signature-exempt': 0,
} satisfies Record<ReasonKind, 0>) as readonly ReasonKind[]

/** Classes of status codes, by their first digit; 499 stands for a client that left. */
const CLASSES = ['1xx', '2xx', '3xx', '4xx', '5xx'] as const

/** Below a millisecond for what the agent answers itself, up to the two minutes that scheduled events may take. */
const SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120]

/** Makes the counters, all at zero. */
export function createRequestMetrics(): RequestMetrics {
  const decisions = new Float64Array(GUARDED.length * OUTCOMES.length * REASONS.length)
  const responses = new Float64Array(MEASURED.length * CLASSES.length)
  const failures = new Float64Array(FAILURES.length)
  const total = MEASURED.map(() => new Histogram(SECONDS))
  const host = GUARDED.map(() => new Histogram(SECONDS))
  let unknownExecutables = 0

  const add = (array: Float64Array, index: number) => {
    array[index] = (array[index] as number) + 1
  }
  const sumOutcome = (outcome: Outcome) =>
    samplesOf(decisions, { endpoint: GUARDED, verdict: OUTCOMES, reason: REASONS })
      .filter(({ labels }) => labels?.verdict === outcome)
      .reduce((sum, { value }) => sum + value, 0)
  return {
    decided(endpoint, { outcome, reason }, isExecutableKnown) {
      const row = GUARDED.indexOf(endpoint) * OUTCOMES.length + OUTCOMES.indexOf(outcome)
      add(decisions, row * REASONS.length + REASONS.indexOf(reason.kind))
      if (!isExecutableKnown) unknownExecutables++
    },
    answered(endpoint, status, seconds) {
      const index = MEASURED.indexOf(endpoint)
      const digit = Math.min(CLASSES.length, Math.max(1, Math.floor(status / 100)))
      add(responses, index * CLASSES.length + digit - 1)
      if (seconds !== undefined) total[index]?.observe(seconds)
    },
    hostAnswered: (endpoint, seconds) => host[GUARDED.indexOf(endpoint)]?.observe(seconds),
    notAttributed: (reason) => add(failures, FAILURES.indexOf(reason)),
    outcomes: () => ({ ok: sumOutcome('ok'), audit: sumOutcome('audit'), forbidden: sumOutcome('forbidden') }),
    attributionFailures: () => failures.reduce((sum, each) => sum + each, 0),
    metrics: () => [
      {
        name: 'azure_proxy_agent_decisions_total',
        help: 'Requests decided, by guarded service, verdict and why. Verdict audit: denied by the rules and carried.',
        type: 'counter',
        samples: samplesOf(decisions, { endpoint: GUARDED, verdict: OUTCOMES, reason: REASONS }),
      },
      {
        name: 'azure_proxy_agent_responses_total',
        help: 'Answers to clients by class of status. Endpoint local: own endpoints; none: destination not known.',
        type: 'counter',
        samples: samplesOf(responses, { endpoint: MEASURED, code: CLASSES }),
      },
      {
        name: 'azure_proxy_agent_request_duration_seconds',
        help: 'Time from the head of a request to the end of its answer.',
        type: 'histogram',
        series: MEASURED.map((endpoint, index) => ({ labels: { endpoint }, histogram: total[index] as Histogram })),
      },
      {
        name: 'azure_proxy_agent_host_response_duration_seconds',
        help: 'Time from sending a request to the host to the head of its answer.',
        type: 'histogram',
        series: GUARDED.map((endpoint, index) => ({ labels: { endpoint }, histogram: host[index] as Histogram })),
      },
      byLabel(
        'counter',
        'azure_proxy_agent_attribution_failures_total',
        'Connections without a usable record of who made them, by reason. A record that was evicted is no_record.',
        'reason',
        Object.fromEntries(FAILURES.map((reason, index) => [reason, failures[index] as number])),
      ),
      counter(
        'azure_proxy_agent_unknown_executables_total',
        'Requests decided whose caller is known by user and groups only.',
        unknownExecutables,
      ),
    ],
  }
}

/** Names the cells of a table; a cell at zero whose table has hundreds would only be read over: only counted ones are given. */
function samplesOf(cells: Float64Array, axes: Readonly<Record<string, readonly string[]>>): Sample[] {
  const names = Object.entries(axes)
  const samples: Sample[] = []
  cells.forEach((value, index) => {
    if (value === 0) return
    const labels: Record<string, string> = {}
    let rest = index
    for (const [label, values] of names.toReversed()) {
      labels[label] = values[rest % values.length] as string
      rest = Math.floor(rest / values.length)
    }
    const ordered = Object.fromEntries(names.map(([label]) => [label, labels[label] as string]))
    samples.push({ labels: ordered, value })
  })
  return samples
}
