/** Finds members of a rules file that the agent passes over: most are slips of the pen, and a lost selector opens a rule. */

import type { JsonPath } from '../../base/json.ts'
import { isJsonObject } from '../../base/json.ts'
import { DOCUMENT_SCHEMAS } from '../document.ts'
import type { RulesFormat } from '../rules-file.ts'
import { listEntryMembers, listMembers } from '../schema.ts'

export interface UnknownMember {
  readonly path: JsonPath
  readonly name: string
  /** What may stand there. */
  readonly known: readonly string[]
}

/**
 * Lists the members without a meaning, in the order of the file. Values of a wrong type are passed over.
 * @param at leads to the rules in `value`
 */
export function findUnknownMembers(value: unknown, format: RulesFormat, at: JsonPath): UnknownMember[] {
  const found: UnknownMember[] = []
  const entryMembers = ENTRY_MEMBERS[format === 'local' || format === 'log' ? 'local' : 'host']
  const look = (
    object: unknown,
    known: readonly string[],
    path: JsonPath,
    inside: (name: string) => Look | undefined,
  ) => {
    if (!isJsonObject(object)) return
    for (const [name, member] of Object.entries(object)) {
      // Editors look for their schema in the outermost object.
      if (name === '$schema' && path.length === 0) continue
      if (known.includes(name)) inside(name)?.(member, [...path, name])
      else found.push({ path: [...path, name], name, known })
    }
  }
  const lookAtList =
    (section: string): Look =>
    (list, path) => {
      if (!Array.isArray(list)) return
      for (const [i, entry] of list.entries()) look(entry, entryMembers[section] ?? [], [...path, i], () => undefined)
    }
  const lookAtRules: Look = (rules, path) => look(rules, Object.keys(entryMembers), path, lookAtList)
  const lookAtItem: Look = (item, path) =>
    look(item, format === 'local' ? LOCAL_MEMBERS : ITEM_MEMBERS, path, (name) =>
      name === 'rules' ? lookAtRules : undefined,
    )
  if (format === 'item' || format === 'local') lookAtItem(value, [])
  else {
    const inner = at.reduce<unknown>((outer, step) => (isJsonObject(outer) ? outer[String(step)] : undefined), value)
    look(inner, ENDPOINT_MEMBERS, at, () => lookAtItem)
  }
  return found
}

type Look = (value: unknown, path: JsonPath) => void

const ENDPOINT_MEMBERS = listMembers(DOCUMENT_SCHEMAS.authorizationRules)
const ITEM_MEMBERS = listMembers(DOCUMENT_SCHEMAS.authorizationItem)
/** A mode in a local file is passed over: the host's counts. */
const LOCAL_MEMBERS = ITEM_MEMBERS.filter((name) => name !== 'mode')
/** A log has the rules as they were merged. */
const ENTRY_MEMBERS = {
  host: listEntryMembers(DOCUMENT_SCHEMAS.accessControlRules),
  local: listEntryMembers(DOCUMENT_SCHEMAS.localAccessControlRules),
} as const
