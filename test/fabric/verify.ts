/**
 * Judges a request the way the host does: is it signed, with which key, at what time, on whose behalf; and, given the
 * mode of the endpoint, is it served.
 *
 * What was found (`Findings`) is kept apart from what follows from it (`judge`), so that a record shows a wrong
 * signature also where nothing is enforced.
 */

import { timingSafeEqual } from 'node:crypto'
import type { KeyStanding, Mode } from './channel.ts'
import { countHeader, lastHeader } from './http-reader.ts'
import {
  AUTHORIZATION_HEADER,
  hasQueryCollision,
  RunningSignature,
  type SignedHead,
  splitTarget,
} from './string-to-sign.ts'

/**
 * What the authorization header proved. Only `right` means the latched key (or, on an attestation, the key being
 * attested); `not-latched` is a correct signature with a key that is offered or retired; `unchecked` means that the
 * request did not arrive whole.
 */
export type SignatureVerdict =
  | 'absent'
  | 'repeated'
  | 'malformed'
  | 'unknown-scheme'
  | 'unknown-guid'
  | 'wrong'
  | 'not-latched'
  | 'unchecked'
  | 'right'

/** How the request's date stands to the host's clock. */
export type DateVerdict = 'absent' | 'malformed' | 'stale' | 'fresh'

/** Stricter demands than a host is known to make; each is off unless asked for. */
export interface StrictOptions {
  /** Refuse a repeated header, of which a signature covers the last value only. */
  repeatedHeaders: boolean
  /** Refuse a query in which one parameter is not covered by the signature. */
  queryCollisions: boolean
  /** The claims must be one of the two known texts, byte for byte. */
  exactClaims: boolean
  /** Secure-channel requests must carry Metadata, date and claims, and the exact body for a key. */
  channelRequests: boolean
  /** WireServer requests must carry `x-ms-version`. */
  msVersion: boolean
  /** Telemetry must follow the parameter lists, not only be well-formed. */
  telemetry: boolean
}

export const NOT_STRICT: StrictOptions = {
  repeatedHeaders: false,
  queryCollisions: false,
  exactClaims: false,
  channelRequests: false,
  msVersion: false,
  telemetry: false,
}

export const ALL_STRICT: StrictOptions = {
  repeatedHeaders: true,
  queryCollisions: true,
  exactClaims: true,
  channelRequests: true,
  msVersion: true,
  telemetry: true,
}

/** What is known about one request once its body has been read. */
export interface Findings {
  readonly signature: SignatureVerdict
  /** The guid that the authorization header names. */
  readonly guid: string | undefined
  readonly date: DateVerdict
  /** The claims header as received, without white space around it. */
  readonly claims: string | undefined
  /** `undefined` when the claims do not say. */
  readonly isRoot: boolean | undefined
  readonly claimNames: readonly string[]
  readonly hasRepeatedHeader: boolean
  readonly hasQueryCollision: boolean
}

export type Objection =
  | `signature-${Exclude<SignatureVerdict, 'right'>}`
  | `date-${Exclude<DateVerdict, 'fresh'>}`
  | 'claims-missing'
  | 'claims-not-exact'
  | 'headers-repeated'
  | 'query-collision'

/** `exempt`: no signature is asked of this request. `audited`: served, although enforcing would have refused it. */
export type Decision = 'served' | 'exempt' | 'audited' | 'refused'

/** What `judge` needs to know about the host at that moment. */
export interface JudgeContext {
  readonly mode: Mode
  /** The request is one of those that never need a signature. */
  readonly isExempt: boolean
  /** Whether there is a key to demand: latched, or demanded all the same. */
  readonly canDemand: boolean
  readonly requiredClaims: readonly string[]
  readonly strict: StrictOptions
}

const SCHEME = 'Azure-HMAC-SHA256'
const KNOWN_CLAIMS: readonly string[] = ['{ "isRoot": "true"}', '{ "isRoot": "false"}']

/**
 * Checks one request's signature while its body arrives.
 * The key is looked up when the head is complete: a rotation during an upload does not change the verdict.
 */
export class SignatureCheck {
  readonly guid: string | undefined
  readonly #early: SignatureVerdict | undefined
  readonly #running: RunningSignature | undefined
  readonly #claimed: Buffer | undefined
  readonly #isCurrent: boolean = false

  /**
   * @param findKey finds a key by guid.
   * @param attestedGuid on an attestation, the guid in its path: the signature must then be made with that very key.
   */
  constructor(
    head: SignedHead,
    findKey: (guid: string) => { key: { keyHex: string }; standing: KeyStanding } | undefined,
    attestedGuid?: string,
  ) {
    const text = lastHeader(head.rawHeaders, AUTHORIZATION_HEADER)
    if (text === undefined) {
      this.#early = 'absent'
      return
    }
    const [scheme, guid, signature, ...rest] = text.split(' ')
    this.guid = guid
    if (countHeader(head.rawHeaders, AUTHORIZATION_HEADER) > 1) this.#early = 'repeated'
    else if (scheme !== SCHEME) this.#early = 'unknown-scheme'
    else if (guid === undefined || signature === undefined || rest.length > 0 || !/^[0-9a-f]{64}$/.test(signature)) {
      this.#early = 'malformed'
    } else {
      const found = findKey(guid)
      if (found === undefined || (attestedGuid !== undefined && attestedGuid !== guid)) {
        this.#early = 'unknown-guid'
        return
      }
      this.#isCurrent = found.standing === 'latched' || (attestedGuid !== undefined && found.standing === 'offered')
      this.#claimed = Buffer.from(signature, 'hex')
      this.#running = new RunningSignature(head, found.key.keyHex)
    }
  }

  update(bytes: Uint8Array): void {
    this.#running?.update(bytes)
  }

  verdict(): SignatureVerdict {
    if (this.#running === undefined) return this.#early ?? 'absent'
    if (!timingSafeEqual(this.#running.digest(), this.#claimed!)) return 'wrong'
    return this.#isCurrent ? 'right' : 'not-latched'
  }
}

/** Gathers what a request says about itself. @param nowMs the host's clock; the date may differ by `toleranceMs`. */
export function findOut(
  head: SignedHead,
  signature: SignatureVerdict,
  guid: string | undefined,
  nowMs: number,
  toleranceMs: number,
): Findings {
  const claims = lastHeader(head.rawHeaders, 'x-ms-azure-host-claims')
  const parsed = parseClaims(claims)
  return {
    signature,
    guid,
    date: judgeDate(lastHeader(head.rawHeaders, 'x-ms-azure-host-date'), nowMs, toleranceMs),
    claims,
    isRoot: parsed.isRoot === 'true' ? true : parsed.isRoot === 'false' ? false : undefined,
    claimNames: Object.keys(parsed),
    hasRepeatedHeader: hasRepeatedHeader(head.rawHeaders),
    hasQueryCollision: hasQueryCollision(splitTarget(head.target).query),
  }
}

/**
 * Decides whether a request is served. The order of the checks is the order in which a refusal is explained:
 * signature, date, claims, then the strict demands.
 *
 *   mode      objection   decision
 *   disabled  any         served
 *   audit     none        served
 *   audit     one         audited
 *   enforce   none        served
 *   enforce   one         refused, unless there is no key to demand: audited
 */
export function judge(findings: Findings, context: JudgeContext): { decision: Decision; objection?: Objection } {
  if (context.isExempt) return { decision: 'exempt' }
  if (context.mode === 'disabled') return { decision: 'served' }
  const objection = findObjection(findings, context)
  if (objection === undefined) return { decision: 'served' }
  const isRefused = context.mode === 'enforce' && context.canDemand
  return { decision: isRefused ? 'refused' : 'audited', objection }
}

function findObjection(findings: Findings, { requiredClaims, strict }: JudgeContext): Objection | undefined {
  if (findings.signature !== 'right') return `signature-${findings.signature}`
  if (findings.date !== 'fresh') return `date-${findings.date}`
  if (!requiredClaims.every((name) => findings.claimNames.includes(name))) return 'claims-missing'
  if (strict.exactClaims && !KNOWN_CLAIMS.includes(findings.claims ?? '')) return 'claims-not-exact'
  if (strict.repeatedHeaders && findings.hasRepeatedHeader) return 'headers-repeated'
  if (strict.queryCollisions && findings.hasQueryCollision) return 'query-collision'
  return undefined
}

const HTTP_DATE =
  /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{2} (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d{2}:\d{2}:\d{2} GMT$/

function judgeDate(text: string | undefined, nowMs: number, toleranceMs: number): DateVerdict {
  if (text === undefined) return 'absent'
  const atMs = HTTP_DATE.test(text) ? Date.parse(text) : Number.NaN
  if (Number.isNaN(atMs)) return 'malformed'
  return Math.abs(nowMs - atMs) <= toleranceMs ? 'fresh' : 'stale'
}

function parseClaims(text: string | undefined): Record<string, unknown> {
  if (text === undefined) return {}
  try {
    const parsed: unknown = JSON.parse(text)
    return typeof parsed === 'object' && parsed !== null ? (parsed as Record<string, unknown>) : {}
  } catch {
    return {}
  }
}

function hasRepeatedHeader(rawHeaders: readonly string[]): boolean {
  const seen = new Set<string>()
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]!.toLowerCase()
    if (seen.has(name)) return true
    seen.add(name)
  }
  return false
}
