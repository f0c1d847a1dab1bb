/** Connection records, processes and users as tests of identity want them. */

import { type ConnectionRecord, kernelDevice, startTicks } from '../../src/ebpf/records.ts'
import { createCgroups } from '../../src/identity/cgroup.ts'
import type { FileStat } from '../../src/identity/descriptor.ts'
import type { HostFiles, Viewpoint } from '../../src/identity/host-files.ts'
import type { Executable, HostNamespaces, ProcessView, ProcReader } from '../../src/identity/process.ts'
import type { UserDirectory } from '../../src/identity/users.ts'
import type { Mount } from '../../src/sys/mountinfo.ts'

export const HOST_MOUNT = 4026531841
export const CONTAINER_MOUNT = 4026532500
export const INITIAL_USER_NAMESPACE = 0xeffffffd
export const OWN_PID_NAMESPACE = 4026531836

export const NAMESPACES: HostNamespaces = { hostMount: HOST_MOUNT, ownMount: 4026532111, ownPid: OWN_PID_NAMESPACE }

/** alice's curl, on the host. */
export const RECORD: ConnectionRecord = {
  destination: { address: '169.254.169.254', port: 80 },
  netnsCookie: 1n,
  pid: 4711,
  uid: 1000,
  gid: 1000,
  startTimeNs: 123_456_789_012n,
  exeInode: 77n,
  exeDevice: 0xfe01,
  exeChangedAtNs: 1_700_000_000_000_000_042n,
  exeSizeBytes: 250_000n,
  cgroupId: 5n,
  mountNamespace: HOST_MOUNT,
  userNamespace: INITIAL_USER_NAMESPACE,
  pidNamespace: OWN_PID_NAMESPACE,
  comm: 'curl',
  recordedAtNs: 1n,
  reduced: false,
}

export const START_TICKS = startTicks(RECORD.startTimeNs)
export const CURL_FILE: FileStat = {
  inode: 77n,
  device: 0xfe01n,
  links: 1n,
  changedAtNs: RECORD.exeChangedAtNs,
  sizeBytes: RECORD.exeSizeBytes,
}

/** The number of no mount that process 1 or the agent has. */
export const FOREIGN_MOUNT = 900

/** A mount of the whole of the system's disk, on `/` and of the number 27 unless `set` says otherwise. */
export function mount(set: Partial<Mount> = {}): Mount {
  return { id: 27, kernelDevice: kernelDevice(0xfe01), root: '/', mountPoint: '/', fileSystem: 'ext4', ...set }
}

/** /proc and the disk, as process 1 has them; the agent has its own mounts of the same. */
export const HOST_MOUNTS: readonly Mount[] = [
  mount({ id: 22, kernelDevice: 21, mountPoint: '/proc', fileSystem: 'proc' }),
  mount(),
]
export const AGENT_MOUNTS: readonly Mount[] = HOST_MOUNTS.map((each) => ({ ...each, id: each.id + 100 }))

export interface FakeExecutable {
  readonly path: string | undefined
  readonly mountId: number
  /** What the kernel tells; `undefined`: an old one. */
  readonly inode: bigint | undefined
  /** What the file system tells; `never`: it must not be asked. */
  readonly stat: FileStat | undefined | 'never'
}

/** curl as started from the host's disk, unless `set` says otherwise. */
export function fakeExecutable(set: Partial<FakeExecutable> = {}): Executable {
  const { path, mountId, inode, stat } = {
    path: '/usr/bin/curl',
    mountId: 27,
    inode: CURL_FILE.inode,
    stat: CURL_FILE,
    ...set,
  }
  return { mountId, inode, path: () => path, stat: () => answer(stat), open: () => undefined }
}

function answer<T>(stat: T | 'never'): T {
  if (stat === 'never') throw new Error('a file system was asked that can keep us waiting')
  return stat
}

export interface FakeHost {
  readonly mounts?: Readonly<Record<Viewpoint, readonly Mount[]>>
  /** By path; `never`: must not be asked for. */
  readonly files?: Readonly<Record<Viewpoint, Readonly<Record<string, FileStat>>>> | 'never'
  /** The mount that is on the way to every file. */
  readonly way?: number
}

/** A host whose disk holds curl. */
export function fakeHost(set: FakeHost = {}, asked: string[] = []): HostFiles {
  const { mounts = { host: HOST_MOUNTS, agent: AGENT_MOUNTS }, way } = set
  const { files = { host: { '/usr/bin/curl': CURL_FILE }, agent: {} } } = set
  return {
    mounts: (viewpoint) => {
      asked.push(`mounts of ${viewpoint}`)
      return mounts[viewpoint]
    },
    fileAt(viewpoint, path, isSafe) {
      asked.push(`${path} of ${viewpoint}`)
      const found = answer(files)[viewpoint]
      return isSafe(way ?? (viewpoint === 'host' ? 27 : 127)) ? found[path] : undefined
    },
  }
}

export interface FakeProc extends ProcReader {
  /** Views that were opened and not disposed. */
  readonly openViews: () => number
  readonly asked: string[]
}

/** A /proc with one process, 4711, which is alice's curl unless `set` says otherwise. */
export function fakeProc(set: Partial<Omit<ProcessView, typeof Symbol.dispose>> = {}, host: FakeHost = {}): FakeProc {
  let openViews = 0
  const asked: string[] = []
  return {
    asked,
    openViews: () => openViews,
    host: fakeHost(host, asked),
    open(pid) {
      asked.push(`open ${pid}`)
      if (pid !== RECORD.pid) return undefined
      openViews++
      return {
        startTicks: () => START_TICKS,
        executable: () => fakeExecutable(),
        mounts: () => HOST_MOUNTS,
        cgroup: () => '0::/system.slice/curl.service\n',
        commandLine: () => Buffer.from('curl\0-s\0http://169.254.169.254/\0'),
        ...set,
        [Symbol.dispose]: () => {
          openViews--
        },
      }
    },
  }
}

/** The cgroup of curl, and root owns it. */
export const CGROUPS = () =>
  createCgroups({
    stat: (path) => ({ inode: path === '/system.slice/curl.service' ? RECORD.cgroupId : 1n, uid: 0 }),
  })

export const USERS: UserDirectory = {
  lookUp: async (uid) =>
    uid === 1000
      ? { userName: 'alice', groups: ['alice', 'adm'] }
      : uid === 0
        ? { userName: 'root', groups: ['root'] }
        : { userName: 'undefined', groups: [] },
}
