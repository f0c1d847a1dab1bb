/** Reads the command line of `main.ts`. */

import { isIP } from 'node:net'
import mri from 'mri'
import type { ControlPlace } from './control-server.ts'
import { type FabricOptions, REAL_ADDRESSES } from './fabric.ts'
import type { Address } from './host-control.ts'

export const USAGE = `Usage: node test/fabric/main.ts [options]

  --listen loopback|real   free ports of 127.0.0.1 (default), or 168.63.129.16:80, :32526 and 169.254.169.254:80,
                           for a network namespace that has these addresses
  --wireserver ADDR:PORT   one endpoint elsewhere; also --hostga and --imds
  --protocol 1.0|2.0       version of the channel's status document (default 2.0)
  --level STATE            protocol 1.0: Disabled, Wireserver or WireserverAndImds
  --rules FILE             protocol 2.0: JSON with "wireserver" and "imds" items; enables the channel
  --enforce                enforce everywhere, rules that allow everybody
  --latched-key GUID:HEX   begin with this key latched
  --strict                 refuse what a host is not known to refuse (see README)
  --skew MS                host clock ahead by this much (negative: behind)
  --rate-limit             keep the documented limits of IMDS and telemetry
  --records N              requests remembered (default 10000)
  --control PORT|PATH      control on a port of 127.0.0.1 or on a unix socket
  --quiet                  no line per request
  --help                   this text
`

/** What the command line asks for. `rulesFile` is still to be read. */
export interface Arguments {
  readonly options: FabricOptions
  readonly rulesFile: string | undefined
  readonly control: ControlPlace | undefined
  readonly isQuiet: boolean
  readonly wantsHelp: boolean
}

/** A mistake on the command line, in words for the person who typed it. */
export class UsageError extends Error {
  override name = 'UsageError'
}

const BOOLEANS = ['enforce', 'strict', 'rate-limit', 'quiet', 'help']
const STRINGS = [
  'listen',
  'wireserver',
  'hostga',
  'imds',
  'protocol',
  'level',
  'rules',
  'latched-key',
  'skew',
  'records',
  'control',
]

/** Parses the arguments after the script's name. @throws UsageError */
export function parseArguments(argv: readonly string[]): Arguments {
  const given = mri([...argv], { boolean: BOOLEANS, string: STRINGS })
  if (given._.length > 0) throw new UsageError(`Cannot use "${given._[0]}": there are only options`)
  const unknown = Object.keys(given).find((name) => name !== '_' && ![...BOOLEANS, ...STRINGS].includes(name))
  if (unknown !== undefined) throw new UsageError(`Cannot use --${unknown}: not an option`)
  const text = (name: string): string | undefined => {
    const value: unknown = given[name]
    if (value === undefined) return undefined
    if (typeof value !== 'string' || value === '') throw new UsageError(`Cannot use --${name}: it takes one value`)
    return value
  }
  return {
    options: { ...addresses(text), ...channel(text), ...behaviour(given, text) },
    rulesFile: text('rules'),
    control: controlPlace(text('control')),
    isQuiet: given.quiet === true,
    wantsHelp: given.help === true,
  }
}

type Text = (name: string) => string | undefined

function addresses(text: Text): FabricOptions {
  const listen = oneOf(text, 'listen', ['loopback', 'real'] as const) ?? 'loopback'
  const base = listen === 'real' ? REAL_ADDRESSES : undefined
  const options: FabricOptions = {}
  for (const endpoint of ['wireserver', 'hostga', 'imds'] as const) {
    const address = parseAddress(endpoint, text(endpoint)) ?? base?.[endpoint]
    if (address !== undefined) options[endpoint] = address
  }
  return options
}

function channel(text: Text): FabricOptions {
  const protocol = oneOf(text, 'protocol', ['1.0', '2.0'] as const)
  const level = oneOf(text, 'level', ['Disabled', 'Wireserver', 'WireserverAndImds'] as const)
  const key = text('latched-key')
  const parts = /^([0-9A-Fa-f-]{36}):([0-9A-Fa-f]{64})$/.exec(key ?? '')
  if (key !== undefined && parts === null) {
    throw new UsageError('Cannot use --latched-key: it must be a guid, a colon and 64 hexadecimal digits')
  }
  return {
    ...(protocol !== undefined && { protocol }),
    ...(level !== undefined && { level }),
    ...(parts !== null && { latchedKey: { guid: parts[1]!, keyHex: parts[2]! } }),
  }
}

function behaviour(given: Readonly<Record<string, unknown>>, text: Text): FabricOptions {
  const skew = wholeNumber(text, 'skew')
  const records = wholeNumber(text, 'records')
  if (records !== undefined && records < 1) throw new UsageError('Cannot use --records: it must be at least 1')
  return {
    enforce: given.enforce === true,
    strict: given.strict === true,
    rateLimit: given['rate-limit'] === true,
    ...(skew !== undefined && { clockSkewMs: skew }),
    ...(records !== undefined && { records: { records } }),
  }
}

function oneOf<T extends string>(text: Text, name: string, choices: readonly T[]): T | undefined {
  const value = text(name)
  if (value === undefined) return undefined
  const found = choices.find((choice) => choice === value)
  if (found === undefined) throw new UsageError(`Cannot use --${name} ${value}: choose ${choices.join(' or ')}`)
  return found
}

function wholeNumber(text: Text, name: string): number | undefined {
  const value = text(name)
  if (value === undefined) return undefined
  if (!/^-?[0-9]{1,12}$/.test(value)) throw new UsageError(`Cannot use --${name} ${value}: it must be a whole number`)
  return Number(value)
}

function parseAddress(name: string, value: string | undefined): Address | undefined {
  if (value === undefined) return undefined
  const parts = /^([0-9.]+):([0-9]{1,5})$/.exec(value)
  const port = Number(parts?.[2])
  if (parts === null || isIP(parts[1]!) !== 4 || port > 65535) {
    throw new UsageError(`Cannot use --${name} ${value}: it must be an IPv4 address, a colon and a port`)
  }
  return { host: parts[1]!, port }
}

function controlPlace(value: string | undefined): ControlPlace | undefined {
  if (value === undefined) return undefined
  if (!/^[0-9]+$/.test(value)) return { path: value }
  if (Number(value) > 65535) throw new UsageError(`Cannot use --control ${value}: no such port`)
  return { port: Number(value) }
}
