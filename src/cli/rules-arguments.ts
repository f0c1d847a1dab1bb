/** Reads the words after `rules`. Nothing here touches the world. */

import mri from 'mri'
import type { EndpointName } from '../base/endpoints.ts'
import type { RequestLine } from '../base/request-target.ts'
import type { CanonicalMode } from '../rules/decide.ts'
import type { SchemaName } from '../rules/schema.ts'
import type { RuleCaller } from '../rules/selectors.ts'

/** One question of `rules explain`. */
export interface Question {
  readonly endpoint: EndpointName
  readonly caller: RuleCaller
  readonly request: RequestLine
}

/** A command of the family. Its `name` chooses among them. */
export type RulesCommand =
  | { readonly kind: 'rules'; readonly name: 'help'; readonly usage: string }
  | { readonly kind: 'rules'; readonly name: 'check'; readonly files: readonly string[]; readonly json: boolean }
  | {
      readonly kind: 'rules'
      readonly name: 'explain'
      readonly file: string
      readonly question: Question
      readonly canonicalMode: CanonicalMode
      readonly json: boolean
    }
  | { readonly kind: 'rules'; readonly name: 'test'; readonly file: string; readonly json: boolean }
  | { readonly kind: 'rules'; readonly name: 'schema'; readonly schema: SchemaName }

type UsageError = { readonly kind: 'usage-error'; readonly reason: string; readonly usage: string }

export const RULES_USAGE = `Usage: azure-proxy-agent rules COMMAND ...

Works on rules in files, with the evaluator of the service and without the service.

Commands:
  check FILE...          look for faults and traps in rules
  explain ... METHOD TARGET
                         decide one request, and say why
  test FILE              decide the requests of a file and compare
  schema [NAME]          print the JSON Schema of rules, for editors

  COMMAND --help         say more about one of them

A FILE of rules is what the host sends (for one endpoint or for all), a local
rules file, or an AuthorizationRules_*.json log; its shape tells which.

Exit status: 0 success, 1 the file or a case is not right, 2 wrong usage
`

const CHECK_USAGE = `Usage: azure-proxy-agent rules check [--json] FILE...

Looks for what is wrong in rules, and for what means more than it seems: dead
and shadowed rules, prefixes, identities that anyone can assume, repeated
members, what is never used. Prints file:line:column: severity: message (code).

Options:
      --json  print one JSON object
  -h, --help  print this text

Exit status: 0 no errors (warnings do not count), 1 errors, 2 wrong usage
`

const EXPLAIN_USAGE = `Usage: azure-proxy-agent rules explain OPTIONS METHOD TARGET

Decides one request by the rules, as the service would, and says why, by both
matchers. What the service refuses before it asks the rules is not looked at:
other methods than the usual ones, and // and .. in a path.

Options:
      --rules FILE      the rules
      --endpoint NAME   imds, wireserver or hostga
      --user NAME       user of the caller
      --group NAME      a group of the caller; may be repeated
      --exe PATH        executable of the caller (default: not known)
      --sha256 HASH     SHA-256 of the executable
      --cgroup PATH     cgroup of the caller, as in /proc/PID/cgroup
      --unit NAME       unit of the caller, such as nginx.service
      --container ID    container of the caller
      --elevated        the caller counts as root
      --canonical MODE  off, shadow or enforce: whether the canonical matcher
                        may deny too (default: shadow)
      --json            print one JSON object
  -h, --help            print this text

Exit status: 0 decided, whatever the verdict; 1 the rules cannot be used;
2 wrong usage
`

const TEST_USAGE = `Usage: azure-proxy-agent rules test [--json] FILE

Decides the requests of FILE and compares with what it expects:

  {
    "rules": "IMDS_Rules.json",
    "endpoint": "imds",
    "cases": [
      { "method": "GET", "target": "/metadata/instance", "user": "alice",
        "groups": ["users"], "exe": "/usr/bin/curl", "expect": "ok" }
    ]
  }

"rules" is a path relative to FILE, or the rules themselves. "expect" is ok,
audit or forbidden. A case may have "name", "endpoint", "elevated", "cgroup",
"unit", "container" and "sha256", the file "canonical" (off, shadow, enforce).

Options:
      --json  print one JSON object
  -h, --help  print this text

Exit status: 0 all as expected; 1 a case is not, or the file cannot be used;
2 wrong usage
`

const SCHEMA_USAGE = `Usage: azure-proxy-agent rules schema [NAME]

Prints a JSON Schema (2020-12). Name it in the file for your editor:
  { "$schema": "./rules.schema.json", ... }

NAME:
  rules     rules of one endpoint, from the host or local (default)
  document  rules of all endpoints, from the host
  log       AuthorizationRules_*.json
  test      expectations for rules test

Options:
  -h, --help  print this text
`

interface Shape {
  readonly usage: string
  readonly flags: readonly string[]
  readonly values: readonly string[]
  /** Fewest and most words besides options. */
  readonly words: readonly [least: number, most: number]
}

const SHAPES: Readonly<Record<Exclude<RulesCommand['name'], 'help'>, Shape>> = {
  check: { usage: CHECK_USAGE, flags: ['json', 'help'], values: [], words: [1, Number.POSITIVE_INFINITY] },
  explain: {
    usage: EXPLAIN_USAGE,
    flags: ['json', 'help', 'elevated'],
    values: ['rules', 'endpoint', 'user', 'group', 'exe', 'sha256', 'cgroup', 'unit', 'container', 'canonical'],
    words: [2, 2],
  },
  test: { usage: TEST_USAGE, flags: ['json', 'help'], values: [], words: [1, 1] },
  schema: { usage: SCHEMA_USAGE, flags: ['help'], values: [], words: [0, 1] },
}

const FAMILY: Shape = { usage: RULES_USAGE, flags: ['help'], values: [], words: [0, 0] }

/** Reads `argv`, the words after `rules`. */
export function parseRulesArguments(argv: readonly string[]): RulesCommand | UsageError {
  const name = argv[0] === 'help' ? argv[1] : argv[0]
  const known = name !== undefined && Object.hasOwn(SHAPES, name) ? (name as keyof typeof SHAPES) : undefined
  const shape = known === undefined ? FAMILY : SHAPES[known]
  const { usage } = shape
  const fail = (reason: string): UsageError => ({ kind: 'usage-error', reason, usage })
  if (argv[0] === 'help' && (argv.length === 1 || (argv.length === 2 && known !== undefined))) {
    return { kind: 'rules', name: 'help', usage }
  }
  const words = splitWords(known === undefined ? argv : argv.slice(1), shape)
  if (typeof words === 'string') return fail(words)
  if (words.flags.has('help')) return { kind: 'rules', name: 'help', usage }
  const { positional } = words
  if (known === undefined) {
    return fail(name === undefined ? "'rules' needs a command" : `'${name}' is not a command of 'rules'`)
  }
  if (positional.length < shape.words[0]) return fail(`'rules ${known}' needs ${NEEDS[known]}`)
  if (positional.length > shape.words[1]) return fail(`unexpected argument '${positional[shape.words[1]]}'`)
  if (positional.includes('')) return fail(`'rules ${known}' needs ${NEEDS[known]}, not ''`)
  const json = words.flags.has('json')
  switch (known) {
    case 'check':
      return { kind: 'rules', name: 'check', files: positional, json }
    case 'test':
      return { kind: 'rules', name: 'test', file: positional[0] as string, json }
    case 'schema':
      return readSchemaName(positional[0] ?? 'rules', fail)
    case 'explain':
      return readQuestion(words, json, fail)
  }
}

const NEEDS = { check: 'a file', test: 'a file', explain: 'a method and a target', schema: 'a name' } as const

interface Words {
  readonly positional: readonly string[]
  readonly flags: ReadonlySet<string>
  readonly values: Readonly<Record<string, readonly string[]>>
}

/** Spells values out (`--user bob` becomes `--user=bob`), and refuses what mri would let pass. @returns words, or a reason. */
function splitWords(argv: readonly string[], { flags, values }: Shape): Words | string {
  const options: string[] = []
  const positional: string[] = []
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] === '-h' ? '--help' : (argv[i] as string)
    if (word === '--') {
      positional.push(...argv.slice(i + 1))
      break
    }
    if (!word.startsWith('-') || word === '-') {
      positional.push(word)
      continue
    }
    const [option = '', value] = splitOption(word)
    if (flags.includes(option)) {
      if (value !== undefined) return `option '--${option}' takes no value`
    } else if (!word.startsWith('--') || !values.includes(option)) return `unexpected option '${word}'`
    else if (value === undefined && i + 1 === argv.length) return `option '--${option}' needs a value`
    const full = flags.includes(option) || value !== undefined ? word : `${word}=${argv[++i]}`
    if (option !== 'group' && options.some((each) => splitOption(each)[0] === option)) {
      return `option '--${option}' is given twice`
    }
    options.push(full)
  }
  const parsed = mri(options, { string: [...values], boolean: [...flags] }) as Record<string, unknown>
  return {
    positional,
    flags: new Set(flags.filter((name) => parsed[name] === true)),
    values: Object.fromEntries(values.map((name) => [name, [parsed[name] ?? []].flat() as string[]])),
  }
}

function splitOption(word: string): [name: string, value?: string] {
  const equals = word.indexOf('=')
  return equals === -1 ? [word.slice(2)] : [word.slice(2, equals), word.slice(equals + 1)]
}

type Fail = (reason: string) => UsageError

function readSchemaName(name: string, fail: Fail): RulesCommand | UsageError {
  const schema = (['rules', 'document', 'log', 'test'] as const).find((each) => each === name)
  return schema === undefined
    ? fail(`'${name}' is not the name of a schema`)
    : { kind: 'rules', name: 'schema', schema }
}

function readQuestion({ positional, flags, values }: Words, json: boolean, fail: Fail): RulesCommand | UsageError {
  const one = (name: string) => values[name]?.[0]
  for (const name of ['rules', 'endpoint', 'user']) {
    if (one(name) === undefined || one(name) === '') return fail(`'rules explain' needs '--${name}'`)
  }
  const endpoint = (['imds', 'wireserver', 'hostga'] as const).find((each) => each === one('endpoint'))
  if (endpoint === undefined) {
    return fail(`'--endpoint' must be imds, wireserver or hostga, not '${one('endpoint')}'`)
  }
  const mode = one('canonical') ?? 'shadow'
  const canonicalMode = (['off', 'shadow', 'enforce'] as const).find((each) => each === mode)
  if (canonicalMode === undefined) return fail(`'--canonical' must be off, shadow or enforce, not '${mode}'`)
  const [method, target] = positional as [string, string]
  const caller = makeCaller({
    user: one('user') as string,
    groups: values.group ?? [],
    exe: one('exe'),
    elevated: flags.has('elevated'),
    cgroup: one('cgroup'),
    unit: one('unit'),
    container: one('container'),
    sha256: one('sha256'),
  })
  const question = { endpoint, caller, request: { method, target } }
  return { kind: 'rules', name: 'explain', file: one('rules') as string, question, canonicalMode, json }
}

/** What an author knows of a caller. Absent and empty: not known. */
export interface DescribedCaller {
  readonly user: string
  readonly groups: readonly string[]
  readonly exe?: string | undefined
  readonly elevated: boolean
  readonly cgroup?: string | undefined
  readonly unit?: string | undefined
  readonly container?: string | undefined
  readonly sha256?: string | undefined
}

/** Makes a caller of what an author knows of one. The name of a process is that of its executable. */
export function makeCaller(described: DescribedCaller): RuleCaller {
  const { user: userName, groups, elevated, exe, cgroup, unit, container, sha256 } = described
  const exePath = exe || undefined
  const processName = exePath?.slice(exePath.lastIndexOf('/') + 1)
  return {
    userName,
    groups,
    exePath,
    processName,
    elevated,
    cgroupPath: cgroup || undefined,
    systemdUnit: unit || undefined,
    containerId: container?.toLowerCase() || undefined,
    exeSha256: sha256?.toLowerCase() || undefined,
  }
}
