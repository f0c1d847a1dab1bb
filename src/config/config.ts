/**
 * The configuration: one JSON file to one checked, frozen `Config`.
 *
 * Keys and meanings are those of existing installations; keys that mean nothing here any more are accepted, so that an
 * old file stays valid. What would change behaviour silently (an unknown level, a poll interval of zero) is corrected
 * and told in `notices`; what cannot be meant is refused with file, line, key, value and reason.
 */

import { AgentError } from '../base/errors.ts'
import { formatJsonPath, isJsonObject, type JsonDocument, parseJson } from '../base/json.ts'
import { type Level, parseLevel } from '../base/log.ts'

/** Connects to the guarded services are served by a listener in their namespace, left alone, or made to fail. */
export type ContainersMode = 'serve' | 'direct' | 'deny'

export type CanonicalRequestMode = 'off' | 'shadow' | 'enforce'

export interface Config {
  /** File it was read from. */
  readonly path: string
  /** Directory of the rolling logs; empty: no log files. */
  readonly logFolder: string
  /** Directory of buffered telemetry events. */
  readonly eventFolder: string
  /** Directory of the key and the provision tag files; the local rules are in its sibling `rules`. */
  readonly latchKeyFolder: string
  /** Directory of status.json. External readers know only the default. */
  readonly statusFolder: string
  /** Path of the unix socket on which root can ask for status and metrics; empty: none. */
  readonly controlSocket: string
  readonly monitorIntervalMs: number
  readonly pollIntervalMs: number
  readonly maxEventFileCount: number
  /** Between two rounds of telemetry. */
  readonly telemetryIntervalMs: number
  /** Connections of clients at one time. */
  readonly maxConnections: number
  /** Of these, those of one user; root has no such limit. */
  readonly maxConnectionsPerUser: number
  readonly fileLogLevel: Level
  /** Least severe level that becomes telemetry; `undefined`: none does. */
  readonly eventLogLevel: Level | undefined
  readonly systemLogLevel: Level
  /** cgroup2 directory to guard, when it is one; otherwise the mount is looked for. */
  readonly cgroupRoot: string | undefined
  readonly canonicalRequestMode: CanonicalRequestMode
  /** Whether all that was said of a request is written to the system log when it ends. */
  readonly enableHttpProxyTrace: boolean
  /** Whether root inside a container of the initial user namespace counts as root. */
  readonly containerRootIsElevated: boolean
  /** Whether connections to the guarded services that were opened before redirection began are ended, not only told. */
  readonly closeStaleConnections: boolean
  /** Whether redirection outlives the agent, so that nobody is served while it is away. */
  readonly failClosed: boolean
  /** Where that is kept: a directory to be made in a bpf file system. */
  readonly pinFolder: string
  /** What happens to connects from other network namespaces. */
  readonly containers: ContainersMode
  /** Things the operator should know, for the log once it is open. */
  readonly notices: readonly string[]
}

type Kind = 'string' | 'unsigned' | 'boolean'

/** All keys we know: those that are read, and those that old files carry. */
export const KEYS: Readonly<Record<string, { kind: Kind; isRequired?: boolean }>> = {
  logFolder: { kind: 'string', isRequired: true },
  eventFolder: { kind: 'string', isRequired: true },
  latchKeyFolder: { kind: 'string', isRequired: true },
  pollKeyStatusIntervalInSeconds: { kind: 'unsigned', isRequired: true },
  monitorIntervalInSeconds: { kind: 'unsigned' },
  maxEventFileCount: { kind: 'unsigned' },
  telemetryIntervalInSeconds: { kind: 'unsigned' },
  maxConnections: { kind: 'unsigned' },
  maxConnectionsPerUser: { kind: 'unsigned' },
  statusFolder: { kind: 'string' },
  controlSocket: { kind: 'string' },
  fileLogLevel: { kind: 'string' },
  fileLogLevelForEvents: { kind: 'string' },
  fileLogLevelForSystemEvents: { kind: 'string' },
  cgroupRoot: { kind: 'string' },
  enableHttpProxyTrace: { kind: 'boolean' },
  canonicalRequestMode: { kind: 'string' },
  containerRootIsElevated: { kind: 'boolean' },
  closeStaleConnections: { kind: 'boolean' },
  failClosed: { kind: 'boolean' },
  pinFolder: { kind: 'string' },
  containers: { kind: 'string' },
  ebpfProgramName: { kind: 'string' },
  ebpfFileFullPath: { kind: 'string' },
}

/** Keys of shipped files that never had an effect. */
const IGNORED_KEYS = new Set(['hostGAPluginSupport', 'wireServerSupport', 'imdsSupport'])

const DEFAULT_STATUS_FOLDER = '/var/log/azure-proxy-agent'

export const DEFAULT_CONTROL_SOCKET = '/run/azure-proxy-agent/agent.sock'

export const DEFAULT_PIN_FOLDER = '/sys/fs/bpf/azure-proxy-agent'

/** The kernel takes 107 bytes; a new socket has four more until it is in place. Source: unix(7). */
const MAX_SOCKET_PATH_BYTES = 103

const MAX_INTERVAL_SECONDS = 3600

/** Less would stop the agents of the machine itself; more ports than this no loopback address has. */
const CONNECTIONS = { least: 64, most: 65_536 } as const

/**
 * Reads the text of a configuration file.
 * @param path named in every message and kept as `Config.path`.
 * @param environment replaces `%NAME%` in the folders.
 * @throws AgentError `CONFIG_INVALID`; the message starts with the words that existing tools look for.
 */
export function parseConfig(
  text: string,
  path: string,
  environment: Readonly<Record<string, string | undefined>>,
): Config {
  const refuse = (reason: string): never => {
    throw new AgentError('CONFIG_INVALID', `Error in reading Config from Json file: ${path}: ${reason}`)
  }
  const document = readDocument(text, refuse)
  const values = document.value as Readonly<Record<string, unknown>>
  const notices: string[] = []
  checkMembers(document, values, notices, refuse)

  const folder = (key: string) => expandFolder(key, values[key] as string, document, environment, refuse)
  const within = (key: string, fallback: number, least: number, most: number) => {
    const value = (values[key] as number | null | undefined) ?? fallback
    const used = Math.min(most, Math.max(least, value))
    if (used !== value)
      notices.push(`Config key '${key}' is ${value}, which is out of ${least} to ${most}: using ${used}`)
    return used
  }
  const seconds = (key: string, fallback: number) => 1000 * within(key, fallback, 1, MAX_INTERVAL_SECONDS)
  const connections = (key: string, fallback: number) => within(key, fallback, CONNECTIONS.least, CONNECTIONS.most)
  const level = <T>(key: string, fallback: T): Level | T => {
    const value = values[key] as string | null | undefined
    if (value === undefined || value === null) return fallback
    const known = parseLevel(value)
    if (known === undefined) notices.push(`Config key '${key}' is ${quote(value)}, which is no log level: using Info`)
    return known ?? 'Info'
  }
  const word = <Word extends string>(key: string, known: readonly [Word, ...Word[]], otherwise: Word) =>
    oneOf(key, values[key] as string | null | undefined, known, otherwise, notices)
  const socketPath = (key: string, fallback: string) => {
    const value = typeof values[key] === 'string' ? folder(key) : fallback
    if (Buffer.byteLength(value) <= MAX_SOCKET_PATH_BYTES) return value
    return refuse(`line ${document.locate([key]).line}: key '${key}' is longer than ${MAX_SOCKET_PATH_BYTES} bytes`)
  }
  const systemLogLevel = level('fileLogLevelForSystemEvents', 'Error')
  const enableHttpProxyTrace = values.enableHttpProxyTrace === true
  if (enableHttpProxyTrace && systemLogLevel === 'Error') {
    notices.push(
      `Config key 'enableHttpProxyTrace' has no effect: 'fileLogLevelForSystemEvents' is Error, and traces are Warn`,
    )
  }
  return Object.freeze({
    path,
    logFolder: folder('logFolder'),
    eventFolder: folder('eventFolder'),
    latchKeyFolder: folder('latchKeyFolder'),
    statusFolder: typeof values.statusFolder === 'string' ? folder('statusFolder') : DEFAULT_STATUS_FOLDER,
    controlSocket: socketPath('controlSocket', DEFAULT_CONTROL_SOCKET),
    monitorIntervalMs: seconds('monitorIntervalInSeconds', 60),
    pollIntervalMs: seconds('pollKeyStatusIntervalInSeconds', 15),
    maxEventFileCount: (values.maxEventFileCount as number | null | undefined) ?? 30,
    telemetryIntervalMs: seconds('telemetryIntervalInSeconds', 60),
    maxConnections: connections('maxConnections', 16_384),
    maxConnectionsPerUser: connections('maxConnectionsPerUser', 1024),
    fileLogLevel: level('fileLogLevel', 'Info'),
    eventLogLevel: level('fileLogLevelForEvents', undefined),
    systemLogLevel,
    cgroupRoot: (values.cgroupRoot as string | null | undefined) ?? undefined,
    canonicalRequestMode: word('canonicalRequestMode', ['off', 'shadow', 'enforce'], 'off'),
    enableHttpProxyTrace,
    containerRootIsElevated: values.containerRootIsElevated !== false,
    closeStaleConnections: values.closeStaleConnections === true,
    failClosed: values.failClosed === true,
    pinFolder: typeof values.pinFolder === 'string' ? folder('pinFolder') : DEFAULT_PIN_FOLDER,
    // A word that is not known may have been meant to shut the door.
    containers: word('containers', ['serve', 'direct', 'deny'], 'deny'),
    notices,
  } satisfies Config)
}

function readDocument(text: string, refuse: (reason: string) => never): JsonDocument {
  let document: JsonDocument
  try {
    document = parseJson(text, { skipByteOrderMark: true })
  } catch (error) {
    if (!(error instanceof AgentError)) throw error
    return refuse(error.message)
  }
  if (!isJsonObject(document.value)) return refuse('the file must hold one JSON object')
  const repeated = document.duplicates[0]
  if (repeated !== undefined) {
    const name = formatJsonPath([...repeated.path, repeated.key])
    return refuse(`line ${repeated.line}: key '${name}' is given twice; remove one`)
  }
  return document
}

function checkMembers(
  document: JsonDocument,
  values: Readonly<Record<string, unknown>>,
  notices: string[],
  refuse: (reason: string) => never,
): void {
  for (const [key, { kind, isRequired }] of Object.entries(KEYS)) {
    const value = values[key]
    if (value === undefined || (value === null && isRequired !== true)) {
      if (isRequired) refuse(`key '${key}' is missing; it must be ${article(kind)}`)
      continue
    }
    if (!isOfKind(value, kind)) {
      refuse(`line ${document.locate([key]).line}: key '${key}' is ${quote(value)}; it must be ${article(kind)}`)
    }
  }
  const unknown = Object.keys(values).filter((key) => !Object.hasOwn(KEYS, key) && !IGNORED_KEYS.has(key))
  for (const key of unknown) {
    notices.push(`Config key ${quote(key)} in line ${document.locate([key]).line} is not known and has no effect`)
  }
}

function isOfKind(value: unknown, kind: Kind): boolean {
  if (kind === 'unsigned') return typeof value === 'number' && Number.isInteger(value) && value >= 0
  return typeof value === kind
}

function article(kind: Kind): string {
  return kind === 'unsigned' ? 'a whole number of 0 or more' : `a ${kind}`
}

/** Shows a value shortly, as JSON; a number too large for it as the number it became. */
function quote(value: unknown): string {
  const text = typeof value === 'number' ? String(value) : JSON.stringify(value)
  return text.length > 80 ? `${text.slice(0, 77)}...` : text
}

/** Reads a word in any case; the first of `known` is the default. @param otherwise what a word that is not known becomes */
function oneOf<Word extends string>(
  key: string,
  value: string | null | undefined,
  known: readonly [Word, ...Word[]],
  otherwise: Word,
  notices: string[],
): Word {
  const lower = (value ?? '').trim().toLowerCase()
  const word = lower === '' ? known[0] : known.find((each) => each === lower)
  if (word !== undefined) return word
  notices.push(`Config key '${key}' is ${quote(value)}, which is none of ${known.join(', ')}: using ${otherwise}`)
  return otherwise
}

/** Nothing is written there then, or offered. */
const MAY_BE_EMPTY = new Set(['logFolder', 'controlSocket'])

/** Replaces each `%NAME%` once, left to right. An unset name would make a path relative to who knows what: refused. */
function expandFolder(
  key: string,
  value: string,
  document: JsonDocument,
  environment: Readonly<Record<string, string | undefined>>,
  refuse: (reason: string) => never,
): string {
  const where = () => `line ${document.locate([key]).line}: key '${key}' is ${quote(value)}`
  const path = value.replace(/%(\w+)%/g, (_, name: string) => {
    const set = Object.hasOwn(environment, name) ? environment[name] : undefined
    return set ?? refuse(`${where()}, but the environment variable ${name} is not set`)
  })
  if (path === '' && MAY_BE_EMPTY.has(key)) return path
  if (!path.startsWith('/')) refuse(`${where()}; it must be an absolute path`)
  return path
}
