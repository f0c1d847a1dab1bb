/** What a look at rules brings to light, and in which order it is told. */

import type { JsonPath, JsonPosition } from '../../base/json.ts'

/** See `lint-rules.ts`. */
export type Severity = 'error' | 'warning'

/** One thing worth knowing. The message quotes the file as it is: escape it before it reaches a terminal. */
export interface Finding {
  readonly severity: Severity
  /** Stable, in kebab case. */
  readonly code: string
  readonly message: string
  /** What to do about it, one sentence. */
  readonly hint: string
  /** Leads to the culprit in the document. */
  readonly path: JsonPath
  readonly position: JsonPosition
}

export type Report = (severity: Severity, code: string, path: JsonPath, message: string, hint: string) => void

/** What those who look at parts of an item are told of the whole. */
export interface Surroundings {
  /** A local rules file, which is refused for what a document of the host is only warned of. */
  readonly isLocal: boolean
  /** The default access is allow. */
  readonly isOpen: boolean
  readonly report: Report
}

/** Most findings of one file; a file can be made of nothing but faults. */
const MAX_FINDINGS = 200

/** Puts findings in the order of the file, errors first where several stand at one place, and keeps so many as people read. */
export function orderFindings(found: readonly Finding[]): Finding[] {
  const ordered = [...found].sort(
    (a, b) =>
      a.position.line - b.position.line ||
      a.position.column - b.position.column ||
      Number(a.severity === 'warning') - Number(b.severity === 'warning'),
  )
  if (ordered.length <= MAX_FINDINGS) return ordered
  // Errors stay: whether there are any is what a pipeline asks.
  const kept = [...ordered.filter(({ severity }) => severity === 'error'), ...ordered].slice(0, MAX_FINDINGS)
  const rest = ordered.length - kept.length
  const message = `${rest} more findings are not shown`
  const hint = 'Mend some of those above and check again.'
  const position = { line: 1, column: 1 }
  return [...new Set(kept), { severity: 'warning', code: 'findings-omitted', path: [], position, message, hint }]
}
