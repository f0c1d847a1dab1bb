/**
 * Reads the host's answer to the status poll and says once, in one place, what it means for the three endpoints.
 *
 * Every other part works with the `ChannelState` made here: modes for redirection, state text for status documents,
 * whether a key is wanted. An unknown mode means enforce: the guard errs on the side of guarding.
 */

import * as v from 'valibot'
import type { EndpointName } from '../base/endpoints.ts'
import { AgentError } from '../base/errors.ts'
import type { DuplicateMember } from '../base/json.ts'
import type { AuthorizationRules } from '../rules/document.ts'
import { readHostDocument, u32Schema } from './host-document.ts'
import { AUTHORIZATION_SCHEME } from './sign.ts'

export type Mode = 'disabled' | 'audit' | 'enforce'

/** A parsed and valid status answer. */
export interface KeyStatus {
  readonly version: string
  readonly authorizationScheme: string
  readonly keyDeliveryMethod: string
  /** Id of the key the host has latched; `undefined` when it has none. */
  readonly keyGuid: string | undefined
  readonly keyIncarnationId: number | undefined
  readonly secureChannelState: string | undefined
  readonly secureChannelEnabled: boolean | undefined
  readonly authorizationRules: AuthorizationRules | undefined
  /** Faults that are noted but refuse nothing. */
  readonly remarks: readonly string[]
}

/** What a status means. */
export interface ChannelState {
  /** `disabled`, `wireserver`, `wireserverandimds`, or the composite text of protocol 2.0. Shown and compared literally. */
  readonly text: string
  readonly modes: Readonly<Record<EndpointName, Mode>>
  /** Rule ids as received; empty when the host sent no item. */
  readonly ruleIds: Readonly<Record<EndpointName, string>>
}

/** How rule documents are read; given by `agent/`, so that the channel stands alone. */
export interface RuleParser {
  parse(json: unknown): AuthorizationRules
  isAllowedDuplicate(duplicate: DuplicateMember): boolean
}

const optional = <T>(schema: v.GenericSchema<unknown, T>) => v.optional(v.nullable(schema))

const StatusSchema = v.object({
  version: v.string(),
  authorizationScheme: v.string(),
  keyDeliveryMethod: v.string(),
  keyGuid: optional(v.string()),
  keyIncarnationId: optional(u32Schema),
  requiredClaimsHeaderPairs: optional(v.array(v.string())),
  secureChannelState: optional(v.string()),
  secureChannelEnabled: optional(v.boolean()),
  authorizationRules: optional(v.unknown()),
})

const STATES = ['disabled', 'wireserver', 'wireserverandimds']

/**
 * Parses the body of a status answer.
 * @throws AgentError `STATUS_UNREADABLE`, naming members and positions and no value; `STATUS_INVALID`, whose known texts
 * repeat version, delivery method and state; and what `rules.parse` throws.
 */
export function parseKeyStatus(text: string, rules: RuleParser): KeyStatus {
  const output = readHostDocument(text, StatusSchema, 'key status', 'STATUS_UNREADABLE', rules.isAllowedDuplicate)
  const remarks = validate(output)
  return {
    version: output.version,
    authorizationScheme: output.authorizationScheme,
    keyDeliveryMethod: output.keyDeliveryMethod,
    keyGuid: output.keyGuid ?? undefined,
    keyIncarnationId: output.keyIncarnationId ?? undefined,
    secureChannelState: output.secureChannelState ?? undefined,
    secureChannelEnabled: output.secureChannelEnabled ?? undefined,
    authorizationRules:
      output.authorizationRules === null || output.authorizationRules === undefined
        ? undefined
        : rules.parse(output.authorizationRules),
    remarks,
  }
}

/** Applies the checks in the order support articles describe; texts are part of the contract. @returns the mild ones. */
function validate(status: v.InferOutput<typeof StatusSchema>): string[] {
  const remarks: string[] = []
  const faults: string[] = []
  if (status.authorizationScheme !== AUTHORIZATION_SCHEME) {
    remarks.push(`authorizationScheme must be '${AUTHORIZATION_SCHEME}'; `)
  }
  if (status.keyDeliveryMethod !== 'http' && status.keyDeliveryMethod !== 'vtpm') {
    remarks.push(`keyDeliveryMethod '${status.keyDeliveryMethod}' is invalid; `)
  }
  const state = status.secureChannelState?.toLowerCase()
  const isStateMissing = state === undefined
  const isEnabledMissing = (status.secureChannelEnabled ?? undefined) === undefined
  if (isStateMissing && isEnabledMissing) {
    faults.push(`Both secureChannelEnabled and secureChannelState are missing in version: ${status.version}`)
  }
  if (!isStateMissing && !STATES.includes(state)) faults.push(`secureChannelState '${state}' is invalid; `)
  if (isStateMissing && status.version === '1.0') faults.push('secureChannelState is missing in version: 1.0')
  if (isEnabledMissing && status.version === '2.0') faults.push('secureChannelEnabled is missing in version: 2.0')
  if (faults.length > 0) {
    const text = [...remarks, ...faults].join('')
    throw new AgentError('STATUS_INVALID', `Key error: Key status validation failed with the error: ${text}`)
  }
  return remarks
}

/** Works out the state text, the modes and the rule ids. HostGAPlugin follows WireServer in all three. */
export function computeChannelState(status: KeyStatus): ChannelState {
  const { wireserver, imds } = status.authorizationRules ?? {}
  const wireserverId = wireserver?.id ?? ''
  const ruleIds = {
    wireserver: wireserverId,
    imds: imds?.id ?? '',
    hostga: wireserverId,
  }
  if (status.version !== '2.0') {
    const text = status.secureChannelState?.toLowerCase() ?? 'disabled'
    if (text === 'disabled') return { text, modes: allModes('disabled', 'disabled'), ruleIds }
    return {
      text,
      modes: allModes('enforce', text === 'wireserverandimds' ? 'enforce' : 'audit'),
      ruleIds,
    }
  }
  if (status.secureChannelEnabled !== true || status.authorizationRules === undefined) {
    return {
      text: 'disabled',
      modes: allModes('disabled', 'disabled'),
      ruleIds,
    }
  }
  const modes = allModes(resolveMode(wireserver?.mode), resolveMode(imds?.mode))
  const text = `WireServer ${word(modes.wireserver)} -  IMDS ${word(modes.imds)} - HostGA ${word(modes.hostga)}`
  return { text, modes, ruleIds }
}

/** Renders the line that tells a changed status. */
export function describeKeyStatus(status: KeyStatus, state: ChannelState): string {
  return (
    `Got key status successfully: authorizationScheme: ${status.authorizationScheme}, ` +
    `keyDeliveryMethod: ${status.keyDeliveryMethod}, keyGuid: ${status.keyGuid ?? 'None'}, ` +
    `secureChannelState: ${state.text}, version: ${status.version}, ` +
    `WireServerMode: ${state.modes.wireserver}, IMDSMode: ${state.modes.imds}.`
  )
}

function allModes(wireserver: Mode, imds: Mode): Record<EndpointName, Mode> {
  return { wireserver, imds, hostga: wireserver }
}

function resolveMode(mode: string | undefined): Mode {
  const lower = mode?.toLowerCase()
  if (lower === undefined || lower === 'disabled') return 'disabled'
  return lower === 'audit' ? 'audit' : 'enforce'
}

function word(mode: Mode): string {
  return `${mode[0]?.toUpperCase()}${mode.slice(1)}`
}
