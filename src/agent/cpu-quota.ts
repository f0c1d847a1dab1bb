/**
 * Limits the service's share of the processor once start-up is over.
 *
 * Only for the service that systemd runs under our name, only until the next boot (`--runtime`), and without waiting: the
 * limit is a courtesy to the machine's owner, not a condition.
 * Source: systemctl(1) set-property; sd_booted(3); systemd.exec(5), INVOCATION_ID.
 */

import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { describeError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'

export const SERVICE = 'azure-proxy-agent.service'

const QUOTA = '15%'
const TIMEOUT_MS = 10_000

/** What the limit calls of the world. */
export interface CpuQuotaEnv {
  /** Whether systemd is the init of this machine. */
  isBooted(): boolean
  /** Content of /proc/self/cgroup. */
  readOwnCgroup(): string
  /** Runs systemctl. @throws when it cannot be run, fails, or takes too long. */
  systemctl(args: readonly string[]): Promise<void>
}

export const cpuQuotaEnv: CpuQuotaEnv = {
  isBooted: () => existsSync('/run/systemd/system'),
  readOwnCgroup: () => readFileSync('/proc/self/cgroup', 'utf8'),
  systemctl: (args) =>
    new Promise((resolve, reject) => {
      const options = { timeout: TIMEOUT_MS, killSignal: 'SIGKILL', env: {} } as const
      execFile('/usr/bin/systemctl', args, options, (error, _, stderr) =>
        error === null ? resolve() : reject(new Error(stderr.trim() || error.message)),
      )
    }),
}

/** Sets the limit if this process is the service. Never rejects; a failure is logged. */
export async function limitCpu(log: Log, env: CpuQuotaEnv = cpuQuotaEnv): Promise<void> {
  try {
    if (!env.isBooted() || !isService(env.readOwnCgroup())) return
    await env.systemctl(['set-property', '--runtime', SERVICE, `CPUQuota=${QUOTA}`])
    log.info(`Successfully set ${SERVICE} CPU quota to ${QUOTA}`)
  } catch (error) {
    log.warn(`Failed to set ${SERVICE} CPU quota with error: ${describeError(error)}`)
  }
}

/** Reads lines such as `0::/system.slice/azure-proxy-agent.service`. Source: cgroups(7), /proc/PID/cgroup. */
function isService(cgroups: string): boolean {
  return cgroups.split('\n').some((line) => line.split('/').includes(SERVICE))
}
