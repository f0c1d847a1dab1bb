/** Counts what becomes of telemetry events, for the page of metrics. */

import { byLabel, counter, type Metric } from './metrics.ts'

/** Why an event never reached the host. A record: the compiler tells when one is missing. */
const REASONS = {
  /** The same line was told lately. */
  repeated: 0,
  queue_full: 0,
  /** There is no room for it in a payload, or in what is read at a time. */
  too_large: 0,
  /** The host said that it will not have it. */
  refused: 0,
  /** The host did not take it, time and again. */
  not_taken: 0,
  too_many_files: 0,
  /** The disk did not take it. */
  not_written: 0,
  /** A file was not what it should be. */
  invalid: 0,
}
export type DropReason = keyof typeof REASONS

const RESULTS = { accepted: 0, refused: 0, failed: 0 }
/** How one attempt to hand a payload to the host ended. */
export type PostResult = keyof typeof RESULTS

export interface EventCounts {
  dropped(reason: DropReason, events?: number): void
  sent(events: number): void
  posted(result: PostResult): void
  /** Events that the host took, and those that it will never see; what was told already is not among them. */
  totals(): { readonly sent: number; readonly lost: number }
  metrics(): Metric[]
}

/** Makes the counters, all at zero. */
export function createEventCounts(): EventCounts {
  const drops: Record<DropReason, number> = { ...REASONS }
  const posts: Record<PostResult, number> = { ...RESULTS }
  let sent = 0
  return {
    dropped(reason, events = 1) {
      drops[reason] += events
    },
    sent(events) {
      sent += events
    },
    posted(result) {
      posts[result]++
    },
    totals: () => ({
      sent,
      lost: Object.values(drops).reduce((total, each) => total + each, 0) - drops.repeated,
    }),
    metrics: () => [
      counter('azure_proxy_agent_telemetry_events_sent_total', 'Telemetry events that the host took.', sent),
      byLabel(
        'counter',
        'azure_proxy_agent_telemetry_events_dropped_total',
        'Telemetry events that never reach the host, by why.',
        'reason',
        { ...drops },
      ),
      byLabel(
        'counter',
        'azure_proxy_agent_telemetry_posts_total',
        'Attempts to hand telemetry to the host, by how they ended.',
        'result',
        { ...posts },
      ),
    ],
  }
}
