/**
 * Chooses the cgroup2 directory that the programs are attached to: everything below it is covered, nothing else.
 *
 * cgroup2 may be mounted at /sys/fs/cgroup (unified), beside the old controllers (hybrid, often
 * /sys/fs/cgroup/unified), more than once, or as a bind mount of a part of the tree. Only the mount whose root is `/`
 * shows all of what this process can see; in a cgroup namespace that is the namespace's part of the machine.
 *
 * Source: proc_pid_mountinfo(5); cgroups(7).
 */

import { readFileSync, statfsSync } from 'node:fs'
import { AgentError } from '../base/errors.ts'

/** Source: linux/magic.h, CGROUP2_SUPER_MAGIC. */
const CGROUP2_SUPER_MAGIC = 0x63677270

/** One line of mountinfo, as far as it matters here. */
export interface Mount {
  /** Which directory of the file system is mounted: `/` for all of it. */
  readonly root: string
  readonly mountPoint: string
  readonly fileSystem: string
}

/** What `findCgroup()` looks at. */
export interface CgroupEnv {
  readonly readMountinfo: () => string
  /** Tells whether a path lies on a cgroup2 file system; false when it cannot be looked at. */
  readonly isCgroup2: (path: string) => boolean
}

/** The choice, and what it came from. */
export interface CgroupChoice {
  readonly path: string
  readonly from: 'configuration' | 'mountinfo'
}

const REAL_ENV: CgroupEnv = {
  readMountinfo: () => readFileSync('/proc/self/mountinfo', 'utf8'),
  isCgroup2,
}

/**
 * Chooses the directory: the configured one if it is in a cgroup2 file system, at any level; else the first cgroup2
 * mount with root `/` that is not hidden under another mount.
 * A configured directory of another kind is passed over, since the customary default, /sys/fs/cgroup, is not cgroup2
 * on a hybrid machine.
 * @throws AgentError code NO_CGROUP2; its facts tell what was looked at
 */
export function findCgroup(configured: string | undefined, env: CgroupEnv = REAL_ENV): CgroupChoice {
  if (configured !== undefined && env.isCgroup2(configured)) return { path: configured, from: 'configuration' }
  const mounts = parseMountinfo(env.readMountinfo()).filter((mount) => mount.fileSystem === 'cgroup2')
  const whole = mounts.find((mount) => mount.root === '/' && env.isCgroup2(mount.mountPoint))
  if (whole !== undefined) return { path: whole.mountPoint, from: 'mountinfo' }
  const seen = mounts.map((mount) => `${mount.mountPoint} (root ${mount.root})`).join(', ')
  throw new AgentError(
    'NO_CGROUP2',
    mounts.length === 0
      ? 'Cannot find a cgroup2 directory: no cgroup2 file system is mounted'
      : `Cannot find a cgroup2 directory: only parts of the tree are mounted: ${seen}`,
    { configured, hint: 'mount cgroup2, or set cgroupRoot to the directory that covers the machine' },
  )
}

/**
 * Reads mountinfo. Lines that do not have its form are left out.
 *
 *     36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw
 *                root  mount point     optional… -  type
 */
export function parseMountinfo(text: string): Mount[] {
  return text.split('\n').flatMap((line) => {
    const fields = line.split(' ')
    const separator = fields.indexOf('-', 6)
    const [root, mountPoint, fileSystem] = [fields[3], fields[4], separator === -1 ? undefined : fields[separator + 1]]
    if (root === undefined || mountPoint === undefined || fileSystem === undefined) return []
    return [{ root: unescapeOctal(root), mountPoint: unescapeOctal(mountPoint), fileSystem }]
  })
}

/** The kernel writes space, tab, line feed, backslash and `#` as three octal digits; other bytes are UTF-8 as they are. */
function unescapeOctal(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)))
}

function isCgroup2(path: string): boolean {
  try {
    return statfsSync(path).type === CGROUP2_SUPER_MAGIC
  } catch {
    return false // missing or not accessible: not a directory we could attach to
  }
}
