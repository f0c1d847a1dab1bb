/**
 * Looks for what an author of rules would want to know before the rules are in force.
 *
 *   error     the agent refuses the file, or the rules cannot mean what they say: part of them is passed over
 *   warning   the rules work, and allow more, or do less, than a reader would think
 *
 * The agent's own readers have the last word: a file they refuse has an error here, and a file without errors is one they take.
 */

import type { EndpointName } from '../base/endpoints.ts'
import type { JsonPath, JsonPosition } from '../base/json.ts'
import { isJsonObject } from '../base/json.ts'
import { isCanonicalFailure } from './canonical-failure.ts'
import { compilePattern } from './canonical-pattern.ts'
import type { AccessControlRules, AuthorizationItem, Identity, Privilege } from './document.ts'
import { findUnknownMembers } from './known-members.ts'
import { compileLegacyPattern } from './match.ts'
import { findOverlaps } from './overlap.ts'
import type { OpenedRules, RulesFormat } from './rules-file.ts'
import { findRefusedDuplicates, openRules, RulesFileError, readItem, readItems, readLocal } from './rules-file.ts'
import { matchesEveryone, selectorsOf } from './selectors.ts'
import { type EndpointItems, resolveMode } from './snapshot.ts'

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

export interface LintResult {
  /** `undefined` when the file is not JSON. */
  readonly format: RulesFormat | undefined
  /** In the order of the file. */
  readonly findings: readonly Finding[]
}

/** Most findings of one file; a file can be made of nothing but faults. */
const MAX_FINDINGS = 200

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

type Report = (severity: Severity, code: string, path: JsonPath, message: string, hint: string) => void

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

function orderFindings(found: readonly Finding[]): Finding[] {
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
  if (item.rules !== undefined) lintSections(item.rules, [...at, 'rules'], access === 'allow', isLocal, report)
}

function lintSections(
  rules: AccessControlRules,
  at: JsonPath,
  defaultAllowed: boolean,
  isLocal: boolean,
  report: Report,
): void {
  const missing = SECTIONS.filter((section) => rules[section] === undefined)
  if (missing.length > 0 && missing.length < SECTIONS.length) {
    const message = `the rules have no ${missing.join(', no ')}: other agents drop such rules as a whole`
    report('warning', 'section-missing', at, message, 'Write an empty list where there is nothing to say.')
  }
  lintNames(rules, at, isLocal, report)
  lintReferences(rules, at, isLocal, report)
  const granted = findGranted(rules)
  for (const [i, each] of (rules.privileges ?? []).entries()) {
    lintPrivilege(each, [...at, 'privileges', i], granted.has(each.name), defaultAllowed, isLocal, report)
  }
  for (const [i, each] of (rules.identities ?? []).entries())
    lintIdentity(each, [...at, 'identities', i], isLocal, report)
  lintUse(rules, at, granted, report)
  for (const { index, kind, message, hint } of findOverlaps(rules)) {
    report('warning', kind, [...at, 'privileges', index], message, hint)
  }
}

const SECTIONS = ['privileges', 'roles', 'identities', 'roleAssignments'] as const

function lintNames(rules: AccessControlRules, at: JsonPath, isLocal: boolean, report: Report): void {
  for (const section of ['privileges', 'roles', 'identities'] as const) {
    const kind = SINGULAR[section]
    const seen = new Set<string>()
    for (const [i, { name }] of (rules[section] ?? []).entries()) {
      const path = [...at, section, i, 'name']
      if (name.trim() === '') {
        report(isLocal ? 'error' : 'warning', 'name-empty', path, `the ${kind} has no name`, `Give the ${kind} a name.`)
      }
      if (seen.has(name)) {
        const message = `two entries define ${kind} '${name}', ${isLocal ? 'the rules are refused' : 'the last one counts'}`
        report('error', 'duplicate-name', path, message, 'Rename one of the two.')
      }
      seen.add(name)
    }
  }
}

const SINGULAR = { privileges: 'privilege', roles: 'role', identities: 'identity' } as const

function lintReferences(rules: AccessControlRules, at: JsonPath, isLocal: boolean, report: Report): void {
  const named = (section: 'privileges' | 'roles' | 'identities') =>
    new Set((rules[section] ?? []).map(({ name }) => name))
  const [privileges, roles, identities] = [named('privileges'), named('roles'), named('identities')]
  const check = (
    names: readonly string[],
    known: ReadonlySet<string>,
    kind: string,
    path: JsonPath,
    holder: string,
  ) => {
    const severity = isLocal ? 'error' : 'warning'
    if (names.length === 0) {
      report(severity, 'list-empty', path, `${holder} names no ${kind}`, `Name one, or leave it out.`)
    }
    const seen = new Set<string>()
    for (const [i, name] of names.entries()) {
      if (seen.has(name)) {
        report(severity, 'duplicate-reference', [...path, i], `${holder} names ${kind} '${name}' twice`, 'Keep one.')
      } else if (!known.has(name)) {
        const message = `${holder} names ${kind} '${name}', which is not defined`
        report('error', `${kind}-undefined`, [...path, i], message, suggest(name, known, kind))
      }
      seen.add(name)
    }
  }
  for (const [i, role] of (rules.roles ?? []).entries()) {
    check(role.privileges, privileges, 'privilege', [...at, 'roles', i, 'privileges'], `role '${role.name}'`)
  }
  for (const [i, { role, identities: names }] of (rules.roleAssignments ?? []).entries()) {
    const path = [...at, 'roleAssignments', i]
    if (!roles.has(role)) {
      const message = `role '${role}' is assigned and not defined, the assignment has no effect`
      report('error', 'role-undefined', [...path, 'role'], message, suggest(role, roles, 'role'))
    }
    check(names, identities, 'identity', [...path, 'identities'], `the assignment of role '${role}'`)
  }
}

/** Names are compared exactly, so the most frequent slip is one of letter case or of a space. */
function suggest(name: string, known: ReadonlySet<string>, kind: string): string {
  const plain = (text: string) => text.trim().toLowerCase()
  const meant = [...known].find((each) => plain(each) === plain(name))
  return meant === undefined ? `Define the ${kind}, or leave it out here.` : `Did you mean '${meant}'? Names are exact.`
}

function lintPrivilege(
  { name, path, queryParameters = {} }: Privilege,
  at: JsonPath,
  isGranted: boolean,
  defaultAllowed: boolean,
  isLocal: boolean,
  report: Report,
): void {
  lintPath(name, path, [...at, 'path'], isGranted, defaultAllowed, isLocal, report)
  const lower = new Set<string>()
  for (const [key, value] of Object.entries(queryParameters)) {
    const where = [...at, 'queryParameters', key]
    if (key === '') {
      const message = `privilege '${name}' asks for a query parameter without a name: it never matches`
      report('error', 'path-never-matches', where, message, 'Name the parameter, or leave it out.')
    } else if (isLocal && (key.trim() === '' || value.trim() === '')) {
      const message = `privilege '${name}' has an empty query parameter or value, the rules are refused`
      report('error', 'parameter-empty', where, message, 'Give the parameter a value, or leave it out.')
    }
    if (`${key}${value}`.includes('+')) {
      const message = `query parameter '${key}' holds a plus: one matcher reads a plus there, the other a space`
      report(
        'warning',
        'parameter-plus',
        where,
        message,
        'Rely on it in a grant alone: as a restriction it can be evaded.',
      )
    }
    if (lower.has(key.toLowerCase())) {
      const message = `query parameter '${key}' differs from another in letter case alone, the last one counts`
      report('error', 'duplicate-parameter', where, message, 'Keep one of the two.')
    }
    lower.add(key.toLowerCase())
  }
  const legacy = compileLegacyPattern(path, queryParameters)
  const canonical = compilePattern(legacy.path, legacy.query)
  if (isCanonicalFailure(canonical)) {
    const message = `privilege '${name}' has no canonical form (${canonical.code}): the canonical matcher passes it over`
    report('warning', 'privilege-not-canonical', at, message, 'Write path and parameters plainly, in ASCII.')
  }
}

/** What the two matchers make of a path, where that is not what a reader would think. */
function lintPath(
  name: string,
  path: string,
  at: JsonPath,
  isGranted: boolean,
  defaultAllowed: boolean,
  isLocal: boolean,
  report: Report,
): void {
  if (path.trim() === '') {
    const message = `privilege '${name}' has no path${path === '' ? ': it matches every request' : ''}`
    report(isLocal ? 'error' : 'warning', 'path-empty', at, message, 'Write / for every path of the endpoint.')
    return
  }
  if (!path.startsWith('/')) {
    const message = `path '${path}' does not start with a slash: it never matches`
    report('error', 'path-never-matches', at, message, `Write '/${path.trim()}'.`)
    return
  }
  if (path.includes('?')) {
    const message = `path '${path}' holds a question mark: it never matches`
    report('error', 'path-never-matches', at, message, 'Put what follows it in queryParameters.')
    return
  }
  if (/%[0-9a-f]{2}/i.test(path)) {
    const message = `path '${path}' is compared with decoded requests, so its escapes do not match what they stand for`
    report('warning', 'path-escaped', at, message, 'Write the characters themselves.')
  }
  if (/\/\/|\/\.{1,2}(\/|$)|;/.test(path)) {
    const message = `path '${path}' is not how a request is usually written: the two matchers read it differently`
    report('warning', 'path-unusual', at, message, 'Leave out empty and dot segments, and what follows a semicolon.')
  }
  lintPrefix(name, path, at, isGranted, defaultAllowed, report)
}

/** A path is a prefix of text, not of segments. */
function lintPrefix(
  name: string,
  path: string,
  at: JsonPath,
  isGranted: boolean,
  defaultAllowed: boolean,
  report: Report,
): void {
  if (path === '/') return
  if (path.endsWith('/')) {
    const bare = path.replace(/\/+$/, '')
    if (!defaultAllowed || bare === '') return
    const message = `privilege '${name}' does not match '${bare}' without the slash, which is open to everybody then`
    const hint = `Write '${bare}' where the default access is allow.`
    report('warning', 'path-slash', at, message, hint)
    return
  }
  if (!isGranted) return
  const message = `path '${path}' also matches '${path}-x': it is a prefix of text, not of segments`
  const hint = defaultAllowed
    ? 'This errs towards denying; canonicalRequestMode enforce compares segments too.'
    : `Write '${path}/' if only what is below is meant, or set canonicalRequestMode to enforce.`
  report('warning', 'path-prefix', at, message, hint)
}

/** Places where any user may put a file of any name. */
const OPEN_PLACES = /^\/(tmp|var\/tmp|dev\/shm|home)(\/|$)/

function lintIdentity(identity: Identity, at: JsonPath, isLocal: boolean, report: Report): void {
  const { name, userName, groupName, exePath, processName, exeSha256 } = identity
  const selectors = selectorsOf(identity).filter((each) => each !== undefined)
  if (matchesEveryone(identity) || (isLocal && selectors.every((each) => each.trim() === ''))) {
    const message = `identity '${name}' has no selector: ${isLocal ? 'the rules are refused' : 'anyone can assume it'}`
    report('error', 'identity-anyone', at, message, 'Give it a userName or a groupName.')
    return
  }
  if (selectors.includes('')) {
    const message = `identity '${name}' has an empty selector: it is nobody`
    report('warning', 'identity-nobody', at, message, 'Leave empty selectors out.')
    return
  }
  if (userName === 'undefined') {
    const message = `identity '${name}' is any user whose name is not known`
    report('warning', 'identity-anyone', [...at, 'userName'], message, 'Name a user that exists.')
  }
  if (exePath !== undefined && !exePath.startsWith('/')) {
    const message = `exePath '${exePath}' is not absolute: it is nobody`
    report('warning', 'identity-nobody', [...at, 'exePath'], message, 'Write the whole path.')
  }
  const { cgroupPath, systemdUnit, containerId } = identity
  if ([userName, groupName, cgroupPath, systemdUnit, containerId].some((each) => each !== undefined)) return
  if (exeSha256 !== undefined) {
    const message = `anyone can assume identity '${name}' who may run a program of this content`
    report('warning', 'identity-anyone', at, message, 'Name a userName or a groupName beside exeSha256.')
  } else if (exePath === undefined) {
    const message = `anyone can assume identity '${name}': any file can be named '${processName}'`
    report('warning', 'identity-anyone', at, message, 'Name a userName or a groupName beside processName.')
  } else if (OPEN_PLACES.test(exePath)) {
    const message = `anyone can assume identity '${name}' who can write '${exePath}'`
    report('warning', 'identity-anyone', at, message, 'Name an executable that only root can write, and a user.')
  } else {
    const message = `anyone can assume identity '${name}' who may run '${exePath}'`
    report('warning', 'identity-anyone', at, message, 'Name a userName or a groupName beside exePath.')
  }
}

/** The names of the privileges that somebody holds. */
function findGranted({ privileges = [], roles = [], identities = [], roleAssignments = [] }: AccessControlRules) {
  const known = new Set(identities.map(({ name }) => name))
  const held = new Set(
    roleAssignments.filter(({ identities: names }) => names.some((name) => known.has(name))).map(({ role }) => role),
  )
  const granted = new Set(roles.filter(({ name }) => held.has(name)).flatMap((role) => role.privileges))
  return new Set(privileges.map(({ name }) => name).filter((name) => granted.has(name)))
}

/** Entries that nothing refers to, and privileges that only deny. */
function lintUse(rules: AccessControlRules, at: JsonPath, granted: ReadonlySet<string>, report: Report): void {
  const { privileges = [], roles = [], identities = [], roleAssignments = [] } = rules
  const assigned = new Set(roleAssignments.flatMap(({ identities: names }) => names))
  for (const [i, { name }] of identities.entries()) {
    if (assigned.has(name)) continue
    const message = `identity '${name}' is never used`
    report('warning', 'identity-unused', [...at, 'identities', i], message, 'Assign it a role, or leave it out.')
  }
  const held = new Set(roleAssignments.map(({ role }) => role))
  for (const [i, { name }] of roles.entries()) {
    if (held.has(name)) continue
    const message = `role '${name}' is never assigned`
    report('warning', 'role-unused', [...at, 'roles', i], message, 'Assign it to somebody, or leave it out.')
  }
  for (const [i, { name }] of privileges.entries()) {
    if (granted.has(name)) continue
    const message = `privilege '${name}' is granted to nobody: what only it matches is denied to all`
    report(
      'warning',
      'privilege-ungranted',
      [...at, 'privileges', i],
      message,
      'Grant it if that is not what you mean.',
    )
  }
}
