/**
 * What the key keeper does, as a pure function: a state, something that happened, what to do next.
 *
 *   status ──► rules, state ──► key wanted? ── no ───────────────────────────────► publish
 *                                  │ yes
 *                                  ├─ the host names one ──► read ── found ──────► publish, clean
 *                                  │                           └─ missing ─┐
 *                                  └─ it names none ──────────► acquire ◄──┘
 *                                                                  └► store ─► check ─► attest ─► publish, clean
 *
 * Any step may fail: the failure is told, the key that is held stays, and the next good status tries again where this one
 * stopped, so that a full or hanging disk or a lost answer does not cost the host another key. At most one action of a list
 * asks for something, and its answer is the next event; all others are done at once.
 */

import type { Level } from '../base/log.ts'
import type { AuthorizationRules } from '../rules/document.ts'
import { type ChannelState, computeChannelState, describeKeyStatus, type KeyStatus } from './key-status.ts'
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

export interface MachineState {
  readonly snapshot: ChannelSnapshot
  /** A key that the host gave and that is not attested yet, and how far it came. */
  readonly candidate: { readonly key: LatchedKey; readonly isStored: boolean } | undefined
  /** Key id and incarnation that the host named in the poll that is running. */
  readonly named: { readonly guid: string | undefined; readonly incarnationId: number | undefined }
  /** Attestations in a row that the next status did not acknowledge, and polls to let pass before the next one. */
  readonly unacknowledged: number
  readonly pollsToSkip: number
  /** A poll out of turn was made since the last one that was due. */
  readonly wasWoken: boolean
  /** A disabled channel is being looked at again because somebody asked. */
  readonly isRecheck: boolean
  /** Description of the last good status, to tell changes from repetitions. */
  readonly statusText: string
}

export const INITIAL_STATE: MachineState = {
  snapshot: { stateText: UNKNOWN_STATE, state: undefined, key: undefined, isLatched: false },
  candidate: undefined,
  named: { guid: undefined, incarnationId: undefined },
  unacknowledged: 0,
  pollsToSkip: 0,
  wasWoken: false,
  isRecheck: false,
  statusText: '',
}

/** The steps that may fail, as failures name them. */
export type Step = 'status' | 'read' | 'acquire' | 'store' | 'check' | 'attest'

/** `refused`: the host answered, and said no. `hanging`: the disk did not answer, what is on it is not known. */
export type FailureKind = 'refused' | 'hanging' | 'other'

export type MachineEvent =
  | { readonly type: 'status'; readonly status: KeyStatus }
  | { readonly type: 'read'; readonly key: LatchedKey }
  | { readonly type: 'acquired'; readonly key: LatchedKey }
  | { readonly type: 'stored' | 'checked' | 'attested'; readonly key: LatchedKey }
  | { readonly type: 'failed'; readonly step: Step; readonly reason: string; readonly kind: FailureKind }
  /** The interval is over. */
  | { readonly type: 'due' }
  | { readonly type: 'woken' }

/** Actions that ask for something; the answer is an event. `poll` is the status call. */
export type Question =
  | { readonly type: 'poll' | 'acquire' }
  | { readonly type: 'read'; readonly guid: string }
  | { readonly type: 'store' | 'check' | 'attest'; readonly key: LatchedKey }

export type Action =
  | Question
  /** A failure or a step, for the status line. */
  | { readonly type: 'tell'; readonly message: string }
  /** A milestone of start-up. */
  | { readonly type: 'reach'; readonly message: string }
  /** All is well: a failure leaves the status line. */
  | { readonly type: 'recover' }
  | { readonly type: 'log'; readonly level: Level; readonly message: string }
  | { readonly type: 'rules'; readonly rules: AuthorizationRules | undefined }
  /** Removes the files of all other keys. */
  | { readonly type: 'clean'; readonly guid: string }
  | { readonly type: 'publish' }
  /** Provisioning starts over. */
  | { readonly type: 'reset' }

/** A state and the actions that lead on from it, in order; a `Question` is always the last. */
export interface Transition {
  readonly state: MachineState
  readonly actions: readonly Action[]
}

/** Longest pause between keys that the host does not acknowledge, in polls. */
const MAX_POLLS_TO_SKIP = 64

const FAILURES: Readonly<Record<Step, (reason: string, guid: string) => string>> = {
  status: (reason) => `Failed to get key status - ${reason}`,
  read: (reason) => `Failed to fetch local key details with error: ${reason}.`,
  acquire: (reason) => `Failed to acquire key details: ${reason}`,
  store: (reason) => `Failed to save key details to file: ${reason}`,
  check: (reason, guid) => `Failed to check the key '${guid}' details saved locally: ${reason}.`,
  attest: (reason) => `Failed to attest the key: ${reason}`,
}

/** Works out what follows from `event`. Pure: equal arguments, equal results. */
export function step(state: MachineState, event: MachineEvent): Transition {
  switch (event.type) {
    case 'status':
      return onStatus(state, event.status)
    case 'read':
      return onKey({ ...state, candidate: undefined }, event.key, 'Found key details from local and ready to use.')
    case 'acquired':
      return onAcquired(state, event.key)
    case 'stored':
      return { state, actions: [{ type: 'check', key: event.key }] }
    case 'checked':
      return {
        state: { ...state, candidate: { key: event.key, isStored: true } },
        actions: [{ type: 'attest', key: event.key }],
      }
    case 'attested':
      return onAttested(state, event.key)
    case 'failed':
      return onFailure(state, event.step, event.reason, event.kind)
    case 'due':
      return { state: { ...state, wasWoken: false }, actions: [{ type: 'poll' }] }
    case 'woken':
      return onWoken(state)
  }
}

function onStatus(before: MachineState, status: KeyStatus): Transition {
  const channel = computeChannelState(status)
  const statusText = describeKeyStatus(status, channel)
  const actions: Action[] = [...tellStatus(before.statusText, statusText, status)]
  actions.push({ type: 'rules', rules: status.authorizationRules })
  const snapshot = { ...before.snapshot, state: channel, stateText: channel.text }
  const named = { guid: status.keyGuid, incarnationId: status.keyIncarnationId }
  const state = { ...before, snapshot, named, statusText, isRecheck: false }

  if (channel.text === 'disabled') {
    const wasDisabled = before.snapshot.stateText === 'disabled'
    actions.push(
      wasDisabled
        ? { type: 'recover' }
        : { type: 'reach', message: 'Customer has not enforce the secure channel state.' },
      { type: 'publish' },
    )
    return { state: { ...withoutKey(state), snapshot: { ...snapshot, key: undefined, isLatched: true } }, actions }
  }
  const { key } = snapshot
  if (key !== undefined && key.guid === status.keyGuid) {
    actions.push({ type: 'recover' }, { type: 'publish' })
    return { state: { ...withoutKey(state), snapshot: { ...snapshot, isLatched: true } }, actions }
  }
  // A host that names no key still takes the one it took last; one that names another does not.
  const waiting = { ...state, snapshot: { ...snapshot, isLatched: key !== undefined && status.keyGuid === undefined } }
  return wantKey(waiting, before.named.incarnationId, actions)
}

/** A key is wanted: the one on disk, the one at hand, or a new one. */
function wantKey(state: MachineState, incarnationBefore: number | undefined, actions: readonly Action[]): Transition {
  const { named, candidate } = state
  const isNewIncarnation = named.incarnationId !== incarnationBefore
  if (state.pollsToSkip > 0 && !isNewIncarnation) {
    return { state: { ...state, pollsToSkip: state.pollsToSkip - 1 }, actions: [...actions, { type: 'publish' }] }
  }
  const current = isNewIncarnation ? withoutKey(state) : state
  if (named.guid !== undefined && isKeyGuid(named.guid)) {
    return { state: current, actions: [...actions, { type: 'read', guid: named.guid }] }
  }
  return { state: current, actions: [...actions, isNewIncarnation ? { type: 'acquire' } : resume(candidate)] }
}

/** Goes on where an earlier poll had to stop. */
function resume(candidate: MachineState['candidate']): Question {
  if (candidate === undefined) return { type: 'acquire' }
  return { type: candidate.isStored ? 'attest' : 'store', key: candidate.key }
}

function onAcquired(state: MachineState, key: LatchedKey): Transition {
  const held = state.snapshot.key
  if (held !== undefined && held.guid === key.guid && !held.key.equals(key.key)) {
    // Storing it would overwrite the file of a key that works, before this one has proved that it does.
    return onFailure(state, 'acquire', 'the host gave another key under the id of the one in use', 'other')
  }
  return { state: { ...state, candidate: { key, isStored: false } }, actions: [{ type: 'store', key }] }
}

function onAttested(state: MachineState, key: LatchedKey): Transition {
  // The host took a key before this one and did not say so: it may go on like that.
  const isRepeated = state.snapshot.key !== undefined && state.named.guid !== state.snapshot.key.guid
  const unacknowledged = isRepeated ? state.unacknowledged + 1 : 0
  const pollsToSkip = unacknowledged < 2 ? 0 : Math.min(2 ** (unacknowledged - 1), MAX_POLLS_TO_SKIP)
  const next = { ...state, candidate: undefined, unacknowledged, pollsToSkip }
  const transition = onKey(next, key, 'Successfully attest the key and ready to use.')
  if (pollsToSkip === 0) return transition
  const message = `The host does not acknowledge the keys it gives: asking for the next one after ${pollsToSkip} more polls`
  return { state: transition.state, actions: [{ type: 'log', level: 'Warn', message }, ...transition.actions] }
}

function onKey(state: MachineState, key: LatchedKey, message: string): Transition {
  return {
    state: { ...state, snapshot: { ...state.snapshot, key, isLatched: true } },
    actions: [{ type: 'reach', message }, { type: 'publish' }, { type: 'clean', guid: key.guid }],
  }
}

function onFailure(state: MachineState, failed: Step, reason: string, kind: FailureKind): Transition {
  // A disk that hangs may well hold the key that the host named: no other one is asked for.
  if (failed === 'read' && (kind !== 'hanging' || state.candidate !== undefined)) {
    const message = `${FAILURES.read(reason, '')} Will try acquire the key details from Server.`
    return { state, actions: [{ type: 'log', level: 'Info', message }, resume(state.candidate)] }
  }
  const guid = state.candidate?.key.guid ?? ''
  const tell: Action = { type: 'tell', message: FAILURES[failed](reason, guid) }
  if (failed === 'status') return state.isRecheck ? startOver(state, [tell]) : { state, actions: [tell] }
  // What is on disk is not what was written, or the host no longer wants this key: the next poll starts with a new one.
  const isSpoilt = (failed === 'check' && kind !== 'hanging') || (failed === 'attest' && kind === 'refused')
  // Its file stays: a refusal can follow an answer that was lost, and then it is the only key the host takes.
  return { state: isSpoilt ? { ...state, candidate: undefined } : state, actions: [tell, { type: 'publish' }] }
}

/**
 * Somebody asks. What is known to be well is only told again; a disabled channel, which may have changed, is looked at
 * without forgetting it first, since any local user may ask.
 */
function onWoken(state: MachineState): Transition {
  const { stateText, isLatched } = state.snapshot
  const poll: Action = { type: 'poll' }
  if (stateText !== UNKNOWN_STATE && stateText !== 'disabled') {
    if (isLatched) return { state, actions: [{ type: 'publish' }] }
    // Each look may cost the host a key: one out of turn in each interval, however often somebody asks.
    return state.wasWoken ? { state, actions: [] } : { state: { ...state, wasWoken: true }, actions: [poll] }
  }
  const message = `poll_secure_channel_status task notified and secure channel state is '${stateText}', reset states and start poll status now.`
  const log: Action = { type: 'log', level: 'Info', message }
  if (stateText === 'disabled') return { state: { ...state, isRecheck: true }, actions: [log, poll] }
  const { actions, ...rest } = startOver(state, [log])
  return { ...rest, actions: [...actions, poll] }
}

/** Forgets what the host said last. */
function startOver(state: MachineState, actions: readonly Action[]): Transition {
  const snapshot = { ...state.snapshot, stateText: UNKNOWN_STATE, isLatched: false }
  return {
    state: { ...state, snapshot, isRecheck: false },
    actions: [...actions, { type: 'reset' }, { type: 'publish' }],
  }
}

function withoutKey(state: MachineState): MachineState {
  return { ...state, candidate: undefined, unacknowledged: 0, pollsToSkip: 0 }
}

function tellStatus(before: string, now: string, status: KeyStatus): Action[] {
  if (before === now) return [{ type: 'log', level: 'Trace', message: now }]
  const remarks = status.remarks.map((remark) => `Key status is used although ${remark.replace(/; $/, '')}`)
  return [now, ...remarks].map((message) => ({ type: 'log', level: 'Warn', message }))
}
