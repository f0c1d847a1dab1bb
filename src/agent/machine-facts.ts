/** What this machine is: distribution, processors, memory. Read once; none of it changes while we run. */

import { readFileSync } from 'node:fs'
import { cpus, machine, totalmem } from 'node:os'
import type { MachineFacts } from '../telemetry/vm-facts.ts'

/** Reads the file of os-release(5), or `''` when there is none. */
export function readOsRelease(): string {
  for (const path of ['/etc/os-release', '/usr/lib/os-release']) {
    try {
      return readFileSync(path, 'utf8')
    } catch {
      // The next place may have it.
    }
  }
  return ''
}

/** Names the distribution for people. @param osRelease see `readOsRelease` */
export function osName(osRelease: string): string {
  return assigned(osRelease, 'PRETTY_NAME') ?? 'Linux'
}

/** Gathers what telemetry says about the machine. */
export function readMachineFacts(osRelease: string): MachineFacts {
  return {
    cpuArchitecture: machine(),
    osVersion: osVersion(osRelease),
    ramMib: Math.floor(totalmem() / (1024 * 1024)),
    processors: Math.max(1, cpus().length),
  }
}

/** Distributions by the ID of os-release(5), with the names under which telemetry is grouped. */
const DISTRIBUTIONS: Readonly<Record<string, string>> = {
  almalinux: 'AlmaLinux',
  amzn: 'Amazon Linux AMI',
  arch: 'Arch Linux',
  azurelinux: 'Azure Linux',
  centos: 'CentOS',
  debian: 'Debian',
  fedora: 'Fedora',
  mariner: 'Mariner',
  ol: 'Oracle Linux',
  'opensuse-leap': 'openSUSE',
  'opensuse-tumbleweed': 'openSUSE',
  rhel: 'Red Hat Enterprise Linux',
  rocky: 'Rocky Linux',
  sles: 'SUSE Linux Enterprise Server',
  ubuntu: 'Ubuntu',
}

/**
 * Renders `Linux:<distribution>-<version>`. The version of a known distribution is three numbers without zeros in front,
 * as it always was: Ubuntu 22.04 is `Linux:Ubuntu-22.4.0`. Another one is named as it names itself.
 */
export function osVersion(osRelease: string): string {
  const version = assigned(osRelease, 'VERSION_ID')
  const known = DISTRIBUTIONS[assigned(osRelease, 'ID') ?? '']
  const numbers = /^(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?$/.exec(version ?? '')
  if (known === undefined || numbers === null) {
    return `Linux:${known ?? assigned(osRelease, 'NAME') ?? 'Linux'}-${version ?? 'Unknown'}`
  }
  return `Linux:${known}-${numbers
    .slice(1)
    .map((digits) => Number(digits ?? 0))
    .join('.')}`
}

/** Source: os-release(5): shell assignments, one a line, the value in quotes or not. */
function assigned(osRelease: string, name: string): string | undefined {
  const match = new RegExp(`^${name}=(?:"([^"\\n]*)"|'([^'\\n]*)'|([^"'\\s]*))\\s*$`, 'm').exec(osRelease)
  return match?.[1] ?? match?.[2] ?? match?.[3]
}
