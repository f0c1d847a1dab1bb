/**
 * Takes secrets out of text before anybody else sees it: command lines of callers, log lines, telemetry.
 *
 * The name of what was hidden stays, the value becomes `[REDACTED]`; when in doubt, more is hidden.
 * Two rules keep this safe to apply to anything:
 * - Time is linear in the length of the text: every repetition is bounded, or is the last part of its pattern and so has
 *   nothing to give back, or cannot be entered at two places of one run of characters.
 * - JSON stays JSON, also inside JSON: what is hidden holds no quote that matters and begins and ends between characters,
 *   so an escape such as `\"` or `\u001b` is kept or hidden whole.
 */

const HIDDEN = '[REDACTED]'

interface Pattern {
  readonly find: RegExp
  readonly replace: string | ((match: string) => string)
  /** Found sooner than `find`, and in every text that `find` could match. */
  readonly hint?: RegExp
}

/** A quote, with the backslashes it has inside JSON inside JSON. */
const QUOTE = String.raw`\\{0,7}["']`

/** A backslash that belongs to no quote, as far as a bounded look ahead can tell. */
const BACKSLASH = String.raw`\\(?=\\{0,15}[^\\"'\r\n])`

/** What stands between a quote and the next like it. Before one of `,:}]` or white space, the quote closed a string instead. */
const QUOTED = String.raw`(?![,:}\]\s])(?:(?<=(?<!\\)")(?:\\[^\r\n]|[^"\\\r\n])+|(?<=\\"|')(?:${BACKSLASH}|[^"'\\\r\n])+)`

/** Values without quotes: to white space, to the end of the line, to the semicolon, to any punctuation of JSON or a URL. */
const WORD = String.raw`(?:${BACKSLASH}|[^\s"'\\])+`
const LINE = String.raw`(?:${BACKSLASH}|[^"'\\\r\n])+`
const TO_SEMICOLON = String.raw`(?:${BACKSLASH}|[^;"'\\\r\n])+`
const TOKEN = String.raw`(?:${BACKSLASH}|[^\s"';,&[\]{}\\])+`

/** Between a name and its value. Behind a quoted name, what JSON writes without quotes is left as it is. */
const JSON_LITERAL = String.raw`[{[]|(?:true|false|null|-?\d[\d.eE+-]{0,30})(?:[\s,}\]\\]|$)`
const ASSIGN = String.raw`(?:${QUOTE}[\t ]{0,8}[:=][\t ]{0,8}(?!${JSON_LITERAL})|[\t ]{0,8}[:=][\t ]{0,8})`

/** Names that give a secret away, alone or as part of a longer name. */
const NAMES = 'secret|token|passwd|password|api[-_]?key|app[-_]?key|access[-_]?key'
const OPTIONS = `${NAMES}|passphrase|pass|pwd|credentials?|account[-_]?key|sas`

/** Hides what stands behind `name`: all that a quote encloses, or else `bare`. */
function behind(name: string, bare: string, flags = 'gi'): Pattern {
  return { find: new RegExp(`(${name})(?:(${QUOTE})${QUOTED}|${bare})`, flags), replace: `$1$2${HIDDEN}` }
}

/** Key material by its look: base64 of 32 and 64 bytes; 64 hexadecimal digits (our own key and signatures), tokens, cache keys. */
const BASE64_KEY = /^(?:.{43}=|.{86}==)$/
const BARE_KEY =
  /^(?:[0-9A-Fa-f]{64}={0,2}|[a-z2-7]{52}={0,2}|[A-Za-z0-9]{33}AzCa[A-P][A-Za-z0-9]{5}=|[A-Za-z0-9]{44}AzCa[A-Za-z0-9]{5}[AQgw])$/
const SHORTEST_KEY = 44

function hideBareKeys(run: string): string {
  if (run.length < SHORTEST_KEY) return run
  if (BASE64_KEY.test(run)) return HIDDEN
  return run.replace(/[A-Za-z0-9]+={0,2}/g, (part) => (BARE_KEY.test(part) ? HIDDEN : part))
}

const PATTERNS: readonly Pattern[] = [
  // -----BEGIN RSA PRIVATE KEY----- … -----END RSA PRIVATE KEY-----, also PKCS#8, encrypted, PGP and cut-off blocks.
  {
    find: new RegExp(
      String.raw`BEGIN (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----(?:[A-Za-z0-9+/=\s:,.]|-(?!----)|${BACKSLASH})*(?:-----END [A-Z0-9 ]{0,60})?`,
      'g',
    ),
    replace: HIDDEN,
  },
  // Authorization: Bearer x / "authorization": "x" / -H Authorization:x, to the closing quote or the end of the line.
  behind(`authorization${ASSIGN}`, LINE),
  behind(String.raw`\bbearer[\t ]{1,8}`, '[A-Za-z0-9._~+/-]+=*'),
  // JSON web tokens, whole.
  { find: /eyJ[A-Za-z0-9_%-]{5,}(?:\.[A-Za-z0-9_%-]*){0,4}/g, replace: HIDDEN },
  // scheme://user:password@host
  { find: /(:(?:\\?\/){2})[^\s/@:"']{0,200}:[^\s/"']{1,200}@/g, replace: `$1${HIDDEN}@` },
  // Connection strings: the value may hold blanks, a semicolon ends it.
  behind(String.raw`\b(?:pwd|password|accountkey|primarykey|secondarykey|sharedaccesskey)=`, TO_SEMICOLON),
  // Shared access signatures.
  behind(String.raw`\bsig=`, String.raw`[^&\s"';\\]+`),
  // Options: --password x, --token=x, -p x is too common to touch; curl's -u user:password.
  behind(
    String.raw`(?<![A-Za-z0-9_-])--?(?:[a-z0-9]{1,20}[-_]){0,3}(?:${OPTIONS})(?:[-_][a-z0-9]{1,20}){0,2}(?:=|\s{1,8})`,
    WORD,
  ),
  behind(String.raw`(?<![A-Za-z0-9_-])(?:-u|--user)(?:=|\s{0,8})(?:["'])?[^\s:"'\\]{1,200}:`, WORD, 'g'),
  // name=value and "name": "value" where the name says that it is a secret.
  {
    ...behind(`(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{0,40}(?:${NAMES})[A-Za-z0-9_-]{0,20}${ASSIGN}`, TOKEN),
    hint: new RegExp(NAMES, 'i'),
  },
  // Keys without a name, by whole runs of their characters; escapes are stepped over.
  { find: /\\+(?:u[0-9A-Fa-f]{4}|.)|[A-Za-z0-9+/]+={0,2}/g, replace: hideBareKeys },
]

/** Something that may start a secret: most texts have none of these and pass untouched. */
const HINT = /[=:@]|authorization|bearer|token|secret|pass|pwd|key|cred|sas\b|eyJ|-u|PRIVATE|[A-Za-z0-9+/]{43}/i

/** Replaces what looks like a secret in `text` by `[REDACTED]`, keeping the name in front of it. */
export function redactSecrets(text: string): string {
  if (!HINT.test(text)) return text
  let result = text
  for (const { find, replace, hint } of PATTERNS) {
    if (hint?.test(result) === false) continue
    result = typeof replace === 'string' ? result.replace(find, replace) : result.replace(find, replace)
  }
  return result
}
