/**
 * The rule document as the host sends it: shapes, and the check that an unknown JSON value has them.
 *
 * Only the shape is checked here. What the words mean (an unknown mode, a role nobody defined) is decided when a document is
 * compiled, because the host's documents are applied as far as they make sense and never half-read.
 * Optional members may be absent or null, which is the same; unknown members are ignored.
 *
 * A document is also refused when it is out of proportion: it is compiled and asked on the thread that carries everybody's
 * requests, so whoever can shape it must not be able to stop that thread. A refused document changes nothing: the rules of the
 * last good one stay in force, since no document at all would open what they guard.
 */

import * as v from 'valibot'
import { AgentError } from '../base/errors.ts'
import type { JsonPath } from '../base/json.ts'
import { formatJsonPath, isJsonObject } from '../base/json.ts'

/** The `authorizationRules` member of a key status. `hostga` is read and then ignored: see `snapshot.ts`. */
export interface AuthorizationRules {
  readonly imds?: AuthorizationItem
  readonly wireserver?: AuthorizationItem
  readonly hostga?: AuthorizationItem
}

/** The rules of one endpoint. `defaultAccess` and `mode` are the host's words, not yet understood. */
export interface AuthorizationItem {
  readonly defaultAccess: string
  readonly mode: string
  readonly id: string
  readonly rules?: AccessControlRules
}

/** Who may fetch what: identities hold roles, roles name privileges, privileges name paths. */
export interface AccessControlRules {
  readonly privileges?: readonly Privilege[]
  readonly roles?: readonly Role[]
  readonly identities?: readonly Identity[]
  readonly roleAssignments?: readonly RoleAssignment[]
}

/** A part of the endpoint's tree. `queryParameters` has no prototype, so any name in it is a parameter. */
export interface Privilege {
  readonly name: string
  readonly path: string
  readonly queryParameters?: Readonly<Record<string, string>>
}

export interface Role {
  readonly name: string
  readonly privileges: readonly string[]
}

/** A description of callers; all selectors present must match. */
export interface Identity extends LocalSelectors {
  readonly name: string
  readonly userName?: string
  readonly groupName?: string
  readonly exePath?: string
  readonly processName?: string
}

/** Selectors of this agent, in local rules alone: in a document of the host they are members without a meaning. */
export interface LocalSelectors {
  /** A cgroup; those below it count as well. */
  readonly cgroupPath?: string
  /** A unit of the system's service manager, such as `nginx.service`. */
  readonly systemdUnit?: string
  /** 64 hexadecimal digits, as container engines give them. */
  readonly containerId?: string
  /** SHA-256 of the executable, 64 hexadecimal digits. */
  readonly exeSha256?: string
}

/** Who wrote a document: the host, or the administrator of this machine, who may use `LocalSelectors`. */
export type Origin = 'host' | 'local'

export interface RoleAssignment {
  readonly role: string
  readonly identities: readonly string[]
}

/**
 * Most entries of one section, references of one role or assignment, and parameters of one privilege. The rules of a
 * machine need tens.
 */
export const MAX_LIST_LENGTH = 2000

/**
 * Most references in all roles and assignments of one item together. Compiling takes work in proportion to them, and so does a
 * decision at worst; the lists above would still multiply to millions. Enough for a thousand roles of two hundred identities.
 */
export const MAX_REFERENCES = 200_000

/** Most query parameters in all privileges of one item together, likewise. */
export const MAX_PARAMETERS = 10_000

/** Longest name, id or mode, in UTF-16 code units: warnings and reasons repeat these, a role's name once for each reference. */
export const MAX_NAME_LENGTH = 1024

/** A document that is not what it should be. `path` leads to the culprit, for `JsonDocument.locate`. */
export class RulesDocumentError extends AgentError {
  override name = 'RulesDocumentError'
  readonly path: JsonPath

  constructor(path: JsonPath, problem: string) {
    const where = formatJsonPath(path)
    super('RULES_DOCUMENT', `Cannot read authorization rules: ${where}: ${problem}`, { path: where, problem })
    this.path = path
  }
}

/**
 * Checks the `authorizationRules` object of a key status.
 * @param json a parsed JSON value that is present and not null
 * @param at where it stood in its document, for messages
 * @throws RulesDocumentError RULES_DOCUMENT naming the first member that has the wrong shape, never its value; or the first
 * that is beyond a limit, and the limit
 */
export function parseAuthorizationRules(
  json: unknown,
  at: JsonPath = ['authorizationRules'],
  origin: Origin = 'host',
): AuthorizationRules {
  return parse(SCHEMAS[origin].rules, json, at)
}

/**
 * Checks one authorization item, as `parseAuthorizationRules` does for all three.
 * @throws RulesDocumentError RULES_DOCUMENT
 */
export function parseAuthorizationItem(
  json: unknown,
  at: JsonPath = ['item'],
  origin: Origin = 'host',
): AuthorizationItem {
  return parse(SCHEMAS[origin].item, json, at)
}

/**
 * Tells whether a repeated member may stand: only names of query parameters, where the last one counts.
 * Anywhere else two readers could take different values from one document, so it is refused as a whole.
 * @param path leads to the object that holds the repeated member
 */
export function isAllowedDuplicate(duplicate: { readonly path: JsonPath }): boolean {
  const [list, index, object] = duplicate.path.slice(-3)
  return list === 'privileges' && typeof index === 'number' && object === 'queryParameters'
}

/** `T` as JSON brings it: an optional member may also be null. */
type Received<T> = { readonly [Member in keyof T]: T[Member] | null | undefined }

/** Leaves out what is null or undefined, so that absence has one form. */
function present<T extends object>(received: Received<T>): T {
  return Object.fromEntries(Object.entries(received).filter(([, value]) => value !== null && value !== undefined)) as T
}

/** valibot's own object() also takes arrays, which matters where every member is optional. */
const jsonObject = v.custom<Readonly<Record<string, unknown>>>(isJsonObject, 'object')

const name = v.pipe(
  v.string(),
  v.maxLength(MAX_NAME_LENGTH, ({ input }) => tooMany(input.length, 'characters', MAX_NAME_LENGTH)),
)

/** The length is looked at before the entries are. */
function listOf<Output>(entry: v.GenericSchema<unknown, Output>, what: 'entries' | 'references') {
  return v.pipe(
    v.custom<readonly unknown[]>(Array.isArray, 'array'),
    v.maxLength(MAX_LIST_LENGTH, ({ input }) => tooMany(input.length, what, MAX_LIST_LENGTH)),
    v.array(entry),
  )
}

function tooMany(count: number, what: string, limit: number): string {
  return `has ${count} ${what}, the limit is ${limit}`
}

/** valibot's own record() drops names such as `constructor`, and a dropped parameter is a widened privilege. */
const queryParameters = v.pipe(
  jsonObject,
  v.maxEntries(MAX_LIST_LENGTH, ({ input }) => tooMany(Object.keys(input).length, 'parameters', MAX_LIST_LENGTH)),
  v.rawTransform<Readonly<Record<string, unknown>>, Readonly<Record<string, string>>>(
    ({ dataset, addIssue, NEVER }) => {
      const input = dataset.value
      const result: Record<string, string> = Object.create(null)
      for (const [key, value] of Object.entries(input)) {
        if (typeof value !== 'string') {
          addIssue({
            message: 'string',
            input: value,
            path: [{ type: 'object', origin: 'value', input: { ...input }, key, value }],
          })
          return NEVER
        }
        result[key] = value
      }
      return result
    },
  ),
)

const privilege = v.pipe(
  jsonObject,
  v.object({ name, path: v.string(), queryParameters: v.nullish(queryParameters) }),
  v.transform((received): Privilege => present<Privilege>(received)),
)

const role = v.pipe(jsonObject, v.object({ name, privileges: listOf(name, 'references') }))

const hostSelectors = {
  userName: v.nullish(v.string()),
  groupName: v.nullish(v.string()),
  exePath: v.nullish(v.string()),
  processName: v.nullish(v.string()),
}

const identity = v.pipe(
  jsonObject,
  v.object({ name, ...hostSelectors }),
  v.transform((received): Identity => present<Identity>(received)),
)

const localIdentity = v.pipe(
  jsonObject,
  v.object({
    name,
    ...hostSelectors,
    cgroupPath: v.nullish(v.string()),
    systemdUnit: v.nullish(v.string()),
    containerId: v.nullish(v.string()),
    exeSha256: v.nullish(v.string()),
  }),
  v.transform((received): Identity => present<Identity>(received)),
)

const roleAssignment = v.pipe(jsonObject, v.object({ role: name, identities: listOf(name, 'references') }))

function accessControl(each: v.GenericSchema<unknown, Identity>) {
  return v.pipe(
    jsonObject,
    v.object({
      privileges: v.nullish(listOf(privilege, 'entries')),
      roles: v.nullish(listOf(role, 'entries')),
      identities: v.nullish(listOf(each, 'entries')),
      roleAssignments: v.nullish(listOf(roleAssignment, 'entries')),
    }),
    v.transform((received): AccessControlRules => present<AccessControlRules>(received)),
    v.check(
      (rules) => countReferences(rules) <= MAX_REFERENCES,
      ({ input }) => tooMany(countReferences(input), 'references', MAX_REFERENCES),
    ),
    v.check(
      (rules) => countParameters(rules) <= MAX_PARAMETERS,
      ({ input }) => tooMany(countParameters(input), 'query parameters', MAX_PARAMETERS),
    ),
  )
}

function itemOf(rules: v.GenericSchema<unknown, AccessControlRules>) {
  return v.pipe(
    jsonObject,
    v.object({ defaultAccess: name, mode: name, id: name, rules: v.nullish(rules) }),
    v.transform((received): AuthorizationItem => present<AuthorizationItem>(received)),
  )
}

function itemsOf(item: v.GenericSchema<unknown, AuthorizationItem>) {
  return v.pipe(
    jsonObject,
    v.object({ imds: v.nullish(item), wireserver: v.nullish(item), hostga: v.nullish(item) }),
    v.transform((received): AuthorizationRules => present<AuthorizationRules>(received)),
  )
}

const accessControlRules = accessControl(identity)
const authorizationItem = itemOf(accessControlRules)
const authorizationRules = itemsOf(authorizationItem)
const localAccessControlRules = accessControl(localIdentity)
const mergedItem = itemOf(localAccessControlRules)
const mergedRules = itemsOf(mergedItem)

const SCHEMAS = {
  host: { rules: authorizationRules, item: authorizationItem },
  local: { rules: mergedRules, item: mergedItem },
} as const

/**
 * The definitions that documents are checked against, for `schema.ts` to write down as JSON Schema. `merged` ones are the
 * host's with local rules in them, as logs have them.
 */
export const DOCUMENT_SCHEMAS = {
  authorizationRules,
  authorizationItem,
  accessControlRules,
  mergedRules,
  mergedItem,
  localAccessControlRules,
} as const

function parse<Output>(schema: v.GenericSchema<unknown, Output>, json: unknown, at: JsonPath): Output {
  const result = v.safeParse(schema, json, { abortEarly: true, abortPipeEarly: true })
  if (result.success) return result.output
  const issue = result.issues[0]
  const steps = issue.path?.map(({ key }) => key as string | number) ?? []
  throw new RulesDocumentError([...at, ...steps], describeIssue(issue))
}

function countReferences({ roles = [], roleAssignments = [] }: AccessControlRules): number {
  let count = 0
  for (const { privileges } of roles) count += privileges.length
  for (const { identities } of roleAssignments) count += identities.length
  return count
}

function countParameters({ privileges = [] }: AccessControlRules): number {
  return privileges.reduce((count, { queryParameters = {} }) => count + Object.keys(queryParameters).length, 0)
}

/** Types and counts only: a value in the wrong place may be anything, a key included. */
function describeIssue(issue: v.BaseIssue<unknown>): string {
  if (issue.kind === 'validation') return issue.message
  if (issue.input === undefined) return 'a required member is missing'
  const expected = issue.kind === 'schema' && issue.type !== 'custom' ? issue.expected?.toLowerCase() : issue.message
  return `expected ${expected}, got ${jsonTypeOf(issue.input)}`
}

function jsonTypeOf(value: unknown): string {
  if (value === null) return 'null'
  return Array.isArray(value) ? 'array' : typeof value
}
