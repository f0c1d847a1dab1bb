/**
 * May this caller make this request? The one place that answers; it reads its arguments and nothing else.
 *
 *   exempt upload by an elevated caller, WireServer and HostGAPlugin only   ok
 *   not elevated, WireServer and HostGAPlugin                               forbidden, whatever the rules
 *   no rules                                                                ok
 *   the rules allow                                                         ok
 *   the rules deny, mode audit                                              audit: carried, and told
 *   the rules deny                                                          forbidden
 *
 * The rules: a privilege that matches the request and is granted to the caller allows; privileges that match without a grant
 * deny; without a match the default access decides. Two matchers read the request. The legacy one always counts; the canonical
 * one is compared in shadow mode, and in enforce mode both have to allow. Then nothing passes by default access either that the
 * legacy matcher would have denied in its canonical spelling.
 */

import type { EndpointName } from '../base/endpoints.ts'
import type { RequestLine, RequestTarget } from '../base/request-target.ts'
import { parseRequestTarget } from '../base/request-target.ts'
import type { CanonicalCode, CanonicalFailure } from './canonical-failure.ts'
import { isCanonicalFailure } from './canonical-failure.ts'
import { readCanonicalRequest, readRespelt } from './canonical-pattern.ts'
import { type CanonicalRequest, canonicalizeParts } from './canonicalize.ts'
import type { Divergence } from './divergence.ts'
import { rawUri } from './divergence.ts'
import { isExemptUpload } from './exempt-upload.ts'
import { Holdings } from './holdings.ts'
import { readLegacyRequest } from './match.ts'
import type { RuleCaller } from './selectors.ts'
import type { EndpointPolicy } from './snapshot.ts'

/** `off` ignores the canonical matcher, `shadow` compares it, `enforce` lets it deny. */
export type CanonicalMode = 'off' | 'shadow' | 'enforce'

export interface DecideOptions {
  readonly canonicalMode: CanonicalMode
}

/** `audit` is carried like `ok`, and counted and told like `forbidden`. */
export type Outcome = 'ok' | 'audit' | 'forbidden'

/** Why the rules said what they said. */
export type RulesReason =
  | { readonly kind: 'mode-disabled' }
  | { readonly kind: 'granted'; readonly privilege: string; readonly role: string; readonly identity: string }
  /** Privileges that match the request; none of them is held by the caller. */
  | { readonly kind: 'not-granted'; readonly privileges: readonly string[] }
  | { readonly kind: 'default-access' }
  | { readonly kind: 'canonical-error'; readonly code: CanonicalCode }

/** Why the endpoint let a request pass, or stopped it, without asking the rules. */
export type EndpointReason =
  | { readonly kind: 'skip-signature-exempt' }
  | { readonly kind: 'elevated-only' }
  | { readonly kind: 'no-rules' }

/** What one matcher makes of a request, before audit mode softens it. */
export interface RulesVerdict {
  readonly allowed: boolean
  readonly reason: RulesReason
}

export interface Verdict {
  readonly outcome: Outcome
  /**
   * Who said so: the endpoint by itself, one of the matchers, or the legacy one on the canonical spelling, when both let the
   * request pass by default access. When both deny, the legacy one is named.
   */
  readonly decidedBy: 'endpoint' | 'legacy' | 'canonical' | 'respelling'
  readonly reason: EndpointReason | RulesReason
  /** Of the rules that were in force, also when they were not asked. */
  readonly ruleSetId?: string
  /** Present when the canonical matcher was consulted, as are `legacy` and, when the two differ, `divergence`. */
  readonly canonical?: RulesVerdict
  readonly legacy?: RulesVerdict
  readonly divergence?: Divergence
}

/**
 * Decides one request on one policy.
 * @param policy of the endpoint, from the snapshot the request started with; `undefined` when it has no rules
 * @param endpoint where the connection was going, never what the target claims
 */
export function decide(
  policy: EndpointPolicy | undefined,
  endpoint: EndpointName,
  caller: RuleCaller,
  request: RequestLine,
  options: DecideOptions,
): Verdict {
  const isRestricted = endpoint !== 'imds'
  if (isRestricted && caller.elevated && isExemptUpload(request.method, request.target)) {
    return { outcome: 'ok', decidedBy: 'endpoint', reason: { kind: 'skip-signature-exempt' }, ...ruleSetOf(policy) }
  }
  const isShutOut = isRestricted && !caller.elevated
  if (isShutOut && (policy === undefined || options.canonicalMode === 'off'))
    return { ...SHUT_OUT, ...ruleSetOf(policy) }
  if (policy === undefined) return { outcome: 'ok', decidedBy: 'endpoint', reason: { kind: 'no-rules' } }

  const verdict = askRules(policy, caller, request, options.canonicalMode)
  return isShutOut ? { ...verdict, ...SHUT_OUT } : verdict
}

const SHUT_OUT = { outcome: 'forbidden', decidedBy: 'endpoint', reason: { kind: 'elevated-only' } } as const

function ruleSetOf(policy: EndpointPolicy | undefined): { ruleSetId?: string } {
  return policy === undefined ? {} : { ruleSetId: policy.id }
}

function askRules(policy: EndpointPolicy, caller: RuleCaller, request: RequestLine, mode: CanonicalMode): Verdict {
  const target = parseRequestTarget(request.target)
  const holdings = new Holdings(policy, caller)
  const legacy = askLegacy(policy, holdings, target)
  if (mode === 'off') return conclude(policy, 'legacy', legacy)

  const canonicalRequest = canonicalizeParts(request.method, target)
  const canonical = askCanonical(policy, holdings, canonicalRequest)
  const differs = legacy.allowed !== canonical.allowed
  const divergence = differs ? describeDivergence(policy, mode, legacy, canonical, target) : undefined
  const compared = { legacy, canonical, ...(divergence && { divergence }) }
  if (mode === 'shadow' || !legacy.allowed) return { ...conclude(policy, 'legacy', legacy), ...compared }
  if (!canonical.allowed) return { ...conclude(policy, 'canonical', canonical), ...compared }
  const respelt = askRespelt(policy, holdings, canonical, canonicalRequest)
  return { ...(respelt ? conclude(policy, 'respelling', respelt) : conclude(policy, 'legacy', legacy)), ...compared }
}

function conclude(
  policy: EndpointPolicy,
  decidedBy: 'legacy' | 'canonical' | 'respelling',
  { allowed, reason }: RulesVerdict,
): Verdict {
  const outcome = allowed ? 'ok' : policy.mode === 'audit' ? 'audit' : 'forbidden'
  return { outcome, decidedBy, reason, ruleSetId: policy.id }
}

function askLegacy(policy: EndpointPolicy, holdings: Holdings, target: RequestTarget): RulesVerdict {
  if (policy.mode === 'disabled') return DISABLED
  return weigh(policy, holdings, policy.legacyPatterns.find(readLegacyRequest(target)))
}

function askCanonical(
  policy: EndpointPolicy,
  holdings: Holdings,
  request: CanonicalRequest | CanonicalFailure,
): RulesVerdict {
  if (policy.mode === 'disabled') return DISABLED
  if (isCanonicalFailure(request)) return { allowed: false, reason: { kind: 'canonical-error', code: request.code } }
  return weigh(policy, holdings, policy.canonicalPatterns.find(readCanonicalRequest(request)))
}

/**
 * Looks again at what would pass by default access. What the canonical matcher reads otherwise than the legacy one, or not at
 * all, would be open to every spelling but one.
 * @returns the denial of the legacy matcher for the canonical spelling, if that is one
 */
function askRespelt(
  policy: EndpointPolicy,
  holdings: Holdings,
  canonical: RulesVerdict,
  request: CanonicalRequest | CanonicalFailure,
): RulesVerdict | undefined {
  if (canonical.reason.kind !== 'default-access' || isCanonicalFailure(request)) return undefined
  const verdict = weigh(policy, holdings, policy.legacyPatterns.find(readRespelt(request)))
  return verdict.reason.kind === 'not-granted' ? verdict : undefined
}

const DISABLED: RulesVerdict = Object.freeze({ allowed: true, reason: Object.freeze({ kind: 'mode-disabled' }) })

/**
 * One grant suffices; matching privileges without any deny; the default access is for what no privilege mentions.
 * @param matching places of the privileges that match the request; the first of them that is granted is named
 */
function weigh(policy: EndpointPolicy, holdings: Holdings, matching: readonly number[]): RulesVerdict {
  if (matching.length === 0) return { allowed: policy.defaultAllowed, reason: { kind: 'default-access' } }
  const privileges: string[] = []
  for (const place of matching) {
    const privilege = policy.privileges[place]!
    const grant = holdings.findGrant(privilege)
    if (grant !== undefined) {
      const { role, identity } = grant
      return { allowed: true, reason: { kind: 'granted', privilege: privilege.name, role, identity: identity.name } }
    }
    privileges.push(privilege.name)
  }
  return { allowed: false, reason: { kind: 'not-granted', privileges } }
}

function describeDivergence(
  policy: EndpointPolicy,
  mode: 'shadow' | 'enforce',
  legacy: RulesVerdict,
  canonical: RulesVerdict,
  target: RequestTarget,
): Divergence {
  return {
    mode,
    ruleSetId: policy.id,
    legacy: legacy.allowed ? 'allow' : 'deny',
    canonical: describeCanonical(canonical),
    uri: rawUri(target),
  }
}

function describeCanonical({ allowed, reason }: RulesVerdict): Divergence['canonical'] {
  if (reason.kind === 'canonical-error') return `error:${reason.code}`
  return allowed ? 'allow' : 'deny'
}
