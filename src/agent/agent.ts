/**
 * The agent: builds every part, starts them, hands each what it needs of the others, stops them in reverse.
 *
 *   key keeper ──► rules, modes, key        listener ──► redirection (needs its namespace)
 *                     │                                       │
 *                     └──────────► proxy stages ◄─────────────┘
 *
 * Parts do not know each other; every arrow between them is in this file.
 */

import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { type Clock, processAgeMs, systemClock } from '../base/clock.ts'
import { LISTENER, WIRESERVER } from '../base/endpoints.ts'
import { describeError } from '../base/errors.ts'
import { createHostChannel } from '../channel/host-channel.ts'
import { createHostClock } from '../channel/host-clock.ts'
import { createKeyKeeper, type KeyKeeper } from '../channel/key-keeper.ts'
import { createKeyStore, preparePrivateDirectory } from '../channel/key-store.ts'
import { authorizationValue } from '../channel/sign.ts'
import type { Config } from '../config/config.ts'
import { findCgroup } from '../ebpf/cgroup.ts'
import { monotonicNowNs } from '../ebpf/records.ts'
import { startRedirector } from '../ebpf/redirector.ts'
import { claimsJson } from '../identity/caller.ts'
import { type IdentityEnv, identify } from '../identity/identify.ts'
import { procReader, readHostNamespaces } from '../identity/process.ts'
import { createUserDirectory, userDirectoryEnv } from '../identity/users.ts'
import type { Attribution } from '../proxy/exchange.ts'
import { createHostClient } from '../proxy/host-client.ts'
import { requestCount } from '../proxy/pipeline.ts'
import { createProxyServer, type ProxyServer } from '../proxy/server.ts'
import type { ProxyStages } from '../proxy/stages.ts'
import { describeVerdict } from '../rules/describe.ts'
import { formatDivergence } from '../rules/divergence.ts'
import { isAllowedDuplicate, parseAuthorizationRules } from '../rules/document.ts'
import { isExemptUpload } from '../rules/exempt-upload.ts'
import { describePortHolder } from '../sys/port-holder.ts'
import { forbidCoreDumps } from '../sys/process.ts'
import { findNetnsCookie } from '../sys/socket.ts'
import { createConnectionSummary } from '../telemetry/connection-summary.ts'
import { createRequestObserver } from '../telemetry/request-observer.ts'
import { createSerialConsole } from '../telemetry/serial-console.ts'
import { createStatusBoard, type StatusBoard } from '../telemetry/status.ts'
import { keepListening } from './listener.ts'
import { openLogs } from './logs.ts'
import { createProvisioning, type ReadyFlag } from './provisioning.ts'
import { createRedirection, type Redirection } from './redirection.ts'
import { createRulesHolder } from './rules-holder.ts'
import { createStatusWriter } from './status-writer.ts'

export interface Agent {
  /** Runs until `stop` is called and everything has ended. Never rejects. */
  readonly done: Promise<void>
  /** Ends redirection at once, then requests, tasks and logs, within about four seconds. */
  stop(): void
  /** Writes buffered log lines, synchronously, before the process dies of a fault. */
  flushLogsSync(): void
}

const HOST_CALL_TIMEOUT_MS = 10_000
const MAX_HOST_ANSWER_BYTES = 1024 * 1024
const REQUEST_GRACE_MS = 2500
const LOG_GRACE_MS = 1000
const DELAYED_TASKS_AFTER_MS = 60_000

/** A record older than this belongs to a connection that never came. */
const MAX_RECORD_AGE_NS = 30_000_000_000n

/** Starts the agent. @param version three numbers, shown in logs, status and on the console. */
export function startAgent(config: Config, version: string): Agent {
  const clock = systemClock
  const stopping = new AbortController()
  const logs = openLogs(config, clock)
  const log = logs.agent
  const serialConsole = createSerialConsole(version, clock.nowMs)

  const starting = `============== GuestProxyAgent (${version}) is starting on ${osName()}(${process.arch}), elapsed: ${processAgeMs()}`
  log.info(starting)
  serialConsole(starting)
  for (const notice of config.notices) log.warn(notice)
  try {
    forbidCoreDumps()
  } catch (error) {
    log.warn(`Core dumps of the agent cannot be forbidden: ${describeError(error)}`)
  }

  const normal = createConnectionSummary(clock.monotonicMs)
  const denied = createConnectionSummary(clock.monotonicMs)
  const board = createStatusBoard({ version, log, nowMs: clock.nowMs, requestCount, normal, denied })
  const milestone = (
    module: 'keyKeeper' | 'redirector' | 'proxyServer',
    message: string,
    elapsedMs = processAgeMs(),
  ) => {
    log.info(JSON.stringify({ elapsed: elapsedMs, message }))
    serialConsole(`${message} - ${elapsedMs}`)
    board.setMessage(module, `${message} - ${elapsedMs}`)
  }

  const provisioning = createProvisioning({
    directory: config.latchKeyFolder,
    clock,
    log,
    console: serialConsole,
    message: (flag) => board.message(MODULES[flag]),
  })
  const rules = createRulesHolder(config.canonicalRequestMode, log)
  const hostClock = createHostClock(clock)

  const redirection = createRedirection({
    start: () => {
      const descriptor = server?.descriptor()
      if (descriptor === undefined) throw new Error('the listener is not bound yet')
      const { path: cgroupPath } = findCgroup(config.cgroupRoot)
      const redirector = startRedirector({ cgroupPath, listener: LISTENER, servedNetns: findNetnsCookie(descriptor) })
      log.info(`Attached to the processes of ${cgroupPath}`)
      for (const lack of redirector.features.lacking) log.warn(`This kernel lacks something: ${lack}`)
      return redirector
    },
    clock,
    log,
    events: {
      onReady(isReady) {
        board.setState('redirector', isReady ? 'RUNNING' : 'STOPPED')
        if (isReady) milestone('redirector', 'Started Redirector with eBPF maps')
        provisioning.set('redirector', isReady)
      },
      onMessage: (message) => {
        board.setState('redirector', 'STOPPED')
        board.setMessage('redirector', message)
      },
    },
  })

  const keeper = createKeyKeeper({
    host: createHostChannel({
      address: WIRESERVER.address,
      port: WIRESERVER.port,
      httpDate: hostClock.httpDate,
      timeoutMs: HOST_CALL_TIMEOUT_MS,
      maxBodyBytes: MAX_HOST_ANSWER_BYTES,
      rules: { parse: (json) => parseAuthorizationRules(json), isAllowedDuplicate },
      onDate: hostClock.sync,
    }),
    store: createKeyStore(config.latchKeyFolder),
    clock,
    log,
    pollIntervalMs: config.pollIntervalMs,
    processAgeMs,
    events: {
      onMessage: (message) => board.setMessage('keyKeeper', message),
      onMilestone: (message, elapsedMs) => milestone('keyKeeper', message, elapsedMs),
      onRules: rules.update,
      onReset: () => provisioning.reset(),
      onSnapshot(snapshot) {
        board.setKeyStates({
          secureChannelState: snapshot.stateText,
          keyGuid: snapshot.key?.guid,
          keyIncarnationId: snapshot.key?.incarnationId?.toString(),
          wireServerRuleId: snapshot.state?.ruleIds.wireserver ?? '',
          imdsRuleId: snapshot.state?.ruleIds.imds ?? '',
          hostGARuleId: snapshot.state?.ruleIds.hostga ?? '',
        })
        redirection.setModes(snapshot.state?.modes)
        if (snapshot.isLatched || snapshot.stateText === 'Unknown') provisioning.set('keyLatch', snapshot.isLatched)
      },
    },
  })

  const hostClient = createHostClient()
  const identityEnv: IdentityEnv = {
    proc: procReader,
    users: createUserDirectory(userDirectoryEnv(clock.monotonicMs)),
    namespaces: readHostNamespaces(),
  }
  const stages: ProxyStages = {
    attribute: (peer) => attribute(peer, redirection, identityEnv, config, (message) => log.error(message)),
    decide: rules.decide,
    isExemptUpload,
    httpDate: hostClock.httpDate,
    authorize: (request) => {
      const { key } = keeper.snapshot()
      return key && authorizationValue(key, request)
    },
    keyAfter: (authorization) => keeper.keyAfter(authorization.split(' ')[1] ?? ''),
    provision: (query) => answerProvision(query, keeper, provisioning),
    statusJson: () => JSON.stringify(board.document()),
    hostClient,
    observer: createRequestObserver({
      log: logs.connection,
      normal,
      denied,
      monotonicMs: () => performance.now(),
      describeVerdict,
      formatDivergence,
      claimsJson,
    }),
  }

  let server: ProxyServer | undefined
  board.setMessage('redirector', 'eBPF redirector is starting')
  board.setState('keyKeeper', 'RUNNING')
  const listening = keepListening(
    {
      create: () => createProxyServer(stages, () => performance.now()),
      describeHolder: describePortHolder,
      clock,
      events: {
        onReady(bound) {
          server = bound
          board.setState('proxyServer', 'RUNNING')
          milestone('proxyServer', 'Started proxy listener, ready to accept request')
          redirection.setListenerReady(true)
          redirectionStarted ??= redirection.run(stopping.signal)
          provisioning.set('listener', true)
        },
        onLost(message) {
          redirection.setListenerReady(false)
          board.setState('proxyServer', 'STOPPED')
          board.setMessage('proxyServer', message)
          provisioning.set('listener', false)
        },
      },
    },
    stopping.signal,
  )
  let redirectionStarted: Promise<void> | undefined

  const statusWriter = createStatusWriter(config.statusFolder, board, clock, log, config.monitorIntervalMs)
  const run = async () => {
    await preparePrivateDirectory(join(dirname(config.latchKeyFolder), 'rules'))
    const keeping = provisioning.start().then(() => keeper.run(stopping.signal))
    const reporting = runDelayed(provisioning.finished, statusWriter.run, clock, stopping.signal)
    await new Promise<void>((resolve) => stopping.signal.addEventListener('abort', () => resolve(), { once: true }))

    log.info(`============== GuestProxyAgent is stopping, elapsed: ${processAgeMs()}`)
    redirection.stop()
    board.setState('redirector', 'STOPPED')
    // Connections that the kernel had already redirected are in the backlog: a moment to accept them.
    await clock.sleep(20)
    await server?.close(REQUEST_GRACE_MS)
    board.setState('proxyServer', 'STOPPED')
    board.setState('keyKeeper', 'STOPPED')
    await hostClient.close()
    await Promise.all([keeping, listening, redirectionStarted, reporting, provisioning.stop()])
    await Promise.race([statusWriter.write(), clock.sleep(LOG_GRACE_MS)])
    await logs.close(LOG_GRACE_MS)
  }
  return { done: run(), stop: () => stopping.abort(), flushLogsSync: logs.flushSync }
}

const MODULES = { redirector: 'redirector', keyLatch: 'keyKeeper', listener: 'proxyServer' } as const satisfies Record<
  ReadyFlag,
  Parameters<StatusBoard['message']>[0]
>

/** Takes the record of a connection just accepted and starts to find out who made it. */
function attribute(
  peer: { readonly address: string; readonly port: number },
  redirection: Redirection,
  env: IdentityEnv,
  config: Config,
  report: (message: string) => void,
): Attribution | undefined {
  try {
    const record = redirection.current()?.takeRecord(peer.address, peer.port)
    if (record === undefined || monotonicNowNs() - record.recordedAtNs > MAX_RECORD_AGE_NS) return undefined
    return { destination: record.destination, caller: identify(record, peer, env, config) }
  } catch (error) {
    report(`Cannot take the record of a connection: ${describeError(error)}`)
    return undefined
  }
}

function answerProvision(
  query: { readonly tick: bigint; readonly notify: boolean },
  keeper: KeyKeeper,
  provisioning: ReturnType<typeof createProvisioning>,
) {
  const { isLatched, stateText } = keeper.snapshot()
  const isEnforcing = stateText !== 'disabled' && stateText !== 'Unknown'
  const state = provisioning.query(query.tick, isLatched && isEnforcing)
  if (query.notify && !state.finished) keeper.wake()
  return state
}

/** Runs `task` once provisioning has ended well, or after a minute. */
async function runDelayed(
  provisioned: Promise<void>,
  task: (signal: AbortSignal) => Promise<void>,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  await Promise.race([provisioned, clock.sleep(DELAYED_TASKS_AFTER_MS, signal)])
  await task(signal)
}

/** Name of the distribution as os-release gives it. Source: os-release(5). */
function osName(): string {
  for (const path of ['/etc/os-release', '/usr/lib/os-release']) {
    try {
      const match = /^PRETTY_NAME="?([^"\n]*)"?$/m.exec(readFileSync(path, 'utf8'))
      if (match?.[1]) return match[1]
    } catch {
      // The next place may have it.
    }
  }
  return 'Linux'
}
