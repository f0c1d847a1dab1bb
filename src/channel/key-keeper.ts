/**
 * Keeps the agreement with the host: polls the status, obtains the key it asks for, follows its modes and rules.
 *
 * What to do is worked out by `key-machine.ts`; this file does it and waits in between. Consumers see one immutable
 * `ChannelSnapshot`, swapped whole, so that a key value never meets the id of another key.
 * No call is waited for without limit, be it to the host or to a disk: rules and modes must be followed whatever hangs.
 */

import { type Clock, endsWithin } from '../base/clock.ts'
import { AgentError, describeError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import type { AuthorizationRules } from '../rules/document.ts'
import { boundKeyStore, DISK_PATIENCE_MS } from './bounded-store.ts'
import type { HostChannel } from './host-channel.ts'
import {
  type Action,
  type ChannelSnapshot,
  type FailureKind,
  INITIAL_STATE,
  type MachineEvent,
  type Question,
  type Step,
  step,
  UNKNOWN_STATE,
} from './key-machine.ts'
import type { KeyStore } from './key-store.ts'

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

/** What the keeper tells, in the order of one poll. Handlers must neither throw nor reject. */
export interface KeyKeeperEvents {
  /** A status message for the module's line in status documents, which logs a changed one; equal ones repeat. */
  onMessage(message: string): void
  /** A start-up milestone, told once each time it is reached, with the age of the process in milliseconds. */
  onMilestone(message: string, elapsedMs: number): void
  /**
   * Rules as of this poll, whether changed or not, before any disk is asked for a key. A promise is awaited before modes and
   * key of the same poll are told, but not for longer than a disk may take.
   */
  onRules(rules: AuthorizationRules | undefined): unknown
  /** The snapshot after every good poll and after a reset. */
  onSnapshot(snapshot: ChannelSnapshot): void
  /** A reset: the agreement is being looked at anew, provisioning starts over. */
  onReset(): void
}

export interface KeyKeeper {
  /** Polls until `signal` is aborted. Never rejects. */
  run(signal: AbortSignal): Promise<void>
  /**
   * Asks for a look at the host now. Done once a second at most, since any local user can cause it.
   * A latched channel is told again without a poll.
   */
  wake(): void
  /** Looks at the host now, on the administrator's word. */
  refresh(): void
  snapshot(): ChannelSnapshot
  /**
   * Waits for another key than the one named `guid`: the one that is in use by now, or the one being attested. The host
   * may have taken that one already, and refuse what the old one signs, before we know.
   * @returns `undefined` when neither is the case
   */
  keyAfter(guid: string): Promise<void> | undefined
}

/** What the lines are about, in telemetry. */
const ORIGIN = { task: 'poll_secure_channel_status', operation: 'key_keeper' } as const

const FREQUENT_POLL_MS = 1000
const FREQUENT_POLLS_UNTIL_AGE_MS = 300_000
const MIN_WAKE_INTERVAL_MS = 1000

/** Makes the keeper. Nothing happens before `run`. */
export function createKeyKeeper(options: KeyKeeperOptions): KeyKeeper {
  const { host, clock, log, events } = options
  const store = boundKeyStore(options.store, clock)
  let state = INITIAL_STATE
  let lastMessage = ''
  /** The milestone reached last, as a status message. */
  let healthyMessage = ''
  let lastWakeMs = Number.NEGATIVE_INFINITY
  let wakeUp: AbortController | undefined
  let isWoken = false
  let isWakeDeferred = false
  let isRefreshing = false
  let isWaitingForRules = false
  /** Resolves when the attestation that is running has ended and its key is in use. */
  let attesting: PromiseWithResolvers<void> | undefined

  const tell = (message: string) => {
    lastMessage = message
    events.onMessage(message)
  }
  const reach = (message: string) => {
    const elapsedMs = options.processAgeMs()
    healthyMessage = `${message} - ${elapsedMs}`
    lastMessage = healthyMessage
    events.onMilestone(message, elapsedMs)
  }
  const recover = () => {
    if (lastMessage === healthyMessage) return
    log.info(`Recovered from: ${lastMessage}`)
    lastMessage = healthyMessage
    events.onMessage(healthyMessage)
  }
  const clean = async (guid: string) => {
    try {
      const removed = await store.removeOthers(guid)
      if (removed > 0) log.info(`Removed ${removed} superseded key file(s)`)
    } catch (error) {
      log.warn(`Superseded key files stay for now: ${describeError(error)}`)
    }
  }
  const prepare = async () => {
    try {
      for (const complaint of await store.prepare()) log.warn(complaint)
    } catch (error) {
      log.warn(`The key directory is not prepared yet: ${describeError(error)}`)
    }
  }
  const handOn = async (rules: AuthorizationRules | undefined) => {
    const isInForce = await endsWithin(Promise.resolve(events.onRules(rules)), DISK_PATIENCE_MS, clock)
    if (!isInForce && !isWaitingForRules) log.warn('The rules of the host wait for a disk that hangs')
    isWaitingForRules = !isInForce
  }

  /** Does one action. @returns the question it asks, if it is one. */
  const perform = async (action: Action): Promise<Question | undefined> => {
    switch (action.type) {
      case 'tell':
        tell(action.message)
        break
      case 'reach':
        reach(action.message)
        break
      case 'recover':
        recover()
        break
      case 'log':
        log.write(action.level, action.message, ORIGIN)
        break
      case 'rules':
        await handOn(action.rules)
        break
      case 'clean':
        await clean(action.guid)
        break
      case 'publish':
        events.onSnapshot(state.snapshot)
        break
      case 'reset':
        events.onReset()
        break
      default:
        return action
    }
    return undefined
  }

  /** Asks, and turns the answer or the failure into an event. */
  const ask = async (question: Question, signal: AbortSignal): Promise<MachineEvent> => {
    try {
      switch (question.type) {
        case 'poll':
          return { type: 'status', status: await host.getStatus(signal) }
        case 'read':
          return { type: 'read', key: await store.read(question.guid) }
        case 'acquire':
          return { type: 'acquired', key: await host.acquireKey(signal) }
        case 'store':
          await store.write(question.key, state.snapshot.key?.guid)
          return { type: 'stored', key: question.key }
        case 'check':
          await store.check(question.key)
          return { type: 'checked', key: question.key }
        case 'attest':
          attesting = Promise.withResolvers()
          await host.attestKey(question.key, signal)
          return { type: 'attested', key: question.key }
      }
    } catch (error) {
      const failed: Step = question.type === 'poll' ? 'status' : question.type
      // A missing key file is told in the log alone, with all that is known; the rest is for the status line.
      const reason = failed === 'read' ? describeError(error) : sentenceOf(error)
      return { type: 'failed', step: failed, reason, kind: kindOf(error) }
    }
  }

  /** Follows `event` to the end of what it starts. A failure because we are told to stop is not told. */
  const follow = async (first: MachineEvent, signal: AbortSignal) => {
    for (let event: MachineEvent | undefined = first; event !== undefined; ) {
      if (event.type === 'failed' && signal.aborted) {
        attesting?.resolve()
        return
      }
      const { state: next, actions }: ReturnType<typeof step> = step(state, event)
      state = next
      attesting?.resolve()
      attesting = undefined
      event = undefined
      for (const action of actions) {
        const question = await perform(action)
        if (question !== undefined) event = await ask(question, signal)
      }
    }
  }

  const intervalMs = () => {
    const isEarly = state.snapshot.stateText === UNKNOWN_STATE && options.processAgeMs() < FREQUENT_POLLS_UNTIL_AGE_MS
    return isEarly ? FREQUENT_POLL_MS : options.pollIntervalMs
  }

  /** Sleeps until `endMs` of the monotonic clock, unless woken. @returns whether it was woken. */
  const sleepUntil = async (endMs: number, signal: AbortSignal) => {
    if (!isWoken && !isRefreshing) {
      wakeUp = new AbortController()
      const restMs = Math.max(0, endMs - clock.monotonicMs())
      await clock.sleep(restMs, AbortSignal.any([signal, wakeUp.signal]))
      wakeUp = undefined
    }
    const result = isWoken
    isWoken = false
    return result
  }

  /** Waits until a poll is due, or for who wakes. Being woken never puts a poll off, since anybody can wake. */
  const waitForPoll = async (signal: AbortSignal) => {
    let dueMs = clock.monotonicMs() + intervalMs()
    while ((await sleepUntil(dueMs, signal)) && !signal.aborted && !isRefreshing) {
      const isPolling = step(state, { type: 'woken' }).actions.at(-1)?.type === 'poll'
      await follow({ type: 'woken' }, signal)
      if (isPolling) dueMs = clock.monotonicMs() + intervalMs()
    }
  }

  const refresh = () => {
    isRefreshing = true
    wakeUp?.abort()
  }
  const wake = () => {
    const restMs = lastWakeMs + MIN_WAKE_INTERVAL_MS - clock.monotonicMs()
    if (restMs <= 0) {
      lastWakeMs = clock.monotonicMs()
      isWoken = true
      wakeUp?.abort()
    } else if (!isWakeDeferred) {
      isWakeDeferred = true
      void clock.sleep(restMs).then(() => {
        isWakeDeferred = false
        wake()
      })
    }
  }

  return {
    async run(signal) {
      tell('poll secure channel status task started.')
      await prepare()
      while (!signal.aborted) {
        isRefreshing = false
        await follow({ type: 'due' }, signal)
        await waitForPoll(signal)
      }
      tell('poll_secure_channel_status task cancelled.')
    },
    wake,
    refresh,
    snapshot: () => state.snapshot,
    keyAfter: (guid) => attesting?.promise ?? (state.snapshot.key?.guid === guid ? undefined : Promise.resolve()),
  }
}

function kindOf(error: unknown): FailureKind {
  const code = error instanceof AgentError ? error.code : undefined
  if (code === 'KEY_REFUSED') return 'refused'
  return code === 'KEY_DISK_HANGS' ? 'hanging' : 'other'
}

/** A failure as the status line shows it: the sentence alone, since its words are known to tools. */
function sentenceOf(error: unknown): string {
  return error instanceof AgentError ? error.message : describeError(error)
}
