/**
 * Local rules: a file by which the administrator of the machine adds to the rules of the host, when the host says that it counts.
 *
 * The host says so in the id of an item, the switch: base64 of `{"id": "...", "useLocalFileRules": true}`. Adding never takes
 * away a grant of the host. Unlike the documents of the host a local file is refused for whatever looks wrong in it, since its
 * author is there to mend it; what a refused file stands for is then `'fail-closed'`.
 */

import { AgentError } from '../base/errors.ts'
import type { JsonDocument, JsonPath, JsonPosition } from '../base/json.ts'
import { formatJsonPath, isJsonObject, parseJson } from '../base/json.ts'
import type {
  AccessControlRules,
  AuthorizationItem,
  Identity,
  LocalSelectors,
  Privilege,
  Role,
  RoleAssignment,
} from './document.ts'
import { isAllowedDuplicate, parseAuthorizationItem, RulesDocumentError } from './document.ts'
import { selectorsOf } from './selectors.ts'

/** What a local rules file may hold, all of it optional. Other members, `mode` among them, are ignored. */
export interface LocalRules {
  readonly defaultAccess?: 'allow' | 'deny'
  readonly id?: string
  readonly rules?: AccessControlRules
}

/**
 * What is wrong with a file: not JSON, JSON of another shape, or rules that contradict themselves. The first two can be a file
 * that is being written, and may be tried again; the last cannot.
 */
export type LocalRulesFault = 'syntax' | 'shape' | 'meaning'

/** A local rules file that is refused. The message is what existing agents say, in lower case and without a full stop. */
export class LocalRulesError extends RulesDocumentError {
  override name = 'LocalRulesError'
  readonly fault: LocalRulesFault
  readonly position: JsonPosition
  /** One sentence: what to do about it. */
  readonly hint: string

  constructor(fault: LocalRulesFault, message: string, at: { path: JsonPath; position: JsonPosition; hint: string }) {
    super(at.path, message)
    this.message = message
    this.fault = fault
    this.position = at.position
    this.hint = at.hint
  }
}

/** The id of an item, understood. */
export interface RuleId {
  /** The id without the switch around it. */
  readonly logicalId: string
  readonly usesLocalFile: boolean
  /** The id that the effective item bears. */
  readonly effectiveId: string
  /** What looks like a switch and is none, as a sentence without its subject; local rules are off then. */
  readonly remark?: string
}

/** Put before the names of a local file where the host has rules too, so that neither can redefine the other's. */
const NAME_PREFIX = 'LocalFileRules_'

/**
 * Reads a local rules file and checks it whole; the first fault found is the one thrown.
 * @param text the file, with or without a byte-order mark
 * @throws LocalRulesError
 */
export function parseLocalRules(text: string): { rules: LocalRules; document: JsonDocument } {
  const document = readJson(text)
  const fail = (fault: LocalRulesFault, path: JsonPath, message: string, hint: string): never => {
    throw new LocalRulesError(fault, message, { path, position: document.locate(path), hint })
  }
  const repeated = document.duplicates.find((duplicate) => !isAllowedDuplicate(duplicate))
  if (repeated !== undefined) {
    const path = [...repeated.path, repeated.key]
    const { line, column } = repeated
    const message = `duplicate field '${repeated.key}' at line ${line}, column ${column}`
    throw new LocalRulesError('shape', message, {
      path,
      position: { line, column },
      hint: 'Keep one of the two members.',
    })
  }
  const item = readShape(document.value, fail)
  const { defaultAccess, id, rules = {} } = item
  const refuse: Refuse = (path, message, hint) => fail('meaning', path, `${message} is invalid`, hint)
  const access = defaultAccess === undefined ? undefined : checkAccess(defaultAccess, refuse)
  if (id !== undefined && isBlank(id)) {
    refuse(['id'], 'local rules id cannot be empty when provided', 'Name the file in id, or leave id out.')
  }
  checkRules(rules, refuse)
  return {
    rules: {
      ...(access !== undefined && { defaultAccess: access }),
      ...(id !== undefined && { id }),
      ...(item.rules !== undefined && { rules: item.rules }),
    },
    document,
  }
}

/** Reads the switch in the id of an item. Never fails: what is no switch is a plain id. */
export function readRuleId(id: string): RuleId {
  const plain = id.trim()
  const found = findSwitch(plain)
  const isSwitch = typeof found === 'object'
  const logicalId = isSwitch ? found.id : plain
  const usesLocalFile = isSwitch && found.useLocalFileRules
  const effectiveId = logicalId === '' ? id : `${logicalId}-useLocalFileRules-${usesLocalFile}`
  return { logicalId, usesLocalFile, effectiveId, ...(typeof found === 'string' && { remark: found }) }
}

/**
 * Makes the effective item of what the host sent and what the local file adds.
 * @param item as received, its id with the switch
 * @param local `undefined`: there is no file, or it does not count; `'fail-closed'`: there is one that cannot be used, and
 * nothing is allowed, whatever the mode of the host, since its restrictions are not known
 */
export function mergeLocalRules(
  item: AuthorizationItem,
  local: LocalRules | 'fail-closed' | undefined,
): AuthorizationItem {
  const id = readRuleId(item.id).effectiveId
  if (local === undefined) return { ...item, id }
  if (local === 'fail-closed') return { id, mode: 'enforce', defaultAccess: 'deny' }
  const rules = mergeRules(item.rules, local.rules)
  return {
    defaultAccess: local.defaultAccess ?? item.defaultAccess,
    mode: item.mode,
    id: local.id === undefined ? id : `${id}_${local.id}`,
    ...(rules !== undefined && { rules }),
  }
}

function readJson(text: string): JsonDocument {
  try {
    return parseJson(text, { skipByteOrderMark: true })
  } catch (error) {
    if (!(error instanceof AgentError) || error.code !== 'JSON_SYNTAX') throw error
    const position = { line: Number(error.facts.line), column: Number(error.facts.column) }
    const message = error.message.replace(/^Cannot parse JSON: /, '')
    throw new LocalRulesError('syntax', message, { path: [], position, hint: 'Write the file as one JSON object.' })
  }
}

type Fail = (fault: LocalRulesFault, path: JsonPath, message: string, hint: string) => never

interface ReceivedFile {
  readonly defaultAccess: string | undefined
  readonly id: string | undefined
  readonly rules: AccessControlRules | undefined
}

/** A file is an item in which all may be absent, so what is absent is filled in for the check and taken out again. */
function readShape(json: unknown, fail: Fail): ReceivedFile {
  if (!isJsonObject(json)) fail('shape', [], 'expected an object', 'Write the file as one JSON object.')
  const { defaultAccess, id, rules } = json as Readonly<Record<string, unknown>>
  try {
    const filled = { mode: '', defaultAccess: defaultAccess ?? '', id: id ?? '', rules }
    const item = parseAuthorizationItem(filled, [], 'local')
    return { defaultAccess: given(defaultAccess, item.defaultAccess), id: given(id, item.id), rules: item.rules }
  } catch (error) {
    if (!(error instanceof RulesDocumentError)) throw error
    const problem = String(error.facts.problem)
    return fail(
      'shape',
      error.path,
      `${formatJsonPath(error.path)}: ${problem}`,
      'Give the member the type it must have.',
    )
  }
}

function given(received: unknown, checked: string): string | undefined {
  return received === undefined || received === null ? undefined : checked
}

type Refuse = (path: JsonPath, message: string, hint: string) => never

function checkAccess(text: string, refuse: Refuse): 'allow' | 'deny' {
  const access = text.trim().toLowerCase()
  if (access === 'allow' || access === 'deny') return access
  const message = `local rules defaultAccess must be 'allow' or 'deny', got '${text}'`
  return refuse(['defaultAccess'], message, 'Write allow or deny, or leave defaultAccess out to follow the host.')
}

/** Messages, and their order, are those of existing agents; the first fault counts. */
function checkRules(rules: AccessControlRules, refuse: Refuse): void {
  const { privileges = [], roles = [], identities = [], roleAssignments = [] } = rules
  const privilegeNames = new Set<string>()
  for (const [i, each] of privileges.entries()) {
    checkPrivilege(each, ['rules', 'privileges', i], privilegeNames, refuse)
  }
  const roleNames = new Set<string>()
  for (const [i, each] of roles.entries()) {
    checkRole(each, ['rules', 'roles', i], privilegeNames, roleNames, refuse)
  }
  const identityNames = new Set<string>()
  for (const [i, each] of identities.entries()) {
    checkIdentity(each, ['rules', 'identities', i], identityNames, refuse)
  }
  for (const [i, each] of roleAssignments.entries()) {
    checkAssignment(each, ['rules', 'roleAssignments', i], roleNames, identityNames, refuse)
  }
}

function checkPrivilege(privilege: Privilege, at: JsonPath, names: Set<string>, refuse: Refuse): void {
  const { name, path, queryParameters = {} } = privilege
  if (isBlank(name)) refuse([...at, 'name'], 'privilege name cannot be empty', 'Give the privilege a name.')
  if (isBlank(path)) {
    refuse([...at, 'path'], `privilege '${name}' path cannot be empty`, 'Write / for every path of the endpoint.')
  }
  if (names.has(name)) refuse([...at, 'name'], `duplicate privilege name '${name}'`, 'Rename one of the two.')
  names.add(name)
  for (const [key, value] of Object.entries(queryParameters)) {
    if (!isBlank(key) && !isBlank(value)) continue
    const message = `privilege '${name}' queryParameters cannot contain empty keys or values`
    refuse([...at, 'queryParameters', key], message, 'Give the parameter a name and a value, or leave it out.')
  }
}

function checkRole(role: Role, at: JsonPath, known: ReadonlySet<string>, names: Set<string>, refuse: Refuse): void {
  const { name, privileges } = role
  if (isBlank(name)) refuse([...at, 'name'], 'role name cannot be empty', 'Give the role a name.')
  if (privileges.length === 0) {
    const message = `role '${name}' must reference at least one privilege`
    refuse([...at, 'privileges'], message, 'Name the privileges it brings, or leave the role out.')
  }
  if (names.has(name)) refuse([...at, 'name'], `duplicate role name '${name}'`, 'Rename one of the two.')
  names.add(name)
  checkReferences(privileges, [...at, 'privileges'], `role '${name}'`, 'privilege', known, refuse)
}

function checkIdentity(identity: Identity, at: JsonPath, names: Set<string>, refuse: Refuse): void {
  const { name } = identity
  if (isBlank(name)) refuse([...at, 'name'], 'identity name cannot be empty', 'Give the identity a name.')
  if (names.has(name)) refuse([...at, 'name'], `duplicate identity name '${name}'`, 'Rename one of the two.')
  names.add(name)
  if (selectorsOf(identity).every((selector) => isBlank(selector ?? ''))) {
    const message = `identity '${name}' must specify at least one selector`
    refuse(at, message, 'Give it a userName, groupName, exePath or processName.')
  }
  for (const [member, { form, what, hint }] of SELECTOR_FORMS) {
    const value = identity[member]
    if (value === undefined || form.test(value)) continue
    refuse([...at, member], `identity '${name}' ${member} must be ${what}, got '${value}'`, hint)
  }
}

interface SelectorForm {
  readonly form: RegExp
  readonly what: string
  readonly hint: string
}

/** Selectors that other agents do not have. In another form they would describe nobody, or everybody. */
const SELECTOR_FORMS: readonly (readonly [keyof LocalSelectors, SelectorForm])[] = [
  [
    'cgroupPath',
    {
      form: /^\/+[^/]/,
      what: 'a path below the root of cgroup2',
      hint: 'Write what follows 0:: in /proc/PID/cgroup, or a directory above it.',
    },
  ],
  [
    'systemdUnit',
    {
      form: /^[^/]+\.(service|scope|socket|mount|swap)$/,
      what: 'the name of a unit that runs processes',
      hint: 'Write it with its type, such as nginx.service.',
    },
  ],
  ['containerId', { form: /^[0-9a-f]{64}$/i, what: '64 hexadecimal digits', hint: 'Write it whole, not cut to 12.' }],
  ['exeSha256', { form: /^[0-9a-f]{64}$/i, what: '64 hexadecimal digits', hint: 'Write what sha256sum prints.' }],
]

function checkAssignment(
  { role, identities }: RoleAssignment,
  at: JsonPath,
  knownRoles: ReadonlySet<string>,
  knownIdentities: ReadonlySet<string>,
  refuse: Refuse,
): void {
  if (isBlank(role)) refuse([...at, 'role'], 'roleAssignment role cannot be empty', 'Name the role to assign.')
  if (!knownRoles.has(role)) {
    const message = `roleAssignment references unknown role '${role}'`
    refuse([...at, 'role'], message, 'Define the role in this file; roles of the host cannot be named.')
  }
  const subject = `roleAssignment for role '${role}'`
  if (identities.length === 0) {
    const message = `${subject} must reference at least one identity`
    refuse([...at, 'identities'], message, 'Name who holds the role, or leave the assignment out.')
  }
  checkReferences(identities, [...at, 'identities'], subject, 'identity', knownIdentities, refuse)
}

function checkReferences(
  references: readonly string[],
  at: JsonPath,
  subject: string,
  kind: 'privilege' | 'identity',
  known: ReadonlySet<string>,
  refuse: Refuse,
): void {
  const seen = new Set<string>()
  for (const [i, reference] of references.entries()) {
    const path = [...at, i]
    if (isBlank(reference)) {
      refuse(path, `${subject} contains an empty ${kind} reference`, `Name the ${kind}, or leave the entry out.`)
    }
    if (seen.has(reference)) {
      refuse(path, `${subject} contains duplicate ${kind} reference '${reference}'`, 'Keep one of the two entries.')
    }
    seen.add(reference)
    if (!known.has(reference)) {
      const hint = `Define the ${kind} in this file; those of the host cannot be named.`
      refuse(path, `${subject} references unknown ${kind} '${reference}'`, hint)
    }
  }
}

function isBlank(text: string): boolean {
  return text.trim() === ''
}

interface Switch {
  readonly id: string
  readonly useLocalFileRules: boolean
}

/** @returns the switch; or why what looks like one is none; or `undefined` for a plain id. */
function findSwitch(text: string): Switch | string | undefined {
  const decoded = decodeBase64(text)
  if (decoded === undefined) return undefined
  let document: JsonDocument
  try {
    document = parseJson(decoded)
  } catch {
    return decoded.trimStart().startsWith('{') ? 'decodes to an object that is not JSON' : undefined
  }
  const { value, duplicates } = document
  if (!isJsonObject(value)) return undefined
  const { id = '', useLocalFileRules = false } = value
  if (typeof id !== 'string') return 'decodes to a switch whose id is not a string'
  if (typeof useLocalFileRules !== 'boolean') return 'decodes to a switch whose useLocalFileRules is not true or false'
  if (duplicates.some(({ path, key }) => path.length === 0 && (key === 'id' || key === 'useLocalFileRules'))) {
    return 'decodes to a switch with a repeated member'
  }
  return { id, useLocalFileRules }
}

/** Standard base64 with padding, of UTF-8. `undefined` for anything else: Node's own decoder takes whatever comes. */
function decodeBase64(text: string): string | undefined {
  const bytes = Buffer.from(text, 'base64')
  if (bytes.toString('base64') !== text) return undefined
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return undefined
  }
}

/** Where both have rules, local names are prefixed and come last; where one has, it stands as it is. */
function mergeRules(
  received: AccessControlRules | undefined,
  local: AccessControlRules | undefined,
): AccessControlRules | undefined {
  if (received === undefined || local === undefined) return received ?? local
  const prefixed = prefixNames(local)
  const merged: Record<string, unknown> = {}
  for (const section of ['privileges', 'roles', 'identities', 'roleAssignments'] as const) {
    const [first, second] = [received[section], prefixed[section]]
    if (first !== undefined || second !== undefined) merged[section] = [...(first ?? []), ...(second ?? [])]
  }
  return merged
}

function prefixNames({ privileges, roles, identities, roleAssignments }: AccessControlRules): AccessControlRules {
  const prefix = (name: string) => `${NAME_PREFIX}${name}`
  return {
    ...(privileges && { privileges: privileges.map((each) => ({ ...each, name: prefix(each.name) })) }),
    ...(roles && {
      roles: roles.map((each) => ({ name: prefix(each.name), privileges: each.privileges.map(prefix) })),
    }),
    ...(identities && { identities: identities.map((each) => ({ ...each, name: prefix(each.name) })) }),
    ...(roleAssignments && {
      roleAssignments: roleAssignments.map((each) => ({
        role: prefix(each.role),
        identities: each.identities.map(prefix),
      })),
    }),
  }
}
