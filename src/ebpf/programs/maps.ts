/**
 * The maps that the programs and the agent share.
 *
 * | map         | who writes          | key                    | value     | means |
 * |-------------|---------------------|------------------------|-----------|-------|
 * | policy      | agent               | destination            | u32       | connections to there are redirected: 1 all but the agent's own, 2 all |
 * | served      | agent               | network namespace      | listener  | there, to this listener; elsewhere nothing is touched |
 * | self        | agent               | tgid + start time      | u32 1     | the agent: never redirected |
 * | asked       | connect4, connect6  | network namespace      | ask       | a listener is wanted there; the agent deletes what it has answered |
 * | refused     | agent               | network namespace      | u32 1     | connects from there fail |
 * | bell        | connect4, connect6  | (ring buffer)          | u64       | look into `asked` |
 * | pending     | connect4, connect6  | the socket             | record    | said at connect, not yet filed: no handshake |
 * | connections | sockops             | netns + source + port  | record    | what accept looks up |
 * | counters    | all                 | index                  | u64       | per CPU; see `COUNTERS` |
 * | listening   | agent               | the socket             | u64 1     | this is a listener of the agent, where `checksListener` |
 */

import { createHash } from 'node:crypto'

import {
  ASK_BYTES,
  CONNECTION_KEY_BYTES,
  LISTENER_BYTES,
  NETNS_KEY_BYTES,
  POLICY_KEY_BYTES,
  RECORD,
  RECORD_BYTES,
  SELF_KEY_BYTES,
} from '../records.ts'
import { COUNTERS } from './counters.ts'
import type { PendingStore } from './program.ts'

/** Source: include/uapi/linux/bpf.h, `enum bpf_map_type`. */
export const MAP_TYPES = { HASH: 1, ARRAY: 2, PERCPU_ARRAY: 6, LRU_HASH: 9, SK_STORAGE: 24, RINGBUF: 27 } as const

/** Allocate when used: what socket storage demands. Source: linux/bpf.h, BPF_F_NO_PREALLOC. */
export const NO_PREALLOC = 1

/** A map, ready to be created anywhere. */
export interface MapSpec {
  /** At most 15 characters; also the name programs refer to. */
  readonly name: string
  readonly type: keyof typeof MAP_TYPES
  readonly keyBytes: number
  readonly valueBytes: number
  readonly maxEntries: number
  readonly flags: number
}

export type MapName = 'policy' | 'served' | 'asked' | 'refused' | 'self' | 'pending' | 'connections' | 'counters'

/**
 * Connections between handshake and accept, for all users together. An LRU map keeps free lists per CPU and may evict long
 * before it is full, so it is far larger than any backlog.
 */
const MAX_CONNECTIONS = 65_536

/** Network namespaces with a listener, our own among them. */
export const MAX_SERVED = 1024 + 1

/** Namespaces that wait for an answer. A connect that finds no room fails. */
const MAX_ASKED = 4096

/** Namespaces that have been refused lately; those without room may ask again at once. */
export const MAX_REFUSED = 1024

/**
 * Wakes the agent. What is in it does not matter, so it may be full. The kernel wants whole pages, 64 KiB on some machines.
 * Source: kernel commit 457f44363a88, 5.8.
 */
export const BELL_MAP: MapSpec = {
  name: 'bell',
  type: 'RINGBUF',
  keyBytes: 0,
  valueBytes: 0,
  maxEntries: 65_536,
  flags: 0,
}

/** Lists the maps. `pending` is socket storage where the kernel has it: an entry there cannot be evicted by others. */
export function mapSpecs(pendingStore: PendingStore): Readonly<Record<MapName, MapSpec>> {
  return {
    policy: hash('policy', POLICY_KEY_BYTES, 4, 64),
    served: hash('served', NETNS_KEY_BYTES, LISTENER_BYTES, MAX_SERVED),
    asked: hash('asked', NETNS_KEY_BYTES, ASK_BYTES, MAX_ASKED),
    refused: hash('refused', NETNS_KEY_BYTES, 4, MAX_REFUSED),
    self: hash('self', SELF_KEY_BYTES, 4, 16),
    pending: pendingStore === 'storage' ? PENDING_STORAGE : PENDING_LRU,
    connections: { ...hash('connections', CONNECTION_KEY_BYTES, RECORD_BYTES, MAX_CONNECTIONS), type: 'LRU_HASH' },
    counters: {
      name: 'counters',
      type: 'PERCPU_ARRAY',
      keyBytes: 4,
      valueBytes: 8,
      maxEntries: COUNTERS.length,
      flags: 0,
    },
  }
}

/** The mark on a listener: it goes with the socket, and only who may write maps can set it. */
export const LISTENING_MAP: MapSpec = {
  name: 'listening',
  type: 'SK_STORAGE',
  keyBytes: 4,
  valueBytes: 8,
  maxEntries: 0,
  flags: NO_PREALLOC,
}

/** To be counted up when a field keeps its place and size, and means something else. */
const REVISION = 1

/** Those that connections in the making depend on, where they are kept with sockets. */
export const RECORD_MAPS = ['pending', 'connections', 'listening'] as const

/**
 * Names what programs and maps agree upon: programs may share maps with others of the same layout and with no others.
 * @param specs of the whole set
 * @returns `RECORDS_WHOLE`: `recordsLayout()`, then a digest of the whole, which changes more often
 */
export function layoutOf(specs: Readonly<Record<string, MapSpec>>): string {
  return `${recordsLayout()}_${digest([REVISION, specs, RECORD, RECORD_BYTES, COUNTERS])}`
}

/** As `layoutOf()`, of `RECORD_MAPS` alone. */
export function recordsLayout(): string {
  const { connections } = mapSpecs('storage')
  return digest([REVISION, RECORD, RECORD_BYTES, PENDING_STORAGE, connections, LISTENING_MAP])
}

function digest(layout: unknown): string {
  return createHash('sha256').update(JSON.stringify(layout)).digest('hex').slice(0, 16)
}

function hash(name: string, keyBytes: number, valueBytes: number, maxEntries: number): MapSpec {
  return { name, type: 'HASH', keyBytes, valueBytes, maxEntries, flags: 0 }
}

const PENDING_STORAGE: MapSpec = {
  name: 'pending',
  type: 'SK_STORAGE',
  keyBytes: 4,
  valueBytes: RECORD_BYTES,
  maxEntries: 0,
  flags: NO_PREALLOC,
}

const PENDING_LRU: MapSpec = { ...hash('pending', 8, RECORD_BYTES, MAX_CONNECTIONS), type: 'LRU_HASH' }
