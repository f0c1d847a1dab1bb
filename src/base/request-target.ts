/**
 * Takes the request target of an HTTP/1 request apart, without judging, decoding or changing a byte of it.
 *
 * The agent judges and signs what was sent; URL classes decode and normalise, so none is used. Every text gives a
 * result. Targets that HTTP does not know (`foo/bar`) are read like an absolute form without its scheme, so that whatever
 * they name still meets the rules.
 * Source: RFC 9112 section 3.2.
 */

/** What a decision reads of a request: method and target exactly as they stood in the request line. */
export interface RequestLine {
  readonly method: string
  readonly target: string
}

/** The raw parts of a target; `undefined` is a part that is absent, which is not the same as empty. */
export interface RequestTarget {
  /** Scheme as written, of an absolute form. */
  readonly scheme: string | undefined
  readonly authority: string | undefined
  /** `/a%2Fb`, `*`, or `/` for an absolute form without a path. */
  readonly path: string
  /** Text after the first `?`; empty when there is none. */
  readonly query: string
  /** What goes to the host: the target without its fragment. */
  readonly withoutFragment: string
}

/** Splits a target in any of the forms: origin `/p?q`, absolute `http://host/p?q`, asterisk `*`, authority `host:port`. */
export function parseRequestTarget(target: string): RequestTarget {
  const hash = target.indexOf('#')
  const text = hash === -1 ? target : target.slice(0, hash)
  if (text.startsWith('/') || text === '*') {
    return { scheme: undefined, authority: undefined, ...splitQuery(text), withoutFragment: text }
  }
  const scheme = /^[A-Za-z][A-Za-z0-9+.-]*(?=:\/\/)/.exec(text)?.[0]
  const rest = scheme === undefined ? text : text.slice(scheme.length + '://'.length)
  const authorityEnd = rest.search(/[/?]/)
  const authority = authorityEnd === -1 ? rest : rest.slice(0, authorityEnd)
  const { path, query } = splitQuery(rest.slice(authority.length))
  return { scheme, authority, path: scheme !== undefined && path === '' ? '/' : path, query, withoutFragment: text }
}

function splitQuery(text: string): { path: string; query: string } {
  const mark = text.indexOf('?')
  if (mark === -1) return { path: text, query: '' }
  return { path: text.slice(0, mark), query: text.slice(mark + 1) }
}
