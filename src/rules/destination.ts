/**
 * The authority of an absolute-form target, classified: is it one of the three guarded services, however it is spelt?
 *
 * Where a request goes is decided by the connection, never by this text. It is classified so that a log line shows an odd
 * spelling of a guarded address, and so that patterns could one day name a destination. There is no name resolution.
 */

import type { EndpointName } from '../base/endpoints.ts'
import { findEndpoint } from '../base/endpoints.ts'
import type { CanonicalFailure } from './canonical-failure.ts'
import { canonicalFailure } from './canonical-failure.ts'

/** `host` is dotted IPv4, eight IPv6 groups in brackets, a lower-case name, or empty when the target named none; then `port` is 0. */
export interface Destination {
  readonly kind: EndpointName | 'unknown'
  readonly host: string
  readonly port: number
}

const NOWHERE: Destination = Object.freeze({ kind: 'unknown', host: '', port: 0 })

/**
 * Classifies an authority: user information first, then port, then host.
 * @param authority raw text between `//` and the path, or `undefined` for an origin-form target
 * @returns the failure CANON_USERINFO, CANON_PORT or CANON_HOST when the text names no destination
 */
export function classifyDestination(authority: string | undefined): Destination | CanonicalFailure {
  if (authority === undefined) return NOWHERE
  if (authority.includes('@')) return canonicalFailure('CANON_USERINFO')
  const { hostText, portText } = splitPort(authority)
  const port = portText === undefined ? 80 : parsePort(portText)
  if (port === undefined) return canonicalFailure('CANON_PORT')
  const host = canonicalHost(hostText)
  if (host === undefined) return canonicalFailure('CANON_HOST')
  return { kind: findEndpoint(host, port)?.name ?? 'unknown', host, port }
}

/**
 * Reads an IPv4 address in any form that inet_aton(3) takes: one to four parts, each decimal, octal or hexadecimal, the last
 * one filling the bytes that are left.
 * @returns the address as an unsigned 32-bit number, most significant byte first, or `undefined`
 */
export function parseNumericIpv4(text: string): number | undefined {
  const parts = text.split('.')
  if (parts.length > 4) return undefined
  let address = 0
  for (const [index, part] of parts.entries()) {
    const value = parseNumber(part)
    const bytesLeft = index === parts.length - 1 ? 4 - index : 1
    if (value === undefined || value >= 256 ** bytesLeft) return undefined
    address = address * 256 ** bytesLeft + value
  }
  return address
}

/**
 * Reads an IPv6 address without brackets or zone.
 * @returns its eight 16-bit groups in order, or `undefined`
 * Source: RFC 4291 section 2.2.
 */
export function parseIpv6(text: string): readonly number[] | undefined {
  const halves = text.split('::')
  if (halves.length > 2) return undefined
  const groups = halves.map((half, index) => parseGroups(half, index === halves.length - 1))
  const [head, tail] = groups
  if (head === undefined) return undefined
  if (halves.length === 1) return head.length === 8 ? head : undefined
  if (tail === undefined || head.length + tail.length > 7) return undefined
  return [...head, ...new Array<number>(8 - head.length - tail.length).fill(0), ...tail]
}

/** A colon introduces a port behind a bracket or when it is the only one; otherwise it belongs to a bare IPv6 address. */
function splitPort(authority: string): { hostText: string; portText: string | undefined } {
  const colon = authority.lastIndexOf(':')
  const isPort = authority.startsWith('[') ? authority[colon - 1] === ']' : authority.indexOf(':') === colon
  if (colon === -1 || !isPort) return { hostText: authority, portText: undefined }
  return { hostText: authority.slice(0, colon), portText: authority.slice(colon + 1) }
}

function parsePort(text: string): number | undefined {
  if (!/^\d+$/.test(text)) return undefined
  const port = Number(text)
  return port <= 65_535 ? port : undefined
}

function canonicalHost(text: string): string | undefined {
  if (text.startsWith('[')) return text.endsWith(']') ? canonicalIpv6(text.slice(1, -1)) : undefined
  if (text.includes(':')) return canonicalIpv6(text)
  const name = withoutTrailingDots(text)
  if (/^[0-9A-Fa-fxX.]*$/.test(name)) {
    const address = parseNumericIpv4(name)
    return address === undefined ? undefined : formatIpv4(address)
  }
  return /^[A-Za-z0-9.-]+$/.test(name) && /[A-Za-z0-9]/.test(name) ? name.toLowerCase() : undefined
}

/** By hand: a regular expression would look at a long row of dots once from each dot. */
function withoutTrailingDots(text: string): string {
  let end = text.length
  while (end > 0 && text[end - 1] === '.') end -= 1
  return text.slice(0, end)
}

/** An IPv4-mapped address is that IPv4 address: both reach the same service. */
function canonicalIpv6(text: string): string | undefined {
  const groups = parseIpv6(text)
  if (groups === undefined) return undefined
  const isMapped = groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff
  if (isMapped) return formatIpv4(groups[6]! * 65_536 + groups[7]!)
  return `[${groups.map((group) => group.toString(16)).join(':')}]`
}

function parseGroups(half: string, mayEndInIpv4: boolean): number[] | undefined {
  if (half === '') return []
  const texts = half.split(':')
  const groups: number[] = []
  for (const [index, text] of texts.entries()) {
    if (/^[0-9A-Fa-f]{1,4}$/.test(text)) groups.push(Number.parseInt(text, 16))
    else {
      const isLast = mayEndInIpv4 && index === texts.length - 1
      const address = isLast && DOTTED_IPV4.test(text) ? parseNumericIpv4(text) : undefined
      if (address === undefined) return undefined
      groups.push(Math.floor(address / 65_536), address % 65_536)
    }
  }
  return groups
}

const DOTTED_IPV4 = /^(?:0|[1-9]\d{0,2})(?:\.(?:0|[1-9]\d{0,2})){3}$/

/** Decimal, octal behind a `0`, or up to eight hexadecimal digits behind a `0x`. */
function parseNumber(text: string): number | undefined {
  if (/^0[xX][0-9A-Fa-f]{1,8}$/.test(text)) return Number.parseInt(text.slice(2), 16)
  if (/^0[0-7]*$/.test(text)) return Number.parseInt(text, 8)
  return /^[1-9]\d*$/.test(text) ? Number(text) : undefined
}

function formatIpv4(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 0xff).join('.')
}
