/**
 * Takes the request target of an HTTP/1 request apart without changing a byte of it.
 * The agent judges and signs what was sent; URL classes decode and normalise, so none is used.
 * Source: RFC 9112 section 3.2.
 */

/** The parts of a target. `path` and `query` are exactly as received; `query` has no leading `?`. */
export interface RequestTarget {
  /** Scheme as written, only of an absolute-form target. */
  readonly scheme: string | undefined
  /** Authority as written, only of an absolute-form target. */
  readonly authority: string | undefined
  /** `/a%2Fb`, `*`, or `/` for an absolute form without a path. */
  readonly path: string
  /** Text after the first `?`; empty when there is none. */
  readonly query: string
  /** What goes to the host: the target without its fragment. */
  readonly withoutFragment: string
}

const ABSOLUTE = /^([A-Za-z][A-Za-z0-9+.-]*):\/\/([^/?]*)/

/** Splits `target`. Total: every string gives a result. */
export function parseRequestTarget(target: string): RequestTarget {
  const hash = target.indexOf('#')
  const whole = hash === -1 ? target : target.slice(0, hash)
  const absolute = whole.charCodeAt(0) === 0x2f ? null : ABSOLUTE.exec(whole)
  const rest = absolute === null ? whole : whole.slice(absolute[0].length)
  const mark = rest.indexOf('?')
  const path = mark === -1 ? rest : rest.slice(0, mark)
  return {
    scheme: absolute?.[1],
    authority: absolute?.[2],
    path: path === '' && absolute !== null ? '/' : path,
    query: mark === -1 ? '' : rest.slice(mark + 1),
    withoutFragment: whole,
  }
}
