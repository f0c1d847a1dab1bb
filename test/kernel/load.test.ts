/** What goes wrong when programs are loaded and attached, and what is left behind: nothing. */

import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { AgentError } from '../../src/base/errors.ts'
import { mov64 } from '../../src/ebpf/asm/alu.ts'
import { R0, R1, R7 } from '../../src/ebpf/asm/instruction.ts'
import { exit } from '../../src/ebpf/asm/jump.ts'
import { Double, load } from '../../src/ebpf/asm/load-store.ts'
import { openCgroup, queryAttached } from '../../src/ebpf/attach.ts'
import { REAL_REDIRECTOR_ENV } from '../../src/ebpf/kernel-view.ts'
import { loadProgram, VerifierError } from '../../src/ebpf/load.ts'
import { createMap } from '../../src/ebpf/maps.ts'
import { KERNEL_PROBES } from '../../src/ebpf/probe.ts'
import { type AttachType, defineProgram } from '../../src/ebpf/programs/program.ts'
import { startRedirector } from '../../src/ebpf/redirector.ts'
import { BpfAttr } from '../../src/sys/bpf.ts'
import { sysBpf } from '../../src/sys/libc.ts'
import { SyscallError } from '../../src/sys/syscall-error.ts'
import { createLab, isKernelSince, type Lab, reasonToSkip, SLOWNESS } from './lab.ts'

const BPF_PROG_ATTACH = 8
const HOOKS: readonly AttachType[] = ['CGROUP_SOCK_OPS', 'CGROUP_INET6_CONNECT', 'CGROUP_INET4_CONNECT']

describe('loading and attaching', { skip: reasonToSkip() ?? false, timeout: 30_000 * SLOWNESS }, () => {
  let lab: Lab
  before(() => {
    lab = createLab()
  })
  after(() => lab[Symbol.asyncDispose]())

  const options = (cgroupPath = lab.cgroup) => ({
    cgroupPath,
    listener: { address: '127.0.0.1', port: 3080 },
    servedNetns: 1n,
  })
  const proceed = (attachType: AttachType) =>
    defineProgram({ name: 'someone_else', type: 'CGROUP_SOCK_ADDR', attachType }, [mov64(R0, 1), exit()])
  const attachedTo = (path: string) => {
    using cgroup = openCgroup(path)
    return HOOKS.flatMap((hook) => queryAttached(cgroup, hook).programs.map((name) => name.replace(/ \(\d+\)$/, '')))
  }

  test('loadProgram() says in one line why the verifier refused, and keeps its log', () => {
    const spec = defineProgram({ name: 'apa_wrong', type: 'CGROUP_SOCK_ADDR', attachType: 'CGROUP_INET4_CONNECT' }, [
      load(R0, R7, 0, Double), // r7 was never written
      exit(),
    ])
    assert.throws(
      () => loadProgram(spec, new Map()),
      (error) => {
        assert.ok(error instanceof VerifierError)
        assert.equal(error.message, 'Cannot load program "apa_wrong": kernel answered EACCES: R7 !read_ok')
        assert.match(error.log, /r0 = \*\(u64 \*\)\(r7 \+0\)\nR7 !read_ok\n/)
        assert.equal(error.code, 'BPF_PROG_LOAD_FAILED')
        assert.equal(error.facts.errno, 'EACCES')
        return true
      },
    )
  })

  test('loadProgram() names a field that the context does not have', () => {
    const spec = defineProgram({ name: 'apa_beyond', type: 'SOCK_OPS', attachType: 'CGROUP_SOCK_OPS' }, [
      load(R0, R1, 4096, Double),
      exit(),
    ])
    assert.throws(() => loadProgram(spec, new Map()), { message: /EACCES: invalid bpf_context access off=4096 size=8/ })
  })

  test('createMap() names the map that the kernel refused', () => {
    const spec = { name: 'nothing', type: 'HASH', keyBytes: 0, valueBytes: 4, maxEntries: 1, flags: 0 } as const
    assert.throws(() => createMap(spec), {
      code: 'BPF_MAP_CREATE_FAILED',
      message: 'Cannot create map "nothing": kernel answered EINVAL',
    })
  })

  test('probes answer yes on a kernel that has everything, and never that they cannot tell', () => {
    const answers = Object.entries(KERNEL_PROBES).map(([name, probe]) => [name, probe().answer])
    if (!isKernelSince(5, 15)) {
      const doubtful = answers.filter(([, answer]) => answer !== 'yes' && answer !== 'no')
      return assert.deepEqual(doubtful, [])
    }
    assert.deepEqual(Object.fromEntries(answers), {
      haveSocketStorage: 'yes',
      haveTaskReads: 'yes',
      haveTypedTask: 'yes',
      haveSockopsNetns: 'yes',
      haveAtomicTake: 'yes',
      haveRingBuffer: 'yes',
    })
  })

  test('startRedirector() attaches three programs, and leaves none', () => {
    {
      using redirector = startRedirector(options())
      assert.equal(redirector.isAttached(), true)
      assert.deepEqual(attachedTo(lab.cgroup), ['apa_sockops', 'apa_connect6', 'apa_connect4'])
    }
    assert.deepEqual(attachedTo(lab.cgroup), [])
  })

  test('startRedirector() runs beside another one', () => {
    using one = startRedirector(options())
    using two = startRedirector(options())
    one.detach()
    assert.deepEqual([one.isAttached(), two.isAttached()], [false, true])
  })

  test('startRedirector() names the program in the way, and leaves nothing attached', () => {
    const path = join(lab.cgroup, 'claimed')
    mkdirSync(path)
    try {
      using program = loadProgram(proceed('CGROUP_INET4_CONNECT'), new Map())
      using cgroup = openCgroup(path)
      const attach = new BpfAttr(32).u32(0, cgroup.number).u32(4, program.number).u32(8, 10)
      assert.equal(sysBpf(BPF_PROG_ATTACH, attach.bytes, []), 0)
      assert.throws(
        () => startRedirector(options(path)),
        (error) => {
          const failure = ofAttaching(error)
          assert.ok(failure instanceof SyscallError)
          assert.match(failure.message, /^Cannot attach program "\w+" to .*: kernel answered EPERM, because /)
          assert.match(String(failure.facts.inTheWay), /^someone_else \(\d+\) at .*\/claimed \(exclusive\)$/)
          return true
        },
      )
      assert.deepEqual(attachedTo(path), ['someone_else'])
    } finally {
      rmdirSync(path)
    }
  })

  test('isAttached() notices that the cgroup is gone', async () => {
    const path = join(lab.cgroup, 'short-lived')
    mkdirSync(path)
    using redirector = startRedirector(options(path))
    assert.equal(redirector.isAttached(), true)
    rmdirSync(path)
    // The kernel lets go of the programs a moment later, in a worker of its own.
    for (const until = Date.now() + 5_000; redirector.isAttached() && Date.now() < until; ) await sleep(10)
    assert.equal(redirector.isAttached(), false)
  })

  test('startRedirector() closes all it opened, whether it succeeds or fails', () => {
    const openFds = () => readdirSync('/proc/self/fd').length
    startRedirector(options())[Symbol.dispose]()
    const before = openFds()
    for (let round = 0; round < 5; round += 1) {
      startRedirector(options())[Symbol.dispose]()
      const broken = { ...REAL_REDIRECTOR_ENV, possibleCpus: () => assert.fail('made to fail') }
      assert.throws(() => startRedirector(options(), broken), { message: 'made to fail' })
      assert.throws(
        () => startRedirector(options('/proc')),
        (error) => ofAttaching(error) instanceof SyscallError,
      )
    }
    assert.equal(openFds(), before)
  })

  for (const row of [
    { situation: 'no such directory', path: '/does/not/exist', code: 'CGROUP_NOT_OPENED', message: /ENOENT$/ },
    { situation: 'a file', path: '/etc/passwd', code: 'CGROUP_NOT_OPENED', message: /ENOTDIR$/ },
    { situation: 'a directory of another kind', path: '/proc', code: 'BPF_ATTACH_FAILED', message: /EBADF$/ },
  ]) {
    test(`startRedirector() says what is wrong with the cgroup: ${row.situation}`, () => {
      assert.throws(
        () => startRedirector(options(row.path)),
        (error) => {
          const failure = ofAttaching(error)
          return failure instanceof AgentError && failure.code === row.code && row.message.test(failure.message)
        },
      )
    })
  }

  test('startRedirector() outside the cgroup needs to be told the network namespace', () => {
    assert.throws(() => startRedirector({ ...options(), servedNetns: undefined }), { code: 'NETNS_UNKNOWN' })
    assert.deepEqual(attachedTo(lab.cgroup), [])
    using redirector = startRedirector(options(), { ...REAL_REDIRECTOR_ENV, ownIdentityWays: ['connect'] })
    assert.equal(redirector.features.ownIdentity, 'outside')
  })

  test('startRedirector() refuses a listener that is no IPv4 address', () => {
    assert.throws(() => startRedirector({ ...options(), listener: { address: '::1', port: 3080 } }), {
      code: 'NOT_AN_IPV4_ADDRESS',
    })
    assert.deepEqual(attachedTo(lab.cgroup), [])
  })

  test('reconcilePolicy() says so when the kernel has no room', () => {
    using redirector = startRedirector(options())
    const many = Array.from({ length: 65 }, (_, index) => ({ address: '10.0.0.1', port: index + 1 }))
    assert.throws(() => redirector.reconcilePolicy(many), { code: 'BPF_CALL_FAILED', message: /map "policy".*E2BIG/ })
    redirector.reconcilePolicy(many.slice(0, 64))
    assert.equal(redirector.readPolicy().length, 64)
  })
})

/** Before Linux 5.14 a process learns about itself by attaching, so what is in the way of that is met there. */
function ofAttaching(error: unknown): unknown {
  const isLearning = error instanceof AgentError && error.code === 'OWN_IDENTITY_UNKNOWN' && !isKernelSince(5, 14)
  return isLearning ? error.cause : error
}
