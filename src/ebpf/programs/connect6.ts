/**
 * cgroup/connect6: AF_INET6 sockets, and of those only connects to ::ffff:a.b.c.d.
 *
 * Dual-stack clients (the JVM opens nothing else) reach IPv4 destinations that way, past connect4. The kernel then
 * continues as for IPv4, so accept on an IPv4 listener sees a plain IPv4 peer.
 */

import type { Line } from '../asm/instruction.ts'
import { R6, R7 } from '../asm/instruction.ts'
import { jumpNe32 } from '../asm/jump.ts'
import { load, Word } from '../asm/load-store.ts'
import { connectProgram } from './connect.ts'
import { SOCK_ADDR } from './context.ts'
import { defineProgram, type ProgramOptions, type ProgramSpec } from './program.ts'

/** The third word of a mapped address, 0000:ffff, as a little-endian number. */
const MAPPED_WORD = 0xffff_0000

/** Builds the program that runs in every connect(2) of an AF_INET6 socket. See `connect.ts` for its verdict. */
export function connect6Program(options: ProgramOptions): ProgramSpec {
  return defineProgram(
    { name: 'apa_connect6', type: 'CGROUP_SOCK_ADDR', attachType: 'CGROUP_INET6_CONNECT' },
    connectProgram(options, SOCK_ADDR.user_ip6_3, forgetUnlessMapped()),
  )
}

/** `if (ctx->user_ip6 is not in ::ffff:0:0/96) goto forget` */
function forgetUnlessMapped(): Line[] {
  return [
    load(R7, R6, SOCK_ADDR.user_ip6_0, Word),
    jumpNe32(R7, 0, 'forget'),
    load(R7, R6, SOCK_ADDR.user_ip6_1, Word),
    jumpNe32(R7, 0, 'forget'),
    load(R7, R6, SOCK_ADDR.user_ip6_2, Word),
    jumpNe32(R7, MAPPED_WORD, 'forget'),
  ]
}
