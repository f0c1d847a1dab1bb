/**
 * Reads a rules file of any kind an author or an operator may have at hand. The kind is told by shape:
 *
 *   item       has a `mode`: what the host sends for one endpoint
 *   local      has none: a local rules file; also any file by the name that the agent reads local rules from
 *   document   has `imds`, `wireserver`, `hostga`, or `authorizationRules` around them: what the host sends for all endpoints
 *   log        has `inputRules`: AuthorizationRules_*.json, written when rules are applied
 */

import type { EndpointName } from '../base/endpoints.ts'
import { AgentError } from '../base/errors.ts'
import type { DuplicateMember, JsonDocument, JsonPath, JsonPosition } from '../base/json.ts'
import { isJsonObject, parseJson } from '../base/json.ts'
import type { AuthorizationItem, Origin } from './document.ts'
import { isAllowedDuplicate, parseAuthorizationItem, parseAuthorizationRules, RulesDocumentError } from './document.ts'
import type { LocalRules } from './local-rules.ts'
import { LocalRulesError, parseLocalRules } from './local-rules.ts'
import type { EndpointItems } from './snapshot.ts'
import { itemsOf } from './snapshot.ts'

export type RulesFormat = 'item' | 'local' | 'document' | 'log'

/** Not JSON; a repeated member; not of the right shape; local rules that contradict themselves. */
export type RulesFileFault = 'json-syntax' | 'duplicate-member' | 'shape' | 'refused'

/** A rules file that cannot be used as one. `path` and position lead to the first fault. */
export class RulesFileError extends AgentError {
  override name = 'RulesFileError'
  readonly path: JsonPath
  readonly position: JsonPosition
  readonly hint: string

  /** The same fault as a code of `lint/`. */
  readonly finding: RulesFileFault

  constructor(finding: RulesFileFault, message: string, at: { path: JsonPath; position: JsonPosition; hint: string }) {
    super('RULES_FILE', message, { line: at.position.line, column: at.position.column })
    this.finding = finding
    this.path = at.path
    this.position = at.position
    this.hint = at.hint
  }
}

/** A file that is JSON, its kind, and where the rules stand in it. */
export interface OpenedRules {
  readonly format: RulesFormat
  readonly text: string
  readonly document: JsonDocument
  /** Leads to the item, the local rules, or the object that holds the items of the endpoints. */
  readonly at: JsonPath
}

/** The rules of a file, ready to be compiled. */
export interface RulesFile {
  readonly format: RulesFormat
  /** Of the endpoint, or `undefined` when the file has no rules for it. An item or a local file serves each of them. */
  itemOf(endpoint: EndpointName): AuthorizationItem | undefined
}

/** Names of files that the agent reads local rules from. */
const LOCAL_FILE_NAMES: ReadonlySet<string> = new Set(['WireServer_Rules.json', 'IMDS_Rules.json'])

/**
 * Reads `text` as JSON and tells its kind.
 * @param fileName without directories
 * @throws RulesFileError json-syntax
 */
export function openRules(text: string, fileName = ''): OpenedRules {
  const document = readJson(text)
  const { value } = document
  const opened = (format: RulesFormat, at: JsonPath = []): OpenedRules => ({ format, text, document, at })
  if (LOCAL_FILE_NAMES.has(fileName) || !isJsonObject(value)) return opened('local')
  if ('inputRules' in value) return opened('log', ['inputRules'])
  if ('authorizationRules' in value) return opened('document', ['authorizationRules'])
  if ('mode' in value) return opened('item')
  const isDocument = ['imds', 'wireserver', 'hostga'].some((name) => name in value)
  return opened(isDocument ? 'document' : 'local')
}

/** Reads JSON with or without a byte-order mark. @throws RulesFileError json-syntax */
export function readJson(text: string): JsonDocument {
  try {
    return parseJson(text, { skipByteOrderMark: true })
  } catch (error) {
    if (!(error instanceof AgentError) || error.code !== 'JSON_SYNTAX') throw error
    const position = { line: Number(error.facts.line), column: Number(error.facts.column) }
    const message = error.message.replace(/^Cannot parse JSON: /, '').replace(/ at line \d+, column \d+$/, '')
    throw new RulesFileError('json-syntax', `this is not JSON: ${message}`, {
      path: [],
      position,
      hint: 'Write the file as one JSON object.',
    })
  }
}

/** Lists the repeated members that make the agent refuse the rules. Those outside of the rules are nobody's business. */
export function findRefusedDuplicates({ document, at }: OpenedRules): DuplicateMember[] {
  return document.duplicates.filter(
    (duplicate) => at.every((step, i) => duplicate.path[i] === step) && !isAllowedDuplicate(duplicate),
  )
}

/** Reads a rules file whole, as strictly as the agent does. @throws RulesFileError */
export function readRulesFile(text: string, fileName = ''): RulesFile {
  const opened = openRules(text, fileName)
  const [duplicate] = findRefusedDuplicates(opened)
  if (duplicate !== undefined) {
    const { line, column, path, key } = duplicate
    throw new RulesFileError('duplicate-member', `member '${key}' stands twice in one object`, {
      path: [...path, key],
      position: { line, column },
      hint: 'Keep one of the two members.',
    })
  }
  const { format } = opened
  if (format === 'local') {
    const item = localItem(readLocal(text))
    return { format, itemOf: () => item }
  }
  if (format === 'item') {
    const item = readItem(opened)
    return { format, itemOf: () => item }
  }
  const items = readItems(opened)
  return { format, itemOf: (endpoint) => items[endpoint] }
}

/** Makes the item that local rules give when the host sends a mode, enforce, and nothing else. */
export function localItem(local: LocalRules): AuthorizationItem {
  const { defaultAccess = 'deny', id = '', rules } = local
  return { defaultAccess, mode: 'enforce', id, ...(rules !== undefined && { rules }) }
}

/** Reads the item of a file whose kind is `item`. @throws RulesFileError shape */
export function readItem({ document }: OpenedRules, origin: Origin = 'host'): AuthorizationItem {
  return guardShape(document, () => parseAuthorizationItem(document.value, [], origin))
}

/** Reads the items of a file that has them by endpoint. A log has HostGAPlugin's own; in a document it is WireServer's. */
export function readItems({ format, document, at }: OpenedRules): EndpointItems {
  const value = at.reduce<unknown>((inner, step) => (inner as Record<string | number, unknown>)[step], document.value)
  // A log has the rules as they were merged, those of local files among them.
  const rules = guardShape(document, () => parseAuthorizationRules(value, at, format === 'log' ? 'local' : 'host'))
  return format === 'log' ? rules : itemsOf(rules)
}

/** Reads a local rules file. @throws RulesFileError */
export function readLocal(text: string): LocalRules {
  try {
    return parseLocalRules(text).rules
  } catch (error) {
    if (!(error instanceof LocalRulesError)) throw error
    const { path, position, hint } = error
    throw new RulesFileError(error.fault === 'meaning' ? 'refused' : 'shape', error.message, { path, position, hint })
  }
}

function guardShape<Result>(document: JsonDocument, read: () => Result): Result {
  try {
    return read()
  } catch (error) {
    if (!(error instanceof RulesDocumentError)) throw error
    const { path } = error
    const where = path.at(-1)
    throw new RulesFileError('shape', `${where === undefined ? '' : `'${where}': `}${error.facts.problem}`, {
      path,
      position: document.locate(path),
      hint: 'Give the member the type it must have: azure-proxy-agent rules schema.',
    })
  }
}
