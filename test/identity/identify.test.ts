import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { ConnectionRecord } from '../../src/ebpf/records.ts'
import type { Caller } from '../../src/identity/caller.ts'
import { claimsJson } from '../../src/identity/caller.ts'
import { type IdentityEnv, type IdentityOptions, identify } from '../../src/identity/identify.ts'
import { createKnownPrograms } from '../../src/identity/known-programs.ts'
import type { ProcReader } from '../../src/identity/process.ts'
import {
  CGROUPS,
  CURL_FILE,
  type FakeProc,
  FOREIGN_MOUNT,
  fakeExecutable,
  fakeProc,
  HOST_MOUNTS,
  mount,
  NAMESPACES,
  RECORD,
  START_TICKS,
  USERS,
} from './make.ts'

const PEER = { address: '127.0.0.1', port: 40112 }

function ask(
  record: Partial<ConnectionRecord> = {},
  proc: ProcReader = fakeProc(),
  options: IdentityOptions = { containerRootIsElevated: true },
  namespaces = NAMESPACES,
): Promise<Caller> {
  return identify({ ...RECORD, ...record }, PEER, environment({ proc, namespaces }), options)
}

function environment(set: Partial<IdentityEnv> = {}): IdentityEnv {
  return {
    proc: fakeProc(),
    users: USERS,
    namespaces: NAMESPACES,
    cgroups: CGROUPS(),
    hashes: { hash: () => assert.fail('no rule asks for a hash') },
    programs: createKnownPrograms(),
    asksForHash: () => false,
    epochMsOf: () => 0,
    ...set,
  }
}

const ALICE: Caller = {
  uid: 1000,
  gid: 1000,
  userName: 'alice',
  groups: ['alice', 'adm'],
  pid: 4711,
  exePath: '/usr/bin/curl',
  processName: 'curl',
  commandLine: 'curl -s http://169.254.169.254/',
  elevated: false,
  cgroupPath: '/system.slice/curl.service',
  systemdUnit: 'curl.service',
  containerId: undefined,
  exeSha256: undefined,
  foreignNamespaces: [],
  clientAddress: '127.0.0.1',
  clientPort: 40112,
  doubt: undefined,
}

test('identify() knows a process that is still the one that connected', async () => {
  assert.deepEqual(await ask(), ALICE)
})

const UNKNOWN_EXE = { exePath: undefined, processName: undefined }

const DOUBTS: readonly {
  situation: string
  record?: Partial<ConnectionRecord>
  proc?: ProcReader
  expected: Partial<Caller>
}[] = [
  {
    situation: 'the process is gone',
    record: { pid: 4712 },
    expected: {
      ...UNKNOWN_EXE,
      pid: 4712,
      commandLine: 'undefined',
      cgroupPath: undefined,
      systemdUnit: undefined,
      doubt: 'the process is gone',
    },
  },
  {
    situation: 'the process went between opening and reading',
    proc: fakeProc({ startTicks: () => undefined }),
    expected: {
      ...UNKNOWN_EXE,
      commandLine: 'undefined',
      doubt: 'the process id belongs to another process by now',
    },
  },
  {
    situation: 'the pid was given to a process that began later',
    proc: fakeProc({ startTicks: () => START_TICKS + 1n }),
    expected: {
      ...UNKNOWN_EXE,
      commandLine: 'undefined',
      doubt: 'the process id belongs to another process by now',
    },
  },
  {
    situation: 'the process became another program by exec',
    proc: fakeProc({ executable: () => fakeExecutable({ path: '/usr/bin/waagent', inode: 78n }) }),
    expected: {
      ...UNKNOWN_EXE,
      commandLine: 'undefined',
      doubt: 'the process runs another program than when it connected',
    },
  },
  {
    situation: 'the executable cannot be read',
    proc: fakeProc({ executable: () => undefined }),
    expected: { ...UNKNOWN_EXE, doubt: 'the executable cannot be read' },
  },
  {
    situation: 'the record is a reduced one',
    record: { reduced: true, startTimeNs: 0n, exeInode: 0n, exeDevice: 0 },
    expected: {
      ...UNKNOWN_EXE,
      commandLine: 'undefined',
      doubt: 'the kernel gives no type data to record the executable with',
    },
  },
  {
    situation: 'the record has no start time although it is not reduced',
    record: { startTimeNs: 0n },
    proc: fakeProc({ startTicks: () => 0n }),
    expected: {
      ...UNKNOWN_EXE,
      commandLine: 'undefined',
      doubt: 'the process id belongs to another process by now',
    },
  },
  {
    situation: 'the executable was not started from a mount of the host',
    proc: fakeProc(
      { executable: () => fakeExecutable({ mountId: FOREIGN_MOUNT }) },
      { files: { host: { '/usr/bin/curl': { ...CURL_FILE, inode: 99n } }, agent: {} } },
    ),
    expected: {
      ...UNKNOWN_EXE,
      doubt: "the executable '/usr/bin/curl' was not started from a mount of the host and is not proven to be its file",
    },
  },
  {
    situation: 'the command line alone cannot be read',
    proc: fakeProc({ commandLine: () => undefined }),
    expected: { commandLine: 'undefined' },
  },
  {
    situation: 'the process is a zombie without arguments',
    proc: fakeProc({ commandLine: () => Buffer.alloc(0) }),
    expected: { commandLine: '' },
  },
]

for (const { situation, record, proc, expected } of DOUBTS) {
  test(`identify() doubts what it must when ${situation}`, async () => {
    assert.deepEqual(await ask(record, proc), { ...ALICE, ...expected })
  })
}

const ELEVATION: readonly (readonly [
  situation: string,
  record: Partial<ConnectionRecord>,
  whenContainerRootIs: [boolean, boolean],
])[] = [
  ['root', { uid: 0, gid: 0 }, [true, true]],
  ['root with another group', { uid: 0, gid: 3000 }, [true, true]],
  ['a user with group 0', { uid: 1000, gid: 0 }, [false, false]],
  ['root of another user namespace', { uid: 0, userNamespace: 4026532600 }, [false, false]],
  ['root in a container of the initial user namespace', { uid: 0, pidNamespace: 4026532700 }, [true, false]],
  ['root whose namespaces are not recorded', { uid: 0, userNamespace: 0, pidNamespace: 0 }, [false, false]],
  ['root of a reduced record', { uid: 0, reduced: true, userNamespace: 0, pidNamespace: 0 }, [true, false]],
  ['a user of a reduced record', { uid: 1000, reduced: true }, [false, false]],
]

for (const [situation, record, [allowed, refused]] of ELEVATION) {
  test(`identify() takes ${situation} for ${allowed ? 'root' : 'no root'}, and ${refused ? 'as well' : 'not'} where container root is none`, async () => {
    assert.equal((await ask(record)).elevated, allowed)
    assert.equal((await ask(record, fakeProc(), { containerRootIsElevated: false })).elevated, refused)
  })
}

test('identify() does not take an unreadable pid namespace of its own for an unrecorded one', async () => {
  const namespaces = { hostMount: 0, ownMount: 0, ownPid: 0 }
  const record = { uid: 0, pidNamespace: 0, mountNamespace: 0 }
  const caller = await ask(record, fakeProc(), { containerRootIsElevated: false }, namespaces)
  assert.equal(caller.elevated, false)
})

test('identify() looks at no mount when the process is not the recorded one', async () => {
  const late = fakeProc({ startTicks: () => START_TICKS + 1n })
  await ask({}, late)
  assert.deepEqual(late.asked, ['open 4711'])
  const other = fakeProc({ executable: () => fakeExecutable({ inode: 78n }) })
  await ask({}, other)
  assert.deepEqual(other.asked, ['open 4711'])
})

test('identify() reads the process before it waits for names', async () => {
  const proc = fakeProc()
  const { promise, resolve } = Promise.withResolvers<{ userName: string; groups: string[] }>()
  const env = environment({ proc, users: { lookUp: () => promise } })
  const caller = identify(RECORD, PEER, env, { containerRootIsElevated: true })
  assert.deepEqual(proc.asked, ['open 4711', 'mounts of host'])
  assert.equal(proc.openViews(), 0, 'a view is still open')
  resolve({ userName: 'alice', groups: [] })
  assert.equal((await caller).userName, 'alice')
})

const HASH = 'ab'.repeat(32)

/** Asks while a rule wants the hash of the executable. Tells what was to be hashed. */
async function askForHash(proc: ProcReader, record: Partial<ConnectionRecord> = {}) {
  const hashed: unknown[] = []
  const hashes = {
    async hash(fd: number, uid: number, connectedAtMs: number) {
      hashed.push([fd, uid, connectedAtMs])
      return HASH
    },
  }
  const env = environment({ proc, hashes, asksForHash: () => true, epochMsOf: (ns) => Number(ns) + 41 })
  const { exeSha256 } = await identify({ ...RECORD, ...record }, PEER, env, { containerRootIsElevated: true })
  return { exeSha256, hashed }
}

const opened = (set: Parameters<typeof fakeExecutable>[0] = {}) => ({ ...fakeExecutable(set), open: () => 7 })

/** The root of a container, which process 1 sees elsewhere, under another number. */
const CONTAINER_ROOT = mount({ id: FOREIGN_MOUNT, kernelDevice: 0x30, fileSystem: 'overlay' })
const CONTAINER_FILE = { ...CURL_FILE, device: 0x30n }
const WITH_CONTAINER = { host: [...HOST_MOUNTS, mount({ ...CONTAINER_ROOT, id: 60, mountPoint: '/run/c' })], agent: [] }

for (const { situation, executable, record, ownMounts, hostMounts, isHashed } of [
  { situation: 'a file of the host', executable: opened(), isHashed: true },
  {
    situation: 'a file of a container, whose root process 1 sees too',
    executable: opened({ mountId: FOREIGN_MOUNT, stat: CONTAINER_FILE }),
    record: { exeDevice: 0x30 },
    ownMounts: [CONTAINER_ROOT],
    hostMounts: WITH_CONTAINER,
    isHashed: true,
  },
  {
    situation: 'a file of a file system that only the caller sees: it is not asked',
    executable: opened({ mountId: FOREIGN_MOUNT, stat: 'never' }),
    record: { exeDevice: 0x30 },
    ownMounts: [CONTAINER_ROOT],
    isHashed: false,
  },
  {
    situation: 'another file of a device that the caller made up',
    executable: opened({ mountId: FOREIGN_MOUNT, stat: 'never' }),
    ownMounts: [mount({ id: FOREIGN_MOUNT, kernelDevice: 0x31, fileSystem: 'fuse.x' })],
    isHashed: false,
  },
  {
    situation: 'a file of a file server',
    executable: opened({ mountId: 50, stat: 'never' }),
    record: { exeDevice: 0x32 },
    hostMounts: { host: [mount({ id: 50, kernelDevice: 0x32, fileSystem: 'nfs4' })], agent: [] },
    isHashed: false,
  },
  {
    situation: 'a file whose inode number another one may have',
    executable: opened({ stat: { ...CURL_FILE, device: 0x2fn, changedAtNs: 1n } }),
    isHashed: false,
  },
] as const) {
  test(`identify() ${isHashed ? 'gives the hash' : 'gives no hash'} of ${situation}`, async () => {
    const proc = fakeProc(
      { executable: () => executable, mounts: () => ownMounts ?? [] },
      hostMounts === undefined ? {} : { mounts: hostMounts },
    )
    const { exeSha256, hashed } = await askForHash(proc, record)
    assert.equal(exeSha256, isHashed ? HASH : undefined)
    assert.deepEqual(hashed, isHashed ? [[7, 1000, 42]] : [])
  })
}

for (const [situation, record, foreign] of [
  ['the machine', {}, []],
  ['the mounts of the agent', { mountNamespace: NAMESPACES.ownMount }, []],
  [
    'a container with users of its own',
    { mountNamespace: 4026532500, userNamespace: 4026532501, pidNamespace: 4026532502 },
    ['mount', 'user', 'pid'],
  ],
  ['a record without namespaces', { mountNamespace: 0, userNamespace: 0, pidNamespace: 0 }, []],
] as const) {
  test(`identify() tells the namespaces that are not the machine's, for ${situation}`, async () => {
    assert.deepEqual((await ask(record)).foreignNamespaces, foreign)
  })
}

test('identify() knows the cgroup of a record without types, and not that of a process that moved', async () => {
  assert.equal((await ask({ reduced: true })).systemdUnit, 'curl.service')
  assert.equal((await ask({ cgroupId: 6n })).cgroupPath, undefined)
})

describe('identify() again within a second', () => {
  const again = async (set: Partial<IdentityEnv>, change: Partial<ConnectionRecord> = {}) => {
    const proc = fakeProc()
    const env = environment({ proc, ...set })
    const options = { containerRootIsElevated: true }
    const first = await identify(RECORD, PEER, env, options)
    const asked = (env.proc as FakeProc).asked.length
    const second = await identify({ ...RECORD, ...change }, PEER, env, options)
    return { first, second, opened: (env.proc as FakeProc).asked.slice(asked).includes(`open ${RECORD.pid}`) }
  }

  test('does not look at a process that it knows', async () => {
    const { first, second, opened } = await again({})
    assert.deepEqual([second, opened], [first, false])
  })
  test('takes user and group from the record, each time', async () => {
    const { second, opened } = await again({}, { uid: 0, gid: 7 })
    assert.deepEqual([second.uid, second.gid, second.userName, opened], [0, 7, 'root', false])
  })
  test('looks at one of another executable', async () => {
    const { second, opened } = await again({}, { exeInode: 78n })
    assert.deepEqual([second.exePath, opened], [undefined, true])
  })
  test('looks at one of which there was doubt', async () => {
    const proc = fakeProc({ executable: () => undefined })
    assert.equal((await again({ proc })).opened, true)
  })
  test('looks at all while a rule asks for hashes', async () => {
    const hashes = { hash: async () => HASH }
    assert.equal((await again({ hashes, asksForHash: () => true })).opened, true)
  })
})

test('claimsJson() has the members of the contract in their order', async () => {
  assert.equal(
    claimsJson(await ask()),
    '{"userId":1000,"userName":"alice","userGroups":["alice","adm"],"processId":4711,"processName":"curl",' +
      '"processFullPath":"/usr/bin/curl","processCmdLine":"curl -s http://169.254.169.254/","runAsElevated":false,' +
      '"clientIp":"127.0.0.1","clientPort":40112,"cgroupPath":"/system.slice/curl.service","containerId":"",' +
      '"foreignNamespaces":[]}',
  )
})

test('claimsJson() cuts what is long: the id of a container, and a path', async () => {
  const caller = { ...ALICE, containerId: HASH, cgroupPath: `/${'a'.repeat(4000)}` }
  const { containerId, cgroupPath } = JSON.parse(claimsJson(caller))
  assert.deepEqual([containerId, cgroupPath.length], ['abababababab', 515])
})

test('claimsJson() shows what is unknown as existing readers expect', async () => {
  const { processName, processFullPath, processCmdLine, userName } = JSON.parse(
    claimsJson(await ask({ pid: 1, uid: 4321 })),
  )
  assert.deepEqual([processName, processFullPath, processCmdLine, userName], ['', '', 'undefined', 'undefined'])
})
