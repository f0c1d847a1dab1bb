/** `rules test`: decides the requests of a file of expectations and compares, for use in a pipeline. */

import { dirname, isAbsolute, join } from 'node:path'
import * as v from 'valibot'
import { isJsonObject, type JsonDocument, type JsonPath } from '../base/json.ts'
import { describeVerdict } from '../rules/describe.ts'
import { type RulesFile, RulesFileError, readJson, readRulesFile } from '../rules/rules-file.ts'
import { makeCaller } from './rules-arguments.ts'
import { describeAsJson, type Explanation, explain, loadRules } from './rules-explain.ts'
import { type Answer, answerRefusal, formatJson, type ReadFile, type Refusal, readText, wrap } from './rules-print.ts'

const Endpoint = v.picklist(['imds', 'wireserver', 'hostga'])

const Case = v.strictObject({
  name: v.optional(v.string()),
  endpoint: v.optional(Endpoint),
  method: v.pipe(v.string(), v.nonEmpty()),
  target: v.pipe(v.string(), v.nonEmpty()),
  user: v.string(),
  groups: v.optional(v.array(v.string()), []),
  exe: v.optional(v.string()),
  cgroup: v.optional(v.string()),
  unit: v.optional(v.string()),
  container: v.optional(v.string()),
  sha256: v.optional(v.string()),
  elevated: v.optional(v.boolean(), false),
  expect: v.picklist(['ok', 'audit', 'forbidden']),
})

/** Without cases nothing would be tested, and the command would still succeed. */
const Expectations = v.strictObject({
  $schema: v.optional(v.string()),
  rules: v.union([v.string(), v.custom<Readonly<Record<string, unknown>>>(isJsonObject)]),
  endpoint: v.optional(Endpoint),
  canonical: v.optional(v.picklist(['off', 'shadow', 'enforce']), 'shadow'),
  cases: v.pipe(v.array(Case), v.minLength(1)),
})

type Expectations = v.InferOutput<typeof Expectations>
type Case = v.InferOutput<typeof Case>

interface Result {
  readonly case: Case
  readonly endpoint: v.InferOutput<typeof Endpoint>
  readonly explanation: Explanation
  readonly passed: boolean
}

/** Runs the command. Exit code 1 when a case fails, or when the file cannot be used. */
export function testFile(file: string, json: boolean, readFile: ReadFile): Answer {
  const loaded = load(file, readFile)
  if ('finding' in loaded) return answerRefusal(loaded, json)
  const { rules, expectations } = loaded
  const results = expectations.cases.map((each): Result => {
    const endpoint = (each.endpoint ?? expectations.endpoint) as Result['endpoint']
    const caller = makeCaller(each)
    const request = { method: each.method, target: each.target }
    const explanation = explain(rules, { endpoint, caller, request }, expectations.canonical)
    return { case: each, endpoint, explanation, passed: explanation.verdict.outcome === each.expect }
  })
  const failed = results.filter(({ passed }) => !passed).length
  const out = json ? formatJson(describe(results, failed, expectations)) : formatTable(results, failed)
  return { out, err: '', exitCode: failed > 0 ? 1 : 0 }
}

interface Loaded {
  readonly rules: RulesFile
  readonly expectations: Expectations
}

function load(file: string, readFile: ReadFile): Loaded | Refusal {
  const text = readText(file, readFile)
  if (typeof text !== 'string') return text
  try {
    const document = readJson(text)
    const expectations = readExpectations(document)
    if (typeof expectations.rules !== 'string') return { rules: readInline(document), expectations }
    const path = isAbsolute(expectations.rules) ? expectations.rules : join(dirname(file), expectations.rules)
    const rules = loadRules(path, readFile)
    return 'finding' in rules ? rules : { rules, expectations }
  } catch (error) {
    if (!(error instanceof RulesFileError)) throw error
    const { position, finding, message, hint } = error
    return { file, position, finding, message, hint }
  }
}

/** @throws RulesFileError duplicate-member or shape */
function readExpectations(document: JsonDocument): Expectations {
  const [duplicate] = document.duplicates.filter(({ path }) => path[0] !== 'rules')
  if (duplicate !== undefined) {
    const { line, column, path, key } = duplicate
    const at = { path: [...path, key], position: { line, column }, hint: 'Keep one of the two members.' }
    throw new RulesFileError('duplicate-member', `member '${key}' stands twice in one object`, at)
  }
  const result = v.safeParse(Expectations, document.value, { abortEarly: true, abortPipeEarly: true })
  if (!result.success) {
    const [issue] = result.issues
    const path = issue.path?.map(({ key }) => key as string | number) ?? []
    throw shapeError(document, path, describeIssue(issue))
  }
  const expectations = result.output
  const without = expectations.cases.findIndex(({ endpoint }) => (endpoint ?? expectations.endpoint) === undefined)
  if (without !== -1) throw shapeError(document, ['cases', without], 'neither the case nor the file names an endpoint')
  return expectations
}

function describeIssue(issue: v.BaseIssue<unknown>): string {
  if (issue.type === 'strict_object' && issue.expected === 'never') return 'the member has no meaning here'
  if (issue.input === undefined) return 'a required member is missing'
  if (issue.type === 'min_length') return 'there must be one case or more'
  return `expected ${issue.expected ?? 'something else'}`
}

function shapeError(document: JsonDocument, path: JsonPath, problem: string): RulesFileError {
  const where = path.at(-1)
  return new RulesFileError(
    'shape',
    where === undefined || typeof where === 'number' ? problem : `'${where}': ${problem}`,
    {
      path,
      position: document.locate(path),
      hint: 'The form of the file is in rules test --help, and in rules schema test.',
    },
  )
}

/** Reads rules that stand in the file itself, and tells of faults where they stand there. */
function readInline(document: JsonDocument): RulesFile {
  const [duplicate] = document.duplicates.filter(({ path }) => path.at(-1) !== 'queryParameters')
  if (duplicate !== undefined) {
    const { line, column, path, key } = duplicate
    const at = { path: [...path, key], position: { line, column }, hint: 'Keep one of the two members.' }
    throw new RulesFileError('duplicate-member', `member '${key}' stands twice in one object`, at)
  }
  const { rules } = document.value as { readonly rules: unknown }
  try {
    return readRulesFile(JSON.stringify(rules))
  } catch (error) {
    if (!(error instanceof RulesFileError)) throw error
    const path = ['rules', ...error.path]
    throw new RulesFileError(error.finding, error.message, { path, position: document.locate(path), hint: error.hint })
  }
}

function formatTable(results: readonly Result[], failed: number): string {
  const lines = results.map(({ case: each, endpoint, explanation, passed }) => {
    const { method, target, user, expect, name } = each
    const request = `${method} ${target} as ${user} to ${endpoint}`
    const head = wrap(name ?? request, INDENT, `${passed ? 'pass' : 'FAIL'}  ${expect.padEnd(9)}  `)
    if (passed) return head
    const more = name === undefined ? '' : wrap(request, INDENT)
    return `${head}${more}${wrap(`got ${describeVerdict(explanation.verdict)}`, INDENT)}`
  })
  const count = `${results.length} case${results.length === 1 ? '' : 's'}`
  return `      expected\n${lines.join('')}${count}: ${results.length - failed} passed, ${failed} failed\n`
}

const INDENT = ' '.repeat('pass  forbidden  '.length)

function describe(results: readonly Result[], failed: number, { canonical }: Expectations): object {
  return {
    passed: results.length - failed,
    failed,
    cases: results.map(({ case: each, endpoint, explanation, passed }) => ({
      name: each.name ?? null,
      method: each.method,
      target: each.target,
      user: each.user,
      expected: each.expect,
      passed,
      ...describeAsJson(explanation, { endpoint }, canonical),
    })),
  }
}
