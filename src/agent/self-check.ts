/**
 * Looks again and again whether the guard does its work, by its own door; tells the service manager, and beats for its
 * watchdog while it does.
 *
 * When the watchdog is fed, and which way doubt falls:
 * - the probe went the whole way: fed;
 * - the agent has left the cgroup it guards, so that its own connections prove nothing: fed, as far as everything that can
 *   be looked at is in order, and the status says that it was not tried;
 * - it has never guarded since it started, because the kernel or somebody on its port does not let it: fed. It goes on
 *   trying, and a restart would only try the same;
 * - what once worked does not: not fed.
 */

import type { Clock } from '../base/clock.ts'
import type { Log } from '../base/log.ts'
import type { SelfProbe } from './self-probe.ts'
import type { ServiceManager } from './service-manager.ts'

export type CheckResult =
  /** Not guarding yet. */
  | 'starting'
  | 'passed'
  | 'failed'
  /** In order as far as can be seen; the probe cannot be made. */
  | 'untried'

export interface CheckState {
  readonly result: CheckResult
  /** Why, unless it passed. */
  readonly reason: string
  /** Milliseconds of the monotonic clock. */
  readonly atMs: number
}

export interface SelfCheckOptions {
  readonly probe: SelfProbe
  /** Says what is missing to the guard, as far as the agent knows; `undefined`: nothing. */
  readonly findGap: () => string | undefined
  /** Says why the agent's own connections are not redirected; `undefined`: they should be. */
  readonly findObstacle: () => string | undefined
  readonly manager: ServiceManager
  /** One line about the whole service, for the service manager. */
  readonly describe: () => string
  readonly clock: Clock
  readonly log: Log
}

export interface SelfCheck {
  /** Checks until `signal` is aborted. Never rejects. */
  run(signal: AbortSignal): Promise<void>
  /** Checks now: something has changed. */
  wake(): void
  state(): CheckState
}

/** Between two checks while nobody waits for beats. */
const IDLE_INTERVAL_MS = 30_000
const MAX_INTERVAL_MS = 15_000
const MAX_PROBE_MS = 5_000

/** A missing beat is noticed after four of these: a probe that is late once on a busy machine ends nothing. */
const CHECKS_PER_WATCHDOG = 4

/** From then on the machine's boot waits no longer for a guard that cannot be had; it goes on trying. */
const READY_AFTER_MS = 30_000

/** Makes the check. */
export function createSelfCheck(options: SelfCheckOptions): SelfCheck {
  const { probe, findGap, findObstacle, manager, clock, log } = options
  const { watchdogMs } = manager
  const intervalMs =
    watchdogMs === undefined ? IDLE_INTERVAL_MS : Math.min(MAX_INTERVAL_MS, watchdogMs / CHECKS_PER_WATCHDOG)
  const startedAtMs = clock.monotonicMs()
  let state: CheckState = { result: 'starting', reason: 'not looked at yet', atMs: startedAtMs }
  let hasGuarded = false
  let sleeping: AbortController | undefined

  const check = async (): Promise<Omit<CheckState, 'atMs'>> => {
    const gap = findGap()
    if (gap !== undefined) return { result: hasGuarded ? 'failed' : 'starting', reason: gap }
    const failure = await probe.run(Math.min(MAX_PROBE_MS, Math.max(100, intervalMs)))
    if (failure === undefined) return { result: 'passed', reason: '' }
    const obstacle = findObstacle()
    if (obstacle !== undefined) return { result: 'untried', reason: obstacle }
    return { result: 'failed', reason: `the way through the redirection does not work: ${failure}` }
  }
  const tell = ({ result, reason }: Omit<CheckState, 'atMs'>) => {
    if (result === state.result && reason === state.reason) return
    if (result === 'failed') log.error(`Self-check: ${reason}`)
    else if (result === 'untried') log.warn(`Self-check: ${reason}; the way through the redirection is not tried`)
    else if (state.result === 'failed') log.info('Self-check: all is well again')
  }
  const report = () => {
    const isGuarding = state.result === 'passed' || state.result === 'untried'
    if (isGuarding) hasGuarded = true
    manager.status(options.describe())
    if (isGuarding || clock.monotonicMs() - startedAtMs >= READY_AFTER_MS) manager.ready()
    if (isGuarding || (state.result === 'starting' && !hasGuarded)) manager.beat()
  }
  const pauseMs = () => {
    const toReadyMs = startedAtMs + READY_AFTER_MS - clock.monotonicMs()
    // Boot waits for that moment.
    return state.result === 'starting' && toReadyMs > 0 ? Math.min(intervalMs, toReadyMs) : intervalMs
  }
  return {
    async run(signal) {
      while (!signal.aborted) {
        sleeping = new AbortController()
        const found = await check()
        if (signal.aborted) return
        tell(found)
        state = { ...found, atMs: clock.monotonicMs() }
        report()
        await clock.sleep(pauseMs(), AbortSignal.any([signal, sleeping.signal]))
      }
    },
    wake: () => sleeping?.abort(),
    state: () => state,
  }
}
