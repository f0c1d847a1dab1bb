/**
 * Learns how the kernel programs see this process. See `programs/whoami.ts` for the two ways to ask.
 *
 * Which way doubt falls: a redirector that does not know its own process would redirect the agent's connections to
 * the agent, in a circle. So when neither way works the answer is an error, except in the one case that is harmless:
 * the second way works but stays silent, because this process is outside the cgroup and so is never redirected.
 */

import { randomInt } from 'node:crypto'
import { AgentError } from '../base/errors.ts'
import { BpfAttr, bpf } from '../sys/bpf.ts'
import type { Fd } from '../sys/fd.ts'
import { connectSocket, openDatagramSocket } from '../sys/socket.ts'
import { SyscallError } from '../sys/syscall-error.ts'
import { attachToCgroup } from './attach.ts'
import { loadProgram } from './load.ts'
import { createMap, type KernelMap } from './maps.ts'
import type { ProgramOptions } from './programs/program.ts'
import { LEVEL_UNKNOWN, WHOAMI, WHOAMI_MAP, whoamiConnectProgram, whoamiRunProgram } from './programs/whoami.ts'

/** This process in the kernel's numbers. */
export interface OwnIdentity {
  /** In the initial pid namespace. */
  readonly tgid: number
  /** CLOCK_BOOTTIME; 0 where the kernel's types are not known. */
  readonly startTimeNs: bigint
  /** How many pid namespaces deep: 0 in the initial one. `undefined` where the kernel's types are not known. */
  readonly pidLevel: number | undefined
  /** Of the namespace this process opens sockets in; `undefined` when the first way answered, which has no socket. */
  readonly netnsCookie: bigint | undefined
  /** Which way answered: `run` by itself, or at a `connect`. */
  readonly way: 'run' | 'connect'
}

type Reading = Pick<ProgramOptions, 'fields' | 'taskReader'>

/** Where the second way listens. */
export interface Hook {
  readonly cgroup: Fd
  readonly cgroupPath: string
}

/** `union bpf_attr` for BPF_PROG_TEST_RUN. Source: linux/bpf.h. */
const TEST_RUN = { progFd: 0, bytes: 80 } as const

/**
 * Asks both ways in turn.
 * @param ways for tests
 * @returns `undefined` when this process is outside the cgroup and only the second way exists
 * @throws VerifierError or SyscallError of the second way, the first one's in its `cause`
 */
export function learnOwnIdentity(
  reading: Reading,
  hook: Hook,
  ways: readonly OwnIdentity['way'][] = ['run', 'connect'],
): OwnIdentity | undefined {
  using answers = createMap(WHOAMI_MAP)
  let refusal: unknown
  for (const way of ways) {
    try {
      if (way === 'run') askByRunning(reading, answers)
      else askByConnecting(reading, answers, hook)
      return readAnswer(answers, way)
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error
      refusal = error
    }
  }
  throw new AgentError('OWN_IDENTITY_UNKNOWN', 'Cannot learn how the kernel sees this process', {}, { cause: refusal })
}

function askByRunning(reading: Reading, answers: KernelMap): void {
  using program = loadProgram(whoamiRunProgram(reading), new Map([['whoami', answers]]))
  bpf('BPF_PROG_TEST_RUN', new BpfAttr(TEST_RUN.bytes).u32(TEST_RUN.progFd, program.number), `run ${program.label}`)
}

/** The random port on a random loopback address keeps other processes' datagram connects from answering for us. */
function askByConnecting(reading: Reading, answers: KernelMap, { cgroup, cgroupPath }: Hook): void {
  const address = Buffer.from([127, randomInt(1, 255), randomInt(0, 256), randomInt(1, 255)])
  const port = Buffer.alloc(2)
  port.writeUInt16BE(randomInt(1024, 65_536))
  const spec = whoamiConnectProgram(reading, address.readUInt32LE(), port.readUInt16LE())
  using program = loadProgram(spec, new Map([['whoami', answers]]))
  using _link = attachToCgroup(program, 'CGROUP_INET4_CONNECT', cgroup, cgroupPath)
  using socket = openDatagramSocket()
  connectSocket(socket.number, address, port.readUInt16BE())
}

function readAnswer(answers: KernelMap, way: OwnIdentity['way']): OwnIdentity | undefined {
  const answer = answers.lookup(Buffer.alloc(4))
  const tgid = answer?.readUInt32LE(WHOAMI.tgid) ?? 0
  if (answer === undefined || tgid === 0) return undefined
  const level = answer.readBigUInt64LE(WHOAMI.pidLevel)
  const netnsCookie = answer.readBigUInt64LE(WHOAMI.netnsCookie)
  return {
    tgid,
    startTimeNs: answer.readBigUInt64LE(WHOAMI.startTimeNs),
    pidLevel: level === LEVEL_UNKNOWN ? undefined : Number(level),
    netnsCookie: netnsCookie === 0n ? undefined : netnsCookie,
    way,
  }
}
