/** Says in words why a request was decided as it was: for the log, never for the caller. */

import type { EndpointReason, RulesReason, Verdict } from './decide.ts'
import { quote } from './divergence.ts'

/** One line such as `forbidden: privilege "token" matches and is not granted to the caller (rule set "v7", legacy matcher)`. */
export function describeVerdict(verdict: Verdict): string {
  const context: string[] = []
  if (verdict.ruleSetId !== undefined) context.push(`rule set ${quote(verdict.ruleSetId)}`)
  if (verdict.decidedBy !== 'endpoint') context.push(`${verdict.decidedBy} matcher`)
  const suffix = context.length === 0 ? '' : ` (${context.join(', ')})`
  return `${verdict.outcome}: ${describeReason(verdict.reason, verdict.outcome === 'ok')}${suffix}`
}

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
      return `the request has no canonical form, ${reason.code}`
  }
}

/** Up to three names: a rule set may hold thousands. */
function describeUngranted(privileges: readonly string[]): string {
  const names = privileges.slice(0, 3).map(quote).join(', ')
  const more = privileges.length > 3 ? ` and ${privileges.length - 3} more` : ''
  const [noun, verbs] = privileges.length === 1 ? ['privilege', 'matches and is'] : ['privileges', 'match and are']
  return `${noun} ${names}${more} ${verbs} not granted to the caller`
}
