/**
 * Reads a JSON document of the host, or one kept on disk, into a checked shape.
 *
 * Documents of this family can hold keys. So a failure names the member, the expectation and the position, and never a
 * value; and a repeated member refuses the whole, since two readers could take different values from it.
 */

import * as v from 'valibot'
import { AgentError } from '../base/errors.ts'
import { type DuplicateMember, formatJsonPath, isJsonObject, type JsonDocument, parseJson } from '../base/json.ts'

/** An unsigned 32-bit integer. */
export const u32Schema = v.pipe(
  v.number(),
  v.check((value) => Number.isInteger(value) && value >= 0 && value <= 0xffffffff, 'an unsigned 32-bit integer'),
)

/**
 * Parses `text` and checks it against `schema`.
 * @param what is being read, for messages: `Cannot read <what>: version is missing`.
 * @throws AgentError `code`, whatever is wrong.
 */
export function readHostDocument<Output>(
  text: string,
  schema: v.GenericSchema<unknown, Output>,
  what: string,
  code: string,
  isAllowedDuplicate: (duplicate: DuplicateMember) => boolean = () => false,
): Output {
  const refuse = (reason: string): never => {
    throw new AgentError(code, `Cannot read ${what}: ${reason}`)
  }
  let document: JsonDocument
  try {
    document = parseJson(text)
  } catch (error) {
    if (!(error instanceof AgentError)) throw error
    return refuse(error.message.replace(/^Cannot parse JSON: /, ''))
  }
  const repeated = document.duplicates.find((duplicate) => !isAllowedDuplicate(duplicate))
  if (repeated !== undefined) refuse(`member ${formatJsonPath([...repeated.path, repeated.key])} is repeated`)
  // valibot's own object() also takes arrays.
  if (!isJsonObject(document.value)) refuse('the document must be an object')
  const result = v.safeParse(schema, document.value, { abortEarly: true, abortPipeEarly: true })
  return result.success ? result.output : refuse(describeIssue(result.issues[0]))
}

function describeIssue(issue: v.BaseIssue<unknown>): string {
  const name = v.getDotPath(issue) ?? 'the document'
  if (issue.input === undefined) return `${name} is missing`
  // Only messages of our own checks: those of valibot repeat the value.
  const expected = issue.type === 'check' ? issue.message : issue.expected?.toLowerCase()
  return `${name} must be ${expected ?? 'valid'}`
}
