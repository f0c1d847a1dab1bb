/**
 * Writes the rule documents down as JSON Schema, for editors and pipelines.
 *
 * Nothing is told twice: the shapes are walked out of the definitions that `document.ts` checks with, so a limit or a member that
 * changes there changes here. Where the parser is lenient so is the schema: `mode` may be any word, and the known ones are
 * offered as examples. Not expressible: repeated members, and the limits on all references and on all query parameters together (all in `rules check`).
 * JSON Schema counts characters where the parser counts UTF-16 units, so a name of rare characters may pass here alone.
 * Source: JSON Schema 2020-12.
 */

import type * as v from 'valibot'
import { DOCUMENT_SCHEMAS } from './document.ts'

/** A JSON Schema, or a part of one: plain JSON. */
export type JsonSchema = Readonly<Record<string, unknown>>

/** What can be described: a rules file of either kind, a host's document for all endpoints, a rules log, a file of expectations. */
export const SCHEMA_NAMES = ['rules', 'document', 'log', 'test'] as const
export type SchemaName = (typeof SCHEMA_NAMES)[number]

const DRAFT = 'https://json-schema.org/draft/2020-12/schema'

/** Makes the schema of one kind of file, complete with all it refers to. */
export function makeSchema(name: SchemaName): JsonSchema {
  return { $schema: DRAFT, title: TITLES[name], ...ROOTS[name], $defs: definitions() }
}

const TITLES: Readonly<Record<SchemaName, string>> = {
  rules: 'Authorization rules of one endpoint: an item as the host sends it (it has a mode), or a local rules file',
  document: 'Authorization rules of all endpoints as the host sends them',
  log: 'Log of the rules in force, AuthorizationRules_*.json',
  test: 'Expectations about rules, for azure-proxy-agent rules test',
}

const ROOTS: Readonly<Record<SchemaName, JsonSchema>> = {
  rules: {
    type: 'object',
    if: { required: ['mode'] },
    // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema; nobody awaits this object.
    then: { $ref: '#/$defs/item' },
    else: { $ref: '#/$defs/local' },
  },
  document: { $ref: '#/$defs/document' },
  log: {
    type: 'object',
    properties: { inputRules: { $ref: '#/$defs/merged' }, computedRules: { type: 'object' } },
    required: ['inputRules'],
  },
  test: { $ref: '#/$defs/test' },
}

function definitions(): JsonSchema {
  const described = Object.entries(DOCUMENT_SCHEMAS).map(([name, schema]) => [
    NAMES[name],
    describe(asDefinition(schema), true),
  ])
  return { ...Object.fromEntries(described), local: LOCAL, test: TEST }
}

/** The definitions that others refer to, by their name in `DOCUMENT_SCHEMAS`. */
const NAMES: Readonly<Record<string, string>> = {
  authorizationRules: 'document',
  authorizationItem: 'item',
  accessControlRules: 'rules',
  mergedRules: 'merged',
  mergedItem: 'mergedItem',
  localAccessControlRules: 'localRules',
}

/** Lists the members that an object of this definition may have, in order. */
export function listMembers(schema: v.GenericSchema<unknown, unknown>): string[] {
  return Object.keys((describe(asDefinition(schema), true).properties as object | undefined) ?? {})
}

/** Lists the members of the entries of each section of such rules. */
export function listEntryMembers(
  rules: v.GenericSchema<unknown, unknown>,
): Readonly<Record<string, readonly string[]>> {
  const sections = describe(asDefinition(rules), true).properties as Sections
  return Object.fromEntries(
    Object.entries(sections).map(([section, { anyOf }]) => [section, Object.keys(anyOf[0].items.properties)]),
  )
}

/** Each section is a list of objects, or null. */
type Sections = Readonly<Record<string, { anyOf: [{ items: { properties: object } }, unknown] }>>

/** A local rules file: everything is optional, and a mode has no effect. */
const LOCAL: JsonSchema = {
  type: 'object',
  properties: {
    $schema: { type: 'string' },
    defaultAccess: { type: ['string', 'null'], pattern: '^\\s*([Aa][Ll][Ll][Oo][Ww]|[Dd][Ee][Nn][Yy])\\s*$' },
    id: { type: ['string', 'null'], pattern: '\\S' },
    rules: { anyOf: [{ $ref: '#/$defs/localRules' }, { type: 'null' }] },
  },
}

const ENDPOINT: JsonSchema = { enum: ['imds', 'wireserver', 'hostga'] }

const TEST: JsonSchema = {
  type: 'object',
  additionalProperties: false,
  required: ['rules', 'cases'],
  properties: {
    $schema: { type: 'string' },
    rules: {
      description: 'A rules file, its path relative to this file; or the rules themselves.',
      anyOf: [{ type: 'string' }, { type: 'object' }],
    },
    endpoint: { description: 'For cases that name none.', ...ENDPOINT },
    canonical: {
      description: 'Whether the canonical matcher may deny too.',
      enum: ['off', 'shadow', 'enforce'],
      default: 'shadow',
    },
    cases: {
      type: 'array',
      minItems: 1,
      items: {
        type: 'object',
        additionalProperties: false,
        required: ['method', 'target', 'user', 'expect'],
        properties: {
          name: { type: 'string' },
          endpoint: ENDPOINT,
          method: { type: 'string', minLength: 1, examples: ['GET', 'POST', 'PUT'] },
          target: { type: 'string', minLength: 1, examples: ['/metadata/instance?api-version=2021-02-01'] },
          user: { type: 'string' },
          groups: { type: 'array', items: { type: 'string' } },
          exe: { description: 'Path of the executable; absent: not known.', type: 'string' },
          cgroup: { description: 'Path of the cgroup; absent: not known.', type: 'string' },
          unit: { description: 'Unit of the service manager.', type: 'string' },
          container: { description: 'Id of the container.', type: 'string' },
          sha256: { description: 'SHA-256 of the executable.', type: 'string' },
          elevated: { description: 'Whether the caller counts as root.', type: 'boolean', default: false },
          expect: { enum: ['ok', 'audit', 'forbidden'] },
        },
      },
    },
  },
}

/** What an author should know of a member, by its name; the parser has no use for it. */
const HINTS: Readonly<Record<string, JsonSchema>> = {
  defaultAccess: {
    description: 'For requests that no privilege matches: allow or deny, in any letter case. Any other word denies.',
    examples: ['allow', 'deny'],
  },
  mode: {
    description: 'disabled: all is allowed; audit: denials are told, not made; enforce. An unknown word enforces.',
    examples: ['disabled', 'audit', 'enforce'],
  },
  path: {
    description: 'Text that the decoded path of a request begins with; /a also matches /a-b, /a/ does not match /a.',
  },
  queryParameters: { description: 'Parameters that the request must have, with these values; letter case is ignored.' },
  userName: { description: 'Exact name of the user.' },
  groupName: { description: 'Exact name of one of the groups of the user.' },
  exePath: { description: 'Path of the executable. Whoever may run it is meant too: name a user beside it.' },
  cgroupPath: {
    description: 'A cgroup as /proc/PID/cgroup gives it; those below it count as well.',
    pattern: '^/+[^/]',
  },
  systemdUnit: { description: 'A unit of the system that runs processes.', examples: ['nginx.service'] },
  containerId: { description: 'Of a container of root’s engine, 64 hexadecimal digits.', pattern: '^[0-9A-Fa-f]{64}$' },
  exeSha256: {
    description: 'SHA-256 of the executable. Whoever may run such a file is meant too: name a user beside it.',
    pattern: '^[0-9A-Fa-f]{64}$',
  },
  processName: { description: 'Name of the executable. Anybody can name a file so: name a user or a path beside it.' },
}

/** The parts of a valibot schema that the rule documents are made of. */
interface Definition {
  readonly type: string
  readonly pipe?: readonly Definition[]
  readonly entries?: Readonly<Record<string, Definition>>
  readonly item?: Definition
  readonly wrapped?: Definition
  readonly requirement?: unknown
}

function asDefinition(schema: v.GenericSchema<unknown, unknown>): Definition {
  return schema as unknown as Definition
}

/**
 * A pipe narrows step by step; each step adds its keywords.
 * @param isRoot false: a definition with a name is referred to
 * @throws Error for a definition that is new to this file
 */
function describe(definition: Definition, isRoot = false): JsonSchema {
  const name = Object.entries(DOCUMENT_SCHEMAS).find(([, schema]) => asDefinition(schema) === definition)?.[0]
  if (name !== undefined && !isRoot) return { $ref: `#/$defs/${NAMES[name]}` }
  const steps = definition.pipe ?? [definition]
  const described: JsonSchema = Object.assign({}, ...steps.map((step) => describeStep(step)))
  const limit = steps.find(({ type }) => type === 'max_length')?.requirement
  if (limit === undefined) return described
  return { ...described, [described.type === 'array' ? 'maxItems' : 'maxLength']: limit }
}

function describeStep(step: Definition): JsonSchema {
  switch (step.type) {
    case 'string':
      return { type: 'string' }
    case 'max_entries':
      return { type: 'object', maxProperties: step.requirement, additionalProperties: { type: 'string' } }
    case 'object':
      return describeObject(step.entries ?? {})
    case 'array':
      return { type: 'array', items: describe(step.item as Definition) }
    case 'nullish':
      return { anyOf: [describe(step.wrapped as Definition), { type: 'null' }] }
    // Limits of length depend on the type beside them; the others say nothing that the rest of their pipe does not.
    case 'max_length':
    case 'custom':
    case 'transform':
    case 'raw_transform':
    case 'check':
      return {}
    default:
      throw new Error(`Cannot describe the definition '${step.type}' as JSON Schema`)
  }
}

function describeObject(entries: Readonly<Record<string, Definition>>): JsonSchema {
  const properties = Object.entries(entries).map(([name, entry]) => [name, { ...describe(entry), ...HINTS[name] }])
  const required = Object.keys(entries).filter((name) => entries[name]?.type !== 'nullish')
  return { type: 'object', properties: Object.fromEntries(properties), ...(required.length > 0 && { required }) }
}
