/**
 * cgroup_skb/egress: holds back the SYN of a connect whose network namespace has no listener yet.
 *
 * A connect cannot wait inside its hook. But a SYN that does not leave is sent again, after a time that sockops may choose: so
 * the connect goes on as if the listener were there, the agent opens it meanwhile, and a later SYN finds it. Until then no
 * packet leaves for the listener's address, where another process of the namespace might be.
 *
 * Verdict, for a packet that leaves a socket:
 *
 *     if the socket is not opening a connection    send
 *     if nothing is remembered with it             send
 *     if it is not held                            send
 *     if it is in SYN_RECV                         drop
 *     if its network namespace has a listener      send
 *     else                                         drop
 *
 * SYN_RECV is what a socket that connects gets into by a simultaneous open: somebody in the namespace who has bound the
 * listener's port sends a SYN of his own. A listener does not, so such a handshake must not end.
 *
 * This runs for every packet that a process in the cgroup sends, so the first question is one load, and answers nearly all.
 *
 * Source: kernel net/ipv4/tcp_output.c, `tcp_connect()`: of the errors from sending a SYN only ECONNREFUSED ends the call;
 * net/core/filter.c, `cg_skb_func_proto()`.
 */

import { and32, mov64 } from '../asm/alu.ts'
import { FP, label, R0, R1, R2, R3, R4, R6 } from '../asm/instruction.ts'
import { call, exit, jumpEq32, jumpEq64, jumpNe32, jumpNe64 } from '../asm/jump.ts'
import { Double, Half, load, loadMap, stackAddress, store, Word } from '../asm/load-store.ts'
import { FLAG_HELD, RECORD } from '../records.ts'
import { PROCEED, REFUSE, SKB, SOCK, TCP_SYN_RECV, TCP_SYN_SENT } from './context.ts'
import { defineProgram, type ProgramSpec } from './program.ts'
import { STACK } from './stack.ts'

const KEY = STACK.connectionKey

/** Builds the program, for kernels on which callers are remembered in socket storage. */
export function holdProgram(): ProgramSpec {
  return defineProgram({ name: 'apa_hold', type: 'CGROUP_SKB', attachType: 'CGROUP_INET_EGRESS' }, [
    load(R6, R1, SKB.sk, Double), // r6 = ctx->sk
    jumpEq64(R6, 0, 'send'),
    load(R1, R6, SOCK.state, Word),
    jumpEq32(R1, TCP_SYN_SENT, 'opening'),
    jumpNe32(R1, TCP_SYN_RECV, 'send'), // if (sk->state is neither) send
    label('opening'),
    mov64(R1, R6),
    call('sk_fullsock'),
    jumpEq64(R0, 0, 'send'), // never here, but the kernel asks for the check
    mov64(R2, R0),
    loadMap(R1, 'pending'),
    mov64(R3, 0),
    mov64(R4, 0),
    call('sk_storage_get'), // r0 = the remembered record or NULL
    jumpEq64(R0, 0, 'send'),
    load(R1, R0, RECORD.flags, Half),
    and32(R1, FLAG_HELD),
    jumpEq32(R1, 0, 'send'), // if (!(record.flags & held)) send
    load(R1, R6, SOCK.state, Word),
    jumpEq32(R1, TCP_SYN_RECV, 'drop'), // if (sk->state == SYN_RECV) drop
    load(R1, R0, RECORD.netnsCookie, Double),
    store(FP, KEY, R1, Double),
    loadMap(R1, 'served'),
    ...stackAddress(R2, KEY),
    call('map_lookup_elem'), // r0 = served[record.netnsCookie]
    jumpNe64(R0, 0, 'send'),
    label('drop'),
    mov64(R0, REFUSE),
    exit(),

    label('send'),
    mov64(R0, PROCEED),
    exit(),
  ])
}
