/** The two matchers disagree about a request: the record of it, and the line it makes in the connection log. */

import type { RequestTarget } from '../base/request-target.ts'
import type { CanonicalCode } from './canonical-failure.ts'

/** One disagreement between the verdicts of the rules, before elevation and audit mode soften or harden them. */
export interface Divergence {
  readonly mode: 'shadow' | 'enforce'
  readonly ruleSetId: string
  readonly legacy: 'allow' | 'deny'
  readonly canonical: 'allow' | 'deny' | `error:${CanonicalCode}`
  /** Path and query as received, without authority. */
  readonly uri: string
}

/** Path and query of a target as received; the `?` of an empty query is left out. */
export function rawUri(target: RequestTarget): string {
  return target.query ? `${target.path}?${target.query}` : target.path
}

/** Writes the line that log queries look for; fields and their order are fixed. */
export function formatDivergence(divergence: Divergence): string {
  const { mode, ruleSetId, legacy, canonical, uri } = divergence
  return `CANON_DIVERGENCE mode=${mode} rule_set=${escapeControls(ruleSetId)} legacy=${legacy} canon=${canonical} uri=${quote(uri)}`
}

/** Puts text from elsewhere in double quotes such that it cannot end the quotes or the line. */
export function quote(text: string): string {
  return `"${escapeControls(text.replace(/["\\]/g, '\\$&'))}"`
}

const SHORT_ESCAPES: ReadonlyMap<string, string> = new Map([
  ['\0', '\\0'],
  ['\t', '\\t'],
  ['\n', '\\n'],
  ['\r', '\\r'],
])

/** C0, DEL, C1, and the two Unicode line ends. */
function escapeControls(text: string): string {
  return text.replace(
    /[\p{Cc}\u2028\u2029]/gu,
    (character) => SHORT_ESCAPES.get(character) ?? `\\u{${character.charCodeAt(0).toString(16)}}`,
  )
}
