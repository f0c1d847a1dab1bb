/** What the two matchers make of a privilege, where that is not what a reader would think. */

import type { JsonPath } from '../../base/json.ts'
import { isCanonicalFailure } from '../canonical-failure.ts'
import { compilePattern } from '../canonical-pattern.ts'
import type { Privilege } from '../document.ts'
import { compileLegacyPattern } from '../match.ts'
import type { Surroundings } from './finding.ts'

/**
 * Looks at one privilege.
 * @param at leads to it
 * @param isGranted whether somebody holds it
 */
export function lintPrivilege(
  { name, path, queryParameters = {} }: Privilege,
  at: JsonPath,
  isGranted: boolean,
  surroundings: Surroundings,
): void {
  const { isLocal, report } = surroundings
  lintPath(name, path, [...at, 'path'], isGranted, surroundings)
  const lower = new Set<string>()
  for (const [key, value] of Object.entries(queryParameters)) {
    const where = [...at, 'queryParameters', key]
    if (key === '') {
      const message = `privilege '${name}' asks for a query parameter without a name: it never matches`
      report('error', 'path-never-matches', where, message, 'Name the parameter, or leave it out.')
    } else if (isLocal && (key.trim() === '' || value.trim() === '')) {
      const message = `privilege '${name}' has an empty query parameter or value, the rules are refused`
      report('error', 'parameter-empty', where, message, 'Give the parameter a value, or leave it out.')
    }
    if (`${key}${value}`.includes('+')) {
      const message = `query parameter '${key}' holds a plus: one matcher reads a plus there, the other a space`
      report(
        'warning',
        'parameter-plus',
        where,
        message,
        'Rely on it in a grant alone: as a restriction it can be evaded.',
      )
    }
    if (lower.has(key.toLowerCase())) {
      const message = `query parameter '${key}' differs from another in letter case alone, the last one counts`
      report('error', 'duplicate-parameter', where, message, 'Keep one of the two.')
    }
    lower.add(key.toLowerCase())
  }
  const legacy = compileLegacyPattern(path, queryParameters)
  const canonical = compilePattern(legacy.path, legacy.query)
  if (isCanonicalFailure(canonical)) {
    const message = `privilege '${name}' has no canonical form (${canonical.code}): the canonical matcher passes it over`
    report('warning', 'privilege-not-canonical', at, message, 'Write path and parameters plainly, in ASCII.')
  }
}

function lintPath(name: string, path: string, at: JsonPath, isGranted: boolean, surroundings: Surroundings): void {
  const { isLocal, report } = surroundings
  if (path.trim() === '') {
    const message = `privilege '${name}' has no path${path === '' ? ': it matches every request' : ''}`
    report(isLocal ? 'error' : 'warning', 'path-empty', at, message, 'Write / for every path of the endpoint.')
    return
  }
  if (!path.startsWith('/')) {
    const message = `path '${path}' does not start with a slash: it never matches`
    report('error', 'path-never-matches', at, message, `Write '/${path.trim()}'.`)
    return
  }
  if (path.includes('?')) {
    const message = `path '${path}' holds a question mark: it never matches`
    report('error', 'path-never-matches', at, message, 'Put what follows it in queryParameters.')
    return
  }
  if (/%[0-9a-f]{2}/i.test(path)) {
    const message = `path '${path}' is compared with decoded requests, so its escapes do not match what they stand for`
    report('warning', 'path-escaped', at, message, 'Write the characters themselves.')
  }
  if (/\/\/|\/\.{1,2}(\/|$)|;/.test(path)) {
    const message = `path '${path}' is not how a request is usually written: the two matchers read it differently`
    report('warning', 'path-unusual', at, message, 'Leave out empty and dot segments, and what follows a semicolon.')
  }
  lintPrefix(name, path, at, isGranted, surroundings)
}

/** A path is a prefix of text, not of segments. */
function lintPrefix(
  name: string,
  path: string,
  at: JsonPath,
  isGranted: boolean,
  { isOpen, report }: Surroundings,
): void {
  if (path === '/') return
  if (path.endsWith('/')) {
    const bare = path.replace(/\/+$/, '')
    if (!isOpen || bare === '') return
    const message = `privilege '${name}' does not match '${bare}' without the slash, which is open to everybody then`
    const hint = `Write '${bare}' where the default access is allow.`
    report('warning', 'path-slash', at, message, hint)
    return
  }
  if (!isGranted) return
  const message = `path '${path}' also matches '${path}-x': it is a prefix of text, not of segments`
  const hint = isOpen
    ? 'This errs towards denying; canonicalRequestMode enforce compares segments too.'
    : `Write '${path}/' if only what is below is meant, or set canonicalRequestMode to enforce.`
  report('warning', 'path-prefix', at, message, hint)
}
