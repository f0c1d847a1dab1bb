/**
 * The agent: builds every part, starts them, hands each what it needs of the others, stops them in reverse.
 *
 *   key keeper ──► rules, modes, key        listener ──► redirection (needs its namespace)
 *                     │                                       │
 *                     └──────────► proxy stages ◄─────────────┘
 *
 * Parts do not know each other; every arrow between them is in this file.
 */

import { machine } from 'node:os'
import { dirname, join } from 'node:path'
import { aborted, type Clock, endsWithin, processAgeMs, systemClock } from '../base/clock.ts'
import { ENDPOINTS, LISTENER, SELF_PROBE, WIRESERVER } from '../base/endpoints.ts'
import { describeError } from '../base/errors.ts'
import { DISK_PATIENCE_MS } from '../channel/bounded-store.ts'
import { createHostChannel } from '../channel/host-channel.ts'
import { createHostClock, type HostClock } from '../channel/host-clock.ts'
import { createKeyKeeper, type KeyKeeper } from '../channel/key-keeper.ts'
import type { ChannelSnapshot } from '../channel/key-machine.ts'
import { createKeyStore, preparePrivateDirectory } from '../channel/key-store.ts'
import { authorizationValue } from '../channel/sign.ts'
import type { Config } from '../config/config.ts'
import { describeOutside, findCgroup } from '../ebpf/cgroup.ts'
import { monotonicNowNs } from '../ebpf/records.ts'
import { type Redirector, startRedirector } from '../ebpf/redirector.ts'
import { cgroupsEnv, createCgroups } from '../identity/cgroup.ts'
import { createContentHashes } from '../identity/content-hash.ts'
import type { IdentityEnv } from '../identity/identify.ts'
import { createKnownPrograms } from '../identity/known-programs.ts'
import { procReader, readHostNamespaces } from '../identity/process.ts'
import { createUserDirectory, userDirectoryEnv } from '../identity/users.ts'
import { createBodyBudget } from '../proxy/body-budget.ts'
import { createControlServer } from '../proxy/control-server.ts'
import { createHostClient, type HostClient } from '../proxy/host-client.ts'
import { createProxyServer, type ProxyServer } from '../proxy/server.ts'
import type { ProvisionQuery, ProxyStages } from '../proxy/stages.ts'
import { isAllowedDuplicate, parseAuthorizationRules } from '../rules/document.ts'
import { isExemptUpload } from '../rules/exempt-upload.ts'
import { destroyTcpSocket } from '../sys/destroy-socket.ts'
import { giveMemoryBack, shareMallocArenas } from '../sys/memory.ts'
import {
  findNetworkNamespaceId,
  listProcesses,
  openNetworkNamespace,
  openNetworkNamespaceOf,
} from '../sys/network-namespace.ts'
import { openNotifySocket } from '../sys/notify-socket.ts'
import { describePortHolder } from '../sys/port-holder.ts'
import { exitNow, forbidCoreDumps, readOpenFilesLimit } from '../sys/process.ts'
import { findOwnNetnsCookie, isListening } from '../sys/socket.ts'
import { findSocketHolders, ownSocketInodes, readTcpSockets } from '../sys/tcp-table.ts'
import type { StatusBoard } from '../telemetry/status.ts'
import { attribute } from './attribution.ts'
import { findConnectionLimits } from './connection-limits.ts'
import { type ContainersEnv, createContainers } from './containers.ts'
import { findObjection, keepControlSocket } from './control-socket.ts'
import { limitCpu } from './cpu-quota.ts'
import { createDirectoryWatch, type DirectoryWatch } from './directory-watch.ts'
import { endByFault } from './end-by-fault.ts'
import { createEventFolder } from './event-folder.ts'
import { createFirstWord, type FirstWord } from './first-word.ts'
import { findGap } from './health.ts'
import { createHostLink } from './host-link.ts'
import { keepListening } from './listener.ts'
import { LISTENER_SOCKETS } from './listener-sockets.ts'
import { createListenerStore } from './listener-store.ts'
import { createLocalRulesFile } from './local-rules.ts'
import { osName, readMachineFacts, readOsRelease } from './machine-facts.ts'
import { watchMemory } from './memory.ts'
import { keepGivingBack, type MemoryReturnEnv } from './memory-return.ts'
import { createProvisioning, type Provisioning, type ReadyFlag } from './provisioning.ts'
import { createRedirection, type Redirection } from './redirection.ts'
import { createReport, type Report } from './report.ts'
import { createRulesHolder, type RulesHolder } from './rules-holder.ts'
import { createRulesLog, type RulesLog } from './rules-log.ts'
import { createSelfCheck, type SelfCheck } from './self-check.ts'
import { createSelfProbe, type SelfProbe } from './self-probe.ts'
import { joinServiceManager, type ServiceManagerEnv } from './service-manager.ts'
import { handleStaleConnections } from './stale-connections.ts'
import { createStatusWriter } from './status-writer.ts'
import { createTelemetry, type Telemetry } from './telemetry.ts'
import { createTelling, type Telling } from './telling.ts'
import { createVitals } from './vitals.ts'
import { createVmMetadata } from './vm-metadata.ts'

export interface Agent {
  /** Runs until `stop` is called and everything has ended. Never rejects. */
  readonly done: Promise<void>
  /** Ends redirection at once, then requests, tasks and logs, within five seconds. */
  stop(): void
  /** Looks at the host and at what the administrator may have changed, now. */
  reload(): void
  /** Ends the process for a fault of our own, at once. @param lastWords why, for the logs */
  die(code: number, lastWords: string): never
  /** Ends the process when it is done. */
  exit(code: number): never
}

/** What the agent's own listener is called where the service manager keeps it. */
const LISTENER_NAME = 'listener'

const HOST_CALL_TIMEOUT_MS = 10_000
const MAX_HOST_ANSWER_BYTES = 1024 * 1024
const DELAYED_TASKS_AFTER_MS = 60_000

/** After the end of redirection: time to accept what the kernel had already sent to the listener. */
const ACCEPT_GRACE_MS = 20
const REQUEST_GRACE_MS = 2500
/** For all that must end by itself then. */
const TASK_GRACE_MS = 1000
const LOG_GRACE_MS = 700

/** Starts the agent. @param version three numbers, shown in logs, status and on the console. */
export function startAgent(config: Config, version: string): Agent {
  const clock = systemClock
  const stopping = new AbortController()
  shareMallocArenas()
  const telling = createTelling(config, version, clock)
  const osRelease = readOsRelease()
  greet(telling, config, version, osRelease)

  const provisioning = createProvisioning({
    directory: config.latchKeyFolder,
    clock,
    log: telling.log,
    console: telling.console,
    message: (flag) => telling.board.message(MODULES[flag]),
  })
  const rulesDirectory = join(dirname(config.latchKeyFolder), 'rules')
  const rulesLog = createRulesLog(config.statusFolder, clock, telling.log)
  const rules = buildRules(config, rulesDirectory, clock, telling, rulesLog)
  const rulesWatch = createDirectoryWatch({
    directory: rulesDirectory,
    names: Object.values(LOCAL_RULES_FILES),
    clock,
    log: telling.log,
    onChange: () => void rules.reread(),
  })
  const hostClock = createHostClock(clock)
  const hostClient = createHostClient()
  let server: ProxyServer | undefined
  const manager = joinServiceManager(process.env, telling.log, SERVICE_MANAGER_ENV)
  let inherited = manager.inherited.get(LISTENER_NAME)
  const firstWord = createFirstWord(clock)
  const redirection = buildRedirection(
    config,
    clock,
    telling,
    provisioning,
    () => server?.descriptor() ?? inherited,
    (redirector) => {
      containers.setRedirector(redirector)
      check.wake()
    },
  )
  const containers = createContainers({
    env: CONTAINERS_ENV,
    clock,
    log: telling.log,
    store: createListenerStore(manager, config.failClosed && config.containers === 'serve'),
  })
  const probe = createSelfProbe()
  const vitals = createVitals()
  const report: Report = createReport({
    version,
    clock,
    telling,
    vitals,
    channel: () => keeper.snapshot(),
    redirector: redirection.current,
    containers: containers.state,
    openConnections: () => server?.openConnections() ?? 0,
    check: () => check.state(),
    telemetry: () => telemetry,
    isStopping: () => stopping.signal.aborted,
  })
  const check: SelfCheck = createSelfCheck({
    probe,
    findGap: () => findGap(telling.board),
    findObstacle: () => describeOutside(config.cgroupRoot),
    manager,
    describe: () => report.health().reason,
    clock,
    log: telling.log,
  })
  const keeper = buildKeeper(
    config,
    clock,
    telling,
    provisioning,
    rules,
    rulesWatch,
    hostClock,
    redirection,
    report,
    firstWord,
  )
  const stages = buildStages(
    config,
    clock,
    telling,
    provisioning,
    rules,
    hostClock,
    redirection,
    keeper,
    hostClient,
    probe,
    firstWord,
  )
  const telemetry = buildTelemetry(config, version, osRelease, clock, telling, hostClock, keeper)
  const control = createControlServer(
    { status: () => `${JSON.stringify(report.status())}\n`, metrics: report.metrics, health: report.health },
    findObjection,
  )

  const limits = findConnectionLimits(config, readOpenFilesLimit())
  if (limits.notice !== undefined) telling.log.warn(limits.notice)

  const run = async () => {
    telling.log.info(`Start proxy listener at '${LISTENER.address}:${LISTENER.port}'.`)
    // First: an agent before this one may have left a redirection that catches our own connections, and others' before
    // their records can be taken.
    const redirecting = redirection.run(stopping.signal)
    const listening = keepListening(
      {
        create: () => createProxyServer(stages, () => performance.now(), limits.options),
        describeHolder: describePortHolder,
        isListening,
        inherited,
        clock,
        events: {
          onDisinherited(message) {
            inherited = undefined
            manager.drop(LISTENER_NAME)
            telling.log.warn(`The listener that was left for this process cannot be used: ${message}`)
          },
          onReady(bound) {
            server = bound
            inherited = undefined
            const descriptor = server.descriptor()
            if (config.failClosed && descriptor !== undefined) manager.keep(LISTENER_NAME, descriptor)
            else manager.drop(LISTENER_NAME)
            telling.board.setState('proxyServer', 'RUNNING')
            telling.milestone('proxyServer', 'Started proxy listener, ready to accept request')
            redirection.setListenerReady(true)
            containers.setServer(bound)
            provisioning.set('listener', true)
            check.wake()
          },
          onLost(message) {
            manager.drop(LISTENER_NAME)
            redirection.setListenerReady(false)
            containers.setServer(undefined)
            telling.board.setState('proxyServer', 'STOPPED')
            telling.board.setMessage('proxyServer', message)
            provisioning.set('listener', false)
          },
        },
      },
      stopping.signal,
    )
    const controlling =
      config.controlSocket === ''
        ? undefined
        : keepControlSocket(config.controlSocket, control, clock, telling.log, stopping.signal)
    const checking = check.run(stopping.signal)
    const containing = containers.run(stopping.signal)
    void provisioning.start()
    const preparing = preparePrivateDirectory(rulesDirectory).then((complaints) => {
      for (const complaint of complaints) telling.log.warn(complaint)
    })
    const keeping = endsWithin(preparing, DISK_PATIENCE_MS, clock).then(() => keeper.run(stopping.signal))
    const givingBack = keepGivingBack(MEMORY_ENV, clock, stopping.signal)
    const status = createStatusWriter(config.statusFolder, telling.board, clock, telling.log, config.monitorIntervalMs)
    const tellMemory = (signal: AbortSignal) => watchMemory(clock, telling.log, config.monitorIntervalMs, signal)
    const delayed = [telemetry.run, status.run, tellMemory]
    const reporting = runDelayed(provisioning.finished, telling, delayed, clock, stopping.signal)
    await aborted(stopping.signal)

    manager.stopping()
    vitals[Symbol.dispose]()
    telling.log.info(`============== GuestProxyAgent is stopping, elapsed: ${processAgeMs()}`)
    rulesWatch.close()
    redirection.stop()
    await clock.sleep(ACCEPT_GRACE_MS)
    // Other namespaces that ask from now on are not given a listener that closes.
    containers.setRedirector(undefined)
    await server?.close(REQUEST_GRACE_MS)
    telling.log.info(`Redirection in numbers: ${describeCounters(redirection)}`)
    redirection.release()
    await hostClient.close()
    const tasks = [
      keeping,
      listening,
      containing,
      redirecting,
      reporting,
      checking,
      controlling,
      givingBack,
      provisioning.stop(),
    ]
    await Promise.race([Promise.all(tasks), clock.sleep(TASK_GRACE_MS)])
    for (const module of ['redirector', 'proxyServer', 'keyKeeper'] as const) telling.board.setState(module, 'STOPPED')
    await Promise.race([Promise.all([status.write(), rulesLog.flush(), telemetry.save()]), clock.sleep(LOG_GRACE_MS)])
    await telling.logs.close(LOG_GRACE_MS)
  }
  return {
    done: run(),
    stop: () => stopping.abort(),
    reload: () => {
      const reloaded = manager.reloading()
      keeper.refresh()
      void Promise.resolve(rules.reread()).then(reloaded)
    },
    die: (code, lastWords) =>
      endByFault(code, [
        redirection.stop,
        // A thread that waits for a disk keeps the dead process's descriptors open: nobody shall wait at this door.
        () => void server?.close(0),
        redirection.release,
        () => telling.log.error(lastWords),
        telling.logs.flushSync,
      ]),
    exit: exitNow,
  }
}

const SERVICE_MANAGER_ENV: ServiceManagerEnv = {
  open: openNotifySocket,
  pid: process.pid,
  monotonicUs: () => monotonicNowNs() / 1000n,
  later: (action, ms) => void setTimeout(action, ms).unref(),
}

const MEMORY_ENV: MemoryReturnEnv = {
  cpuMs() {
    const { user, system } = process.cpuUsage()
    return (user + system) / 1000
  },
  giveBack: giveMemoryBack,
}

const MODULES = { redirector: 'redirector', keyLatch: 'keyKeeper', listener: 'proxyServer' } as const satisfies Record<
  ReadyFlag,
  Parameters<StatusBoard['message']>[0]
>

/** Says that we are here, and what is odd about the configuration. */
function greet({ log, console, board }: Telling, config: Config, version: string, osRelease: string): void {
  const text = `============== GuestProxyAgent (${version}) is starting on ${osName(osRelease)}(${machine()}), elapsed: ${processAgeMs()}`
  log.info(text)
  console(text)
  log.info(`Configuration: ${config.path}`)
  for (const notice of config.notices) log.warn(notice)
  try {
    forbidCoreDumps()
  } catch (error) {
    log.warn(`Core dumps of the agent cannot be forbidden: ${describeError(error)}`)
  }
  board.setMessage('redirector', 'eBPF redirector is starting')
  board.setState('keyKeeper', 'RUNNING')
}

function buildRedirection(
  config: Config,
  clock: Clock,
  { log, board, milestone }: Telling,
  provisioning: Provisioning,
  listenerDescriptor: () => number | undefined,
  onChange: (redirector: Redirector | undefined) => void,
): Redirection {
  const redirection: Redirection = createRedirection({
    listener: listenerDescriptor,
    start: () => {
      const { path: cgroupPath } = findCgroup(config.cgroupRoot)
      const redirector = startRedirector({
        cgroupPath,
        listener: LISTENER,
        servedNetns: findOwnNetnsCookie(),
        probe: SELF_PROBE,
        pins: { folder: config.pinFolder, failClosed: config.failClosed, guarded: ENDPOINTS },
        containers: config.containers,
      })
      const { adopted, failClosed } = redirector.features
      const taken = adopted === 'nothing' ? '' : `; taken over from an earlier agent: ${adopted}`
      const stays = failClosed ? `; stays when the agent ends, pinned in ${config.pinFolder}` : ''
      log.info(`Attached to the processes of ${cgroupPath}${taken}${stays}`)
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
        onChange(isReady ? redirection.current() : undefined)
      },
      onMessage: (message) => {
        board.setState('redirector', 'STOPPED')
        board.setMessage('redirector', message)
      },
      onRedirected(destinations) {
        try {
          handleStaleConnections(destinations, config.closeStaleConnections, STALE_CONNECTIONS_ENV, log)
        } catch (error) {
          log.warn(`Connections from before redirection cannot be looked for: ${describeError(error)}`)
        }
      },
    },
  })
  return redirection
}

const CONTAINERS_ENV: ContainersEnv = {
  openNamespace: openNetworkNamespace,
  namespaceOf: findNetworkNamespaceId,
  pids: listProcesses,
  isListening,
  openNamespaceOf: openNetworkNamespaceOf,
}

const STALE_CONNECTIONS_ENV = {
  readSockets: readTcpSockets,
  ownInodes: ownSocketInodes,
  findHolders: findSocketHolders,
  destroy: destroyTcpSocket,
} as const

/** The names of local rules files, as existing agents have them. */
const LOCAL_RULES_FILES = { wireserver: 'WireServer_Rules.json', imds: 'IMDS_Rules.json' } as const

function buildRules(
  config: Config,
  directory: string,
  clock: Clock,
  { log }: Telling,
  rulesLog: RulesLog,
): RulesHolder {
  const file = (endpoint: keyof typeof LOCAL_RULES_FILES, title: 'WireServer' | 'IMDS') =>
    createLocalRulesFile({ title, path: join(directory, LOCAL_RULES_FILES[endpoint]), clock, log })
  const localFiles = { wireserver: file('wireserver', 'WireServer'), imds: file('imds', 'IMDS') }
  return createRulesHolder(config.canonicalRequestMode, log, { localFiles, onApplied: rulesLog.write })
}

function buildKeeper(
  config: Config,
  clock: Clock,
  { log, board, milestone }: Telling,
  provisioning: Provisioning,
  rules: RulesHolder,
  rulesWatch: DirectoryWatch,
  hostClock: HostClock,
  redirection: Redirection,
  report: Report,
  firstWord: FirstWord,
): KeyKeeper {
  return createKeyKeeper({
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
      onRules(received) {
        report.polled()
        // Begun first, so that an edit after the files were read is seen; not waited for, since its disk may hang.
        void rulesWatch.ensure()
        return rules.update(received)
      },
      onReset: () => provisioning.reset(),
      onSnapshot(snapshot) {
        report.seen(snapshot)
        board.setKeyStates(keyStates(snapshot))
        redirection.setModes(snapshot.state?.modes)
        if (snapshot.state !== undefined) firstWord.heard()
        if (snapshot.isLatched || snapshot.stateText === 'Unknown') provisioning.set('keyLatch', snapshot.isLatched)
      },
    },
  })
}

/** The channel as the status document shows it. */
function keyStates({ stateText, key, state }: ChannelSnapshot): Record<string, string | undefined> {
  return {
    secureChannelState: stateText,
    keyGuid: key?.guid,
    keyIncarnationId: key?.incarnationId?.toString(),
    wireServerRuleId: state?.ruleIds.wireserver ?? '',
    imdsRuleId: state?.ruleIds.imds ?? '',
    hostGARuleId: state?.ruleIds.hostga ?? '',
  }
}

function buildStages(
  config: Config,
  clock: Clock,
  telling: Telling,
  provisioning: Provisioning,
  rules: RulesHolder,
  hostClock: HostClock,
  redirection: Redirection,
  keeper: KeyKeeper,
  hostClient: HostClient,
  probe: SelfProbe,
  firstWord: FirstWord,
): ProxyStages {
  const env: IdentityEnv = {
    proc: procReader,
    users: createUserDirectory(userDirectoryEnv(clock.monotonicMs)),
    namespaces: readHostNamespaces(),
    cgroups: createCgroups(cgroupsEnv()),
    hashes: createContentHashes(),
    programs: createKnownPrograms(),
    asksForHash: rules.asksForHash,
    epochMsOf: (monotonicNs) => Date.now() - Number((monotonicNowNs() - monotonicNs) / 1_000_000n),
  }
  return {
    attribute(peer, fd, netns) {
      const attribution = attribute(peer, fd, redirection.current(), netns, env, config, {
        report: (message) => telling.log.error(message),
        failed: telling.metrics.notAttributed,
      })
      return attribution && { ...attribution, caller: firstWord.after(attribution.caller) }
    },
    isReady: firstWord.isHeard,
    sockets: LISTENER_SOCKETS,
    decide: rules.decide,
    isExemptUpload,
    nextRequestId: telling.nextRequestId,
    httpDate: hostClock.httpDate,
    authorize: (request) => {
      const { key } = keeper.snapshot()
      return key && authorizationValue(key, request)
    },
    keyAfter: (authorization) => keeper.keyAfter(authorization.split(' ')[1] ?? ''),
    isSelfProbe: probe.isAsked,
    provision: (query) => answerProvision(query, keeper, provisioning),
    statusJson: () => JSON.stringify(telling.board.document()),
    hostClient,
    bodyBudget: createBodyBudget(),
    observer: telling.observer,
  }
}

function buildTelemetry(
  config: Config,
  version: string,
  osRelease: string,
  clock: Clock,
  { logs, board }: Telling,
  hostClock: HostClock,
  keeper: KeyKeeper,
): Telemetry {
  const log = logs.quiet
  const counts = logs.eventCounts
  const host = createHostLink({
    httpDate: hostClock.httpDate,
    timeoutMs: HOST_CALL_TIMEOUT_MS,
    maxBodyBytes: MAX_HOST_ANSWER_BYTES,
    key: () => keeper.snapshot().key,
  })
  return createTelemetry({
    fresh: logs.events,
    folder: createEventFolder({
      directory: config.eventFolder,
      maxLogFiles: config.maxEventFileCount,
      clock,
      counts,
      log,
    }),
    metadata: createVmMetadata({ ask: host.ask, machine: readMachineFacts(osRelease), clock, log }),
    post: host.post,
    counts,
    board,
    writer: { version, pid: process.pid },
    clock,
    log,
    intervalMs: config.telemetryIntervalMs,
  })
}

function answerProvision(query: ProvisionQuery, keeper: KeyKeeper, provisioning: Provisioning) {
  const { isLatched, stateText } = keeper.snapshot()
  const isEnforcing = stateText !== 'disabled' && stateText !== 'Unknown'
  const state = provisioning.query(query.tick, isLatched && isEnforcing)
  if (query.notify && !state.finished) keeper.wake()
  return state
}

/** Runs what can wait until provisioning has ended well, or for a minute: the CPU limit, then `tasks` to their end. */
async function runDelayed(
  provisioned: Promise<void>,
  telling: Telling,
  tasks: readonly ((signal: AbortSignal) => Promise<void>)[],
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  await Promise.race([provisioned, clock.sleep(DELAYED_TASKS_AFTER_MS, signal)])
  if (signal.aborted) return
  void limitCpu(telling.log)
  await Promise.all(tasks.map((task) => task(signal)))
}

/** What the kernel counted since the programs were attached. */
function describeCounters(redirection: Redirection): string {
  const counters = Object.entries(redirection.current()?.counters() ?? {})
  return counters.map(([name, count]) => `${name} ${count}`).join(', ') || 'none, it was not on'
}
