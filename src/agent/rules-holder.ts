/**
 * Holds the rules in force: compiled once for each change of content, swapped whole, asked for every request.
 *
 * What the host sent last is kept, so that it can be merged again when a local rules file changes while the host is silent.
 */

import type { Endpoint, EndpointName } from '../base/endpoints.ts'
import type { Log } from '../base/log.ts'
import type { Caller } from '../identity/caller.ts'
import { type CanonicalMode, decide, type Verdict } from '../rules/decide.ts'
import type { AuthorizationRules } from '../rules/document.ts'
import { mergeLocalRules, readRuleId } from '../rules/local-rules.ts'
import {
  asksForHash,
  compileSnapshot,
  type EndpointItems,
  hashItem,
  itemsOf,
  type PolicySnapshot,
  type RuleWarningCode,
} from '../rules/snapshot.ts'
import type { LocalOutcome, LocalRulesFile } from './local-rules.ts'

export interface RulesHolder {
  /**
   * Takes the rules of the last poll; does nothing when they and the local files are what is in force. Where a local file
   * counts, nothing changes before it has been read: the host's rules without the local ones might be the wider ones.
   * @returns a promise for the end of that reading, nothing when there was none
   */
  update(rules: AuthorizationRules | undefined): Promise<void> | undefined
  /** Looks at the local files again and merges them into what the host sent last. */
  reread(): Promise<void> | undefined
  decide(endpoint: Endpoint, caller: Caller, method: string, rawTarget: string): Verdict
  /** Tells whether a rule in force asks for the hash of an executable. */
  asksForHash(): boolean
}

export interface RulesHolderOptions {
  /** Where none is given, local rules do not count. */
  readonly localFiles?: Readonly<Record<LocalEndpoint, LocalRulesFile>>
  /** What was put in force, after every change. */
  readonly onApplied?: (items: EndpointItems, snapshot: PolicySnapshot) => void
}

/** The endpoints that have a local file; HostGAPlugin follows WireServer. */
type LocalEndpoint = 'wireserver' | 'imds'
type LocalOutcomes = Readonly<Record<LocalEndpoint, LocalOutcome>>

const LOCAL_ENDPOINTS = ['wireserver', 'imds'] as const
const ENDPOINTS = ['wireserver', 'imds', 'hostga'] as const
const TITLES: Readonly<Record<EndpointName, string>> = { wireserver: 'Wireserver', imds: 'IMDS', hostga: 'HostGA' }
/** Told as other agents tell them. */
const LEVELS: Readonly<Partial<Record<RuleWarningCode, 'error'>>> = {
  'mode-unknown': 'error',
  'role-undefined': 'error',
}
const NO_RULES: AuthorizationRules = {}
const NO_OUTCOMES: LocalOutcomes = { wireserver: undefined, imds: undefined }

/** Makes the holder with no rules. */
export function createRulesHolder(
  canonicalMode: CanonicalMode,
  log: Log,
  { localFiles, onApplied }: RulesHolderOptions = {},
): RulesHolder {
  let received = NO_RULES
  /** What was looked at last, host and files; the same objects need no second look. */
  let applied = { received, outcomes: NO_OUTCOMES }
  /** The ids of what is in force, as the host sent them. */
  let ids = idsOf({})
  let snapshot: PolicySnapshot = compileSnapshot({}, 0).result
  let needsHash = false
  /** Whether the last look at the files found one that counts. */
  let isLocal = false
  /** Looks that are running or waiting, the last one at the end. */
  let looks: Promise<void> | undefined
  /** The last one has not begun: it will take what the host has sent by then. */
  let isLookWaiting = false

  const apply = (outcomes: LocalOutcomes) => {
    if (received === applied.received && LOCAL_ENDPOINTS.every((each) => outcomes[each] === applied.outcomes[each]))
      return
    applied = { received, outcomes }
    const items = mergeAll(received, outcomes)
    const nextIds = idsOf(received)
    if (isInForce(items, snapshot) && ENDPOINTS.every((each) => nextIds[each] === ids[each])) return
    const compiled = compileSnapshot(items, snapshot.epoch + 1)
    for (const endpoint of ENDPOINTS) {
      const [old, now] = [ids[endpoint], nextIds[endpoint]]
      if (old !== now) log.warn(`${TITLES[endpoint]} rule id changed from '${readable(old)}' to '${readable(now)}'.`)
      const remark = old === now || endpoint === 'hostga' ? undefined : readRuleId(now).remark
      if (remark) log.warn(`${TITLES[endpoint]} rules: the id ${remark}, so local rules are off.`)
    }
    for (const { code, endpoint, message } of compiled.warnings) {
      // HostGAPlugin has WireServer's item: its warnings would be the same ones.
      if (endpoint !== 'hostga') log[LEVELS[code] ?? 'warn'](`${TITLES[endpoint]} rules: ${message}`)
    }
    log.info(`Rules of epoch ${compiled.result.epoch} are in force`)
    ids = nextIds
    snapshot = compiled.result
    needsHash = asksForHash(snapshot)
    onApplied?.(items, snapshot)
  }

  const look = async (files: Readonly<Record<LocalEndpoint, LocalRulesFile>>) => {
    const rules = received
    const lookAt = (endpoint: LocalEndpoint) => files[endpoint].look(usesLocalFile(rules, endpoint))
    const [wireserver, imds] = await Promise.all([lookAt('wireserver'), lookAt('imds')])
    // When the host has spoken meanwhile, the look that this began comes next.
    if (rules === received) apply({ wireserver, imds })
  }

  const refresh = (): Promise<void> | undefined => {
    const wasLocal = isLocal
    isLocal = localFiles !== undefined && LOCAL_ENDPOINTS.some((each) => usesLocalFile(received, each))
    if (localFiles === undefined || !(isLocal || wasLocal || looks)) {
      apply(NO_OUTCOMES)
      return undefined
    }
    if (looks !== undefined && isLookWaiting) return looks
    isLookWaiting = true
    const mine: Promise<void> = (looks ?? Promise.resolve())
      .then(() => {
        isLookWaiting = false
        return look(localFiles)
      })
      .finally(() => {
        if (looks === mine) looks = undefined
      })
    looks = mine
    return mine
  }

  return {
    update(rules) {
      received = rules ?? NO_RULES
      return refresh()
    },
    reread: refresh,
    asksForHash: () => needsHash,
    decide(endpoint, caller, method, rawTarget) {
      const request = { method, target: rawTarget }
      return decide(snapshot[endpoint.name], endpoint.name, caller, request, { canonicalMode })
    },
  }
}

function usesLocalFile(rules: AuthorizationRules, endpoint: LocalEndpoint): boolean {
  const item = rules[endpoint]
  return item !== undefined && readRuleId(item.id).usesLocalFile
}

/**
 * Merges what the host sent with what the files hold. HostGAPlugin has WireServer's item as the host sent it, since the file is
 * about WireServer; but a file that cannot be used closes both, since they are one address of the host.
 */
function mergeAll(rules: AuthorizationRules, outcomes: LocalOutcomes): EndpointItems {
  const { hostga, ...received } = itemsOf(rules)
  const wireserver = received.wireserver && mergeLocalRules(received.wireserver, outcomes.wireserver)
  const imds = received.imds && mergeLocalRules(received.imds, outcomes.imds)
  const forHostga = outcomes.wireserver === 'fail-closed' ? wireserver : hostga
  return { ...(wireserver && { wireserver }), ...(imds && { imds }), ...(forHostga && { hostga: forHostga }) }
}

/** An id as logs show it: a switch is shown by what it says, since a log takes its base64 for a secret. */
function readable(id: string): string {
  const { logicalId, effectiveId } = readRuleId(id)
  return logicalId === id.trim() ? id : effectiveId
}

function idsOf(rules: AuthorizationRules): Readonly<Record<EndpointName, string>> {
  const items = itemsOf(rules)
  return { wireserver: items.wireserver?.id ?? '', imds: items.imds?.id ?? '', hostga: items.hostga?.id ?? '' }
}

/** Tells whether `snapshot` was compiled from items of this content. */
function isInForce(items: EndpointItems, snapshot: PolicySnapshot): boolean {
  return ENDPOINTS.every((endpoint) => {
    const item = items[endpoint]
    return (item && hashItem(item)) === snapshot[endpoint]?.hash
  })
}
