/**
 * Where a caller runs: the path of its cgroup, and what the path says about service and container.
 *
 * The kernel recorded the number of the cgroup at connect. The path comes from the process that is there now, and counts
 * only if the directory of that path has the recorded number; so it does not matter whose process it is, and a process that
 * moved, or is gone, has an unknown cgroup. Numbers are not used again, and directories of cgroup2 are not renamed: what was
 * found is remembered.
 *
 *     /system.slice/nginx.service                            unit nginx.service
 *     /system.slice/docker-<64 digits>.scope/init            unit docker-….scope, container
 *     /kubepods.slice/kubepods-pod….slice/cri-containerd-<64 digits>.scope
 *     /user.slice/user-1000.slice/user@1000.service/app.slice/x.service   unit user@1000.service
 *
 * A user whom the service manager gave a part of the tree names directories in it as he likes. So a unit is what the
 * system's manager made, the first directory below its slices, and a container is the first of its kind from the top, if
 * root owns all directories down to it.
 *
 * Source: cgroups(7); systemd docs/CGROUP_DELEGATION.md; systemd src/basic/cgroup-util.c, `cg_path_get_unit()`.
 */

import { readdirSync, statSync } from 'node:fs'
import { readMounts } from '../sys/mountinfo.ts'
import { attempt } from './descriptor.ts'

/** Each is `undefined` when it is not known, or there is none. */
export interface Workload {
  /** From the root of cgroup2, such as `/system.slice/nginx.service`. */
  readonly cgroupPath: string | undefined
  readonly systemdUnit: string | undefined
  /** 64 hexadecimal digits in lower case. */
  readonly containerId: string | undefined
}

export interface Cgroups {
  /**
   * Finds out about the cgroup with the number `id`.
   * @param readPath gives the content of /proc/PID/cgroup of a process that may be in it; asked only when `id` is new
   */
  find(id: bigint, readPath: () => string | undefined): Workload
}

/** What is called of the world. */
export interface CgroupsEnv {
  /** Asks for a directory by its path from the root of cgroup2. @returns `undefined` when there is none */
  stat(path: string): { readonly inode: bigint; readonly uid: number } | undefined
}

export const NO_WORKLOAD: Workload = { cgroupPath: undefined, systemdUnit: undefined, containerId: undefined }

const MAX_ENTRIES = 4096

/** Makes a reader with an empty memory. */
export function createCgroups(env: CgroupsEnv): Cgroups {
  const known = new Map<bigint, Workload>()
  return {
    find(id, readPath) {
      const remembered = known.get(id)
      if (remembered !== undefined) return remembered
      const path = parseCgroupPath(readPath() ?? '')
      if (path === undefined || env.stat(path)?.inode !== id) return NO_WORKLOAD
      const workload = describePath(path, (top) => env.stat(top)?.uid === 0)
      if (known.size >= MAX_ENTRIES) known.delete(known.keys().next().value as bigint)
      known.set(id, workload)
      return workload
    },
  }
}

/** The cgroup2 of this machine; without a mount of the whole of it nothing is known. */
export function cgroupsEnv(): CgroupsEnv {
  const root = findRoot()
  return {
    stat: (path) =>
      root === undefined
        ? undefined
        : attempt(() => {
            const { ino, uid } = statSync(`${root}${path}`, { bigint: true })
            return { inode: ino, uid: Number(uid) }
          }),
  }
}

/** Reads the line of cgroup2, `0::/path`. A path that leads out of the part of the tree that we see is none. */
export function parseCgroupPath(text: string): string | undefined {
  const path = /^0::(\/.*)$/m.exec(text)?.[1]
  // The kernel marks a directory that was removed while processes were in it.
  return path === undefined || path.startsWith('/..') || path.endsWith(' (deleted)') ? undefined : path
}

/** Reads a path. @param isRoots tells whether root owns the directory of that path */
export function describePath(path: string, isRoots: (path: string) => boolean): Workload {
  return { cgroupPath: path, systemdUnit: findUnit(path), containerId: findContainer(path, isRoots) }
}

/** The first directory that is no slice; the manager puts `_` before a name that could be taken for a file of the kernel's. */
function findUnit(path: string): string | undefined {
  const name = path
    .split('/')
    .slice(1)
    .find((each) => !each.endsWith('.slice'))
    ?.replace(/^_/, '')
  return name !== undefined && /\.(service|scope|socket|mount|swap)$/.test(name) ? name : undefined
}

/** `docker-<id>.scope`, `crio-<id>.scope`, `libpod-<id>.scope`, `cri-containerd-<id>.scope`, or the id alone. */
const CONTAINER = /^(?:(?:docker|crio|libpod|cri-containerd)-)?([0-9a-f]{64})(?:\.scope)?$/

function findContainer(path: string, isRoots: (path: string) => boolean): string | undefined {
  let top = ''
  for (const name of path.split('/').slice(1)) {
    top += `/${name}`
    if (!isRoots(top)) return undefined
    const id = CONTAINER.exec(name)?.[1]
    if (id !== undefined) return id
  }
  return undefined
}

/** Of several mounts of the whole tree any will do; one that is hidden under another shows no controllers. */
function findRoot(): string | undefined {
  return attempt(() => {
    for (const { fileSystem, root, mountPoint } of readMounts('/proc/self/mountinfo')) {
      if (fileSystem !== 'cgroup2' || root !== '/') continue
      if (attempt(() => readdirSync(mountPoint).includes('cgroup.procs'))) return mountPoint
    }
    return undefined
  })
}
