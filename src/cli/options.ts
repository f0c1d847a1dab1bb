/** Reads the options of a command that takes no arguments. Nothing here touches the world. */

type Help = { readonly kind: 'command-help'; readonly usage: string }
type Refusal = { readonly kind: 'usage-error'; readonly reason: string; readonly usage: string }

/** What was given: the flags, and values by option. Names are with their dashes, `-c` is `--config`. */
interface Given<Name extends string> {
  readonly kind: 'options'
  readonly flags: ReadonlySet<string>
  readonly values: ReadonlyMap<Name, string>
}

/**
 * Reads `words`, of which each option may be given once.
 * @param usage printed for `--help`, and with a refusal
 * @param flags options without a value
 * @param names options with a value, as the next word or behind `=`
 */
export function readOptions<Name extends string>(
  words: readonly string[],
  usage: string,
  flags: readonly string[],
  names: readonly Name[],
): Given<Name> | Help | Refusal {
  const fail = (reason: string): Refusal => ({ kind: 'usage-error', reason, usage })
  const given = new Set<string>()
  const values = new Map<Name, string>()
  for (let i = 0; i < words.length; i++) {
    const word = words[i] as string
    if (word === '-h' || word === '--help') return { kind: 'command-help', usage }
    if (flags.includes(word)) {
      if (given.has(word)) return fail(`option '${word}' is given twice`)
      given.add(word)
      continue
    }
    const equals = word.startsWith('--') ? word.indexOf('=') : -1
    const option = equals === -1 ? word : word.slice(0, equals)
    const name = names.find((each) => each === (option === '-c' ? '--config' : option))
    if (name === undefined) return fail(`unexpected ${word.startsWith('-') ? 'option' : 'argument'} '${word}'`)
    if (values.has(name)) return fail(`option '${name}' is given twice`)
    const value = equals === -1 ? words[++i] : word.slice(equals + 1)
    if (value === undefined || value === '') return fail(`option '${name}' needs a value`)
    values.set(name, value)
  }
  return { kind: 'options', flags: given, values }
}
