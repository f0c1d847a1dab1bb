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
  readonly replace: string
  /** Source of an expression that is found sooner than `find`, and in every text that `find` could match. */
  readonly hint: string
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
const KEYS =
  '(?:app(?:lication)?|api|access|account|client|subscription|storage|shared|master|signing|encryption|private|primary|secondary|functions?)[-_ ]?key(?:url)?'
const NAMES = `secret|token|passwd|password|passphrase|pswd|pwd|[-_]pass(?![A-Za-z])|credentials?|${KEYS}|twilioaccountsid|identity[-_]header`
const OPTIONS = `${NAMES}|pass|sas`

/** Names of environment variables; in small letters they are words like any other. */
const VARIABLES = 'KEY|PASS|PWD|SAS|CREDENTIALS?'

/** Schemes of an Authorization header, where no colon says that it is one. */
const SCHEMES =
  'basic|digest|hoba|mutual|negotiate|oauth|scram-sha-1|scram-sha-256|vapid|aws4-hmac-sha256|azure-hmac-sha256|sharedkey|sharedkeylite|token'

/** Source that matches `words` in letters of any case: sooner found than with a flag that asks for that. */
function anyCase(...words: readonly string[]): string {
  return words.map((word) => word.replace(/[a-z]/g, (letter) => `[${letter}${letter.toUpperCase()}]`)).join('|')
}

/** In every text with one of `OPTIONS`. */
const NAME_HINT = anyCase('secret', 'token', 'pass', 'pswd', 'pwd', 'credential', 'key', 'sas', 'twilio', 'identity')

/** Hides what stands behind `name`: all that a quote encloses, or else `bare`. */
function behind(hint: string, name: string, bare: string, flags = 'gi'): Pattern {
  return { find: new RegExp(`(${name})(?:(${QUOTE})${QUOTED}|${bare})`, flags), replace: `$1$2${HIDDEN}`, hint }
}

/** Key material by its look: base64 of 32 and 64 bytes; 64 hexadecimal digits (our own key and signatures), tokens, cache keys. */
const BASE64_KEY = /^(?:.{43}=|.{86}==)$/
const BARE_KEY =
  /^(?:[0-9A-Fa-f]{64}={0,2}|[A-Za-z2-7]{52}={0,2}|[A-Za-z0-9]{76}AZDO[A-Za-z0-9]{4}|[A-Za-z0-9]{33}AzCa[A-P][A-Za-z0-9]{5}=|[A-Za-z0-9]{44}AzCa[A-Za-z0-9]{5}[AQgw])$/
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
    hint: 'PRIVATE KEY',
  },
  // Authorization: Bearer x / "authorization": "x" / -H Authorization:x, to the closing quote or the end of the line.
  behind(anyCase('authorization'), `authorization(?:[-_][a-z0-9_-]{1,30})?${ASSIGN}`, LINE),
  // {"name":"Authorization","value":"Basic x"}
  behind(anyCase('authorization'), String.raw`authorization${QUOTE}[\t ]{0,8},[\t ]{0,8}${QUOTE}value${ASSIGN}`, LINE),
  // authorization Basic x
  behind(
    anyCase('authorization'),
    String.raw`authorization[\t ]{1,8}(?:value[\t :=]{1,8})?(?:${SCHEMES})[\t ]{1,8}`,
    LINE,
  ),
  behind(anyCase('bearer'), String.raw`\bbearer[\t ]{1,8}`, '[A-Za-z0-9._~+/-]+=*'),
  // JSON web tokens, whole.
  { find: /eyJ[A-Za-z0-9_%-]{5,}(?:\.[A-Za-z0-9_%-]*){0,4}/g, replace: HIDDEN, hint: 'eyJ' },
  // scheme://user:password@host
  { find: /(:(?:\\?\/){2})[^\s/@:"']{0,200}:[^\s/"']{1,200}@/g, replace: `$1${HIDDEN}@`, hint: '@' },
  // Connection strings: the value may hold blanks, a semicolon ends it.
  behind(
    anyCase('pwd=', 'password=', 'key='),
    String.raw`\b(?:pwd|password|accountkey|primarykey|secondarykey|sharedaccesskey)=`,
    TO_SEMICOLON,
  ),
  // Shared access signatures.
  behind(anyCase('sig='), String.raw`\bsig=`, String.raw`[^&\s"';\\]+`),
  // Options: --password x, --token=x; curl's -u user:password; -p x unless it is the number of a port.
  behind(
    NAME_HINT,
    String.raw`(?<![A-Za-z0-9_-])--?(?:[a-z0-9]{1,20}[-_]){0,3}(?:${OPTIONS})(?:[-_][a-z0-9]{1,20}){0,2}(?:=|\s{1,8})`,
    WORD,
  ),
  behind(
    '(?:^|[^A-Za-z0-9_-])--?u',
    String.raw`(?<![A-Za-z0-9_-])(?:-u|--user)(?:=|\s{0,8})(?:["'])?[^\s:"'\\]{1,200}:`,
    WORD,
    'g',
  ),
  behind(String.raw`(?:^|[\s"'])-p`, String.raw`(?<![^\s"'])-p[\t ]{1,8}(?![-\s]|\d{1,5}(?![^\s"']))`, WORD, 'g'),
  // name=value and "name": "value" where the name says that it is a secret.
  behind(NAME_HINT, `(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{0,40}(?:${NAMES})[A-Za-z0-9_-]{0,20}${ASSIGN}`, TOKEN),
  // STORAGE_KEY=value
  behind(VARIABLES, `(?<![A-Za-z0-9_])[A-Z0-9_]{0,40}(?:${VARIABLES})=`, TOKEN, 'g'),
  // ?sas=value and the like
  behind(anyCase('sas'), '(?<![A-Za-z0-9])sas=', TOKEN),
]

/** Keys without a name, by whole runs of their characters; escapes are stepped over. */
const RUN = /\\+(?:u[0-9A-Fa-f]{4}|.)|[A-Za-z0-9+/]+={0,2}/g

/** Something that may start a secret: most texts have none of these and pass untouched. */
const HINTS = PATTERNS.map(({ hint }) => new RegExp(hint))
const HINT = new RegExp([...new Set(PATTERNS.map(({ hint }) => hint))].join('|'))

/** Replaces what looks like a secret in `text` by `[REDACTED]`, keeping the name in front of it. */
export function redactSecrets(text: string): string {
  let result = text
  if (HINT.test(text)) {
    for (let i = 0; i < PATTERNS.length; i++) {
      if (!(HINTS[i] as RegExp).test(result)) continue
      const { find, replace } = PATTERNS[i] as Pattern
      result = result.replace(find, replace)
    }
  }
  return hasLongRun(result) ? result.replace(RUN, hideBareKeys) : result
}

const IS_RUN_CHARACTER = Uint8Array.from({ length: 128 }, (_, code) =>
  /[A-Za-z0-9+/]/.test(String.fromCharCode(code)) ? 1 : 0,
)

/** Tells whether characters of keys stand together as long as in the shortest key, its `=` left out. */
function hasLongRun(text: string): boolean {
  const length = SHORTEST_KEY - 1
  // A run that long covers one of the places looked at, whatever stands before it.
  for (let at = length - 1; at < text.length; at += length) {
    if (IS_RUN_CHARACTER[text.charCodeAt(at)] !== 1) continue
    let start = at
    let end = at + 1
    while (start > 0 && IS_RUN_CHARACTER[text.charCodeAt(start - 1)] === 1 && end - start < length) start--
    while (end < text.length && IS_RUN_CHARACTER[text.charCodeAt(end)] === 1 && end - start < length) end++
    if (end - start >= length) return true
  }
  return false
}
