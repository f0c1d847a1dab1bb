/** The ways in which a request cannot be brought into canonical form. The codes appear in logs and never change. */

export type CanonicalCode =
  /** a scheme other than http */
  | 'CANON_SCHEME'
  /** a method outside the seven that are forwarded */
  | 'CANON_METHOD'
  /** an `@` in the authority */
  | 'CANON_USERINFO'
  /** a port that is empty, not decimal, or above 65535 */
  | 'CANON_PORT'
  /** a host that is neither an address nor a name */
  | 'CANON_HOST'
  /** a `%` without two hexadecimal digits */
  | 'CANON_PCT'
  /** bytes that are not UTF-8, overlong forms included */
  | 'CANON_UTF8'
  /** reserved: strict UTF-8 always fails first */
  | 'CANON_OVERLONG'
  /** a control character, before or after decoding */
  | 'CANON_CTRL'
  /** a path outside ASCII, or a target that is not ASCII as received */
  | 'CANON_NON_ASCII'
  /** a `?` inside the decoded path */
  | 'CANON_EMBQ'
  /** a `..` that climbs above the root */
  | 'CANON_UNDERFLOW'

export interface CanonicalFailure {
  readonly code: CanonicalCode
}

/** A failure is a value, not an exception: any caller can provoke one, as often as it likes. */
export function canonicalFailure(code: CanonicalCode): CanonicalFailure {
  return { code }
}

/** Tells a failure from a result, whatever the result is; results never have a `code`. */
export function isCanonicalFailure(value: unknown): value is CanonicalFailure {
  return typeof value === 'object' && value !== null && 'code' in value
}
