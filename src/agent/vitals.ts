/** How this process is: what the runtime and the kernel tell about it, and how late its event loop comes. */

import { readdirSync } from 'node:fs'
import { counter, gauge, Histogram, type Metric } from '../telemetry/metrics.ts'

export interface Vitals extends Disposable {
  metrics(): Metric[]
}

/** Rare enough to cost nothing, often enough that a loop which is late again and again shows. */
const SAMPLE_INTERVAL_MS = 500

const DELAY_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5]

/** Starts to sample the event loop. */
export function createVitals(): Vitals {
  const delay = new Histogram(DELAY_SECONDS)
  const startTimeSeconds = performance.timeOrigin / 1000
  let expectedMs = performance.now() + SAMPLE_INTERVAL_MS
  const timer = setInterval(() => {
    const nowMs = performance.now()
    delay.observe(Math.max(0, nowMs - expectedMs) / 1000)
    expectedMs = nowMs + SAMPLE_INTERVAL_MS
  }, SAMPLE_INTERVAL_MS).unref()
  return {
    metrics() {
      const memory = process.memoryUsage()
      const { user, system } = process.cpuUsage()
      return [
        {
          name: 'azure_proxy_agent_event_loop_delay_seconds',
          help: 'How late a timer of the event loop came, sampled twice a second.',
          type: 'histogram',
          series: [{ histogram: delay }],
        },
        counter('process_cpu_seconds_total', 'User and system time of the process.', (user + system) / 1e6),
        gauge('process_resident_memory_bytes', 'Resident memory of the process.', memory.rss),
        gauge('process_heap_bytes', 'JavaScript heap in use.', memory.heapUsed),
        gauge('process_start_time_seconds', 'When the process started, since the Unix epoch.', startTimeSeconds),
        gauge('process_open_fds', 'Open file descriptors.', countDescriptors()),
      ]
    },
    [Symbol.dispose]: () => clearInterval(timer),
  }
}

/** One of them is that of the directory being read. */
function countDescriptors(): number | undefined {
  try {
    return readdirSync('/proc/self/fd').length - 1
  } catch {
    return undefined
  }
}
