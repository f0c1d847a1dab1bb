/** Reads the words after `status`. Nothing here touches the world. */

export interface ServiceCommand {
  readonly kind: 'service-status'
  readonly output: { readonly form: 'text' | 'json' } | { readonly form: 'textfile'; readonly file: string }
  /** `undefined`: as the configuration says. */
  readonly socket: string | undefined
  readonly configPath: string | undefined
}

type Refusal = { readonly kind: 'usage-error'; readonly reason: string; readonly usage: string }
type Help = { readonly kind: 'command-help'; readonly usage: string }

export const SERVICE_STATUS_USAGE = `Usage: azure-proxy-agent status [OPTIONS]

Asks the running service how it is, over its control socket. For root alone.

Options:
      --json           print the whole status as one JSON object
      --textfile FILE  write the metrics to FILE for the textfile collector of
                       node_exporter, replaced whole, mode 0644; while the
                       service does not answer, azure_proxy_agent_up 0 alone
      --socket PATH    the control socket (default: as configured)
  -c, --config FILE    configuration file that names the socket
  -h, --help           print this text

Exit status: 0 healthy, with --textfile: written; 1 not healthy, or no answer;
2 wrong usage
`

const VALUES = ['--textfile', '--socket', '--config'] as const
type ValueOption = (typeof VALUES)[number]

/** Reads the words after the command's name. */
export function parseServiceArguments(words: readonly string[]): ServiceCommand | Help | Refusal {
  const fail = (reason: string): Refusal => ({ kind: 'usage-error', reason, usage: SERVICE_STATUS_USAGE })
  const values = new Map<ValueOption, string>()
  let isJson = false
  for (let i = 0; i < words.length; i++) {
    const word = words[i] as string
    if (word === '-h' || word === '--help') return { kind: 'command-help', usage: SERVICE_STATUS_USAGE }
    if (word === '--json') {
      if (isJson) return fail("option '--json' is given twice")
      isJson = true
      continue
    }
    const equals = word.startsWith('--') ? word.indexOf('=') : -1
    const given = equals === -1 ? word : word.slice(0, equals)
    const name = VALUES.find((each) => each === (given === '-c' ? '--config' : given))
    if (name === undefined) return fail(`unexpected ${word.startsWith('-') ? 'option' : 'argument'} '${word}'`)
    if (values.has(name)) return fail(`option '${name}' is given twice`)
    const value = equals === -1 ? words[++i] : word.slice(equals + 1)
    if (value === undefined || value === '') return fail(`option '${name}' needs a value`)
    values.set(name, value)
  }
  const file = values.get('--textfile')
  if (file !== undefined && isJson) return fail("'--json' and '--textfile' exclude each other")
  return {
    kind: 'service-status',
    output: file === undefined ? { form: isJson ? 'json' : 'text' } : { form: 'textfile', file },
    socket: values.get('--socket'),
    configPath: values.get('--config'),
  }
}
