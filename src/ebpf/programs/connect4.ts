/** cgroup/connect4: IPv4 sockets. */

import { connectProgram } from './connect.ts'
import { SOCK_ADDR } from './context.ts'
import { defineProgram, type ProgramOptions, type ProgramSpec } from './program.ts'

/** Builds the program that runs in every connect(2) of an AF_INET socket. See `connect.ts` for its verdict. */
export function connect4Program(options: ProgramOptions): ProgramSpec {
  return defineProgram(
    { name: 'apa_connect4', type: 'CGROUP_SOCK_ADDR', attachType: 'CGROUP_INET4_CONNECT' },
    connectProgram(options, SOCK_ADDR.user_ip4, []),
  )
}
