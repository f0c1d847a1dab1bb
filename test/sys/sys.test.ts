import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { openSync, readFileSync, readlinkSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { describeError } from '../../src/base/errors.ts'
import { BpfAttr, bpf, tryBpf } from '../../src/sys/bpf.ts'
import {
  E2BIG,
  EBADF,
  EINVAL,
  ENOENT,
  ENOPROTOOPT,
  ENOTSUPP,
  EOPNOTSUPP,
  EPERM,
  errnoName,
} from '../../src/sys/errno.ts'
import { Fd } from '../../src/sys/fd.ts'
import { INITIAL_PID_NAMESPACE, readNamespaceId, readOpenFilesLimit } from '../../src/sys/process.ts'
import { connectSocket, fdOfSocket, isListening, openDatagramSocket, readNetnsCookie } from '../../src/sys/socket.ts'
import { SyscallError } from '../../src/sys/syscall-error.ts'

describe('errno', () => {
  for (const [errno, name] of [
    [EPERM, 'EPERM'],
    [ENOENT, 'ENOENT'],
    [E2BIG, 'E2BIG'],
    [EBADF, 'EBADF'],
    [EINVAL, 'EINVAL'],
    [ENOPROTOOPT, 'ENOPROTOOPT'],
    [EOPNOTSUPP, 'EOPNOTSUPP'],
    [ENOTSUPP, 'ENOTSUPP'],
    [11, 'EAGAIN'],
    [4095, 'errno 4095'],
  ] as const) {
    test(`errnoName() names ${errno}`, () => assert.equal(errnoName(errno), name))
  }
})

describe('SyscallError', () => {
  test('names the call, the errno and the remedy, in one line for the log', () => {
    const cause = new Error('below')
    const failure = { command: 'BPF_PROG_LOAD', errno: 1, hint: 'needs CAP_BPF' }
    const error = new SyscallError('X_FAILED', 'Cannot load', failure, { program: 'p' }, { cause })
    assert.equal(
      describeError(error),
      'Cannot load (command=BPF_PROG_LOAD, errno=EPERM, hint=needs CAP_BPF, program=p): below',
    )
    assert.equal(error.errno, 1)
    assert.equal(error.name, 'SyscallError')
  })
})

describe('bpf()', () => {
  test('tells errno, again and again, while garbage is made and collected', () => {
    for (let round = 0; round < 2_000; round += 1) {
      const odd = new BpfAttr(64).pointer(8, new Uint8Array(65_536)).u32(40, 1) // byte 40 is behind the last field
      assert.equal(tryBpf('BPF_MAP_LOOKUP_ELEM', odd), -EINVAL)
      assert.equal(tryBpf('BPF_MAP_LOOKUP_ELEM', new BpfAttr(32).u32(0, 0xffff_ffff)), -EBADF)
    }
  })

  test('throws with the command and what was attempted', () => {
    assert.throws(() => bpf('BPF_MAP_LOOKUP_ELEM', new BpfAttr(32).u32(0, 0xffff_ffff), 'read map "x"'), {
      code: 'BPF_CALL_FAILED',
      message: 'Cannot read map "x": kernel answered EBADF',
      facts: { command: 'BPF_MAP_LOOKUP_ELEM', errno: 'EBADF' },
    })
  })
})

describe('Fd', () => {
  test('closes at the end of its scope, once', () => {
    let number: number
    {
      using fd = new Fd(openSync('/dev/null', 'r'), 'the null device')
      number = fd.number
      assert.equal(readlinkSync(`/proc/self/fd/${number}`), '/dev/null')
      fd.close()
      assert.equal(fd.isClosed, true)
      assert.throws(() => fd.number, { message: 'Cannot use the null device: it is closed' })
    }
    assert.throws(() => readlinkSync(`/proc/self/fd/${number}`), { code: 'ENOENT' })
  })
})

describe('sockets', () => {
  test('readNetnsCookie() gives one number for all sockets of a namespace', async () => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    using socket = openDatagramSocket()
    const cookie = readNetnsCookie(fdOfSocket(server))
    server.close()
    assert.ok(cookie > 0n)
    assert.equal(readNetnsCookie(socket.number), cookie)
  })

  test('readNetnsCookie() says that a file is no socket', () => {
    using file = new Fd(openSync('/dev/null', 'r'), 'the null device')
    assert.throws(() => readNetnsCookie(file.number), {
      code: 'SOCKET_OPTION_FAILED',
      message: /kernel answered ENOTSOCK$/,
    })
  })

  test('isListening() tells a listener from other sockets', async () => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    using socket = openDatagramSocket()
    assert.deepEqual([isListening(fdOfSocket(server)), isListening(socket.number)], [true, false])
    server.close()
  })

  test('fdOfSocket() refuses a server that does not listen', () => {
    assert.throws(() => fdOfSocket(createServer()), { code: 'SOCKET_HAS_NO_FD' })
  })

  test('connectSocket() sets the peer of a datagram socket', () => {
    using socket = openDatagramSocket()
    connectSocket(socket.number, Buffer.from([127, 0, 0, 1]), 4242)
    assert.match(readFileSync('/proc/self/net/udp', 'latin1'), /0100007F:1092 01 /)
  })
})

describe('process', () => {
  test('readNamespaceId() gives the number that /proc shows', () => {
    assert.equal(`pid:[${readNamespaceId('pid')}]`, readlinkSync('/proc/self/ns/pid'))
    assert.equal(`mnt:[${readNamespaceId('mnt', process.pid)}]`, readlinkSync('/proc/self/ns/mnt'))
    assert.ok(INITIAL_PID_NAMESPACE > 0xefff_0000)
  })

  test('forbidCoreDumps() leaves a process that dumps no core', () => {
    const source = (name: string) => JSON.stringify(join(import.meta.dirname, '../../src/sys', name))
    const script = `
      import { readFileSync } from 'node:fs'
      import { sysPrctl } from ${source('libc.ts')}
      import { forbidCoreDumps } from ${source('process.ts')}
      const PR_GET_DUMPABLE = 3
      const before = sysPrctl(PR_GET_DUMPABLE, 0n)
      forbidCoreDumps()
      const limits = /Max core file size +(\\S+) +(\\S+)/.exec(readFileSync('/proc/self/limits', 'latin1'))
      console.log(before, sysPrctl(PR_GET_DUMPABLE, 0n), limits[1], limits[2])`
    const args = ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', script]
    assert.equal(execFileSync(process.execPath, args, { encoding: 'utf8' }), '1 0 0 0\n')
  })
})

test('readOpenFilesLimit() reads what the shell says', () => {
  assert.equal(
    String(readOpenFilesLimit()).replace('Infinity', 'unlimited'),
    execFileSync('sh', ['-c', 'ulimit -n'], { encoding: 'utf8' }).trim(),
  )
})
