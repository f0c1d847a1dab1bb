/**
 * Takes secrets out of text before anybody else sees it: command lines of callers, log lines, telemetry.
 *
 * Every repetition below is either bounded or cannot be entered at two places of one run of characters, so the time is
 * linear in the length of the text. The name of what was hidden stays, the value becomes `[REDACTED]`; when in doubt,
 * more is hidden. Values end at a quote, so that JSON stays JSON.
 */

const HIDDEN = '[REDACTED]'

interface Pattern {
  readonly find: RegExp
  readonly replace: string
}

const PATTERNS: readonly Pattern[] = [
  // -----BEGIN RSA PRIVATE KEY----- … -----END RSA PRIVATE KEY-----, also PKCS#8 and cut-off blocks.
  {
    find: /BEGIN (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY-----[A-Za-z0-9+/=\s\\]*(?:-----END [A-Z ]{0,60})?/g,
    replace: HIDDEN,
  },
  // Authorization: Bearer x / "authorization": "x" / -H Authorization:x, to the closing quote or the end of the line.
  { find: /(authorization["']?[\t ]{0,8}[:=][\t ]{0,8}["']?)[^"'\r\n]+/gi, replace: `$1${HIDDEN}` },
  { find: /\b(bearer[\t ]{1,8})[A-Za-z0-9._~+/-]+=*/gi, replace: `$1${HIDDEN}` },
  // JSON web tokens, whole.
  { find: /\beyJ[A-Za-z0-9_%-]+(?:\.[A-Za-z0-9_%-]*){1,4}/g, replace: HIDDEN },
  // scheme://user:password@host
  { find: /(:\/\/)[^\s/@:"']{0,200}:[^\s/@"']{1,200}@/g, replace: `$1${HIDDEN}@` },
  // Connection strings: the value may hold blanks, a semicolon ends it.
  {
    find: /\b((?:pwd|password|accountkey|primarykey|secondarykey|sharedaccesskey)=)[^;"'\r\n]+/gi,
    replace: `$1${HIDDEN}`,
  },
  // Shared access signatures.
  { find: /\b(sig=)[^&\s"';]+/gi, replace: `$1${HIDDEN}` },
  // Options: --password x, --token=x, -p x is too common to touch; curl's -u user:password.
  {
    find: /((?:^|\s)--?(?:[a-z0-9]{1,20}[-_]){0,3}(?:password|passwd|passphrase|pass|pwd|secret|token|credentials?|api[-_]?key|access[-_]?key|account[-_]?key|sas)(?:[-_][a-z0-9]{1,20}){0,2}(?:=|\s{1,8}))[^\s"']+/gi,
    replace: `$1${HIDDEN}`,
  },
  { find: /((?:^|\s)(?:-u|--user)(?:=|\s{0,8})[^\s:"']{1,200}:)[^\s"']+/g, replace: `$1${HIDDEN}` },
  // name=value and "name": "value" where the name says that it is a secret.
  {
    find: /((?<![A-Za-z0-9_-])[A-Za-z0-9_-]{0,40}(?:secret|token|passwd|password|api[-_]?key|app[-_]?key|access[-_]?key)[A-Za-z0-9_-]{0,20}["']?[\t ]{0,8}[:=][\t ]{0,8}["']?)[^\s"';,&[\]{}]+/gi,
    replace: `$1${HIDDEN}`,
  },
  // Bare key material: 64 hexadecimal digits (our own key and signatures), base64 of 32 and 64 bytes, cache keys, PATs.
  { find: /(?<![0-9A-Fa-f])[0-9A-Fa-f]{64}(?![0-9A-Fa-f])/g, replace: HIDDEN },
  { find: /(?<![A-Za-z0-9+/])(?:[A-Za-z0-9+/]{43}=|[A-Za-z0-9+/]{86}==)(?!=)/g, replace: HIDDEN },
  {
    find: /(?<![A-Za-z0-9])(?:[A-Za-z0-9]{33}AzCa[A-P][A-Za-z0-9]{5}=|[A-Za-z0-9]{44}AzCa[A-Za-z0-9]{5}[AQgw])/g,
    replace: HIDDEN,
  },
  { find: /(?<![A-Za-z0-9])[a-z2-7]{52}(?![A-Za-z0-9])/g, replace: HIDDEN },
]

/** Something that may start a secret: most texts have none of these and pass untouched. */
const HINT =
  /[=:@]|authorization|bearer|token|secret|pass|pwd|key|cred|sas\b|eyJ|AzCa|-u|PRIVATE|[0-9A-Fa-f]{64}|[A-Za-z0-9+/]{43}=|[a-z2-7]{52}/i

/** Replaces what looks like a secret in `text` by `[REDACTED]`, keeping the name in front of it. */
export function redactSecrets(text: string): string {
  if (!HINT.test(text)) return text
  let result = text
  for (const { find, replace } of PATTERNS) result = result.replace(find, replace)
  return result
}
