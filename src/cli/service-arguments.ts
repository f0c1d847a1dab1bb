/** Reads the words after `status`. Nothing here touches the world. */

import { readOptions } from './options.ts'

export interface ServiceCommand {
  readonly kind: 'service-status'
  readonly output: { readonly form: 'text' | 'json' } | { readonly form: 'textfile'; readonly file: string }
  /** `undefined`: as the configuration says. */
  readonly socket: string | undefined
  readonly configPath: string | undefined
}

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

/** Reads the words after the command's name. */
export function parseServiceArguments(words: readonly string[]) {
  const given = readOptions(words, SERVICE_STATUS_USAGE, ['--json'], ['--textfile', '--socket', '--config'])
  if (given.kind !== 'options') return given
  const { flags, values } = given
  const isJson = flags.has('--json')
  const file = values.get('--textfile')
  if (file !== undefined && isJson) {
    const reason = "'--json' and '--textfile' exclude each other"
    return { kind: 'usage-error', reason, usage: SERVICE_STATUS_USAGE } as const
  }
  const command: ServiceCommand = {
    kind: 'service-status',
    output: file === undefined ? { form: isJson ? 'json' : 'text' } : { form: 'textfile', file },
    socket: values.get('--socket'),
    configPath: values.get('--config'),
  }
  return command
}
