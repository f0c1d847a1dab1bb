/**
 * Tells a process how the kernel programs see it: the agent must know its own {tgid, start time} before it redirects
 * anything, and /proc cannot tell inside a child pid namespace.
 *
 * Two forms that write the same answer to the map `whoami`: one is run by the process itself (5.14), the other
 * listens to a datagram connect that the process makes to a random loopback port. A datagram connect sends nothing.
 *
 * Answer, 32 bytes:  0 tgid u32 | 4 zero | 8 startTimeNs u64 | 16 pid namespace level u64, all ones = not known
 *                    24 netnsCookie u64, 0 from the first form
 */

import { mov64 } from '../asm/alu.ts'
import { FP, type Line, label, R0, R1, R2, R3, R4, R6, R7, R9 } from '../asm/instruction.ts'
import { call, exit, jumpNe32 } from '../asm/jump.ts'
import { Double, load, loadMap, stackAddress, store, Word } from '../asm/load-store.ts'
import { identifyCaller, readPidLevel } from './caller.ts'
import { IPPROTO_UDP, PROCEED, SOCK_ADDR } from './context.ts'
import type { MapSpec } from './maps.ts'
import { defineProgram, type ProgramOptions, type ProgramSpec } from './program.ts'
import { STACK } from './stack.ts'

/** Offsets in the answer pictured above. */
export const WHOAMI = { tgid: 0, startTimeNs: 8, pidLevel: 16, netnsCookie: 24 } as const
export const WHOAMI_BYTES = 32
export const LEVEL_UNKNOWN = 0xffff_ffff_ffff_ffffn

export const WHOAMI_MAP: MapSpec = {
  name: 'whoami',
  type: 'ARRAY',
  keyBytes: 4,
  valueBytes: WHOAMI_BYTES,
  maxEntries: 1,
  flags: 0,
}

/** The answer is built where the record would be. */
const ANSWER = STACK.record

type Reading = Pick<ProgramOptions, 'fields' | 'taskReader'>

/** Builds the form that the process runs itself. */
export function whoamiRunProgram(options: Reading): ProgramSpec {
  return defineProgram({ name: 'apa_whoami_run', type: 'SYSCALL' }, [
    store(FP, ANSWER + WHOAMI.netnsCookie, 0, Double),
    ...answer(options),
    mov64(R0, 0),
    exit(),
  ])
}

/**
 * Builds the form that waits for a datagram connect to `addressWord`:`portWord`.
 * @param addressWord the 4 bytes of the address in network order, read as a little-endian number
 * @param portWord the 2 bytes of the port in network order, read likewise
 */
export function whoamiConnectProgram(options: Reading, addressWord: number, portWord: number): ProgramSpec {
  return defineProgram({ name: 'apa_whoami', type: 'CGROUP_SOCK_ADDR', attachType: 'CGROUP_INET4_CONNECT' }, [
    mov64(R6, R1), // r6 = ctx
    load(R7, R6, SOCK_ADDR.protocol, Word),
    jumpNe32(R7, IPPROTO_UDP, 'pass'),
    load(R7, R6, SOCK_ADDR.user_ip4, Word),
    jumpNe32(R7, addressWord, 'pass'), // if (ctx->user_ip4 != address) pass
    load(R7, R6, SOCK_ADDR.user_port, Word),
    jumpNe32(R7, portWord, 'pass'), // if (ctx->user_port != port) pass
    mov64(R1, R6),
    call('get_netns_cookie'),
    store(FP, ANSWER + WHOAMI.netnsCookie, R0, Double),
    ...answer(options),
    label('pass'),
    mov64(R0, PROCEED),
    exit(),
  ])
}

/** `whoami[0] = {tgid, start time, level, netns cookie}`. Clobbers r0 to r5, r7, r8, r9. */
function answer(options: Reading): Line[] {
  return [
    ...identifyCaller(options), // selfKey = {tgid, start time}
    load(R1, FP, STACK.selfKey, Double),
    store(FP, ANSWER + WHOAMI.tgid, R1, Double),
    load(R1, FP, STACK.selfKey + 8, Double),
    store(FP, ANSWER + WHOAMI.startTimeNs, R1, Double),
    ...readPidLevel(options), // r9 = level
    store(FP, ANSWER + WHOAMI.pidLevel, R9, Double),
    store(FP, STACK.counterKey, 0, Word), // key = 0
    loadMap(R1, 'whoami'),
    ...stackAddress(R2, STACK.counterKey),
    ...stackAddress(R3, ANSWER),
    mov64(R4, 0), // flags = ANY
    call('map_update_elem'),
  ]
}
