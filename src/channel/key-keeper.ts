/**
 * Keeps the agreement with the host: polls the status, obtains the key it asks for, follows its modes and rules.
 *
 * One poll is: status → rules → state → key, if one is wanted → tell. A failing step leaves everything as it was and is
 * tried again at the next poll. Consumers see one immutable `ChannelSnapshot`, swapped whole, so that a key value never
 * meets the id of another key.
 */

import type { Clock } from '../base/clock.ts'
import { AgentError, describeError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import type { AuthorizationRules } from '../rules/document.ts'
import type { HostChannel } from './host-channel.ts'
import { type ChannelState, computeChannelState, describeKeyStatus, type KeyStatus } from './key-status.ts'
import type { KeyStore } from './key-store.ts'
import { isKeyGuid, type LatchedKey } from './secret-key.ts'

/** State text before the first good poll and after a reset. */
export const UNKNOWN_STATE = 'Unknown'

/** What the rest of the agent may know of the channel. Never changed, only replaced. */
export interface ChannelSnapshot {
  /** `Unknown`, `disabled`, or a state text of `ChannelState`. */
  readonly stateText: string
  /** What the last good status said; `undefined` before the first. Kept through a reset. */
  readonly state: ChannelState | undefined
  /** The key that signs; `undefined` while there is none or the channel is disabled. */
  readonly key: LatchedKey | undefined
  /** True when nothing is missing: the key is there, or the host wants none. */
  readonly isLatched: boolean
}

export interface KeyKeeperOptions {
  readonly host: HostChannel
  readonly store: KeyStore
  readonly clock: Clock
  readonly log: Log
  /** Poll interval once the state is known. */
  readonly pollIntervalMs: number
  /** Monotonic age of the process, for the frequent polls at its start and for start-up messages. */
  readonly processAgeMs: () => number
  readonly events: KeyKeeperEvents
}

/** What the keeper tells, in the order of one poll. Handlers must not throw. */
export interface KeyKeeperEvents {
  /** A status message for the module's line in status documents; equal ones repeat. */
  onMessage(message: string): void
  /** A start-up milestone, told once each time it is reached, with the age of the process in milliseconds. */
  onMilestone(message: string, elapsedMs: number): void
  /** Rules as of this poll, whether changed or not. */
  onRules(rules: AuthorizationRules | undefined): void
  /** The snapshot after every good poll and after a reset. */
  onSnapshot(snapshot: ChannelSnapshot): void
  /** A reset: the agreement is being looked at anew, provisioning starts over. */
  onReset(): void
}

export interface KeyKeeper {
  /** Polls until `signal` is aborted. Never rejects. */
  run(signal: AbortSignal): Promise<void>
  /**
   * Asks for a look at the host now. Ignored more than once a second, since any local user can cause it.
   * A latched channel is told again without a poll.
   */
  wake(): void
  snapshot(): ChannelSnapshot
}

const FREQUENT_POLL_MS = 1000
const FREQUENT_POLLS_UNTIL_AGE_MS = 300_000
const MIN_WAKE_INTERVAL_MS = 1000

/** Makes the keeper. Nothing happens before `run`. */
export function createKeyKeeper(options: KeyKeeperOptions): KeyKeeper {
  const { host, store, clock, log, events } = options
  let current: ChannelSnapshot = {
    stateText: UNKNOWN_STATE,
    state: undefined,
    key: undefined,
    isLatched: false,
  }
  let lastStatusText = ''
  let lastMessage = ''
  /** The milestone reached last, as a status message. */
  let healthyMessage = ''
  let lastWakeMs = Number.NEGATIVE_INFINITY
  let wakeUp: AbortController | undefined
  let isWoken = false

  const tell = (message: string) => {
    if (message !== lastMessage) log.warn(message)
    lastMessage = message
    events.onMessage(message)
  }
  const reach = (message: string) => {
    const elapsedMs = options.processAgeMs()
    healthyMessage = `${message} - ${elapsedMs}`
    lastMessage = healthyMessage
    events.onMilestone(message, elapsedMs)
  }
  /** Takes a failure out of the status line once all is well again. */
  const recover = () => {
    if (lastMessage === healthyMessage) return
    log.info(`Recovered from: ${lastMessage}`)
    lastMessage = healthyMessage
    events.onMessage(healthyMessage)
  }
  const replace = (change: Partial<ChannelSnapshot>) => {
    current = { ...current, ...change }
  }

  const intervalMs = () => {
    const isEarly = current.stateText === UNKNOWN_STATE && options.processAgeMs() < FREQUENT_POLLS_UNTIL_AGE_MS
    return isEarly ? FREQUENT_POLL_MS : options.pollIntervalMs
  }

  /** Sleeps until `endMs` of the monotonic clock, unless woken. @returns whether it was woken. */
  const sleepUntil = async (endMs: number, signal: AbortSignal) => {
    if (!isWoken) {
      wakeUp = new AbortController()
      const restMs = Math.max(0, endMs - clock.monotonicMs())
      await clock.sleep(restMs, AbortSignal.any([signal, wakeUp.signal]))
      wakeUp = undefined
    }
    const result = isWoken
    isWoken = false
    return result
  }

  /** Waits until a poll is due or wanted. Being woken never puts it off, since anybody can wake. */
  const waitForPoll = async (signal: AbortSignal) => {
    const dueMs = clock.monotonicMs() + intervalMs()
    while ((await sleepUntil(dueMs, signal)) && !signal.aborted) {
      if (current.stateText === UNKNOWN_STATE || current.stateText === 'disabled') return reset()
      if (!current.isLatched) return
      events.onSnapshot(current)
    }
  }

  const reset = () => {
    log.info(
      `poll_secure_channel_status task notified and secure channel state is '${current.stateText}', reset states and start poll status now.`,
    )
    replace({ stateText: UNKNOWN_STATE, isLatched: false })
    events.onReset()
    events.onSnapshot(current)
  }

  const pollOnce = async (signal: AbortSignal) => {
    let status: KeyStatus
    try {
      status = await host.getStatus(signal)
    } catch (error) {
      if (!signal.aborted) tell(`Failed to get key status - ${sentenceOf(error)}`)
      return
    }
    const state = computeChannelState(status)
    reportStatus(status, state)
    events.onRules(status.authorizationRules)
    const wasState = current.stateText
    replace({ state, stateText: state.text })
    if (state.text === 'disabled') {
      replace({ key: undefined, isLatched: true })
      if (wasState === 'disabled') recover()
      else reach('Customer has not enforce the secure channel state.')
    } else if (needsKey(status, current.key)) {
      replace({
        isLatched: current.key !== undefined && status.keyGuid === undefined,
      })
      const key = await obtainKey(status, signal)
      if (key !== undefined) replace({ key, isLatched: true })
    } else {
      replace({ isLatched: true })
      recover()
    }
    events.onSnapshot(current)
  }

  const reportStatus = (status: KeyStatus, state: ChannelState) => {
    const text = describeKeyStatus(status, state)
    if (text === lastStatusText) {
      log.trace(text)
      return
    }
    lastStatusText = text
    log.warn(text)
    for (const remark of status.remarks) log.warn(`Key status is used although ${remark.replace(/; $/, '')}`)
  }

  /** Finds the key on disk, or gets a new one: acquire, store, check, attest. @returns `undefined` after any failure. */
  const obtainKey = async (status: KeyStatus, signal: AbortSignal): Promise<LatchedKey | undefined> => {
    if (status.keyGuid !== undefined && isKeyGuid(status.keyGuid)) {
      try {
        const key = await store.read(status.keyGuid)
        reach('Found key details from local and ready to use.')
        return key
      } catch (error) {
        log.info(
          `Failed to fetch local key details with error: ${describeError(error)}. Will try acquire the key details from Server.`,
        )
      }
    }
    /** Runs one step. Failures are told here, unless the step failed because we are told to stop. */
    const attempt = async <T>(prefix: string, run: () => Promise<T>, suffix = '') => {
      try {
        return { value: await run() }
      } catch (error) {
        if (!signal.aborted) tell(`${prefix}${sentenceOf(error)}${suffix}`)
        return undefined
      }
    }
    const acquired = await attempt('Failed to acquire key details: ', () => host.acquireKey(signal))
    if (acquired === undefined) return undefined
    const key = acquired.value
    const checkPrefix = `Failed to check the key '${key.guid}' details saved locally: `
    if ((await attempt('Failed to save key details to file: ', () => store.write(key))) === undefined) return undefined
    if ((await attempt(checkPrefix, () => store.check(key), '.')) === undefined) return undefined
    if ((await attempt('Failed to attest the key: ', () => host.attestKey(key, signal))) === undefined) return undefined
    reach('Successfully attest the key and ready to use.')
    const removed = await store.removeOthers(key.guid)
    if (removed > 0) log.info(`Removed ${removed} superseded key file(s)`)
    return key
  }

  return {
    async run(signal) {
      tell('poll secure channel status task started.')
      for (const complaint of await store.prepare()) log.warn(complaint)
      while (!signal.aborted) {
        await pollOnce(signal)
        await waitForPoll(signal)
      }
      tell('poll_secure_channel_status task cancelled.')
    },
    wake() {
      const nowMs = clock.monotonicMs()
      if (nowMs - lastWakeMs < MIN_WAKE_INTERVAL_MS) return
      lastWakeMs = nowMs
      isWoken = true
      wakeUp?.abort()
    },
    snapshot: () => current,
  }
}

/** A failure as the status line shows it: the sentence alone, since its words are known to tools. */
function sentenceOf(error: unknown): string {
  return error instanceof AgentError ? error.message : describeError(error)
}

/** A key is wanted when the host has latched none, or another one than we hold. */
function needsKey(status: KeyStatus, held: LatchedKey | undefined): boolean {
  return held === undefined || status.keyGuid === undefined || status.keyGuid !== held.guid
}
