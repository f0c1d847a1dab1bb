/**
 * A second evaluator, slow and simple on purpose: no compiling, no sharing, nothing taken from src/rules but its types.
 *
 * It follows the words of the specification in their order, and uses other means where there are any (byte strings and
 * TextDecoder instead of buffers, lists instead of maps), so that one mistake is unlikely to be made in both.
 */

import type { EndpointName } from '../../src/base/endpoints.ts'
import type { RequestLine } from '../../src/base/request-target.ts'
import type { CanonicalMode, Outcome } from '../../src/rules/decide.ts'
import type { AuthorizationItem, Identity, Privilege } from '../../src/rules/document.ts'
import type { RuleCaller } from '../../src/rules/selectors.ts'

export interface Opinion {
  readonly outcome: Outcome
  readonly legacy: boolean | undefined
  readonly canonical: boolean | string | undefined
}

/** Decides like `decide()`, from the item itself. */
export function secondOpinion(
  item: AuthorizationItem | undefined,
  endpoint: EndpointName,
  caller: RuleCaller,
  request: RequestLine,
  canonicalMode: CanonicalMode,
): Opinion {
  const upload = `${request.method} ${request.target.toLowerCase()}`
  const isUpload = ['PUT /vmagentlog', 'POST /machine/?comp=telemetrydata'].includes(upload)
  if (endpoint !== 'imds' && caller.elevated && isUpload)
    return { outcome: 'ok', legacy: undefined, canonical: undefined }
  const legacy = item && legacyVerdict(item, caller, request)
  const canonical = item && canonicalMode !== 'off' ? canonicalVerdict(item, caller, request) : undefined
  if (endpoint !== 'imds' && !caller.elevated) return { outcome: 'forbidden', legacy, canonical }
  if (item === undefined) return { outcome: 'ok', legacy, canonical }
  const denied =
    legacy === false ||
    (canonicalMode === 'enforce' && (canonical !== true || !isAllowedRespelt(item, caller, request)))
  const softened = item.mode.toLowerCase() === 'audit' ? 'audit' : 'forbidden'
  return { outcome: denied ? softened : 'ok', legacy, canonical }
}

function legacyVerdict(item: AuthorizationItem, caller: RuleCaller, request: RequestLine): boolean {
  return verdictOf(item, caller, (privilege) => legacyMatches(privilege, request))
}

function canonicalVerdict(item: AuthorizationItem, caller: RuleCaller, request: RequestLine): boolean | string {
  if (item.mode.toLowerCase() === 'disabled') return true
  try {
    const canonical = canonicalRequest(request)
    return verdictOf(item, caller, (privilege) => canonicalMatches(privilege, canonical))
  } catch (code) {
    return `${code}`
  }
}

/** Of a request that both matchers allow. */
function isAllowedRespelt(item: AuthorizationItem, caller: RuleCaller, request: RequestLine): boolean {
  if (item.mode.toLowerCase() === 'disabled') return true
  const canonical = canonicalRequest(request)
  const isNamed = item.rules?.privileges?.some((each) => isDefined(each, item) && canonicalMatches(each, canonical))
  return isNamed || verdictOf(item, caller, (privilege) => respeltMatches(privilege, canonical))
}

function verdictOf(item: AuthorizationItem, caller: RuleCaller, matches: (privilege: Privilege) => boolean): boolean {
  if (item.mode.toLowerCase() === 'disabled') return true
  const matching = (item.rules?.privileges ?? []).filter((each) => isDefined(each, item) && matches(each))
  if (matching.some(({ name }) => holdersOf(name, item).some((identity) => describes(identity, caller)))) return true
  if (matching.length > 0) return false
  return item.defaultAccess.toLowerCase() === 'allow'
}

function isDefined(privilege: Privilege, item: AuthorizationItem): boolean {
  return item.rules?.privileges?.findLast(({ name }) => name === privilege.name) === privilege
}

function holdersOf(privilege: string, item: AuthorizationItem): Identity[] {
  return (item.rules?.roleAssignments ?? []).flatMap((assignment) => {
    const role = item.rules?.roles?.findLast(({ name }) => name === assignment.role)
    if (!role?.privileges.includes(privilege)) return []
    return assignment.identities.flatMap(
      (name) => item.rules?.identities?.findLast((entry) => entry.name === name) ?? [],
    )
  })
}

function describes(identity: Identity, caller: RuleCaller): boolean {
  const { userName, groupName, exePath, processName } = identity
  if ([userName, groupName, exePath, processName].includes('')) return false
  if (userName !== undefined && userName !== caller.userName) return false
  if (groupName !== undefined && !caller.groups.some((group) => group === groupName)) return false
  if (processName !== undefined && processName !== caller.processName) return false
  if (exePath === undefined) return true
  return caller.exePath !== undefined && componentsOf(exePath).join('\0') === componentsOf(caller.exePath).join('\0')
}

function componentsOf(path: string): string[] {
  const root = path[0] === '/' ? ['/'] : []
  const parts = path.split('/')
  return [...root, ...(parts[0] === '.' ? ['.'] : []), ...parts.filter((part) => part !== '' && part !== '.')]
}

/** Path and query, raw. Only origin and absolute forms come here. */
function splitUri(target: string): [path: string, query: string] {
  const withoutFragment = target.split('#')[0] ?? ''
  const local = withoutFragment.replace(/^[a-z]+:\/\/[^/?]*/i, '') || '/'
  const [path = '', ...rest] = local.split('?')
  return [path === '' ? '/' : path, rest.join('?')]
}

function legacyMatches(privilege: Privilege, request: RequestLine): boolean {
  const [rawPath, rawQuery] = splitUri(request.target)
  const [path = '', ...embedded] = lossy(rawPath).toLowerCase().split('?')
  if (path.slice(0, privilege.path.toLowerCase().length) !== privilege.path.toLowerCase()) return false
  const pairs = `${rawQuery}&${embedded.join('?')}`
    .split('&')
    .map((pair) => /^([^=]*)=?([\s\S]*)$/.exec(pair)!.slice(1) as [string, string])
    .filter(([name]) => name !== '')
    .map((pair) => pair.map((part) => lossy(part).toLowerCase()))
  return lastOfEachName(privilege).every(([name, value]) => pairs.find((pair) => pair[0] === name)?.[1] === value)
}

function lastOfEachName(privilege: Privilege): [name: string, value: string][] {
  const lowered = Object.entries(privilege.queryParameters ?? {}).map(
    ([name, value]) => [name.toLowerCase(), value.toLowerCase()] as [string, string],
  )
  return lowered.filter(([name], index) => !lowered.slice(index + 1).some(([later]) => later === name))
}

interface Canonical {
  readonly segments: string[]
  readonly pairs: [name: string, value: string][]
}

/** Throws a code. */
function canonicalRequest({ method, target }: RequestLine): Canonical {
  if (/^[a-z]+:\/\//i.test(target) && !/^http:/i.test(target)) throw 'CANON_SCHEME'
  if (!/^(GET|POST|PUT|DELETE|HEAD|OPTIONS|PATCH)$/.test(method)) throw 'CANON_METHOD'
  const [path, query] = splitUri(target)
  return { segments: canonicalSegments(path), pairs: canonicalPairs(query) }
}

function canonicalSegments(path: string): string[] {
  const text = strict(path)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  if (/[\x00-\x1f\x7f]/.test(text)) throw 'CANON_CTRL'
  if (/[^ -~]/.test(text)) throw 'CANON_NON_ASCII'
  if (text.includes('?')) throw 'CANON_EMBQ'
  const result: string[] = []
  for (const segment of text
    .toLowerCase()
    .replace(/;[^/]*/g, '')
    .split('/')) {
    if (segment === '..' && result.length === 0) throw 'CANON_UNDERFLOW'
    if (segment === '..') result.length -= 1
    else if (segment !== '.' && segment !== '') result.push(segment)
  }
  return result
}

function canonicalPairs(query: string): [name: string, value: string][] {
  return query
    .split('&')
    .filter((pair) => pair !== '')
    .map((pair) => /^([^=]*)=?([\s\S]*)$/.exec(pair)!.slice(1).map(canonicalText) as [string, string])
    .filter(([name]) => name !== '')
}

function canonicalText(raw: string): string {
  const text = strict(raw.split('+').join(' '))
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  if (/[\x00-\x1f\x7f]/.test(text)) throw 'CANON_CTRL'
  return [...text].map((letter) => (letter >= 'A' && letter <= 'Z' ? letter.toLowerCase() : letter)).join('')
}

function canonicalMatches(privilege: Privilege, request: Canonical): boolean {
  let segments: string[]
  let wanted: [string, string][]
  try {
    segments = canonicalSegments(privilege.path.toLowerCase())
    wanted = lastOfEachName(privilege).map((pair) => pair.map(canonicalText) as [string, string])
  } catch {
    return false
  }
  if (segments.some((segment, index) => request.segments[index] !== segment)) return false
  wanted = wanted.filter(([name]) => name !== '')
  return wanted.every(([name]) => {
    const allowed = wanted.filter((pair) => pair[0] === name).map((pair) => pair[1])
    return request.pairs.some((pair) => pair[0] === name && allowed.includes(pair[1]))
  })
}

/** The legacy reading of the canonical spelling, with any value of a parameter. */
function respeltMatches(privilege: Privilege, request: Canonical): boolean {
  const path = [...request.segments.map((segment) => `/${segment}`), '/'].join('')
  if (path.slice(0, privilege.path.length) !== privilege.path.toLowerCase()) return false
  return lastOfEachName(privilege).every(([name, value]) =>
    request.pairs.some((pair) => pair[0].toLowerCase() === name && pair[1].toLowerCase() === value),
  )
}

function toByteString(text: string): string {
  return String.fromCharCode(...new TextEncoder().encode(text))
}

function decodeOnce(text: string): Uint8Array {
  const decoded = toByteString(text).replace(/%([0-9a-f]{2})/gi, (_, hex) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  )
  return Uint8Array.from(decoded, (byte) => byte.charCodeAt(0))
}

function lossy(text: string): string {
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(decodeOnce(text))
}

function strict(text: string): string {
  if (/%(?![0-9a-f]{2})/i.test(text)) throw 'CANON_PCT'
  try {
    return new TextDecoder('utf-8', { ignoreBOM: true, fatal: true }).decode(decodeOnce(text))
  } catch {
    throw 'CANON_UTF8'
  }
}
