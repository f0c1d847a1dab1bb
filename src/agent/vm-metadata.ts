/**
 * Asks the host who this virtual machine is, for telemetry: goal state, shared config, instance metadata.
 *
 * The answer is kept for an hour. When it cannot be had anew the last one serves; without any, telemetry waits.
 */

import type { Clock } from '../base/clock.ts'
import { IMDS, WIRESERVER } from '../base/endpoints.ts'
import { AgentError, describeError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import {
  type MachineFacts,
  readGoalState,
  readInstance,
  readSharedConfig,
  type VmFacts,
} from '../telemetry/vm-facts.ts'

/** Asks for one document. @returns status and decoded body @throws when there is no answer */
export type AskHost = (
  endpoint: 'wireserver' | 'imds',
  target: string,
  headers: readonly (readonly [name: string, value: string])[],
  signal: AbortSignal,
) => Promise<{ readonly status: number; readonly text: string }>

export interface VmMetadata {
  /** Tells who we are, asking the host when that is due. Never rejects. @returns `undefined` while it is not known */
  current(signal: AbortSignal): Promise<VmFacts | undefined>
  /** What is known may be out of date: the next time it is asked for again. */
  expire(): void
}

export interface VmMetadataOptions {
  readonly ask: AskHost
  readonly machine: MachineFacts
  readonly clock: Pick<Clock, 'monotonicMs'>
  /** Its lines must not become telemetry. */
  readonly log: Log
}

const REFRESH_MS = 60 * 60 * 1000

/** After a failure: as often as telemetry is sent, but not with every payload. */
const RETRY_MS = 30_000

/** WireServer wants to know which version of its protocol is spoken. */
export const PROTOCOL_VERSION = ['x-ms-version', '2012-11-30'] as const

const GOAL_STATE_TARGET = '/machine?comp=goalstate'
const INSTANCE_TARGET = '/metadata/instance?api-version=2018-02-01'

/** Makes the source of facts; nothing is asked yet. */
export function createVmMetadata({ ask, machine, clock, log }: VmMetadataOptions): VmMetadata {
  let facts: VmFacts | undefined
  let dueMs = Number.NEGATIVE_INFINITY
  let lastFailure = ''

  const read = async (...[endpoint, target, headers, signal]: Parameters<AskHost>) => {
    const { status, text } = await ask(endpoint, target, headers, signal)
    if (status === 200) return text
    const { address } = endpoint === 'imds' ? IMDS : WIRESERVER
    throw new AgentError('HOST_CALL_FAILED', `http://${address}${target} answered ${status}`)
  }
  const refresh = async (signal: AbortSignal): Promise<VmFacts> => {
    const goalState = await read('wireserver', GOAL_STATE_TARGET, [PROTOCOL_VERSION], signal)
    const { containerId, sharedConfigTarget } = readGoalState(goalState, WIRESERVER.address)
    const sharedConfig = readSharedConfig(await read('wireserver', sharedConfigTarget, [PROTOCOL_VERSION], signal))
    const instance = readInstance(await read('imds', INSTANCE_TARGET, [['metadata', 'true']], signal))
    return { ...machine, containerId, ...sharedConfig, ...instance }
  }
  return {
    async current(signal) {
      if (clock.monotonicMs() < dueMs) return facts
      try {
        facts = await refresh(signal)
        dueMs = clock.monotonicMs() + REFRESH_MS
        lastFailure = ''
      } catch (error) {
        dueMs = clock.monotonicMs() + RETRY_MS
        const failure = `Failed to update the metadata of this virtual machine: ${describeError(error)}`
        if (failure !== lastFailure && !signal.aborted) log.warn(failure)
        lastFailure = failure
      }
      return facts
    },
    expire() {
      dueMs = Number.NEGATIVE_INFINITY
    },
  }
}
