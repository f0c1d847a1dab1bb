/** Says in words why a request was decided as it was: for the log, never for the caller. */

import type { CanonicalCode } from './canonical-failure.ts'
import type { EndpointReason, RulesReason, Verdict } from './decide.ts'
import { quote } from './divergence.ts'

/** One line such as `forbidden: privilege "token" matches and is not granted to the caller (rule set "v7", legacy matcher)`. */
export function describeVerdict(verdict: Verdict): string {
  const context: string[] = []
  if (verdict.ruleSetId !== undefined) context.push(`rule set ${quote(verdict.ruleSetId)}`)
  if (verdict.decidedBy !== 'endpoint') context.push(MATCHERS[verdict.decidedBy])
  const suffix = context.length === 0 ? '' : ` (${context.join(', ')})`
  return `${verdict.outcome}: ${describeReason(verdict.reason, verdict.outcome === 'ok')}${suffix}`
}

const MATCHERS = {
  legacy: 'legacy matcher',
  canonical: 'canonical matcher',
  respelling: 'legacy matcher, on the canonical spelling',
} as const

function describeReason(reason: EndpointReason | RulesReason, allowed: boolean): string {
  switch (reason.kind) {
    case 'skip-signature-exempt':
      return 'an upload of the guest agent that goes without signature'
    case 'elevated-only':
      return 'the endpoint is for elevated callers only'
    case 'no-rules':
      return 'the endpoint has no rules'
    case 'mode-disabled':
      return 'the rules are disabled'
    case 'granted':
      return `privilege ${quote(reason.privilege)} is granted to identity ${quote(reason.identity)} by role ${quote(reason.role)}`
    case 'not-granted':
      return describeUngranted(reason.privileges)
    case 'default-access':
      return `no privilege matches and the default access is ${allowed ? 'allow' : 'deny'}`
    case 'canonical-error':
      return `the request has no canonical form: ${CANONICAL_FAULTS[reason.code]} (${reason.code})`
  }
}

const CANONICAL_FAULTS: Readonly<Record<CanonicalCode, string>> = {
  CANON_SCHEME: 'its scheme is not http',
  CANON_METHOD: 'its method is not one of those that are forwarded',
  CANON_USERINFO: 'there is an @ before its host',
  CANON_PORT: 'its port is not a number up to 65535',
  CANON_HOST: 'its host is neither an address nor a name',
  CANON_PCT: 'a % is not followed by two hexadecimal digits',
  CANON_UTF8: 'it is not UTF-8 when decoded',
  CANON_OVERLONG: 'a character is written longer than it is',
  CANON_CTRL: 'it holds a control character',
  CANON_NON_ASCII: 'its path is not ASCII',
  CANON_EMBQ: 'its path holds an encoded question mark',
  CANON_UNDERFLOW: 'its path climbs above the root',
}

/** Up to three names: a rule set may hold thousands. */
function describeUngranted(privileges: readonly string[]): string {
  const names = privileges.slice(0, 3).map(quote).join(', ')
  const more = privileges.length > 3 ? ` and ${privileges.length - 3} more` : ''
  const [noun, verbs] = privileges.length === 1 ? ['privilege', 'matches and is'] : ['privileges', 'match and are']
  return `${noun} ${names}${more} ${verbs} not granted to the caller`
}
