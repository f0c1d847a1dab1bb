/** Reads the command line into one request. Nothing here touches the world. */

import mri from 'mri'
import { type CleanupCommand, parseCleanupArguments } from './cleanup-arguments.ts'
import type { RulesCommand } from './rules-arguments.ts'
import { parseRulesArguments } from './rules-arguments.ts'
import { parseServiceArguments, type ServiceCommand } from './service-arguments.ts'

export type Command =
  | { readonly kind: 'service' | 'console'; readonly configPath: string | undefined }
  | { readonly kind: 'version' }
  | { readonly kind: 'help' }
  /** `waitSeconds` 0: one query. */
  | { readonly kind: 'status'; readonly waitSeconds: number }
  | RulesCommand
  | ServiceCommand
  | CleanupCommand
  | { readonly kind: 'command-help'; readonly usage: string }
  /** `usage` when it is not that of the whole program. */
  | { readonly kind: 'usage-error'; readonly reason: string; readonly usage?: string }

export const USAGE = `Usage: azure-proxy-agent [OPTIONS] [console]

Guards the metadata services of an Azure VM: redirects connections to them, decides who may ask what, and signs.

Without an argument it runs as a service until it is told to stop by a signal.

Commands:
  console            run in the foreground, logs on standard output, until Enter is pressed
  cleanup            end a redirection that was left in the kernel, for root: see cleanup --help
  help               print this text
  rules              check, explain and test rules, without a service: see rules --help
  status             tell how the running service is, for root: see status --help

Options:
  -c, --config FILE  configuration file (default: /etc/azure/proxy-agent.json, or proxy-agent.json beside the executable)
  -s, --status       ask the running service whether provisioning has finished
  -w, --wait N       with --status: wait for it up to N seconds (default: 0)
  -v, --version      print the version
  -h, --help         print this text

Exit status:
  0  success           1  --status: not finished in time      2  --status: finished with errors; wrong usage
                          status: not healthy
                          cleanup: not done
  78 bad configuration                                       101 internal error
`

const FLAGS = new Set(['status', 'version', 'help'])
const VALUES = new Set(['wait', 'config'])
const SHORT: Readonly<Record<string, string>> = { s: 'status', v: 'version', h: 'help', w: 'wait', c: 'config' }

/** Reads `argv`, the words after the program's name. */
export function parseArguments(argv: readonly string[]): Command {
  if (argv[0] === 'rules') return parseRulesArguments(argv.slice(1))
  if (argv[0] === 'help' && argv[1] === 'rules') return parseRulesArguments([...argv.slice(2), '--help'])
  if (argv[0] === 'status') return parseServiceArguments(argv.slice(1))
  if (argv[0] === 'help' && argv[1] === 'status') return parseServiceArguments([...argv.slice(2), '--help'])
  if (argv[0] === 'cleanup') return parseCleanupArguments(argv.slice(1))
  if (argv[0] === 'help' && argv[1] === 'cleanup') return parseCleanupArguments([...argv.slice(2), '--help'])
  const words = expandShort(argv)
  if (typeof words === 'string') return error(words)
  const parsed = mri([...words], { string: [...VALUES], boolean: [...FLAGS] })
  const { _: positional, ...options } = parsed as Record<string, unknown> & { _: string[] }

  for (const name of Object.keys(options)) {
    if (!FLAGS.has(name) && !VALUES.has(name)) return error(`unexpected option '--${name}'`)
  }
  const isHelp = options.help === true || positional[0] === 'help'
  if (isHelp) {
    const rest = positional[0] === 'help' ? positional.slice(1) : positional
    return rest.length === 0 || (rest.length === 1 && rest[0] === 'console')
      ? { kind: 'help' }
      : error(unexpected(rest))
  }
  if (positional.length > 1 || (positional.length === 1 && positional[0] !== 'console')) {
    return error(unexpected(positional[0] === 'console' ? positional.slice(1) : positional))
  }
  const consoleAt = words.indexOf('console')
  if (consoleAt !== -1 && consoleAt !== words.length - 1) return error(unexpected(words.slice(consoleAt + 1)))

  const waitSeconds = readWait(options.wait)
  if (typeof waitSeconds === 'string') return error(waitSeconds)
  if (options.wait !== undefined && options.status !== true) return error("'--wait' needs '--status'")
  if (options.config === '') return error("'--config' needs a file")

  if (options.version === true) return { kind: 'version' }
  if (options.status === true) return { kind: 'status', waitSeconds }
  const configPath = options.config as string | undefined
  return { kind: positional[0] === 'console' ? 'console' : 'service', configPath }
}

function error(reason: string): Command {
  return { kind: 'usage-error', reason }
}

function unexpected(words: readonly string[]): string {
  return `unexpected argument '${words[0]}'`
}

/**
 * Spells short options out (`-sw30` becomes `--status --wait=30`), and refuses what mri would let pass: options given
 * twice, negations, values for flags.
 * @returns the words, or the reason of a refusal.
 */
function expandShort(argv: readonly string[]): string[] | string {
  const words: string[] = []
  const seen = new Set<string>()
  const take = (name: string) => {
    if (seen.has(name)) return false
    seen.add(name)
    return true
  }
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] as string
    const expanded = word.startsWith('--') ? [word] : word.startsWith('-') ? spellOut(word) : undefined
    if (expanded === undefined) {
      words.push(word)
      continue
    }
    if (typeof expanded === 'string') return expanded
    for (const each of expanded) {
      const [name = '', value] = splitOption(each)
      if (!FLAGS.has(name) && !VALUES.has(name)) return `unexpected option '${word}'`
      if (FLAGS.has(name) && value !== undefined) return `option '--${name}' takes no value`
      if (!take(name)) return `option '--${name}' is given twice`
      words.push(each)
      // The value may be the next word, whatever it looks like.
      if (VALUES.has(name) && value === undefined) {
        const next = argv[++i]
        if (next === undefined) return `option '--${name}' needs a value`
        words[words.length - 1] = `--${name}=${next}`
      }
    }
  }
  return words
}

function spellOut(word: string): string[] | string {
  const expanded: string[] = []
  for (let i = 1; i < word.length; i++) {
    const name = SHORT[word[i] as string]
    if (name === undefined || word === '-') return `unexpected option '${word}'`
    const rest = word.slice(i + 1)
    if (VALUES.has(name)) {
      expanded.push(rest === '' ? `--${name}` : `--${name}=${rest.replace(/^=/, '')}`)
      return expanded
    }
    if (rest.startsWith('=')) return `option '--${name}' takes no value`
    expanded.push(`--${name}`)
  }
  return expanded.length === 0 ? `unexpected argument '${word}'` : expanded
}

function splitOption(word: string): [name: string, value?: string] {
  const equals = word.indexOf('=')
  return equals === -1 ? [word.slice(2)] : [word.slice(2, equals), word.slice(equals + 1)]
}

/** @returns seconds, or the reason of a refusal. */
function readWait(value: unknown): number | string {
  if (value === undefined) return 0
  if (typeof value !== 'string' || !/^\d{1,20}$/.test(value) || BigInt(value) > 0xffff_ffff_ffff_ffffn) {
    return `'--wait' needs a whole number of seconds, not '${value}'`
  }
  return Number(value)
}
