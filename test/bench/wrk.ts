/** Runs wrk, which makes the load, and reads what it measured. */

import type { Lab } from '../kernel/lab.ts'

export interface Load {
  readonly url: string
  readonly connections: number
  readonly seconds: number
  /** A connection for each request. */
  readonly isClosing?: boolean
  /** Mean pause of a connection between answer and next request, in milliseconds; default: none. */
  readonly pauseMs?: number
  /** Threads, which share the connections; default: one. */
  readonly threads?: number
  /** Whether the connections are redirected: made by a process of the guarded cgroup. */
  readonly inCgroup: boolean
}

export interface LoadResult {
  readonly requests: number
  readonly requestsPerSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
}

/**
 * Prints the figures on one line. Pauses are spread evenly around their mean, for each thread in another order, so that
 * connections do not march in step.
 */
const SCRIPT = `
local pause = tonumber(os.getenv("BENCH_PAUSE_MS"))
local threads = 0
function setup(thread)
  threads = threads + 1
  thread:set("seed", threads)
end
function init()
  math.randomseed(seed)
end
if pause ~= nil and pause > 0 then
  function delay() return math.random(0, 2 * pause) end
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("FIGURES %d %d %d %d %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
`

/** Where `runWrk` expects its script. */
export const WRK_SCRIPT = { name: 'figures.lua', text: SCRIPT } as const

/** Puts a load on `url`. @param pin command in front that binds wrk to a processor @throws Error when a request failed */
export async function runWrk(lab: Lab, scriptPath: string, pin: readonly string[], load: Load): Promise<LoadResult> {
  const args = [
    `-t${load.threads ?? 1}`,
    `-c${load.connections}`,
    `-d${load.seconds}s`,
    '--timeout',
    '10s',
    '-s',
    scriptPath,
  ]
  const headers = ['-H', 'Metadata: true', ...(load.isClosing ? ['-H', 'Connection: close'] : [])]
  const [command = '', ...rest] = [...pin, 'wrk', ...args, ...headers, load.url]
  const { stdout, stderr } = await lab.run(command, rest, {
    inCgroup: load.inCgroup,
    env: { ...process.env, BENCH_PAUSE_MS: String(load.pauseMs ?? 0) },
    timeoutMs: (load.seconds + 15) * 1000,
  })
  const figures = /^FIGURES (\d+) (\d+) (\d+) (\d+) (\d+)$/m.exec(stdout)?.slice(1).map(Number)
  if (figures === undefined) throw new Error(`wrk gave no figures for ${load.url}: ${stdout}${stderr}`)
  const [requests = 0, durationUs = 0, p50Us = 0, p99Us = 0, errors = 0] = figures
  if (requests === 0 || errors > 0)
    throw new Error(`${errors} of ${requests} requests to ${load.url} failed: ${stdout}`)
  return { requests, requestsPerSecond: requests / (durationUs / 1e6), p50Ms: p50Us / 1000, p99Ms: p99Us / 1000 }
}
