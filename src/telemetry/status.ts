/**
 * The aggregate status: the state of the agent as support tools read it, in a file and over HTTP.
 *
 * Names, order and texts are a contract; see `StatusDocument`.
 */

import { isoMs } from '../base/dates.ts'
import type { Log } from '../base/log.ts'
import { cutUtf8, escapeControls } from '../base/text.ts'
import type { ConnectionSummary, SummaryEntry } from './connection-summary.ts'

export type ModuleName = 'keyKeeper' | 'redirector' | 'proxyServer' | 'telemetryLogger' | 'monitor'
export type ModuleState = 'UNKNOWN' | 'RUNNING' | 'STOPPED'

export interface StatusDetail {
  status: ModuleState
  message: string
  states?: Record<string, string>
}

export interface StatusDocument {
  readonly timestamp: string
  readonly proxyAgentStatus: {
    readonly version: string
    readonly status: 'SUCCESS' | 'ERROR'
    readonly monitorStatus: StatusDetail
    readonly keyLatchStatus: StatusDetail
    readonly ebpfProgramStatus: StatusDetail
    readonly proxyListenerStatus: StatusDetail
    readonly telemetryLoggerStatus: StatusDetail
    readonly proxyConnectionsCount: number
  }
  readonly proxyConnectionSummary: readonly SummaryLine[]
  readonly failedAuthenticateSummary: readonly SummaryLine[]
}

interface SummaryLine {
  readonly userName: string
  readonly ip: string
  readonly port: number
  readonly processCmdLine: string
  readonly responseStatus: string
  readonly count: number
  readonly userGroups: readonly string[]
  readonly processFullPath: string
}

export interface StatusBoard {
  setState(module: ModuleName, state: ModuleState): void
  /**
   * Replaces the message of a module; a changed one is logged once. Texts of the host and names of processes come this
   * way and go to files and to whoever asks: control characters become visible escapes.
   */
  setMessage(module: ModuleName, message: string): void
  /** Replaces the named states shown with the key keeper; `undefined` values are left out. */
  setKeyStates(states: Readonly<Record<string, string | undefined>>): void
  message(module: ModuleName): string
  state(module: ModuleName): ModuleState
  /** Computes the document now. */
  document(): StatusDocument
}

export interface StatusBoardOptions {
  readonly version: string
  readonly log: Log
  readonly nowMs: () => number
  readonly requestCount: () => number
  readonly normal: ConnectionSummary
  readonly denied: ConnectionSummary
}

const MAX_MESSAGE_BYTES = 1024

const TITLES: Readonly<Record<ModuleName, string>> = {
  keyKeeper: 'KeyKeeper',
  redirector: 'Redirector',
  proxyServer: 'ProxyServer',
  telemetryLogger: 'TelemetryLogger',
  monitor: 'ProxyAgentStatus',
}

/** What is shown before the key keeper has spoken: readers rely on these names. */
const FIRST_KEY_STATES = { secureChannelState: 'Unknown', wireServerRuleId: '', imdsRuleId: '', hostGARuleId: '' }

/** Makes the board with every module unknown. */
export function createStatusBoard(options: StatusBoardOptions): StatusBoard {
  const fresh = (): StatusDetail => ({ status: 'UNKNOWN', message: 'Status unknown.' })
  const modules: Record<ModuleName, StatusDetail> = {
    keyKeeper: { ...fresh(), states: { ...FIRST_KEY_STATES } },
    redirector: fresh(),
    proxyServer: fresh(),
    telemetryLogger: fresh(),
    monitor: { status: 'RUNNING', message: 'Proxy agent status is running.' },
  }
  const shown = (module: ModuleName): StatusDetail => {
    const detail = modules[module]
    return { ...detail, message: cutUtf8(detail.message, MAX_MESSAGE_BYTES, '...') }
  }
  return {
    setState: (module, state) => {
      modules[module].status = state
    },
    setMessage: (module, text) => {
      const message = escapeControls(text)
      if (modules[module].message === message) return
      modules[module].message = message
      const origin = { task: 'set_module_status_message', operation: TITLES[module] }
      options.log.write('Warn', `${TITLES[module]} status: ${message}`, origin)
    },
    setKeyStates: (states) => {
      const present = Object.entries(states).filter((entry): entry is [string, string] => entry[1] !== undefined)
      modules.keyKeeper.states = Object.fromEntries(present)
    },
    message: (module) => shown(module).message,
    state: (module) => modules[module].status,
    document() {
      const parts: readonly ModuleName[] = ['keyKeeper', 'redirector', 'proxyServer']
      const isRunning = parts.every((module) => modules[module].status === 'RUNNING')
      return {
        timestamp: isoMs(options.nowMs()),
        proxyAgentStatus: {
          version: options.version,
          status: isRunning ? 'SUCCESS' : 'ERROR',
          monitorStatus: shown('monitor'),
          keyLatchStatus: shown('keyKeeper'),
          ebpfProgramStatus: shown('redirector'),
          proxyListenerStatus: shown('proxyServer'),
          telemetryLoggerStatus: shown('telemetryLogger'),
          proxyConnectionsCount: options.requestCount(),
        },
        proxyConnectionSummary: options.normal.read().map(toLine),
        failedAuthenticateSummary: options.denied.read().map(toLine),
      }
    },
  }
}

function toLine(entry: SummaryEntry): SummaryLine {
  return {
    userName: entry.userName,
    ip: entry.address,
    port: entry.port,
    processCmdLine: entry.processCmdLine,
    responseStatus: entry.responseStatus,
    count: entry.count,
    userGroups: entry.userGroups,
    processFullPath: entry.processFullPath,
  }
}

/** Entries of a list that are rendered at a time. */
const ENTRIES_PER_PIECE = 50

/**
 * Renders a document as `JSON.stringify` would with an indent of two, but piece by piece: with thousands of callers in it,
 * the whole takes longer than a request may wait.
 */
export function* renderStatus(document: StatusDocument): Generator<string> {
  const { proxyConnectionSummary, failedAuthenticateSummary, ...head } = document
  yield JSON.stringify(head, null, 2).slice(0, -'\n}'.length)
  for (const [name, entries] of Object.entries({ proxyConnectionSummary, failedAuthenticateSummary })) {
    yield `,\n  "${name}": [`
    for (let at = 0; at < entries.length; at += ENTRIES_PER_PIECE) {
      const piece = JSON.stringify(entries.slice(at, at + ENTRIES_PER_PIECE), null, 2)
      yield (at === 0 ? '' : ',') + piece.slice('['.length, -'\n]'.length).replaceAll('\n', '\n  ')
    }
    yield entries.length === 0 ? ']' : '\n  ]'
  }
  yield '\n}'
}
