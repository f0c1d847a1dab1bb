/** Real programs in a real kernel: who is redirected, who is not, and what is known about each. */

import assert from 'node:assert/strict'
import { statSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { mov32, mov64 } from '../../src/ebpf/asm/alu.ts'
import { label, R0, R1, R2 } from '../../src/ebpf/asm/instruction.ts'
import { exit, jumpNe32 } from '../../src/ebpf/asm/jump.ts'
import { load, store, Word } from '../../src/ebpf/asm/load-store.ts'
import { attachToCgroup, openCgroup } from '../../src/ebpf/attach.ts'
import { loadProgram } from '../../src/ebpf/load.ts'
import { SOCK_ADDR } from '../../src/ebpf/programs/context.ts'
import { defineProgram } from '../../src/ebpf/programs/program.ts'
import type { RedirectorFeatures } from '../../src/ebpf/redirector.ts'
import { type Agent, type Answer, CLIENT, connect, PYTHON, startAgent, startHost, type Told } from './agent.ts'
import { createLab, isKernelSince, type Lab, reasonToSkip, SLOWNESS } from './lab.ts'

const IMDS = '169.254.169.254:80'
const POLICY = [
  { address: '169.254.169.254', port: 80 },
  { address: '168.63.129.16', port: 80 },
]

const skip = reasonToSkip() ?? false

describe('redirector in the kernel', { skip, timeout: 60_000 * SLOWNESS }, () => {
  let lab: Lab
  let agent: Agent

  before(async () => {
    lab = createLab()
    await startHost(lab)
    agent = await startAgent(lab)
    await agent.ask({ do: 'policy', entries: POLICY })
  })
  after(() => lab[Symbol.asyncDispose]())

  const counter = async (name: string) => BigInt((await agent.ask<Record<string, string>>({ do: 'counters' }))[name]!)

  test('says what this kernel lacks: nothing since Linux 5.15', async (t) => {
    const features = await agent.ask<RedirectorFeatures>({ do: 'features' })
    for (const lack of features.lacking) t.diagnostic(`lacking: ${lack}`)
    if (!isKernelSince(5, 15)) {
      const { btf, fullRecords, pidView, lacking } = features
      assert.deepEqual({ btf, fullRecords, pidView }, { btf: true, fullRecords: true, pidView: 'initial' })
      assert.notEqual(lacking.length, 0)
      return
    }
    assert.deepEqual(features, {
      btf: true,
      taskReader: 'helper',
      fullRecords: true,
      pendingStore: 'storage',
      atomicTake: true,
      sockopsNetns: true,
      ownIdentity: 'run',
      pidView: 'initial',
      otherNetns: 'direct',
      failClosed: false,
      adopted: 'nothing',
      lacking: [],
    })
  })

  test('takeRecord() tells all about the caller', async () => {
    const told = await connect(lab, IMDS, [], { uid: 1000, gid: 2000 })
    const { me, record } = attributed(told)
    assert.deepEqual(record.destination, { address: '169.254.169.254', port: 80 })
    assert.equal(record.pid, me.pid)
    assert.equal(record.uid, 1000)
    assert.equal(record.gid, 2000)
    assert.equal(BigInt(record.startTimeNs) / 10_000_000n, BigInt(me.ticks))
    assert.equal(record.exeInode, String(statSync(PYTHON).ino))
    assert.equal(record.exeDevice, statSync(PYTHON).dev)
    const { ctimeNs, size } = statSync(PYTHON, { bigint: true })
    assert.deepEqual([record.exeChangedAtNs, record.exeSizeBytes], [String(ctimeNs), String(size)])
    assert.equal(record.cgroupId, String(statSync(lab.cgroup).ino))
    assert.equal(record.mountNamespace, me.mountNamespace)
    assert.equal(record.userNamespace, me.userNamespace)
    assert.equal(record.pidNamespace, me.pidNamespace)
    assert.equal(record.comm, me.comm)
    assert.equal(record.reduced, false)
    assert.ok(BigInt(told.answer!.ageNs!) > 0n && BigInt(told.answer!.ageNs!) < 5_000_000_000n)
  })

  for (const row of [
    { situation: 'a user with primary group root', uid: 1000, gid: 0 },
    { situation: 'root with another primary group', uid: 0, gid: 3000 },
    { situation: 'root', uid: 0, gid: 0 },
    { situation: 'ids above 2^31', uid: 4_000_000_000, gid: 4_000_000_001 },
  ]) {
    test(`takeRecord() takes uid and gid apart: ${row.situation}`, async () => {
      const { record } = attributed(await connect(lab, IMDS, [], row))
      assert.deepEqual({ uid: record.uid, gid: record.gid }, { uid: row.uid, gid: row.gid })
    })
  }

  for (const row of [
    { situation: 'an IPv6 socket to a mapped address', to: '::ffff:169.254.169.254:80', args: ['family=6'] },
    { situation: 'an MPTCP socket', to: IMDS, args: ['proto=mptcp'] },
    { situation: 'TCP fast open', to: IMDS, args: ['proto=tfo'] },
    { situation: 'a socket bound to another address', to: IMDS, args: ['source=127.0.0.77:0'], peer: '127.0.0.77' },
    { situation: 'another guarded destination', to: '168.63.129.16:80', args: [] },
  ]) {
    test(`redirects and attributes ${row.situation}`, async (t) => {
      const told = await connect(lab, row.to, row.args, { uid: 1000, gid: 1000 })
      if (told.error === 'Protocol not supported' && !isKernelSince(6, 1)) return t.skip('this kernel has no MPTCP')
      const { me, record } = attributed(told)
      assert.equal(record.pid, me.pid)
      assert.equal(record.uid, 1000)
      assert.equal(`::ffff:${record.destination.address}:${record.destination.port}`.endsWith(row.to), true)
      assert.equal(told.answer?.peer, row.peer ?? '127.0.0.1')
    })
  }

  for (const client of [
    { name: 'curl', command: 'curl', args: ['-s', '--max-time', '5', `http://${IMDS}/`], exe: '/usr/bin/curl' },
    {
      name: 'node',
      command: process.execPath,
      args: ['-e', `fetch('http://${IMDS}/').then(async (r) => console.log(await r.text()))`],
      exe: process.execPath,
    },
  ]) {
    test(`redirects and attributes ${client.name}`, async () => {
      const { stdout } = await lab.run(client.command, client.args)
      const answer = JSON.parse(stdout) as Answer
      assert.equal(answer.record?.exeInode, String(statSync(client.exe).ino))
      assert.equal(answer.record?.exeDevice, statSync(client.exe).dev)
    })
  }

  for (const row of [
    { situation: 'UDP to a guarded destination', to: IMDS, args: ['proto=udp'], options: {} },
    { situation: 'another port of a guarded address', to: '169.254.169.254:8080', args: [], options: {} },
    { situation: 'a guarded address at a port that is not', to: '168.63.129.16:32526', args: [], options: {} },
    { situation: 'a process outside the cgroup', to: IMDS, args: [], options: { inCgroup: false } },
    {
      situation: 'a mapped address that is not guarded',
      to: '::ffff:169.254.169.254:8080',
      args: ['family=6'],
      options: {},
    },
  ]) {
    test(`leaves alone ${row.situation}`, async () => {
      const told = await connect(lab, row.to, row.args, row.options)
      assert.deepEqual({ ...told.answer, error: told.error }, { who: 'host', error: undefined })
    })
  }

  test('leaves alone a process in another network namespace, and counts it', async () => {
    const netns = lab.addNamespace()
    await startHost(lab, netns)
    const before = await counter('notServed')
    assert.deepEqual((await connect(lab, IMDS, [], { netns })).answer, { who: 'host' })
    assert.equal(await counter('notServed'), before + 1n)
  })

  test('leaves alone the agent, and not its children', async () => {
    const before = await counter('skippedSelf')
    assert.deepEqual(await agent.ask({ do: 'connect', address: '169.254.169.254', port: 80 }), { who: 'host' })
    assert.equal(await counter('skippedSelf'), before + 1n)
    const answer = await agent.ask<Answer>({ do: 'child', file: 'curl', args: ['-s', `http://${IMDS}/`] })
    assert.equal(answer.who, 'listener')
    assert.equal(answer.record?.comm, 'curl')
  })

  test('takeRecord() finds nothing about a direct connection', async () => {
    const before = await counter('direct')
    const told = await connect(lab, '127.0.0.1:3080')
    assert.deepEqual(told.answer, { who: 'listener', peer: '127.0.0.1' })
    assert.equal(await counter('direct'), before + 1n)
  })

  test('takeRecord() takes a record once', async () => {
    await agent.ask({ do: 'taking', on: false })
    assert.equal((await connect(lab, IMDS, ['source=127.0.0.1:45001'])).answer?.who, 'listener')
    await agent.ask({ do: 'taking', on: true })
    const take = { do: 'take', address: '127.0.0.1', port: 45_001 }
    assert.equal((await agent.ask<{ comm: string }>(take)).comm, 'python3')
    assert.equal(await agent.ask(take), undefined)
  })

  test('a direct connection clears the stale record under its own source', async () => {
    await agent.ask({ do: 'taking', on: false })
    await connect(lab, IMDS, ['source=127.0.0.1:45002'])
    await connect(lab, IMDS, ['source=127.0.0.1:45003'])
    await agent.ask({ do: 'taking', on: true })
    const direct = await connect(lab, '127.0.0.1:3080', ['source=127.0.0.1:45002'], { uid: 1000, gid: 1000 })
    assert.deepEqual(direct.answer, { who: 'listener', peer: '127.0.0.1' })
    // The one beside it shows that both were there to be taken.
    assert.notEqual(await agent.ask({ do: 'take', address: '127.0.0.1', port: 45_003 }), undefined)
  })

  test('a second redirected connection replaces a stale record under the same source', async () => {
    await agent.ask({ do: 'taking', on: false })
    await connect(lab, IMDS, ['source=127.0.0.1:45004'])
    await agent.ask({ do: 'taking', on: true })
    const told = await connect(lab, '168.63.129.16:80', ['source=127.0.0.1:45004'], { uid: 1000, gid: 1000 })
    const { me, record } = attributed(told)
    assert.equal(record.pid, me.pid)
    assert.equal(record.destination.address, '168.63.129.16')
  })

  test('what a failed connect left with its socket does not go to the next one', async () => {
    const before = await counter('pendingStale')
    const { stdout } = await lab.run(PYTHON, ['-c', FAIL_THEN_CONNECT])
    assert.deepEqual(JSON.parse(stdout), { first: 'Cannot assign requested address', who: 'host' })
    assert.equal(await counter('pendingStale'), before + 1n)
    // Nothing was filed for the source of the second connect.
    assert.equal(await agent.ask({ do: 'take', address: '127.0.0.1', port: 45_005 }), undefined)
  })

  test('what another program sends to the listener clears the stale record under its source', {
    skip: !isKernelSince(5, 15) && 'only remembered connects clear stale records here, and the log says so',
  }, async () => {
    await agent.ask({ do: 'taking', on: false })
    await connect(lab, IMDS, ['source=127.0.0.1:45006'])
    await agent.ask({ do: 'taking', on: true })
    const before = await counter('pendingLost')
    using program = loadProgram(sendToListener(), new Map())
    using cgroup = openCgroup(lab.cgroup)
    using _link = attachToCgroup(program, 'CGROUP_INET4_CONNECT', cgroup, lab.cgroup)
    const told = await connect(lab, '169.254.169.254:8080', ['source=127.0.0.1:45006'])
    assert.deepEqual(told.answer, { who: 'listener', peer: '127.0.0.1' })
    assert.equal(await counter('pendingLost'), before + 1n)
  })

  test('refuses a caller about whom the kernel cannot remember anything', async (t) => {
    const { code } = await lab.run('test', ['-e', '/proc/sys/net/core/optmem_max'])
    if (code !== 0) return t.skip('this kernel has one limit for all namespaces, which others need')
    const setLimit = (bytes: string) => lab.run('/bin/sh', ['-c', `echo ${bytes} > /proc/sys/net/core/optmem_max`])
    const { stdout: usual } = await lab.run('cat', ['/proc/sys/net/core/optmem_max'])
    const before = await counter('refused')
    assert.deepEqual(await setLimit('64'), { code: 0, stdout: '', stderr: '' })
    try {
      assert.equal((await connect(lab, IMDS)).error, 'Operation not permitted')
      assert.equal(await counter('refused'), before + 1n)
      assert.equal((await connect(lab, '169.254.169.254:8080')).answer?.who, 'host')
    } finally {
      await setLimit(usual.trim())
    }
  })

  test('keeps 300 simultaneous connections apart', async () => {
    const { stdout } = await lab.run(PYTHON, ['-c', MANY, '300'])
    const answers = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Answer)
    assert.equal(answers.length, 300)
    assert.equal(answers.filter((answer) => answer.record !== undefined).length, 300)
  })

  test('reconcilePolicy() makes the kernel redirect exactly what is desired', async () => {
    try {
      await agent.ask({ do: 'policy', entries: [{ address: '168.63.129.16', port: 32526 }, POLICY[1]] })
      assert.deepEqual(await sortedPolicy(), ['168.63.129.16:32526', '168.63.129.16:80'])
      assert.deepEqual((await connect(lab, IMDS)).answer, { who: 'host' })
      assert.equal((await connect(lab, '168.63.129.16:32526')).answer?.who, 'listener')
      await agent.ask({ do: 'policy', entries: [] })
      assert.deepEqual(await sortedPolicy(), [])
      assert.deepEqual((await connect(lab, '168.63.129.16:80')).answer, { who: 'host' })
    } finally {
      await agent.ask({ do: 'policy', entries: POLICY })
    }
  })

  test('detach() ends redirection at once', async () => {
    assert.equal(await agent.ask({ do: 'attached' }), true)
    await agent.ask({ do: 'detach' })
    assert.equal(await agent.ask({ do: 'attached' }), false)
    assert.deepEqual((await connect(lab, IMDS)).answer, { who: 'host' })
  })

  async function sortedPolicy(): Promise<string[]> {
    const entries = await agent.ask<{ address: string; port: number }[]>({ do: 'readPolicy' })
    return entries.map(({ address, port }) => `${address}:${port}`).sort()
  }
})

describe('redirector of an agent in a child pid namespace', { skip, timeout: 30_000 * SLOWNESS }, () => {
  let lab: Lab
  let agent: Agent
  const unshare = ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc']

  before(async () => {
    lab = createLab()
    await startHost(lab)
    agent = await startAgent(lab, [], unshare)
    await agent.ask({ do: 'policy', entries: POLICY })
  })
  after(() => lab[Symbol.asyncDispose]())

  test('leaves alone the agent, whose pid is 1 to itself', async () => {
    assert.equal((await agent.ask<{ pid: number }>({ do: 'self' })).pid, 1)
    assert.deepEqual(await agent.ask({ do: 'connect', address: '169.254.169.254', port: 80 }), { who: 'host' })
  })

  const client = ['-c', CLIENT, '169.254.169.254', '80']

  test('tells pids as the agent counts them', async () => {
    const { me, record } = attributed(await agent.ask<Told>({ do: 'child', file: PYTHON, args: client }))
    assert.equal(record.pid, me.pid)
    assert.equal(record.pidNamespace, (await agent.ask<{ pidNamespace: number }>({ do: 'self' })).pidNamespace)
  })

  test('tells the pid of a process deeper down', async () => {
    const args = ['--pid', '--fork', '--kill-child', PYTHON, ...client]
    const { me, record } = attributed(await agent.ask<Told>({ do: 'child', file: 'unshare', args }))
    assert.equal(me.pid, 1)
    assert.equal(record.pid, me.procPid)
    assert.equal(record.pidNamespace, me.pidNamespace)
  })

  test('tells pid 0 of a process that its /proc does not show', async () => {
    const { me, record } = attributed(await connect(lab, IMDS))
    assert.equal(record.pid, 0)
    assert.equal(record.pidNamespace, me.pidNamespace)
    assert.equal(record.uid, 0)
  })
})

describe('redirector on a kernel that lacks something', { skip, timeout: 60_000 * SLOWNESS }, () => {
  for (const row of [
    { situation: 'no socket storage', without: ['haveSocketStorage'], feature: { pendingStore: 'lru' } },
    { situation: 'no reading by helper', without: ['haveTaskReads'], feature: { taskReader: 'direct' } },
    { situation: 'no netns in sock_ops', without: ['haveSockopsNetns'], feature: { sockopsNetns: false } },
    { situation: 'no taking in one step', without: ['haveAtomicTake'], feature: { atomicTake: false } },
    { situation: 'no ring buffer', without: ['haveRingBuffer'], feature: { fullRecords: true } },
    { situation: 'no running by itself', without: ['run'], feature: { ownIdentity: 'connect' } },
    { situation: 'no cookie of a namespace', without: ['netnsCookie'], feature: { ownIdentity: 'connect' } },
  ] as const) {
    const needsTypes = row.without.includes('haveTaskReads' as never) && !isKernelSince(5, 15)
    const skip = needsTypes && 'this kernel has the one way alone'
    test(`redirects, attributes in full and skips itself with ${row.situation}`, { skip }, async () => {
      await using lab = createLab()
      await startHost(lab)
      const agent = await startAgent(lab, row.without)
      const features = await agent.ask<Record<string, unknown>>({ do: 'features' })
      assert.deepEqual({ ...features, ...row.feature }, features)
      await agent.ask({ do: 'policy', entries: POLICY })
      const { me, record } = attributed(
        await connect(lab, '::ffff:169.254.169.254:80', ['family=6'], { uid: 1000, gid: 0 }),
      )
      assert.deepEqual(
        [
          record.pid,
          record.uid,
          record.gid,
          record.exeInode,
          record.exeDevice,
          record.mountNamespace,
          record.pidNamespace,
        ],
        [me.pid, 1000, 0, me.exeInode, me.exeDevice, me.mountNamespace, me.pidNamespace],
      )
      assert.equal(record.reduced, false)
      assert.deepEqual((await connect(lab, '127.0.0.1:3080')).answer, { who: 'listener', peer: '127.0.0.1' })
      assert.deepEqual(await agent.ask({ do: 'connect', address: '169.254.169.254', port: 80 }), { who: 'host' })
    })
  }

  for (const row of [
    { situation: 'without BTF', without: ['btf'] },
    { situation: 'without a way to read tasks', without: ['haveTaskReads', 'haveTypedTask'] },
    {
      situation: 'with the least of everything',
      without: ['btf', 'run', 'haveSocketStorage', 'haveSockopsNetns', 'haveAtomicTake'],
    },
  ] as const) {
    test(`gives reduced records, says so, and skips itself ${row.situation}`, async () => {
      await using lab = createLab()
      await startHost(lab)
      const agent = await startAgent(lab, row.without)
      const { lacking } = await agent.ask<{ lacking: string[] }>({ do: 'features' })
      assert.match(lacking.join('\n'), /no caller details, records are reduced/)
      await agent.ask({ do: 'policy', entries: POLICY })
      const { me, record } = attributed(await connect(lab, IMDS, [], { uid: 1000, gid: 2000 }))
      assert.deepEqual([record.pid, record.uid, record.gid, record.comm], [me.pid, 1000, 2000, me.comm])
      assert.equal(record.reduced, true)
      const { startTimeNs, exeInode, exeDevice, exeChangedAtNs, exeSizeBytes } = record
      assert.deepEqual([startTimeNs, exeInode, exeDevice, exeChangedAtNs, exeSizeBytes], ['0', '0', 0, '0', '0'])
      assert.deepEqual(await agent.ask({ do: 'connect', address: '169.254.169.254', port: 80 }), { who: 'host' })
    })
  }
})

function attributed({ me, answer, error }: Told) {
  assert.deepEqual({ who: answer?.who, error }, { who: 'listener', error: undefined })
  assert.ok(answer?.record, 'the connection arrived without a record')
  return { me, record: answer.record }
}

/** `if (ctx->user_port == htons(8080)) { ctx->user_ip4 = 127.0.0.1; ctx->user_port = htons(3080); } return 1` */
function sendToListener() {
  const name = 'other_redirect'
  return defineProgram({ name, type: 'CGROUP_SOCK_ADDR', attachType: 'CGROUP_INET4_CONNECT' }, [
    load(R2, R1, SOCK_ADDR.user_port, Word),
    jumpNe32(R2, portWord(8080), 'pass'),
    mov32(R2, 0x0100_007f),
    store(R1, SOCK_ADDR.user_ip4, R2, Word),
    mov32(R2, portWord(3080)),
    store(R1, SOCK_ADDR.user_port, R2, Word),
    label('pass'),
    mov64(R0, 1),
    exit(),
  ])
}

/** A port in network order, read as a little-endian number. */
function portWord(port: number): number {
  return ((port & 0xff) << 8) | (port >> 8)
}

/** Two sockets bound to one source: the second connect to one destination fails after the hook has run. */
const FAIL_THEN_CONNECT = `
import json, socket
def bound():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(('127.0.0.1', 45005))
    return s
holder, second = bound(), bound()
holder.connect(('169.254.169.254', 80))
holder.send(b'GET / HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n')
while holder.recv(65536): pass
first = None
try:
    second.connect(('169.254.169.254', 80))
except OSError as error:
    first = error.strerror
second.connect(('168.63.129.16', 32526))
second.send(b'GET / HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n')
answer = b''
while True:
    chunk = second.recv(65536)
    if not chunk: break
    answer += chunk
print(json.dumps({'first': first, 'who': 'host' if b'"host"' in answer else 'other'}))
`

/** Opens all connections before it asks on any. */
const MANY = `
import socket, sys
sockets = []
for _ in range(int(sys.argv[1])):
    s = socket.socket()
    s.settimeout(10)
    s.connect(('169.254.169.254', 80))
    sockets.append(s)
for s in sockets:
    s.send(b'GET / HTTP/1.0\\r\\n\\r\\n')
for s in sockets:
    answer = b''
    while True:
        chunk = s.recv(65536)
        if not chunk: break
        answer += chunk
    print(answer.split(b'\\r\\n\\r\\n')[1].decode())
`
