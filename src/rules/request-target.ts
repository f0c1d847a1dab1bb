/**
 * A request target taken apart, without judging or decoding anything in it.
 *
 * Every text gives a result. Targets that HTTP does not know (`foo/bar`) are read like an absolute form without its scheme, so
 * that whatever they name still meets the rules.
 * Source: RFC 9112 section 3.2.
 */

/** What the decision reads of a request: method and target exactly as they stood in the request line. */
export interface RequestLine {
  readonly method: string
  readonly target: string
}

/** Raw parts; `undefined` is a part that is absent, which is not the same as empty. A fragment is dropped. */
export interface RequestTarget {
  readonly scheme: string | undefined
  readonly authority: string | undefined
  readonly path: string
  readonly query: string | undefined
}

/** Splits a target in any of the forms: origin `/p?q`, absolute `http://host/p?q`, asterisk `*`, authority `host:port`. */
export function splitTarget(target: string): RequestTarget {
  const text = beforeFirst(target, '#')
  if (text.startsWith('/') || text === '*') return { scheme: undefined, authority: undefined, ...splitQuery(text) }

  const scheme = /^[A-Za-z][A-Za-z0-9+.-]*(?=:\/\/)/.exec(text)?.[0]
  const rest = scheme === undefined ? text : text.slice(scheme.length + '://'.length)
  const authorityEnd = rest.search(/[/?]/)
  const authority = authorityEnd === -1 ? rest : rest.slice(0, authorityEnd)
  const { path, query } = splitQuery(rest.slice(authority.length))
  return { scheme, authority, path: scheme !== undefined && path === '' ? '/' : path, query }
}

function splitQuery(text: string): { path: string; query: string | undefined } {
  const mark = text.indexOf('?')
  if (mark === -1) return { path: text, query: undefined }
  return { path: text.slice(0, mark), query: text.slice(mark + 1) }
}

function beforeFirst(text: string, character: string): string {
  const at = text.indexOf(character)
  return at === -1 ? text : text.slice(0, at)
}
