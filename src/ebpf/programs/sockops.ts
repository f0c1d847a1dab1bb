/**
 * sock_ops: files what connect remembered under {network namespace, source address, source port}, for accept to take.
 *
 * Moments in the life of a client's socket that matter:
 *
 *     TCP_CONNECT_CB          source address and port are chosen, the SYN has not left
 *     ACTIVE_ESTABLISHED_CB   the listener's SYN-ACK has come, the ACK that makes a socket to accept has not left
 *
 * Verdict:
 *
 *     if op is TIMEOUT_INIT                        if the socket is held: answer a short time; done
 *     if op is neither                             done
 *     key = {netns, local address, local port}
 *     if nothing is remembered with the socket     if it goes to a listener: connections.delete(key)  (pendingLost)
 *     else if it does not go to the listener       forget it  (pendingStale: another program sent it elsewhere)
 *     else if op is TCP_CONNECT_CB                 connections.delete(key)
 *     else if it is direct                         connections.delete(key), forget it  (direct)
 *     else                                         connections[key] = record, forget it  (recorded, or recordLost)
 *
 * TIMEOUT_INIT is asked for when a connect makes its SYN ready, after TCP_CONNECT_CB: see hold.ts.
 *
 * Invariant: what is filed under the key is about the client that last shook hands from there, or nothing is.
 *
 * Why not at connect. A socket to accept can outlive its client: one that ends by a time-out or is not heard leaves the
 * listener's half in the queue, alive, and its port free. Who connects from that port next sends a SYN that this half
 * answers, and shakes no hands before the half is gone. A record filed at connect would stand there for the half to
 * take, and a request that lies in it would be served in another's name.
 *
 * Why filing at the handshake is enough. Let an accepted socket take a record and be connected still *after* it, which
 * its owner asks with `isConnected()`. A listener answers a SYN with a SYN-ACK only while no half exists under the same
 * addresses and ports, so no other client's handshake fell between this socket's and the take; and its own client's
 * handshake replaced or deleted what stood there before. So the record is about its own client. This holds
 * - when the half was created late, because the queue was full: the client files when it sends the ACK, whether or not
 *   that is heard, and what it filed stays until it is taken or the port is used for the listener again;
 * - when two clients share addresses and ports, which SO_BINDTODEVICE allows: handshakes are ordered by the one
 *   listener, and this program writes or deletes at each of them, a direct one included;
 * - with TCP Fast Open, where a listener that has it can accept before the handshake is done: ours does not enable it. On
 *   a machine where net.ipv4.tcp_fastopen enables it for all, such a connection finds nothing and is refused;
 * - with a simultaneous open, which no listener takes part in: it raises another operation, so nothing is filed.
 * It does not hold against a caller in no cgroup we are attached to, whose connects raise no operation here; at the root
 * of the hierarchy there is none. And it has one gap, too narrow to aim at: a listener that answers with SYN cookies keeps
 * no half for an unfinished handshake, so while a client is held up inside connect(2) with its SYN-ACK waiting, another
 * that shares its port by way of a device could finish first.
 *
 * A record could be moved to the accepted socket's cookie at PASSIVE_ESTABLISHED_CB instead. That operation reaches us
 * only if the listener was opened inside the cgroup, so the way over the source port would have to stay beside it, and
 * the weaker of two ways is what an attacker takes.
 *
 * Source: kernel net/ipv4/tcp_input.c, `tcp_rcv_synsent_state_process()` (ACTIVE_ESTABLISHED_CB, then the ACK) and
 * `tcp_conn_request()`; net/ipv4/tcp_output.c, `tcp_connect()`; net/ipv4/inet_hashtables.c, `inet_match()` (devices).
 */

import { and32, mov64, shiftRight32 } from '../asm/alu.ts'
import { FP, type Line, label, R0, R1, R2, R3, R4, R6, R7, R8, type Register } from '../asm/instruction.ts'
import { call, exit, jump, jumpEq32, jumpEq64, jumpNe32, jumpNe64 } from '../asm/jump.ts'
import { Double, Half, load, loadMap, stackAddress, store, Word } from '../asm/load-store.ts'
import { FLAG_DIRECT, FLAG_HELD, RECORD } from '../records.ts'
import { ACTIVE_ESTABLISHED_CB, SOCK_OPS, TCP_CONNECT_CB, TIMEOUT_INIT } from './context.ts'
import { count } from './counters.ts'
import { addressPendingByCookie } from './pending-by-cookie.ts'
import { defineProgram, type ProgramOptions, type ProgramSpec } from './program.ts'
import { STACK } from './stack.ts'

const KEY_NETNS = STACK.connectionKey
const KEY_ADDRESS = STACK.connectionKey + 8
const KEY_PORT = STACK.connectionKey + 12

/**
 * When a held SYN is sent again; each further time is twice as long, on newer kernels after four equal ones. 20 ms where
 * the kernel counts 250 jiffies a second, as Debian's and Ubuntu's do. With the usual six times it gives up after 127 of
 * these or more, 2.5 s.
 */
const HELD_TIMEOUT_JIFFIES = 5

/** What a sock_ops program answers: that `reply` counts, for TIMEOUT_INIT; otherwise the kernel ignores it. */
const HANDLED = 1

/**
 * Builds the program.
 *
 * Ledger: r6 = ctx, to the end · r7 = the remembered record, until it is forgotten · r8 = the operation, to the end
 */
export function sockopsProgram(
  options: Pick<ProgramOptions, 'pendingStore' | 'sockopsNetns' | 'otherNetns'>,
): ProgramSpec {
  const { pendingStore, sockopsNetns, otherNetns } = options
  return defineProgram({ name: 'apa_sockops', type: 'SOCK_OPS', attachType: 'CGROUP_SOCK_OPS' }, [
    mov64(R6, R1), // r6 = ctx
    load(R8, R6, SOCK_OPS.op, Word),
    jumpEq32(R8, TCP_CONNECT_CB, 'ours'),
    ...(otherNetns === 'hold' ? [jumpEq32(R8, TIMEOUT_INIT, 'timeout')] : []),
    jumpNe32(R8, ACTIVE_ESTABLISHED_CB, 'done'), // if (ctx->op is neither) done

    label('ours'),
    load(R1, R6, SOCK_OPS.local_ip4, Word),
    store(FP, KEY_ADDRESS, R1, Word), // key.address = ctx->local_ip4
    load(R1, R6, SOCK_OPS.local_port, Word),
    store(FP, KEY_PORT, R1, Word), // key.port = ctx->local_port
    ...(pendingStore === 'storage' ? recallFromSocket() : recallByCookie()),
    mov64(R7, R0), // r7 = record or NULL
    jumpEq64(R7, 0, 'nothing remembered'),

    load(R1, R7, RECORD.netnsCookie, Double),
    store(FP, KEY_NETNS, R1, Double), // key.netns = record.netnsCookie
    ...goesTo(R7, RECORD.listener, 'stale'),
    jumpEq32(R8, TCP_CONNECT_CB, 'clear'), // no handshake yet: all there is to do is to make room
    load(R1, R7, RECORD.flags, Half),
    and32(R1, FLAG_DIRECT),
    jumpNe32(R1, 0, 'direct'), // if (record.flags & direct) …
    ...file(),
    ...count('recorded'),
    jump('forget'),

    label('not filed'),
    ...unfile(),
    ...count('recordLost'),
    jump('forget'),

    label('direct'),
    ...unfile(),
    ...count('direct'),
    jump('forget'),

    label('stale'),
    ...count('pendingStale'),

    label('forget'),
    ...(pendingStore === 'storage' ? forgetInSocket() : forgetByCookie()),
    jump('done'),

    label('clear'),
    ...unfile(),
    jump('done'),

    label('nothing remembered'),
    ...(sockopsNetns ? unfileIfListener() : []),
    ...(otherNetns === 'hold' ? [jump('done'), label('timeout'), ...shortenTimeout()] : []),

    label('done'),
    mov64(R0, HANDLED),
    exit(),
  ])
}

/** `if (record.flags & held) ctx->reply = HELD_TIMEOUT_JIFFIES`; a socket that is not ours keeps what others answered. */
function shortenTimeout(): Line[] {
  return [
    ...recallFromSocket(),
    jumpEq64(R0, 0, 'done'),
    load(R1, R0, RECORD.flags, Half),
    and32(R1, FLAG_HELD),
    jumpEq32(R1, 0, 'done'),
    mov64(R1, HELD_TIMEOUT_JIFFIES),
    store(R6, SOCK_OPS.reply, R1, Word),
  ]
}

/** `if (ctx->remote != base[at].{address, port}) goto otherwise`; the remote port sits in the high half of its word. */
function goesTo(base: Register, at: number, otherwise: string): Line[] {
  return [
    load(R1, R6, SOCK_OPS.remote_ip4, Word),
    load(R2, base, at, Word),
    jumpNe32(R1, R2, otherwise),
    load(R1, R6, SOCK_OPS.remote_port, Word),
    shiftRight32(R1, 16),
    load(R2, base, at + 4, Half),
    jumpNe32(R1, R2, otherwise),
  ]
}

/** `r0 = sk_storage_get(pending, ctx->sk, NULL, 0)` */
function recallFromSocket(): Line[] {
  return [
    load(R2, R6, SOCK_OPS.sk, Double), // r2 = ctx->sk
    jumpEq64(R2, 0, 'done'), // not a full socket: no connect was called on it
    loadMap(R1, 'pending'),
    mov64(R3, 0),
    mov64(R4, 0),
    call('sk_storage_get'),
  ]
}

/** `r0 = pending[cookie(ctx)]` */
function recallByCookie(): Line[] {
  return [...addressPendingByCookie(), call('map_lookup_elem')]
}

/** `connections[key] = *r7`, or goto not filed */
function file(): Line[] {
  return [
    loadMap(R1, 'connections'),
    ...stackAddress(R2, STACK.connectionKey),
    mov64(R3, R7),
    mov64(R4, 0), // flags = ANY: an older record under the key is overwritten
    call('map_update_elem'),
    jumpNe64(R0, 0, 'not filed'),
  ]
}

/** `connections.delete(key)`; that nothing was there is as good. */
function unfile(): Line[] {
  return [loadMap(R1, 'connections'), ...stackAddress(R2, STACK.connectionKey), call('map_delete_elem')]
}

/** `sk_storage_delete(pending, ctx->sk)` */
function forgetInSocket(): Line[] {
  return [
    load(R2, R6, SOCK_OPS.sk, Double),
    jumpEq64(R2, 0, 'done'), // never here, but the kernel asks for the check
    loadMap(R1, 'pending'),
    call('sk_storage_delete'),
  ]
}

/** `pending.delete(cookie)` */
function forgetByCookie(): Line[] {
  return [loadMap(R1, 'pending'), ...stackAddress(R2, STACK.cookie), call('map_delete_elem')]
}

/** A connection to a listener of which connect told nothing: no older record may stand for it. Counted when it is made. */
function unfileIfListener(): Line[] {
  return [
    mov64(R1, R6),
    call('get_netns_cookie'),
    store(FP, KEY_NETNS, R0, Double), // key.netns = cookie(ctx)
    loadMap(R1, 'served'),
    ...stackAddress(R2, KEY_NETNS),
    call('map_lookup_elem'), // r0 = served[key.netns]
    jumpEq64(R0, 0, 'done'),
    ...goesTo(R0, 0, 'done'),
    ...unfile(),
    jumpEq32(R8, TCP_CONNECT_CB, 'done'),
    ...count('pendingLost'),
  ]
}
