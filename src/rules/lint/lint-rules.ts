/**
 * Looks for what an author of rules would want to know before the rules are in force.
 *
 *   error     the agent refuses the file, or the rules cannot mean what they say: part of them is passed over
 *   warning   the rules work, and allow more, or do less, than a reader would think
 *
 * The agent's own readers have the last word: a file they refuse has an error here, and a file without errors is one they take.
 */

import type { EndpointName } from '../../base/endpoints.ts'
import type { JsonPath } from '../../base/json.ts'
import { isJsonObject } from '../../base/json.ts'
import type { AccessControlRules, AuthorizationItem } from '../document.ts'
import type { OpenedRules, RulesFormat } from '../rules-file.ts'
import { findRefusedDuplicates, openRules, RulesFileError, readItem, readItems, readLocal } from '../rules-file.ts'
import { type EndpointItems, resolveMode } from '../snapshot.ts'
import { type Finding, orderFindings, type Report, type Surroundings } from './finding.ts'
import { findUnknownMembers } from './known-members.ts'
import { lintIdentity } from './lint-identity.ts'
import { lintPrivilege } from './lint-privilege.ts'
import { findGranted, lintReferences } from './lint-references.ts'
import { findOverlaps } from './overlaps.ts'

export interface LintResult {
  /** `undefined` when the file is not JSON. */
  readonly format: RulesFormat | undefined
  /** In the order of the file. */
  readonly findings: readonly Finding[]
}

/**
 * Looks through a rules file of any kind. Never fails on any text.
 * @param fileName without directories: some names mean local rules
 */
export function lintRules(text: string, fileName = ''): LintResult {
  let opened: OpenedRules
  try {
    opened = openRules(text, fileName)
  } catch (error) {
    return { format: undefined, findings: [findingOf(error)] }
  }
  const { document, format } = opened
  const found: Finding[] = []
  const report: Report = (severity, code, path, message, hint) => {
    found.push({ severity, code, path, message, hint, position: document.locate(path) })
  }
  for (const { key, path, line, column } of findRefusedDuplicates(opened)) {
    const position = { line, column }
    const message = `member '${key}' stands twice in one object, the rules are refused`
    found.push({ severity: 'error', code: 'duplicate-member', path: [...path, key], position, message, hint: KEEP_ONE })
  }
  for (const duplicate of document.duplicates) {
    if (duplicate.path.at(-1) !== 'queryParameters') continue
    const { key, path, line, column } = duplicate
    const message = `query parameter '${key}' stands twice, the last one counts`
    const position = { line, column }
    found.push({
      severity: 'warning',
      code: 'duplicate-parameter',
      path: [...path, key],
      position,
      message,
      hint: KEEP_ONE,
    })
  }
  for (const { path, name, known } of findUnknownMembers(document.value, format, opened.at)) {
    report('warning', 'unknown-member', path, `member '${name}' has no meaning here`, `Known are ${known.join(', ')}.`)
  }
  try {
    if (format === 'document') lintIgnoredItem(readItems(opened), opened, report)
    for (const { item, at } of readEntries(opened)) lintItem(item, at, format === 'local', report)
  } catch (error) {
    found.push(findingOf(error))
  }
  if (format === 'local') addRefusal(text, found)
  return { format, findings: orderFindings(found) }
}

const KEEP_ONE = 'Keep one of the two members.'

interface Entry {
  readonly item: AuthorizationItem
  readonly at: JsonPath
}

/** @throws RulesFileError shape */
function readEntries(opened: OpenedRules): Entry[] {
  if (opened.format === 'item') return [{ item: readItem(opened), at: [] }]
  if (opened.format === 'local') return readLocalEntry(opened)
  const items = readItems(opened)
  const names: readonly EndpointName[] = ['wireserver', 'imds']
  return names.flatMap((name) => {
    const item = items[name]
    return item === undefined ? [] : [{ item, at: [...opened.at, name] }]
  })
}

/** What a document says of HostGAPlugin has never counted. A log is written with what did. */
function lintIgnoredItem(items: EndpointItems, { document, at }: OpenedRules, report: Report): void {
  const path = [...at, 'hostga']
  const place = document.locate(path)
  const around = document.locate(at)
  if (place.line === around.line && place.column === around.column) return
  const instead = items.wireserver === undefined ? 'has no rules' : "goes by those of 'wireserver'"
  report(
    'warning',
    'item-ignored',
    path,
    `'hostga' is passed over: HostGAPlugin ${instead}`,
    "Write 'wireserver' alone.",
  )
}

/** Reads local rules by their shape alone, so that one contradiction does not hide the next. */
function readLocalEntry(opened: OpenedRules): Entry[] {
  const { value } = opened.document
  if (!isJsonObject(value)) return []
  const { defaultAccess, id, rules } = value
  const filled = { mode: 'enforce', defaultAccess: defaultAccess ?? 'deny', id: id ?? '', rules }
  const document = { ...opened.document, value: filled }
  return [{ item: readItem({ ...opened, document }, 'local'), at: [] }]
}

/** What the reader of local rules refuses is an error, if it has none yet at that place. */
function addRefusal(text: string, found: Finding[]): void {
  try {
    readLocal(text)
  } catch (error) {
    const refusal = findingOf(error)
    const key = JSON.stringify(refusal.path)
    if (!found.some(({ severity, path }) => severity === 'error' && JSON.stringify(path) === key)) found.push(refusal)
  }
}

function findingOf(error: unknown): Finding {
  if (!(error instanceof RulesFileError)) throw error
  const { finding: code, message, hint, path, position } = error
  return { severity: 'error', code, message, hint, path, position }
}

function lintItem(item: AuthorizationItem, at: JsonPath, isLocal: boolean, report: Report): void {
  const mode = resolveMode(item.mode)
  if (mode === undefined) {
    const message = `mode '${item.mode}' is not known, the rules are enforced`
    report('error', 'mode-unknown', [...at, 'mode'], message, 'Write disabled, audit or enforce, without spaces.')
  }
  if (mode === 'disabled') {
    const hint = 'Write audit to be told of denials, or enforce.'
    report('warning', 'mode-disabled', [...at, 'mode'], 'mode is disabled: the rules allow everything', hint)
  }
  const access = isLocal ? item.defaultAccess.trim().toLowerCase() : item.defaultAccess.toLowerCase()
  if (access !== 'allow' && access !== 'deny') {
    const message = `default access '${item.defaultAccess}' is not known${isLocal ? '' : ', it counts as deny'}`
    report('error', 'default-access-unknown', [...at, 'defaultAccess'], message, 'Write allow or deny, without spaces.')
  }
  if (item.rules !== undefined)
    lintSections(item.rules, [...at, 'rules'], { isLocal, isOpen: access === 'allow', report })
}

function lintSections(rules: AccessControlRules, at: JsonPath, surroundings: Surroundings): void {
  const { report } = surroundings
  const { privileges = [], identities = [] } = rules
  const missing = SECTIONS.filter((section) => rules[section] === undefined)
  if (missing.length > 0 && missing.length < SECTIONS.length) {
    const message = `the rules have no ${missing.join(', no ')}: other agents drop such rules as a whole`
    report('warning', 'section-missing', at, message, 'Write an empty list where there is nothing to say.')
  }
  lintReferences(rules, at, surroundings)
  const granted = findGranted(rules)
  for (const [i, each] of privileges.entries()) {
    const where = [...at, 'privileges', i]
    lintPrivilege(each, where, granted.has(each.name), surroundings)
    if (granted.has(each.name)) continue
    const message = `privilege '${each.name}' is granted to nobody: what only it matches is denied to all`
    report('warning', 'privilege-ungranted', where, message, 'Grant it if that is not what you mean.')
  }
  for (const [i, each] of identities.entries()) lintIdentity(each, [...at, 'identities', i], surroundings)
  for (const { index, kind, message, hint } of findOverlaps(rules)) {
    report('warning', kind, [...at, 'privileges', index], message, hint)
  }
}

const SECTIONS = ['privileges', 'roles', 'identities', 'roleAssignments'] as const
