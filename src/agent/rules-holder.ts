/** Holds the rules in force: compiled once for each change of content, swapped whole, asked for every request. */

import type { Endpoint, EndpointName } from '../base/endpoints.ts'
import type { Log } from '../base/log.ts'
import type { Caller } from '../identity/caller.ts'
import { type CanonicalMode, decide, type Verdict } from '../rules/decide.ts'
import type { AuthorizationRules } from '../rules/document.ts'
import { compileSnapshot, type EndpointItems, hashItem, itemsOf, type PolicySnapshot } from '../rules/snapshot.ts'

export interface RulesHolder {
  /** Takes the rules of the last poll; does nothing when their content is the one in force. */
  update(rules: AuthorizationRules | undefined): void
  decide(endpoint: Endpoint, caller: Caller, method: string, rawTarget: string): Verdict
}

const TITLES: Readonly<Record<EndpointName, string>> = { wireserver: 'Wireserver', imds: 'IMDS', hostga: 'HostGA' }

/** Makes the holder with no rules. */
export function createRulesHolder(canonicalMode: CanonicalMode, log: Log): RulesHolder {
  let items: EndpointItems = {}
  let hashes = hashesOf(items)
  let snapshot: PolicySnapshot = compileSnapshot(items, 0).result

  return {
    update(rules) {
      const next = itemsOf(rules ?? {})
      const nextHashes = hashesOf(next)
      if (nextHashes === hashes) return
      const compiled = compileSnapshot(next, snapshot.epoch + 1)
      for (const endpoint of ['wireserver', 'imds', 'hostga'] as const) {
        const [old, now] = [items[endpoint]?.id ?? '', next[endpoint]?.id ?? '']
        if (old !== now) log.warn(`${TITLES[endpoint]} rule id changed from '${old}' to '${now}'.`)
      }
      for (const warning of compiled.warnings) log.warn(`${TITLES[warning.endpoint]} rules: ${warning.message}`)
      log.info(`Rules of epoch ${compiled.result.epoch} are in force`)
      items = next
      hashes = nextHashes
      snapshot = compiled.result
    },
    decide(endpoint, caller, method, rawTarget) {
      const request = { method, target: rawTarget }
      return decide(snapshot[endpoint.name], endpoint.name, caller, request, { canonicalMode })
    },
  }
}

function hashesOf(items: EndpointItems): string {
  return (['wireserver', 'imds', 'hostga'] as const)
    .map((endpoint) => (items[endpoint] === undefined ? '-' : hashItem(items[endpoint])))
    .join()
}
