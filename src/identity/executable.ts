/**
 * Finds the name that an executable has on the host, if it has one that proves something.
 *
 * Where a name ends up depends on mounts, and any user can make mounts: in a user namespace of his own he puts a program
 * over /usr/sbin/X and starts it there, even from outside, through /proc/PID/root, as a process that lives in the host's
 * mount namespace. So the namespace of the process proves nothing. The mount that the executable was reached through does:
 *
 *     the mount is in the table of process 1 or of the agent ⇒ root made it, and the path is the host's
 *     it is not, but the host's file at this path is the recorded one ⇒ a sandboxed service, running the host's file
 *     else ⇒ unknown
 *
 * File systems that are not known to be local are never asked: see descriptor.ts. What is compared then is what the
 * kernel knows without them.
 */

import { type ConnectionRecord, statDevice } from '../ebpf/records.ts'
import { isWithin, type Mount } from '../sys/mountinfo.ts'
import type { FileId } from './descriptor.ts'
import type { HostFiles, Viewpoint } from './host-files.ts'
import type { Executable, HostNamespaces } from './process.ts'

export type ExecutableName =
  | { readonly kind: 'known'; readonly path: string }
  /** It is the program that connected, but its name is not proven; `doubt` says why. */
  | { readonly kind: 'unknown'; readonly doubt: string }
  /** It is not the program that connected. */
  | { readonly kind: 'replaced' }

/** File systems that answer by themselves: on disks of the machine, or in its memory. */
const LOCAL_FILE_SYSTEMS: ReadonlySet<string> = new Set([
  'btrfs',
  'erofs',
  'ext2',
  'ext3',
  'ext4',
  'f2fs',
  'iso9660',
  'overlay',
  'ramfs',
  'squashfs',
  'tmpfs',
  'vfat',
  'xfs',
])

/** The kernel's mark of a removed or replaced file. A file can also be called so. */
const DELETED = ' (deleted)'

/** All mounts as one of the two sees them. */
interface View {
  readonly viewpoint: Viewpoint
  readonly mounts: readonly Mount[]
}

const REPLACED: ExecutableName = { kind: 'replaced' }

/**
 * Names the executable of a process whose start is already known to be the recorded one.
 * @param executable held open, so that its mount and its mount's id stay what they are
 */
export function nameExecutable(
  executable: Executable,
  record: ConnectionRecord,
  host: HostFiles,
  namespaces: HostNamespaces,
): ExecutableName {
  if (executable.inode !== undefined && executable.inode !== record.exeInode) return REPLACED
  const views: View[] = []
  for (const viewpoint of orderViewpoints(record, namespaces)) {
    const mounts: Mount[] = []
    for (const mount of host.mounts(viewpoint)) {
      if (mount.id === executable.mountId) return nameOnHostMount(executable, mount, record)
      mounts.push(mount)
    }
    views.push({ viewpoint, mounts })
  }
  const path = executable.path()
  if (path === undefined) return unknown('the executable cannot be read')
  if (views.some((view) => isHostFile(path, record, view, host))) return { kind: 'known', path }
  return unknown(`the executable '${path}' was not started from a mount of the host and is not proven to be its file`)
}

/**
 * Names an executable on a mount that root made. A removed file keeps the name it had.
 * A mount can be of a part of a file system, and a file be moved out of that part: then no path leads there, and the kernel
 * gives `/`. Whatever it gives, what is not below the mount is no name.
 */
function nameOnHostMount(executable: Executable, mount: Mount, record: ConnectionRecord): ExecutableName {
  const isLocal = LOCAL_FILE_SYSTEMS.has(mount.fileSystem)
  // Before the path is read: a file that has no name left never gets one again, and then the mark is the kernel's.
  const stat = isLocal ? executable.stat() : undefined
  const inode = isLocal ? stat?.inode : executable.inode
  if (inode !== record.exeInode || statDevice(mount.kernelDevice) !== record.exeDevice) return REPLACED
  if (stat !== undefined && !isRecorded(stat, record)) {
    const shared = `lies on ${mount.fileSystem}, where files can share an inode number`
    return unknown(`the executable ${shared}, and is not of the recorded time and size`)
  }
  const seen = executable.path()
  if (seen === undefined) return unknown('the executable cannot be read')
  const path = stat?.links === 0n && seen.endsWith(DELETED) ? seen.slice(0, -DELETED.length) : seen
  if (path !== '/' && isWithin(path, mount.mountPoint)) return { kind: 'known', path }
  return unknown(`the executable '${path}' was moved out of its mount at '${mount.mountPoint}'`)
}

/**
 * Tells whether the host's file at `path` is the one that connected. Tried only where the way is local from end to end and
 * leads to the recorded device; a container's executable fails there, before anything is looked up.
 */
function isHostFile(path: string, record: ConnectionRecord, { viewpoint, mounts }: View, host: HostFiles): boolean {
  const onTheWay = mounts.filter(({ mountPoint }) => isWithin(path, mountPoint))
  if (!onTheWay.every(isLocalMount)) return false
  const deepest = onTheWay.reduce<Mount | undefined>(
    (best, mount) => (best !== undefined && best.mountPoint.length > mount.mountPoint.length ? best : mount),
    undefined,
  )
  if (deepest === undefined || statDevice(deepest.kernelDevice) !== record.exeDevice) return false
  const safe = new Set(mounts.filter(isLocalMount).map(({ id }) => id))
  const file = host.fileAt(viewpoint, path, (mountId) => safe.has(mountId))
  return file !== undefined && isRecorded(file, record)
}

function isLocalMount({ fileSystem }: Mount): boolean {
  return LOCAL_FILE_SYSTEMS.has(fileSystem)
}

/**
 * Tells whether stat(2) agrees with the record, which holds the inode number and the device of the whole file system.
 * Where a file system has several sets of inode numbers (subvolumes of btrfs, layers of overlay) stat gives each set a
 * device of its own: they differ, and the numbers can mean several files. There the recorded change time and size have to be
 * the same as well: nobody can give a file of his own the time of another one's last change, and files that an image brought,
 * which may all have one time, differ in size.
 */
function isRecorded(file: FileId, record: ConnectionRecord): boolean {
  if (file.inode !== record.exeInode) return false
  if (file.device === BigInt(record.exeDevice)) return true
  const { exeChangedAtNs, exeSizeBytes } = record
  return exeChangedAtNs !== 0n && file.changedAtNs === exeChangedAtNs && file.sizeBytes === exeSizeBytes
}

/**
 * Tells whether the executable is the recorded file beyond doubt, and can be read without waiting for anybody: on a local
 * file system that is mounted where process 1 or the agent see it. Where it was reached through does not matter, so files of
 * containers are among them.
 * @param ownMounts of the process
 */
export function isRecordedLocalFile(
  executable: Executable,
  record: ConnectionRecord,
  ownMounts: Iterable<Mount>,
  host: HostFiles,
): boolean {
  if (executable.inode !== undefined && executable.inode !== record.exeInode) return false
  let isLocal = false
  let device: number | undefined
  for (const mount of allMounts(host)) {
    if (mount.id === executable.mountId) device = mount.kernelDevice
    isLocal ||= statDevice(mount.kernelDevice) === record.exeDevice && isLocalMount(mount)
    if (isLocal && device !== undefined) break
  }
  if (!isLocal) return false
  if (device === undefined) device = findMount(executable.mountId, ownMounts)?.kernelDevice
  if (device === undefined || statDevice(device) !== record.exeDevice) return false
  const stat = executable.stat()
  return stat !== undefined && isRecorded(stat, record)
}

function findMount(id: number, mounts: Iterable<Mount>): Mount | undefined {
  for (const mount of mounts) if (mount.id === id) return mount
  return undefined
}

function* allMounts(host: HostFiles): Generator<Mount, void> {
  yield* host.mounts('agent')
  yield* host.mounts('host')
}

/** The namespace of the caller is a hint which table has the mount, so that most often one is read. */
function orderViewpoints({ mountNamespace }: ConnectionRecord, namespaces: HostNamespaces): readonly Viewpoint[] {
  const { hostMount, ownMount } = namespaces
  if (ownMount !== 0 && ownMount === hostMount) return ['agent']
  return mountNamespace === ownMount ? ['agent', 'host'] : ['host', 'agent']
}

function unknown(doubt: string): ExecutableName {
  return { kind: 'unknown', doubt }
}
