import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type ConnectionRecord, kernelDevice } from '../../src/ebpf/records.ts'
import { type ExecutableName, nameExecutable } from '../../src/identity/executable.ts'
import type { HostFiles } from '../../src/identity/host-files.ts'
import type { Mount } from '../../src/sys/mountinfo.ts'
import {
  AGENT_MOUNTS,
  CONTAINER_MOUNT,
  CURL_FILE,
  type FakeExecutable,
  type FakeHost,
  FOREIGN_MOUNT,
  fakeExecutable,
  fakeHost,
  HOST_MOUNT,
  HOST_MOUNTS,
  mount,
  NAMESPACES,
  RECORD,
} from './make.ts'

interface Situation {
  readonly situation: string
  readonly executable?: Partial<FakeExecutable>
  readonly record?: Partial<ConnectionRecord>
  readonly host?: FakeHost
  readonly expected: ExecutableName
}

const known = (path: string): ExecutableName => ({ kind: 'known', path })
const unknown = (doubt: string): ExecutableName => ({ kind: 'unknown', doubt })
const notProven = (path: string) =>
  unknown(`the executable '${path}' was not started from a mount of the host and is not proven to be its file`)
const REPLACED: ExecutableName = { kind: 'replaced' }

/** The mounts with some more, which the agent has as well; nobody may look for files on them. */
const withMounts = (...more: (Partial<Mount> & { id: number })[]): FakeHost => ({
  mounts: {
    host: [...HOST_MOUNTS, ...more.map(mount)],
    agent: [...AGENT_MOUNTS, ...more.map((each) => mount({ ...each, id: each.id + 100 }))],
  },
  files: 'never',
})

const DISK = kernelDevice(0xfe01)

const SITUATIONS: readonly Situation[] = [
  { situation: 'lies on the disk of the host', host: withMounts(), expected: known('/usr/bin/curl') },
  {
    situation: 'lies on a mount of the agent alone',
    executable: { mountId: 127 },
    host: withMounts(),
    expected: known('/usr/bin/curl'),
  },
  {
    situation: 'lies on a mount of the host, its process in a mount namespace that does not count',
    record: { mountNamespace: CONTAINER_MOUNT },
    host: withMounts(),
    expected: known('/usr/bin/curl'),
  },
  {
    situation: 'was bound by root over another path',
    executable: { mountId: 50, path: '/usr/sbin/tool' },
    host: withMounts({ id: 50, root: '/opt/tool-2', mountPoint: '/usr/sbin/tool' }),
    expected: known('/usr/sbin/tool'),
  },
  {
    situation: 'was replaced while it runs',
    executable: { path: '/usr/bin/curl (deleted)', stat: { ...CURL_FILE, links: 0n } },
    host: withMounts(),
    expected: known('/usr/bin/curl'),
  },
  {
    situation: 'has a name that looks like the mark of a removed one',
    executable: { path: '/tmp/curl (deleted)' },
    host: withMounts(),
    expected: known('/tmp/curl (deleted)'),
  },
  {
    situation: 'was removed and has such a name as well',
    executable: { path: '/tmp/curl (deleted) (deleted)', stat: { ...CURL_FILE, links: 0n } },
    host: withMounts(),
    expected: known('/tmp/curl (deleted)'),
  },
  {
    situation: 'lies on a file server: the server is not asked',
    executable: { mountId: 50, path: '/apps/tool', stat: 'never' },
    record: { exeDevice: 0x30 },
    host: withMounts({ id: 50, kernelDevice: 0x30, mountPoint: '/apps', fileSystem: 'nfs4' }),
    expected: known('/apps/tool'),
  },
  {
    situation: 'became another file of a file server',
    executable: { mountId: 50, path: '/apps/tool', stat: 'never' },
    record: { exeDevice: 0x31 },
    host: withMounts({ id: 50, kernelDevice: 0x30, mountPoint: '/apps', fileSystem: 'nfs4' }),
    expected: REPLACED,
  },
  {
    situation: 'lies on a user-space file system in the host, on a kernel that tells no inode',
    executable: { mountId: 50, path: '/home/alice/x/tool', inode: undefined, stat: 'never' },
    record: { exeDevice: 0x30 },
    host: withMounts({ id: 50, kernelDevice: 0x30, mountPoint: '/home/alice/x', fileSystem: 'fuse.x' }),
    expected: REPLACED,
  },
  {
    situation: 'lies on the disk, on a kernel that tells no inode',
    executable: { inode: undefined },
    host: withMounts(),
    expected: known('/usr/bin/curl'),
  },
  {
    situation: 'became another by exec, on a kernel that tells no inode',
    executable: { inode: undefined, stat: { ...CURL_FILE, inode: 78n } },
    host: withMounts(),
    expected: REPLACED,
  },
  { situation: 'became another by exec', executable: { inode: 78n, stat: 'never' }, expected: REPLACED },
  {
    situation: 'became one of the same inode number on another disk',
    executable: { mountId: 50, path: '/data/curl' },
    host: withMounts({ id: 50, kernelDevice: DISK + 1, mountPoint: '/data' }),
    expected: REPLACED,
  },
  {
    situation: 'can no longer be asked for',
    executable: { stat: undefined },
    host: withMounts(),
    expected: REPLACED,
  },
  ...(
    [
      ['and is of the recorded time and size', {}, {}, true],
      ['and changed at another time', { changedAtNs: RECORD.exeChangedAtNs + 1n }, {}, false],
      ['and is of another size', { sizeBytes: RECORD.exeSizeBytes + 1n }, {}, false],
      ['and neither is recorded', { changedAtNs: 0n, sizeBytes: 0n }, { exeChangedAtNs: 0n, exeSizeBytes: 0n }, false],
    ] as const
  ).map(([how, file, record, isKnown]) => ({
    situation: `lies on btrfs, where each subvolume counts its own inodes, ${how}`,
    executable: { stat: { ...CURL_FILE, device: 0x2fn, ...file } },
    record,
    host: {
      mounts: { host: [mount({ fileSystem: 'btrfs', root: '/@' })], agent: AGENT_MOUNTS },
      files: 'never',
    } as const,
    expected: isKnown
      ? known('/usr/bin/curl')
      : unknown(
          'the executable lies on btrfs, where files can share an inode number, and is not of the recorded time and size',
        ),
  })),
  {
    situation: 'was moved out of its mount: the path says nothing',
    executable: { mountId: 50, path: '/usr/sbin/tool' },
    host: withMounts({ id: 50, root: '/share', mountPoint: '/home/alice/share' }),
    expected: unknown("the executable '/usr/sbin/tool' was moved out of its mount at '/home/alice/share'"),
  },
  {
    situation: 'was moved out of the mount that is the root: no path leads there',
    executable: { path: '/' },
    host: withMounts(),
    expected: unknown("the executable '/' was moved out of its mount at '/'"),
  },
  {
    situation: 'has a path that cannot be read',
    executable: { path: undefined },
    host: withMounts(),
    expected: unknown('the executable cannot be read'),
  },
  {
    situation: 'has a path that cannot be read, on a foreign mount',
    executable: { path: undefined, mountId: FOREIGN_MOUNT },
    expected: unknown('the executable cannot be read'),
  },
  {
    situation: 'is the file of the host, on a mount of a sandboxed service',
    executable: { mountId: FOREIGN_MOUNT, stat: 'never' },
    expected: known('/usr/bin/curl'),
  },
  {
    situation: 'is the file of the host, as the agent alone sees it',
    executable: { mountId: FOREIGN_MOUNT, stat: 'never' },
    host: { files: { host: {}, agent: { '/usr/bin/curl': CURL_FILE } } },
    expected: known('/usr/bin/curl'),
  },
  {
    situation: 'was bound by a user over a file of the host',
    executable: { mountId: FOREIGN_MOUNT, path: '/usr/sbin/tool', stat: 'never' },
    host: { files: { host: { '/usr/sbin/tool': { ...CURL_FILE, inode: 99n } }, agent: {} } },
    expected: notProven('/usr/sbin/tool'),
  },
  {
    situation: 'has a path in a sandbox that the host does not have',
    executable: { mountId: FOREIGN_MOUNT, path: '/opt/tool', stat: 'never' },
    expected: notProven('/opt/tool'),
  },
  {
    situation: 'was removed in a sandbox',
    executable: { mountId: FOREIGN_MOUNT, path: '/usr/bin/curl (deleted)', stat: 'never' },
    expected: notProven('/usr/bin/curl (deleted)'),
  },
  {
    situation: 'has the inode number of the host file, which lies on another disk',
    executable: { mountId: FOREIGN_MOUNT, stat: 'never' },
    record: { exeDevice: 0xfe02 },
    host: { files: 'never' },
    expected: notProven('/usr/bin/curl'),
  },
  {
    situation: 'lies in memory',
    executable: { mountId: FOREIGN_MOUNT, path: '/memfd:curl (deleted)', stat: 'never' },
    record: { exeDevice: 1 },
    host: { files: 'never' },
    expected: notProven('/memfd:curl (deleted)'),
  },
  {
    situation: 'has a path that leads to an automount of the host: it is not walked',
    executable: { mountId: FOREIGN_MOUNT, path: '/net/x/curl', stat: 'never' },
    host: withMounts({ id: 50, kernelDevice: 0x40, mountPoint: '/net', fileSystem: 'autofs' }),
    expected: notProven('/net/x/curl'),
  },
  {
    situation: 'has a path that leads over a file server to the disk',
    executable: { mountId: FOREIGN_MOUNT, path: '/home/alice/curl', stat: 'never' },
    host: withMounts(
      { id: 50, kernelDevice: 0x40, mountPoint: '/home', fileSystem: 'nfs4' },
      { id: 51, mountPoint: '/home/alice' },
    ),
    expected: notProven('/home/alice/curl'),
  },
  {
    situation: 'has a path on which a user mounted something after the table was read',
    executable: { mountId: FOREIGN_MOUNT, stat: 'never' },
    host: { way: 60 },
    expected: notProven('/usr/bin/curl'),
  },
  ...[
    { what: 'the file', file: {}, expected: known('/usr/bin/curl') },
    { what: 'another file of the same number', file: { changedAtNs: 1n }, expected: notProven('/usr/bin/curl') },
  ].map(({ what, file, expected }) => ({
    situation: `is ${what} of the host on a btrfs disk, in a sandbox`,
    executable: { mountId: FOREIGN_MOUNT, stat: 'never' } as const,
    host: {
      mounts: { host: [mount({ fileSystem: 'btrfs' })], agent: [] },
      files: { host: { '/usr/bin/curl': { ...CURL_FILE, device: 0x2fn, ...file } }, agent: {} },
    },
    expected,
  })),
  {
    situation: 'lies on the topmost of two mounts at one place',
    executable: { mountId: FOREIGN_MOUNT, path: '/data/curl', stat: 'never' },
    host: {
      mounts: {
        host: [mount({ id: 50, mountPoint: '/data' }), mount({ id: 51, mountPoint: '/data', kernelDevice: DISK + 1 })],
        agent: [],
      },
      files: 'never',
    },
    expected: notProven('/data/curl'),
  },
  {
    situation: 'lies anywhere while no table can be read',
    executable: { stat: 'never' },
    host: { mounts: { host: [], agent: [] }, files: 'never' },
    expected: notProven('/usr/bin/curl'),
  },
]

for (const { situation, executable, record, host, expected } of SITUATIONS) {
  test(`nameExecutable() finds ${expected.kind} what ${situation}`, () => {
    const found = nameExecutable(fakeExecutable(executable), { ...RECORD, ...record }, fakeHost(host), NAMESPACES)
    assert.deepEqual(found, expected)
  })
}

test('nameExecutable() takes a removed file for removed only if it was so before its path was read', () => {
  // Removed between the two looks: what the path says was the name of a file that was there.
  let links = 1n
  const executable = {
    ...fakeExecutable(),
    stat: () => ({ ...CURL_FILE, links }),
    path: () => {
      links = 0n
      return '/tmp/curl (deleted)'
    },
  }
  assert.deepEqual(nameExecutable(executable, RECORD, fakeHost(), NAMESPACES), known('/tmp/curl (deleted)'))
})

const { ownMount } = NAMESPACES

const READS: readonly (readonly [situation: string, namespaces: object, record: object, read: readonly string[]])[] = [
  ['a caller of the host', {}, {}, ['host']],
  ["a caller of the agent's own namespace", {}, { mountNamespace: ownMount }, ['agent']],
  ['a caller of an agent that lives in the namespace of the host', { ownMount: HOST_MOUNT }, {}, ['agent']],
  ['a caller whose namespace is not recorded', {}, { mountNamespace: 0 }, ['host']],
  ['a caller while no namespace is readable', { ownMount: 0, hostMount: 0 }, { mountNamespace: 0 }, ['agent']],
]

for (const [situation, namespaces, record, read] of READS) {
  test(`nameExecutable() reads one table for ${situation}`, () => {
    const asked: string[] = []
    const [first] = read
    const executable = fakeExecutable({ mountId: first === 'host' ? 27 : 127 })
    nameExecutable(executable, { ...RECORD, ...record }, fakeHost({}, asked), { ...NAMESPACES, ...namespaces })
    assert.deepEqual(
      asked,
      read.map((viewpoint) => `mounts of ${viewpoint}`),
    )
  })
}

test('nameExecutable() reads no more of a table than it needs', () => {
  function* endless() {
    yield* HOST_MOUNTS
    throw new Error('read on')
  }
  const host: HostFiles = { ...fakeHost(), mounts: endless }
  assert.deepEqual(nameExecutable(fakeExecutable(), RECORD, host, NAMESPACES), known('/usr/bin/curl'))
})
