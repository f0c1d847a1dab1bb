/**
 * What the service manager is told: that the service is ready, how it is, that it stops, that it is alive. And what it
 * keeps for the next process of the service: listeners, in whose queues clients wait meanwhile.
 *
 * Nothing happens where there is no manager, and nobody waits until it has taken a message: see `manager-outbox.ts`.
 * Source: sd_notify(3), sd_watchdog_enabled(3), sd_pid_notify_with_fds(3), sd_listen_fds(3).
 */

import { describeError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { escapeControls } from '../base/text.ts'
import type { NotifySocket } from '../sys/notify-socket.ts'
import { createOutbox, type OutboxEnv } from './manager-outbox.ts'

export interface ServiceManager {
  /** How long it waits for a beat before it ends the service; `undefined`: it does not. */
  readonly watchdogMs: number | undefined
  /** Start-up is over. Told until it was taken once. */
  ready(): void
  /** One line for people; told when it has changed. */
  status(text: string): void
  /** The configuration is being read again. @returns to be called when that is done; nothing before `ready` */
  reloading(): () => void
  /** What it has not taken by now it does not keep any more: its numbers will be those of others. */
  stopping(): void
  /** Alive, and doing its work. */
  beat(): void
  /** Descriptors that a process before this one left with it, by name. */
  readonly inherited: ReadonlyMap<string, number>
  /**
   * Leaves a descriptor with it; told until it was taken once. A manager that keeps none does not mind.
   * @param descriptor stays open until it is dropped, or the service stops
   */
  keep(name: string, descriptor: number): void
  /** Takes back what was left under that name, by this process or the one before it. To be called before it is closed. */
  drop(name: string): void
}

export interface ServiceManagerEnv extends OutboxEnv {
  /** @throws when there is no such address */
  readonly open: (address: string) => NotifySocket
  readonly pid: number
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
  const inherited = findHandedOver(handed, env.pid)
  const outbox = createOutbox(socket, inherited, log, env)
  let lastStatus = ''

  return {
    watchdogMs: socket && readWatchdogMs(watchdogUsec, watchdogPid, env.pid),
    ready() {
      if (!outbox.isReady()) outbox.say('READY', 'READY=1')
    },
    status(text) {
      if (text === lastStatus) return
      lastStatus = text
      outbox.say('STATUS', `STATUS=${escapeControls(text)}`)
    },
    reloading() {
      if (!outbox.isReady()) return () => undefined
      outbox.say('RELOADING', `RELOADING=1\nMONOTONIC_USEC=${env.monotonicUs()}`)
      return () => outbox.say('READY', 'READY=1')
    },
    stopping() {
      outbox.say('STOPPING', 'STOPPING=1')
      outbox.stopWaiting()
    },
    beat: () => outbox.say('WATCHDOG', 'WATCHDOG=1'),
    inherited,
    keep: outbox.keep,
    drop: outbox.drop,
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
