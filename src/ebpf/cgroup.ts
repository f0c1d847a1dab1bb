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
import { join, relative } from 'node:path'
import { AgentError } from '../base/errors.ts'
import { isWithin, parseMounts } from '../sys/mountinfo.ts'

/** Source: linux/magic.h, CGROUP2_SUPER_MAGIC. */
const CGROUP2_SUPER_MAGIC = 0x63677270

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
  const mounts = parseMounts(env.readMountinfo()).filter((mount) => mount.fileSystem === 'cgroup2')
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
 * Says when this process is outside the cgroup that `findCgroup(configured)` chooses: then its own connects pass no
 * program. `undefined`: it is inside, or that cannot be told.
 * Source: cgroups(7), /proc/PID/cgroup.
 */
export function describeOutside(
  configured: string | undefined,
  env: OwnCgroupEnv = OWN_CGROUP_ENV,
): string | undefined {
  const { path } = findCgroup(configured, env)
  const own = /^0::(.*)$/m.exec(env.readOwnCgroup())?.[1]
  const mount = parseMounts(env.readMountinfo()).find(
    ({ fileSystem, mountPoint }) => fileSystem === 'cgroup2' && isWithin(path, mountPoint),
  )
  if (own === undefined || mount === undefined) return undefined
  const guarded = join(mount.root, relative(mount.mountPoint, path))
  if (isWithin(own, guarded)) return undefined
  return `the agent itself is in cgroup ${own}, outside the guarded ${guarded}`
}

/** What `describeOutside()` looks at. */
export interface OwnCgroupEnv extends CgroupEnv {
  readonly readOwnCgroup: () => string
}

const OWN_CGROUP_ENV: OwnCgroupEnv = { ...REAL_ENV, readOwnCgroup: () => readFileSync('/proc/self/cgroup', 'utf8') }

function isCgroup2(path: string): boolean {
  try {
    return statfsSync(path).type === CGROUP2_SUPER_MAGIC
  } catch {
    return false // missing or not accessible: not a directory we could attach to
  }
}
