/**
 * What the service manager is told: that the service is ready, how it is, that it stops, that it is alive. And what it
 * keeps for the next process of the service: listeners, in whose queues clients wait meanwhile.
 *
 * Nothing happens where there is no manager. A message that cannot be delivered is told once and never waited for.
 * Source: sd_notify(3), sd_watchdog_enabled(3), sd_pid_notify_with_fds(3), sd_listen_fds(3).
 */

import { describeError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { escapeControls } from '../base/text.ts'
import type { NotifySocket } from '../sys/notify-socket.ts'

export interface ServiceManager {
  /** How long it waits for a beat before it ends the service; `undefined`: it does not. */
  readonly watchdogMs: number | undefined
  /** Start-up is over. Told once. */
  ready(): void
  /** One line for people; told when it has changed. */
  status(text: string): void
  /** The configuration is being read again. @returns to be called when that is done; nothing before `ready` */
  reloading(): () => void
  stopping(): void
  /** Alive, and doing its work. */
  beat(): void
  /** Descriptors that a process before this one left with it, by name. */
  readonly inherited: ReadonlyMap<string, number>
  /** Leaves a descriptor with it; told once for each. A manager that keeps none does not mind. */
  keep(name: string, descriptor: number): void
  /** Takes back what was left under that name, by this process or the one before it. */
  drop(name: string): void
}

export interface ServiceManagerEnv {
  /** @throws when there is no such address */
  readonly open: (address: string) => NotifySocket
  readonly pid: number
  /** Microseconds of CLOCK_MONOTONIC. */
  readonly monotonicUs: () => bigint
}

/** The variables that are for this process alone. */
const VARIABLES = [
  'NOTIFY_SOCKET',
  'WATCHDOG_USEC',
  'WATCHDOG_PID',
  'LISTEN_PID',
  'LISTEN_FDS',
  'LISTEN_FDNAMES',
] as const

/** The number of the first descriptor that is handed over. Source: sd_listen_fds(3). */
const FIRST_DESCRIPTOR = 3

/** Takes the manager's variables out of `environment`, so that no child inherits them, and opens the way to it. */
export function joinServiceManager(
  environment: Record<string, string | undefined>,
  log: Log,
  env: ServiceManagerEnv,
): ServiceManager {
  const [address, watchdogUsec, watchdogPid, ...handed] = VARIABLES.map((name) => environment[name])
  for (const name of VARIABLES) delete environment[name]
  const socket = address ? open(address, log, env) : undefined
  let isReady = false
  let lastStatus = ''
  let lastFailure: string | undefined

  const inherited = findHandedOver(handed, env.pid)
  const kept = new Map(inherited)
  /** Names that it has not been told to drop: it had no time to listen. What it keeps lives on. */
  const undropped = new Set<string>()

  /** @returns whether it was taken */
  const send = (...lines: string[]) => tellFailure(socket?.send(lines.join('\n')))
  const tellFailure = (failure: string | undefined) => {
    if (failure !== undefined && failure !== lastFailure) log.warn(`The service manager does not listen: ${failure}`)
    lastFailure = failure
    return failure === undefined
  }
  const tellDropped = (name: string) => {
    if (send('FDSTOREREMOVE=1', `FDNAME=${name}`)) undropped.delete(name)
    else undropped.add(name)
  }
  return {
    watchdogMs: socket && readWatchdogMs(watchdogUsec, watchdogPid, env.pid),
    ready() {
      if (!isReady) send('READY=1')
      isReady = true
    },
    status(text) {
      if (text === lastStatus) return
      lastStatus = text
      send(`STATUS=${escapeControls(text)}`)
    },
    reloading() {
      if (!isReady) return () => undefined
      send('RELOADING=1', `MONOTONIC_USEC=${env.monotonicUs()}`)
      return () => void send('READY=1')
    },
    stopping: () => void send('STOPPING=1'),
    beat() {
      send('WATCHDOG=1')
      for (const name of undropped) tellDropped(name)
    },
    inherited,
    keep(name, descriptor) {
      if (kept.get(name) === descriptor) return
      if (undropped.has(name)) tellDropped(name)
      // Two under one name could not be told apart.
      if (undropped.has(name)) return
      kept.set(name, descriptor)
      tellFailure(socket?.sendWithDescriptor(`FDSTORE=1\nFDNAME=${name}`, descriptor))
    },
    drop(name) {
      if (kept.delete(name)) tellDropped(name)
    },
  }
}

/** The variables may be meant for a process before this one that did not take them out of the environment. */
function findHandedOver([pid, count, names]: readonly (string | undefined)[], ownPid: number): Map<string, number> {
  if (pid !== String(ownPid) || names === undefined || !/^\d{1,4}$/.test(count ?? '')) return new Map()
  const known = names.split(':').slice(0, Number(count))
  return new Map(known.map((name, index) => [name, FIRST_DESCRIPTOR + index]))
}

function open(address: string, log: Log, env: ServiceManagerEnv): NotifySocket | undefined {
  try {
    return env.open(address)
  } catch (error) {
    log.warn(`Cannot reach the service manager at NOTIFY_SOCKET: ${describeError(error)}`)
    return undefined
  }
}

/** The watchdog may be meant for another process that shares our environment. */
function readWatchdogMs(usec: string | undefined, pid: string | undefined, ownPid: number): number | undefined {
  if (usec === undefined || !/^[1-9]\d{0,15}$/.test(usec)) return undefined
  if (pid !== undefined && pid !== String(ownPid)) return undefined
  return Number(usec) / 1000
}
