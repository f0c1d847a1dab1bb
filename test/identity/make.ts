/** Connection records, processes and users as tests of identity want them. */

import { type ConnectionRecord, startTicks } from '../../src/ebpf/records.ts'
import type { FileId, HostNamespaces, ProcessView, ProcReader } from '../../src/identity/process.ts'
import type { UserDirectory } from '../../src/identity/users.ts'

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
  cgroupId: 5n,
  mountNamespace: HOST_MOUNT,
  userNamespace: INITIAL_USER_NAMESPACE,
  pidNamespace: OWN_PID_NAMESPACE,
  comm: 'curl',
  recordedAtNs: 1n,
  reduced: false,
}

export const START_TICKS = startTicks(RECORD.startTimeNs)
export const CURL_FILE: FileId = { inode: 77n, device: 0xfe01n }
export const CURL = { path: '/usr/bin/curl', ...CURL_FILE }

export interface FakeProc extends ProcReader {
  /** Views that were opened and not disposed. */
  open(pid: number): ProcessView | undefined
  readonly openViews: () => number
  readonly asked: string[]
}

/** A /proc with one process, 4711, which is alice's curl unless `set` says otherwise. */
export function fakeProc(
  set: Partial<Pick<ProcessView, 'startTicks' | 'executable' | 'commandLine'>> = {},
  hostFiles: Readonly<Record<string, readonly FileId[]>> = { '/usr/bin/curl': [CURL_FILE] },
): FakeProc {
  let openViews = 0
  const asked: string[] = []
  return {
    asked,
    openViews: () => openViews,
    open(pid) {
      asked.push(`open ${pid}`)
      if (pid !== RECORD.pid) return undefined
      openViews++
      return {
        startTicks: () => START_TICKS,
        executable: () => CURL,
        commandLine: () => Buffer.from('curl\0-s\0http://169.254.169.254/\0'),
        ...set,
        [Symbol.dispose]: () => {
          openViews--
        },
      }
    },
    hostFiles(path) {
      asked.push(`host ${path}`)
      return [...(hostFiles[path] ?? [])]
    },
  }
}

export const USERS: UserDirectory = {
  lookUp: async (uid) =>
    uid === 1000
      ? { userName: 'alice', groups: ['alice', 'adm'] }
      : uid === 0
        ? { userName: 'root', groups: ['root'] }
        : { userName: 'undefined', groups: [] },
}
