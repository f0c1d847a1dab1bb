/**
 * The one error class of the agent: a stable code to act on, a sentence to read, facts to log.
 *
 * Inner layers know nothing of HTTP or exit codes; `proxy/answer.ts` and `cli/` translate.
 */

import { getSystemErrorMap } from 'node:util'

/** Values that may stand beside a message in a log. Never a key, a signature or a body. */
export type Facts = Readonly<Record<string, string | number | bigint | boolean | undefined>>

/** A failure the agent can name. `code` is stable and upper case; the message reads "Cannot X: current state". */
export class AgentError extends Error {
  override name = 'AgentError'
  readonly code: string
  readonly facts: Facts

  constructor(code: string, message: string, facts: Facts = {}, options?: ErrorOptions) {
    super(message, options)
    this.code = code
    this.facts = facts
  }
}

/**
 * Renders an error and its chain of causes on one line, outermost first, with the facts of each `AgentError`.
 * For logs only: facts may say more than a client should read.
 */
export function describeError(error: unknown): string {
  const parts: string[] = []
  const seen = new Set<unknown>()
  for (
    let at = error;
    at !== undefined && at !== null && !seen.has(at);
    at = at instanceof Error ? at.cause : undefined
  ) {
    seen.add(at)
    parts.push(describeOne(at))
  }
  return parts.join(': ')
}

function describeOne(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if (!(error instanceof AgentError)) return error.message || error.name
  const facts = Object.entries(error.facts).filter(([, value]) => value !== undefined)
  if (facts.length === 0) return error.message
  return `${error.message} (${facts.map(([name, value]) => `${name}=${value}`).join(', ')})`
}

/**
 * Renders a system error as `Connection refused (os error 111)`, the form that operators and tools search for.
 * @param errno as Node gives it: negative
 */
export function describeErrno(errno: number): string {
  const text = getSystemErrorMap().get(errno)?.[1] ?? 'unknown error'
  return `${text[0]?.toUpperCase()}${text.slice(1)} (os error ${-errno})`
}
