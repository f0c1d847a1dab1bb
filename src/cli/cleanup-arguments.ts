/** The words of `cleanup`. */

export interface CleanupCommand {
  readonly kind: 'cleanup'
  /** Also while an agent holds what is removed. */
  readonly isForced: boolean
  readonly configPath: string | undefined
}

export const CLEANUP_USAGE = `Usage: azure-proxy-agent cleanup [OPTIONS]

Ends a redirection that was left in the kernel because of 'failClosed', and
removes all that keeps it there. For root alone. What is not there needs no
removal, so it can be run at any time and again.

Options:
      --force        also while an agent is running: it puts everything back
                     within seconds, unless 'failClosed' is off
  -c, --config FILE  configuration file that names the folder of the pins
  -h, --help         print this text

Exit status: 0 nothing is left; 1 something is, the reason is printed; 2 wrong
usage
`

/** Reads the words after the command's name. */
export function parseCleanupArguments(
  words: readonly string[],
):
  | CleanupCommand
  | { readonly kind: 'command-help'; readonly usage: string }
  | { readonly kind: 'usage-error'; readonly reason: string; readonly usage: string } {
  const fail = (reason: string) => ({ kind: 'usage-error', reason, usage: CLEANUP_USAGE }) as const
  let isForced = false
  let configPath: string | undefined
  for (let i = 0; i < words.length; i++) {
    const word = words[i] as string
    if (word === '-h' || word === '--help') return { kind: 'command-help', usage: CLEANUP_USAGE }
    if (word === '--force') {
      if (isForced) return fail("option '--force' is given twice")
      isForced = true
      continue
    }
    const value = word === '-c' || word === '--config' ? (words[++i] ?? '') : /^--config=(.*)$/s.exec(word)?.[1]
    if (value === undefined) return fail(`unexpected ${word.startsWith('-') ? 'option' : 'argument'} '${word}'`)
    if (value === '') return fail("option '--config' needs a value")
    if (configPath !== undefined) return fail("option '--config' is given twice")
    configPath = value
  }
  return { kind: 'cleanup', isForced, configPath }
}
