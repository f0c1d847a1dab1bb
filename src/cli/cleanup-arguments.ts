/** The words of `cleanup`. */

import { readOptions } from './options.ts'

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
export function parseCleanupArguments(words: readonly string[]) {
  const given = readOptions(words, CLEANUP_USAGE, ['--force'], ['--config'])
  if (given.kind !== 'options') return given
  const command: CleanupCommand = {
    kind: 'cleanup',
    isForced: given.flags.has('--force'),
    configPath: given.values.get('--config'),
  }
  return command
}
