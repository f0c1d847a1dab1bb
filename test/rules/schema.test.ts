/** The schema agrees with the parser: a small validator of the keywords it uses says yes where the parser does. */

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { isJsonObject, parseJson } from '../../src/base/json.ts'
import { MAX_LIST_LENGTH, MAX_NAME_LENGTH, parseAuthorizationItem } from '../../src/rules/document.ts'
import { parseLocalRules } from '../../src/rules/local-rules.ts'
import type { JsonSchema } from '../../src/rules/schema.ts'
import { makeSchema, SCHEMA_NAMES } from '../../src/rules/schema.ts'
import { resolveMode } from '../../src/rules/snapshot.ts'

type Check = (value: unknown, argument: never, schema: JsonSchema, root: JsonSchema) => boolean

const isObject = isJsonObject

/** Every keyword that the schemas use; an unknown one fails the test. */
const KEYWORDS: Readonly<Record<string, Check>> = {
  $schema: () => true,
  $defs: () => true,
  title: () => true,
  description: () => true,
  examples: () => true,
  default: () => true,
  // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema.
  then: () => true,
  else: () => true,
  $ref: (value, ref: string, _schema, root) =>
    isValid(value, (root.$defs as Record<string, JsonSchema>)[ref.replace('#/$defs/', '')] ?? assert.fail(ref), root),
  if: (value, condition: JsonSchema, schema, root) =>
    isValid(value, (isValid(value, condition, root) ? schema.then : schema.else) as JsonSchema, root),
  type: (value, types: string | readonly string[]) => [types].flat().includes(typeOf(value)),
  enum: (value, words: readonly unknown[]) => words.includes(value),
  anyOf: (value, schemas: readonly JsonSchema[], _schema, root) => schemas.some((each) => isValid(value, each, root)),
  pattern: (value, pattern: string) => typeof value !== 'string' || new RegExp(pattern, 'u').test(value),
  minLength: (value, limit: number) => typeof value !== 'string' || [...value].length >= limit,
  maxLength: (value, limit: number) => typeof value !== 'string' || [...value].length <= limit,
  maxItems: (value, limit: number) => !Array.isArray(value) || value.length <= limit,
  minItems: (value, limit: number) => !Array.isArray(value) || value.length >= limit,
  maxProperties: (value, limit: number) => !isObject(value) || Object.keys(value).length <= limit,
  items: (value, schema: JsonSchema, _schema, root) =>
    !Array.isArray(value) || value.every((each) => isValid(each, schema, root)),
  required: (value, names: readonly string[]) => !isObject(value) || names.every((name) => Object.hasOwn(value, name)),
  properties: (value, schemas: Readonly<Record<string, JsonSchema>>, _schema, root) =>
    !isObject(value) ||
    Object.entries(schemas).every(([name, each]) => !Object.hasOwn(value, name) || isValid(value[name], each, root)),
  additionalProperties: (value, rest: JsonSchema | false, schema, root) =>
    !isObject(value) ||
    Object.entries(value).every(
      ([name, each]) => name in ((schema.properties ?? {}) as object) || (rest !== false && isValid(each, rest, root)),
    ),
}

function isValid(value: unknown, schema: JsonSchema, root = schema): boolean {
  return Object.entries(schema).every(([keyword, argument]) => {
    const check = KEYWORDS[keyword] ?? assert.fail(`the keyword '${keyword}' is not known`)
    return check(value, argument as never, schema, root)
  })
}

function typeOf(value: unknown): string {
  if (value === null) return 'null'
  return Array.isArray(value) ? 'array' : typeof value
}

function accepts(read: () => unknown): boolean {
  try {
    read()
    return true
  } catch {
    return false
  }
}

const rulesSchema = makeSchema('rules')
const itemSchema = { $ref: '#/$defs/item', $defs: rulesSchema.$defs }
const fixture = (name: string) => parseJson(readFileSync(new URL(`../fixtures/${name}`, import.meta.url), 'utf8')).value

test('the schema takes every item of the vectors', () => {
  const vectors = fixture('rules.json') as readonly { readonly name: string; readonly item: unknown }[]
  const items = vectors.filter(({ item }) => item !== null)
  assert.ok(items.length > 100)
  for (const { name, item } of items) {
    parseAuthorizationItem(item)
    assert.ok(isValid(item, rulesSchema), name)
  }
})

describe('makeSchema() describes the fixture', () => {
  for (const [name, file] of [
    ['rules', 'item-sound.json'],
    ['rules', 'item-trapped.json'],
    ['rules', 'local.json'],
    ['log', 'log.json'],
    ['test', 'expectations.json'],
  ] as const) {
    test(file, () => assert.ok(isValid(fixture(`rules/${file}`), makeSchema(name))))
  }
})

describe('the schema and the parser agree on', () => {
  const item = { id: '', mode: 'audit', defaultAccess: 'deny' }
  const identity = (more: object) => ({ ...item, rules: { identities: [{ name: 'i', ...more }] } })
  const privilege = (more: object) => ({ ...item, rules: { privileges: [{ name: 'p', path: '/', ...more }] } })
  const many = (count: number) => Array.from({ length: count }, () => 'x')
  const rows: readonly (readonly [situation: string, value: unknown, isTaken: boolean])[] = [
    ['a list instead of an item', [], false],
    ['null rules', { ...item, rules: null }, true],
    ['a list of rules', { ...item, rules: [] }, false],
    ['null sections', { ...item, rules: { privileges: null } }, true],
    ['a missing id', { mode: 'audit', defaultAccess: 'deny' }, false],
    ['a null mode', { ...item, mode: null }, false],
    ['an unknown member', { ...item, more: 1 }, true],
    ['a name of the longest length', { ...item, id: 'x'.repeat(MAX_NAME_LENGTH) }, true],
    ['a name beyond it', { ...item, id: 'x'.repeat(MAX_NAME_LENGTH + 1) }, false],
    [
      'a list of the longest length',
      { ...item, rules: { roles: [{ name: 'r', privileges: many(MAX_LIST_LENGTH) }] } },
      true,
    ],
    ['a list beyond it', { ...item, rules: { roles: [{ name: 'r', privileges: many(MAX_LIST_LENGTH + 1) }] } }, false],
    ['a null selector', identity({ userName: null }), true],
    ['a selector that is a number', identity({ userName: 5 }), false],
    ['parameters with any name', privilege({ queryParameters: { constructor: 'x' } }), true],
    ['a parameter that is a number', privilege({ queryParameters: { a: 5 } }), false],
    ['parameters in a list', privilege({ queryParameters: [] }), false],
    ['null parameters', privilege({ queryParameters: null }), true],
  ]
  for (const [situation, value, isTaken] of rows) {
    test(situation, () => {
      assert.equal(
        accepts(() => parseAuthorizationItem(value)),
        isTaken,
        'parser',
      )
      assert.equal(isValid(value, itemSchema), isTaken, 'schema')
    })
  }

  test('documents of any shape', () => {
    const text = fc.oneof({ weight: 8, arbitrary: fc.string() }, fc.constantFrom(null, 5, undefined))
    const list = <T>(entry: fc.Arbitrary<T>) =>
      fc.oneof({ weight: 8, arbitrary: fc.array(entry, { maxLength: 2 }) }, fc.constantFrom(null, {}, 'x'))
    const record = (members: Record<string, fc.Arbitrary<unknown>>) => fc.record(members, { requiredKeys: [] })
    const parameters = fc.oneof(fc.dictionary(fc.string(), text), fc.constant(null), fc.constant([]))
    const rules = record({
      privileges: list(record({ name: fc.string(), path: text, queryParameters: parameters })),
      roles: list(record({ name: fc.string(), privileges: list(text) })),
      identities: list(fc.record({ name: text, userName: text, exePath: text })),
      roleAssignments: list(fc.record({ role: fc.string(), identities: list(fc.string()) })),
    })
    const item = fc.record({ id: text, mode: text, defaultAccess: text, rules: fc.oneof(rules, fc.constant(null)) })
    const verdicts = { taken: 0, refused: 0 }
    fc.assert(
      fc.property(fc.oneof({ weight: 9, arbitrary: item }, fc.jsonValue()), (value) => {
        const { value: json } = parseJson(JSON.stringify(value))
        const isTaken = accepts(() => parseAuthorizationItem(json))
        verdicts[isTaken ? 'taken' : 'refused'] += 1
        assert.equal(isValid(json, itemSchema), isTaken)
      }),
      { numRuns: 2000 },
    )
    assert.ok(verdicts.taken > 50 && verdicts.refused > 50, JSON.stringify(verdicts))
  })

  test('the outer members of local rules', () => {
    const access = fc.constantFrom('allow', ' Deny ', 'yes', '', null, 5)
    const id = fc.constantFrom('x', ' ', '', null, 5)
    const local = fc.record({ defaultAccess: access, id, rules: fc.constantFrom(null, {}, 5) }, { requiredKeys: [] })
    fc.assert(
      fc.property(local, (value) => {
        assert.equal(
          isValid(value, rulesSchema),
          accepts(() => parseLocalRules(JSON.stringify(value))),
        )
      }),
    )
  })
})

describe('makeSchema()', () => {
  for (const name of SCHEMA_NAMES) {
    test(`${name} refers to nothing that it lacks`, () => {
      const schema = makeSchema(name)
      const text = JSON.stringify(schema)
      for (const [, target = ''] of text.matchAll(/"#\/\$defs\/(\w+)"/g)) assert.ok(target in (schema.$defs as object))
    })
  }

  test('offers the modes that the agent knows', () => {
    const { item } = rulesSchema.$defs as { item: { properties: { mode: { examples: string[] } } } }
    assert.deepEqual(item.properties.mode.examples, ['disabled', 'audit', 'enforce'])
    for (const mode of item.properties.mode.examples) assert.equal(resolveMode(mode), mode)
  })

  test('of expectations asks for what the command asks for', () => {
    const schema = makeSchema('test')
    const one = { method: 'GET', target: '/', user: 'a', expect: 'ok' }
    assert.equal(isValid({ rules: {}, cases: [one] }, schema), true)
    assert.equal(isValid({ rules: {}, cases: [] }, schema), false)
    assert.equal(isValid({ rules: {}, cases: [{ ...one, target: '' }] }, schema), false)
    assert.equal(isValid({ rules: {}, cases: [{ ...one, expcet: 'ok' }] }, schema), false)
    assert.equal(isValid({ rules: {}, cases: [{ ...one, expect: 'maybe' }] }, schema), false)
  })
})
