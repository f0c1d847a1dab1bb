/**
 * What connect4 and connect6 have in common: once the destination is known as IPv4, they differ in nothing but the
 * place where it is written back.
 *
 * Words: *policy* holds the guarded destinations, *served* the network namespaces that have a listener, *self* the
 * agent. A *direct* connection is one that the caller makes to the listener itself.
 *
 * Verdict, for a TCP connect to `destination` from network namespace `netns`:
 *
 *     if destination is not IPv4                   forget, proceed
 *     if netns has no listener
 *       if the destination is not guarded          forget, proceed
 *       as otherNetns says: direct                 proceed  (notServed)
 *                           deny                   refuse   (denied)
 *                           ask, hold              refuse if the agent said no, else ask it for a listener and
 *                           ask                    refuse   (denied)
 *                           hold                   go on as if it were there  (held): see hold.ts
 *     if destination is that listener              remember "direct", proceed
 *     if destination is not guarded                forget, proceed
 *     if the caller is the agent                   forget, proceed  (skippedSelf); not if the entry is for its probe
 *     if the agent does not listen there           forget, send it where it is refused  (shut; only with checksListener)
 *     remember the caller with the socket          or refuse: the listener would turn an unknown caller away anyway,
 *                                                  and a record left under the same tuple by another must not serve it
 *     rewrite the destination to the listener      proceed  (redirected)
 *
 * The agent is asked by an entry in *asked* and a ring of *bell*; its no is an entry in *refused*, its yes one in *served*.
 *
 * A direct connection is remembered because the source port is not chosen yet: sockops, which sees it, then clears
 * what may be filed under it. An agent that dials its own listener counts as direct, too.
 *
 * To forget is to delete what an earlier connect of this socket left, one that failed before it was filed (pendingStale).
 * So what stands with a socket is about the connect in progress: nobody else tells when one has failed.
 */

import { and32, mov64 } from '../asm/alu.ts'
import { FP, type Line, label, R0, R1, R2, R3, R4, R5, R6, R7, R8 } from '../asm/instruction.ts'
import { call, exit, jump, jumpEq32, jumpEq64, jumpNe32, jumpNe64 } from '../asm/jump.ts'
import { Double, Half, load, loadMap, stackAddress, store, Word } from '../asm/load-store.ts'
import {
  ASK,
  encodeEndpoint,
  FLAG_DIRECT,
  FLAG_HELD,
  FLAG_REDUCED,
  POLICY_FOR_ALL,
  RECORD,
  RECORD_BYTES,
} from '../records.ts'
import { describeCaller, identifyCaller, isReduced } from './caller.ts'
import { IPPROTO_TCP, PROCEED, REFUSE, SOCK_ADDR } from './context.ts'
import { count } from './counters.ts'
import { addressPendingByCookie } from './pending-by-cookie.ts'
import type { ProgramOptions } from './program.ts'
import { STACK } from './stack.ts'

/** Create the socket's storage if it has none. Source: linux/bpf.h, BPF_SK_STORAGE_GET_F_CREATE. */
const STORAGE_CREATE = 1

/** The network namespace of the context. Source: linux/bpf.h, BPF_F_CURRENT_NETNS. */
const CURRENT_NETNS = -1

/** `struct bpf_sock_tuple`, its IPv4 part; where sockops keeps its key. Source: linux/bpf.h. */
const TUPLE = STACK.connectionKey
const TUPLE_BYTES = 12

const NETNS = STACK.record + RECORD.netnsCookie
const DESTINATION = STACK.record + RECORD.destination
const DESTINATION_PORT = STACK.record + RECORD.destinationPort
const FLAGS = STACK.record + RECORD.flags
const LISTENER = STACK.record + RECORD.listener
const LISTENER_PORT = STACK.record + RECORD.listenerPort

/**
 * Emits a connect program.
 *
 * Ledger: r6 = ctx, to the end · r7 = policy entry or NULL, until the caller is described · r8 = address, then scratch
 *
 * @param addressAt offset in the context of the word that holds the IPv4 destination, for reading and for rewriting
 * @param guard lines that jump to `forget` unless the destination is IPv4; r6 = ctx, may clobber r7
 */
export function connectProgram(options: ProgramOptions, addressAt: number, guard: readonly Line[]): Line[] {
  return [
    mov64(R6, R1), // r6 = ctx: calls clobber r1 to r5
    load(R7, R6, SOCK_ADDR.protocol, Word),
    jumpNe32(R7, IPPROTO_TCP, 'pass'), // if (ctx->protocol != TCP) pass: a UDP connect comes through here, too
    ...guard,
    ...lookUpDestination(addressAt),
    ...lookUpListener(options),
    ...zeroCallerPart(),
    ...isDirect(),

    load(R1, R7, 0, Word),
    store(FP, STACK.policyValue, R1, Word), // policyValue = *entry
    ...identifyCaller(options), // selfKey = {tgid, start time}
    loadMap(R1, 'self'),
    ...stackAddress(R2, STACK.selfKey),
    call('map_lookup_elem'), // r0 = self[selfKey]
    jumpEq64(R0, 0, 'not the agent'), // if (!r0) it is somebody else
    load(R1, FP, STACK.policyValue, Word),
    jumpNe32(R1, POLICY_FOR_ALL, 'self'), // if (policyValue != for all) it is the agent about its work
    label('not the agent'),
    ...(options.checksListener ? requireListener(options) : []),
    ...describeCaller(options), // record = all about the caller
    ...(asks(options) ? askForListener(options) : []),

    label('remember'),
    call('ktime_get_ns'),
    store(FP, STACK.record + RECORD.recordedAtNs, R0, Double), // record.recordedAtNs = now
    ...(options.pendingStore === 'storage' ? rememberInSocket() : rememberByCookie()),
    load(R1, FP, FLAGS, Half),
    jumpEq32(R1, FLAG_DIRECT, 'pass'), // if (record.flags == direct) pass
    ...redirect(addressAt),
    ...count('redirected'),
    jump('pass'),

    ...(options.checksListener ? shut(addressAt) : []),

    label('self'),
    ...count('skippedSelf'),

    label('forget'),
    ...(options.pendingStore === 'storage' ? forgetInSocket() : forgetByCookie()),
    jumpNe64(R0, 0, 'pass'), // if (nothing was there) pass
    ...count('pendingStale'),

    label('pass'),
    mov64(R0, PROCEED),
    exit(),

    ...(options.otherNetns === 'direct' ? [] : [label('deny'), ...count('denied'), mov64(R0, REFUSE), exit()]),

    label('refuse'),
    ...count('refused'),
    mov64(R0, REFUSE),
    exit(),
  ]
}

/** `record.destination = ctx->…; r7 = policy[record.destination]`. The flags are zero still, as the key demands. */
function lookUpDestination(addressAt: number): Line[] {
  return [
    load(R8, R6, addressAt, Word), // r8 = address, network order
    store(FP, DESTINATION, R8, Word),
    load(R8, R6, SOCK_ADDR.user_port, Word), // r8 = port, network order, in the low half
    store(FP, DESTINATION_PORT, R8, Half),
    store(FP, FLAGS, 0, Half),
    loadMap(R1, 'policy'),
    ...stackAddress(R2, DESTINATION),
    call('map_lookup_elem'),
    mov64(R7, R0), // r7 = entry or NULL
  ]
}

/** Whether the agent opens listeners in other namespaces. */
function asks({ otherNetns }: ProgramOptions): boolean {
  return otherNetns === 'ask' || otherNetns === 'hold'
}

/** `record.netnsCookie = cookie(ctx); record.listener = *served[cookie]; record.flags = 0`, or what befits another namespace. */
function lookUpListener(options: ProgramOptions): Line[] {
  const flags = isReduced(options.fields) ? FLAG_REDUCED : 0
  return [
    mov64(R1, R6),
    call('get_netns_cookie'),
    store(FP, NETNS, R0, Double), // record.netnsCookie = r0
    loadMap(R1, 'served'),
    ...stackAddress(R2, NETNS),
    call('map_lookup_elem'), // r0 = served[record.netnsCookie]
    jumpEq64(R0, 0, 'unserved'),
    load(R1, R0, 0, Double),
    store(FP, LISTENER, R1, Double), // record.{listener, listenerPort, zero} = *r0
    store(FP, FLAGS, flags, Half), // record.flags = reduced or not
    jump('listener known'),
    label('unserved'),
    jumpEq64(R7, 0, 'forget'), // if (!policy entry) forget
    ...forUnserved(options, flags),
    label('listener known'),
  ]
}

/** What becomes of a connect to a guarded destination where no listener is; falls through to go on as if it were there. */
function forUnserved({ otherNetns, listener }: ProgramOptions, flags: number): Line[] {
  if (otherNetns === 'direct') return [...count('notServed'), jump('pass')]
  if (otherNetns === 'deny') return [jump('deny')]
  const words = encodeEndpoint(listener)
  return [
    loadMap(R1, 'refused'),
    ...stackAddress(R2, NETNS),
    call('map_lookup_elem'), // r0 = refused[record.netnsCookie]
    jumpNe64(R0, 0, 'deny'),
    store(FP, LISTENER, words.readInt32LE(0), Word), // record.listener = where it will be
    store(FP, LISTENER_PORT, words.readInt32LE(4), Word), // record.{listenerPort, zero}
    store(FP, FLAGS, flags | FLAG_HELD, Half), // record.flags |= held
  ]
}

/**
 * `if (record.flags & held) { asked[netns] = {record.pid, tid}; ring bell; }`, and refuse when there is no room.
 * Every such connect rings: what an earlier one asked for may have been overlooked, and asking twice does no harm.
 */
function askForListener({ pidView, otherNetns, hasBell }: ProgramOptions): Line[] {
  return [
    load(R1, FP, FLAGS, Half),
    and32(R1, FLAG_HELD),
    jumpEq32(R1, 0, 'no ask'),
    store(FP, STACK.ask, 0, Double), // ask = {0, 0}
    load(R1, FP, STACK.record + RECORD.pid, Word),
    store(FP, STACK.ask + ASK.pid, R1, Word), // ask.pid = record.pid
    ...(pidView.kind === 'initial' ? [call('get_current_pid_tgid'), store(FP, STACK.ask + ASK.tid, R0, Word)] : []),
    loadMap(R1, 'asked'),
    ...stackAddress(R2, NETNS),
    ...stackAddress(R3, STACK.ask),
    mov64(R4, 0), // flags = ANY
    call('map_update_elem'),
    jumpNe64(R0, 0, 'deny'), // full
    ...(hasBell ? ringBell() : []),
    ...(otherNetns === 'ask' ? [jump('deny')] : count('held')),
    label('no ask'),
  ]
}

/** `ringbuf_output(bell, &record.netnsCookie, 8, 0)`; a full ring has not been looked at yet, and will be. */
function ringBell(): Line[] {
  return [loadMap(R1, 'bell'), ...stackAddress(R2, NETNS), mov64(R3, 8), mov64(R4, 0), call('ringbuf_output')]
}

/** `memset(&record.pid, 0, …)`: what the caller's description may leave out must not be old stack. */
function zeroCallerPart(): Line[] {
  const words = Array.from({ length: (RECORD_BYTES - RECORD.pid) / 8 }, (_, index) => RECORD.pid + index * 8)
  return words.map((at) => store(FP, STACK.record + at, 0, Double))
}

/** `if (destination == listener) { record.flags = direct; goto remember; } if (!entry) goto forget` */
function isDirect(): Line[] {
  return [
    load(R1, FP, DESTINATION, Word),
    load(R2, FP, LISTENER, Word),
    jumpNe32(R1, R2, 'not the listener'),
    load(R1, FP, DESTINATION_PORT, Half),
    load(R2, FP, LISTENER_PORT, Half),
    jumpNe32(R1, R2, 'not the listener'),
    store(FP, FLAGS, FLAG_DIRECT, Half), // record.flags = direct
    jump('remember'),
    label('not the listener'),
    jumpEq64(R7, 0, 'forget'), // if (!policy entry) forget
  ]
}

/**
 * `if (!listening[sk_lookup_tcp(record.listener)]) goto shut`: nobody is there, or somebody who took the agent's port.
 * The lookup finds what the kernel would hand the connection to: a socket on the address, or one on all addresses.
 * Where the connect is held there is no listener yet.
 *
 * Ledger: r7 = the socket, which must be released · r8 = its mark or NULL
 */
function requireListener(options: ProgramOptions): Line[] {
  return [
    ...(asks(options) ? [load(R1, FP, FLAGS, Half), and32(R1, FLAG_HELD), jumpNe32(R1, 0, 'listener checked')] : []),
    store(FP, TUPLE, 0, Word), // tuple.saddr = 0
    load(R1, FP, LISTENER, Word),
    store(FP, TUPLE + 4, R1, Word), // tuple.daddr = record.listener
    store(FP, TUPLE + 8, 0, Half), // tuple.sport = 0
    load(R1, FP, LISTENER_PORT, Half),
    store(FP, TUPLE + 10, R1, Half), // tuple.dport = record.listenerPort
    mov64(R1, R6),
    ...stackAddress(R2, TUPLE),
    mov64(R3, TUPLE_BYTES),
    mov64(R4, CURRENT_NETNS),
    mov64(R5, 0),
    call('sk_lookup_tcp'),
    jumpEq64(R0, 0, 'shut'), // if (!r0) nobody listens
    mov64(R7, R0), // r7 = the socket
    loadMap(R1, 'listening'),
    mov64(R2, R7),
    mov64(R3, 0),
    mov64(R4, 0),
    call('sk_storage_get'),
    mov64(R8, R0), // r8 = listening[r7] or NULL
    mov64(R1, R7),
    call('sk_release'),
    jumpEq64(R8, 0, 'shut'), // if (!r8) somebody else listens
    label('listener checked'),
  ]
}

/** Sends the connection to port 0 of the listener's address, where nobody can be: refused, as by a port nobody listens on. */
function shut(addressAt: number): Line[] {
  return [
    label('shut'),
    load(R5, FP, LISTENER, Word),
    store(R6, addressAt, R5, Word), // ctx->address = record.listener
    mov64(R5, 0),
    store(R6, SOCK_ADDR.user_port, R5, Word), // ctx->user_port = 0
    ...count('shut'),
    jump('forget'),
  ]
}

/**
 * `*sk_storage_get(pending, ctx->sk, NULL, CREATE) = record`, or refuse: the kernel bounds how much one socket may hold.
 * Field by field, since an existing storage keeps its old content otherwise: a socket may connect a second time.
 */
function rememberInSocket(): Line[] {
  const words = Array.from({ length: RECORD_BYTES / 8 }, (_, index) => index * 8)
  return [
    load(R2, R6, SOCK_ADDR.sk, Double), // r2 = ctx->sk
    jumpEq64(R2, 0, 'refuse'),
    loadMap(R1, 'pending'),
    mov64(R3, 0),
    mov64(R4, STORAGE_CREATE),
    call('sk_storage_get'),
    jumpEq64(R0, 0, 'refuse'),
    ...words.flatMap((at) => [load(R1, FP, STACK.record + at, Double), store(R0, at, R1, Double)]),
  ]
}

/** `pending[cookie(ctx)] = record`, or refuse. For kernels without socket storage in these programs. */
function rememberByCookie(): Line[] {
  return [
    ...addressPendingByCookie(),
    ...stackAddress(R3, STACK.record),
    mov64(R4, 0), // flags = ANY
    call('map_update_elem'),
    jumpNe64(R0, 0, 'refuse'),
  ]
}

/** `r0 = sk_storage_delete(pending, ctx->sk)` */
function forgetInSocket(): Line[] {
  return [
    load(R2, R6, SOCK_ADDR.sk, Double), // r2 = ctx->sk
    jumpEq64(R2, 0, 'pass'),
    loadMap(R1, 'pending'),
    call('sk_storage_delete'),
  ]
}

/** `r0 = pending.delete(cookie(ctx))` */
function forgetByCookie(): Line[] {
  return [...addressPendingByCookie(), call('map_delete_elem')]
}

/** `ctx->address = record.listener; ctx->user_port = record.listenerPort` */
function redirect(addressAt: number): Line[] {
  return [
    load(R5, FP, LISTENER, Word),
    store(R6, addressAt, R5, Word),
    load(R5, FP, LISTENER_PORT, Half),
    store(R6, SOCK_ADDR.user_port, R5, Word),
  ]
}
