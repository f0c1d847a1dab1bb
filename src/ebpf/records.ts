/**
 * The bytes that the kernel programs and the agent exchange: who connected, and the keys it is filed under.
 *
 * Record, 120 bytes. Numbers are little-endian; "net" marks network byte order, as the socket layer keeps it.
 *
 *      0  netnsCookie       u64       network namespace of the socket
 *      8  destination       u32 net   where the caller wanted to go: address
 *     12  destinationPort   u16 net
 *     14  flags             u16       1 = direct: the caller chose the listener itself; 2 = reduced: no executable known;
 *                                     4 = held: the namespace had no listener yet
 *     16  listener          u32 net   where the connection was sent instead
 *     20  listenerPort      u16 net
 *     22  (zero)            u16
 *     24  pid               u32       thread group id as the agent's /proc counts it, 0 = not visible there or not known
 *     28  uid               u32       real uid, in the initial user namespace
 *     32  gid               u32       real gid, likewise
 *     36  exeDevice         u32       kernel dev_t: major << 20 | minor
 *     40  startTimeNs       u64       start of the thread group's leader, CLOCK_BOOTTIME
 *     48  exeInode          u64
 *     56  cgroupId          u64       inode of the cgroup2 directory
 *     64  mountNamespace    u32       inode numbers, 0 = not known
 *     68  userNamespace     u32
 *     72  pidNamespace      u32
 *     76  exeChangedNs      u32       change time of the executable, nanoseconds of the second; zero with the next = not known
 *     80  recordedAtNs      u64       CLOCK_MONOTONIC at connect
 *     88  comm              16 bytes  name of the calling thread, zero-terminated
 *    104  exeChangedSeconds u64       and seconds since the epoch
 *    112  exeSizeBytes      u64       zero when the change time is not known
 *    120
 *
 * Policy key, 8 bytes: bytes 8 to 15 of a record whose flags are still zero: {destination, destinationPort, 0}.
 * Policy value, u32: 1 = connects of all but the agent are redirected; 2 = those of the agent, too.
 * Listener, 8 bytes: bytes 16 to 23: {listener, listenerPort, 0}.
 * Connection key, 16 bytes: {netnsCookie u64, source address u32 net, source port u32 in host order}.
 * Self key, 16 bytes: {tgid u32, 0 u32, startTimeNs u64}, in the initial pid namespace.
 * Network namespace key, 8 bytes: {netnsCookie u64}.
 * Ask, 8 bytes: {pid u32 as in a record, tid u32 or 0 where the agent counts otherwise}.
 *
 * Invariant: two processes never share {pid, startTimeNs}; everything else may change hands.
 */

import type { InetAddress } from '../base/endpoints.ts'
import { AgentError } from '../base/errors.ts'

/** Offsets of the fields pictured above. */
export const RECORD = {
  netnsCookie: 0,
  destination: 8,
  destinationPort: 12,
  flags: 14,
  listener: 16,
  listenerPort: 20,
  pid: 24,
  uid: 28,
  gid: 32,
  exeDevice: 36,
  startTimeNs: 40,
  exeInode: 48,
  cgroupId: 56,
  mountNamespace: 64,
  userNamespace: 68,
  pidNamespace: 72,
  exeChangedNs: 76,
  recordedAtNs: 80,
  comm: 88,
  exeChangedSeconds: 104,
  exeSizeBytes: 112,
} as const

export const RECORD_BYTES = 120
export const COMM_BYTES = 16
export const POLICY_KEY_BYTES = 8
export const LISTENER_BYTES = 8
export const CONNECTION_KEY_BYTES = 16
export const SELF_KEY_BYTES = 16
export const NETNS_KEY_BYTES = 8
export const ASK_BYTES = 8

/** Offsets in an ask pictured above. */
export const ASK = { pid: 0, tid: 4 } as const

/** Values of `policy`. */
export const POLICY_FOR_OTHERS = 1
export const POLICY_FOR_ALL = 2

export const FLAG_DIRECT = 1
export const FLAG_REDUCED = 2
export const FLAG_HELD = 4

/** Who opened a connection, as the kernel saw it at connect(2). */
export interface ConnectionRecord {
  /** Where the caller wanted to go. */
  readonly destination: InetAddress
  readonly netnsCookie: bigint
  /** In the agent's own /proc; 0 when the caller is not visible there or the kernel could not tell. */
  readonly pid: number
  readonly uid: number
  readonly gid: number
  /** CLOCK_BOOTTIME; 0 when reduced. Compare through `isSameStart()`. */
  readonly startTimeNs: bigint
  /** As in `fs.Stats.ino`; 0 when not known. */
  readonly exeInode: bigint
  /** As in `fs.Stats.dev`; 0 when not known. */
  readonly exeDevice: number
  /** As in `fs.BigIntStats.ctimeNs`; 0 when not known. */
  readonly exeChangedAtNs: bigint
  /** As in `fs.BigIntStats.size`; 0 when not known. */
  readonly exeSizeBytes: bigint
  readonly cgroupId: bigint
  /** Inode numbers as in /proc/PID/ns; 0 when not known. */
  readonly mountNamespace: number
  readonly userNamespace: number
  readonly pidNamespace: number
  /** The calling thread's name: chosen by the caller, for people only. */
  readonly comm: string
  /** CLOCK_MONOTONIC, the clock of `monotonicNowNs()`. */
  readonly recordedAtNs: bigint
  /** True when the kernel gave no start time or no executable: nothing may be concluded about the program. */
  readonly reduced: boolean
}

/** A `ConnectionRecord` with what only programs and tests need. */
export interface RawRecord extends ConnectionRecord {
  readonly listener: InetAddress
  readonly direct: boolean
}

/** Reads the clock of `recordedAtNs`: CLOCK_MONOTONIC, which does not count time spent in suspend. */
export function monotonicNowNs(): bigint {
  return process.hrtime.bigint()
}

const NS_PER_SECOND = 1_000_000_000n

/** /proc counts start times in ticks of 10 ms on every architecture we run on. Source: asm-generic/param.h, USER_HZ. */
const NS_PER_TICK = 10_000_000n

/**
 * Converts a start time to the unit of /proc/PID/stat field 22: whole ticks, rounded down, just as the kernel does.
 * Both count from boot including suspend. A time namespace shifts the field in /proc but not the record.
 * Source: proc_pid_stat(5) field 22; kernel fs/proc/array.c, `nsec_to_clock_t`.
 */
export function startTicks(startTimeNs: bigint): bigint {
  return startTimeNs / NS_PER_TICK
}

/**
 * Tells whether a record and a /proc/PID/stat line speak of the same process start.
 * Two starts within one 10 ms tick look alike: a reused pid would have to wrap the pid space that fast.
 * A record without a start time matches nothing.
 * @param ticks field 22
 */
export function isSameStart(record: Pick<ConnectionRecord, 'startTimeNs'>, ticks: bigint | number): boolean {
  return record.startTimeNs !== 0n && startTicks(record.startTimeNs) === BigInt(ticks)
}

/**
 * Converts a kernel device number (major << 20 | minor) to the `st_dev` of stat(2) and Node's `fs.Stats`.
 * Source: kernel linux/kdev_t.h MKDEV; glibc bits/sysmacros.h makedev.
 */
export function statDevice(kernelDevice: number): number {
  const major = kernelDevice >>> 20
  const minor = kernelDevice & 0xfffff
  return ((major << 8) | (minor & 0xff) | ((minor & 0xfff00) << 12)) >>> 0
}

/** The reverse of `statDevice()`, for devices that the kernel can hold: 12 bits of major, 20 of minor. */
export function kernelDevice(device: number): number {
  const major = (device >>> 8) & 0xfff
  const minor = (device & 0xff) | ((device >>> 12) & 0xfff00)
  return ((major << 20) | minor) >>> 0
}

/**
 * Reads a dotted IPv4 address as 4 bytes in network order; `::ffff:a.b.c.d` counts as the address inside.
 * @throws AgentError code NOT_AN_IPV4_ADDRESS
 */
export function ipv4Bytes(address: string): Buffer {
  const match = /^(?:::ffff:)?(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/i.exec(address)
  const parts = match?.slice(1).map(Number)
  if (parts === undefined || parts.some((part) => part > 255)) {
    throw new AgentError('NOT_AN_IPV4_ADDRESS', 'Cannot read an address: not dotted IPv4', { address })
  }
  return Buffer.from(parts)
}

/** Writes 4 bytes in network order as a dotted address. */
export function ipv4Text(bytes: Uint8Array, offset = 0): string {
  return bytes.subarray(offset, offset + 4).join('.')
}

/** Makes a policy key, a listener value, or any {address, port, zero} of 8 bytes. */
export function encodeEndpoint({ address, port }: InetAddress): Buffer {
  const bytes = Buffer.alloc(POLICY_KEY_BYTES)
  bytes.set(ipv4Bytes(address), 0)
  bytes.writeUInt16BE(port, 4)
  return bytes
}

/** Reads what `encodeEndpoint()` makes. */
export function decodeEndpoint(bytes: Buffer, offset = 0): InetAddress {
  return { address: ipv4Text(bytes, offset), port: bytes.readUInt16BE(offset + 4) }
}

/** Writes a connection key into `into`, which is 16 bytes long. `sourcePort` is in host byte order. */
export function writeConnectionKey(into: Buffer, netnsCookie: bigint, sourceAddress: string, sourcePort: number): void {
  into.writeBigUInt64LE(netnsCookie, 0)
  into.set(ipv4Bytes(sourceAddress), 8)
  into.writeUInt32LE(sourcePort, 12)
}

/** Makes a self key. `tgid` as the initial pid namespace counts; `startTimeNs` 0 where the kernel gives none. */
export function encodeSelfKey(tgid: number, startTimeNs: bigint): Buffer {
  const bytes = Buffer.alloc(SELF_KEY_BYTES)
  bytes.writeUInt32LE(tgid, 0)
  bytes.writeBigUInt64LE(startTimeNs, 8)
  return bytes
}

/** Makes the key of a network namespace. */
export function encodeNetnsKey(cookie: bigint): Buffer {
  const bytes = Buffer.alloc(NETNS_KEY_BYTES)
  bytes.writeBigUInt64LE(cookie)
  return bytes
}

/** A namespace whose listener a connect waits for. */
export interface NetnsAsk {
  readonly netnsCookie: bigint
  /** Who connects, in the agent's own /proc; 0 when it cannot be seen there. */
  readonly pid: number
  /** Its thread, likewise. */
  readonly tid: number
}

/** Reads an ask. */
export function decodeAsk(key: Buffer, value: Buffer): NetnsAsk {
  return { netnsCookie: key.readBigUInt64LE(), pid: value.readUInt32LE(ASK.pid), tid: value.readUInt32LE(ASK.tid) }
}

/** Reads a record. `bytes` holds at least `RECORD_BYTES`. */
export function decodeRecord(bytes: Buffer): RawRecord {
  const flags = bytes.readUInt16LE(RECORD.flags)
  const comm = bytes.subarray(RECORD.comm, RECORD.comm + COMM_BYTES)
  const end = comm.indexOf(0)
  return {
    destination: decodeEndpoint(bytes, RECORD.destination),
    netnsCookie: bytes.readBigUInt64LE(RECORD.netnsCookie),
    pid: bytes.readUInt32LE(RECORD.pid),
    uid: bytes.readUInt32LE(RECORD.uid),
    gid: bytes.readUInt32LE(RECORD.gid),
    startTimeNs: bytes.readBigUInt64LE(RECORD.startTimeNs),
    exeInode: bytes.readBigUInt64LE(RECORD.exeInode),
    exeDevice: statDevice(bytes.readUInt32LE(RECORD.exeDevice)),
    exeChangedAtNs:
      bytes.readBigUInt64LE(RECORD.exeChangedSeconds) * NS_PER_SECOND + BigInt(bytes.readUInt32LE(RECORD.exeChangedNs)),
    exeSizeBytes: bytes.readBigUInt64LE(RECORD.exeSizeBytes),
    cgroupId: bytes.readBigUInt64LE(RECORD.cgroupId),
    mountNamespace: bytes.readUInt32LE(RECORD.mountNamespace),
    userNamespace: bytes.readUInt32LE(RECORD.userNamespace),
    pidNamespace: bytes.readUInt32LE(RECORD.pidNamespace),
    comm: comm.toString('utf8', 0, end === -1 ? COMM_BYTES : end),
    recordedAtNs: bytes.readBigUInt64LE(RECORD.recordedAtNs),
    reduced: (flags & FLAG_REDUCED) !== 0,
    listener: decodeEndpoint(bytes, RECORD.listener),
    direct: (flags & FLAG_DIRECT) !== 0,
  }
}

/** Writes a record as a program would: for fakes and tests. A `comm` over 15 bytes is cut. */
export function encodeRecord(record: RawRecord): Buffer {
  const bytes = Buffer.alloc(RECORD_BYTES)
  bytes.writeBigUInt64LE(record.netnsCookie, RECORD.netnsCookie)
  bytes.set(encodeEndpoint(record.destination), RECORD.destination)
  bytes.writeUInt16LE((record.direct ? FLAG_DIRECT : 0) | (record.reduced ? FLAG_REDUCED : 0), RECORD.flags)
  bytes.set(encodeEndpoint(record.listener), RECORD.listener)
  bytes.writeUInt32LE(record.pid, RECORD.pid)
  bytes.writeUInt32LE(record.uid, RECORD.uid)
  bytes.writeUInt32LE(record.gid, RECORD.gid)
  bytes.writeUInt32LE(kernelDevice(record.exeDevice), RECORD.exeDevice)
  bytes.writeBigUInt64LE(record.exeChangedAtNs / NS_PER_SECOND, RECORD.exeChangedSeconds)
  bytes.writeUInt32LE(Number(record.exeChangedAtNs % NS_PER_SECOND), RECORD.exeChangedNs)
  bytes.writeBigUInt64LE(record.exeSizeBytes, RECORD.exeSizeBytes)
  bytes.writeBigUInt64LE(record.startTimeNs, RECORD.startTimeNs)
  bytes.writeBigUInt64LE(record.exeInode, RECORD.exeInode)
  bytes.writeBigUInt64LE(record.cgroupId, RECORD.cgroupId)
  bytes.writeUInt32LE(record.mountNamespace, RECORD.mountNamespace)
  bytes.writeUInt32LE(record.userNamespace, RECORD.userNamespace)
  bytes.writeUInt32LE(record.pidNamespace, RECORD.pidNamespace)
  bytes.writeBigUInt64LE(record.recordedAtNs, RECORD.recordedAtNs)
  bytes.write(record.comm, RECORD.comm, COMM_BYTES - 1, 'utf8')
  return bytes
}
