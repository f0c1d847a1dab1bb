/** Maps in the kernel: created from a spec, read and written by key. */

import { BpfAttr, bpf, bpfError, readInfo, readName, tryBpf } from '../sys/bpf.ts'
import { ENOENT, EPERM } from '../sys/errno.ts'
import { Fd } from '../sys/fd.ts'
import { allocate } from '../sys/libc.ts'
import { liftMemlockLimit } from '../sys/process.ts'
import { MAP_TYPES, type MapSpec } from './programs/maps.ts'

/** Offsets in `union bpf_attr` for BPF_MAP_CREATE. Source: linux/bpf.h. */
const CREATE = {
  mapType: 0,
  keySize: 4,
  valueSize: 8,
  maxEntries: 12,
  mapFlags: 16,
  mapName: 28,
  btfFd: 48,
  btfKeyTypeId: 52,
  btfValueTypeId: 56,
  bytes: 60,
} as const

/** Offsets for the BPF_MAP_*_ELEM commands. For GET_NEXT_KEY the next key is where the value would be. */
const ELEMENT = { mapFd: 0, key: 8, value: 16, flags: 24, bytes: 32 } as const

/** One map. Values of per-CPU maps are not for this class: see `counters()` of the redirector. */
export class KernelMap implements Disposable {
  readonly spec: MapSpec
  readonly #fd: Fd

  constructor(spec: MapSpec, fd: Fd) {
    this.spec = spec
    this.#fd = fd
  }

  /** The descriptor, for the loader. */
  get fd(): number {
    return this.#fd.number
  }

  /**
   * Reads the value under `key`; `undefined` when there is none.
   * @param valueBytes how much the kernel writes; more than `spec.valueBytes` for per-CPU maps
   * @throws SyscallError code BPF_CALL_FAILED
   */
  lookup(key: Buffer, valueBytes = this.spec.valueBytes): Buffer | undefined {
    const value = allocate(valueBytes)
    const attr = this.#attr().pointer(ELEMENT.key, key).pointer(ELEMENT.value, value)
    const result = tryBpf('BPF_MAP_LOOKUP_ELEM', attr)
    if (result === -ENOENT) return undefined
    if (result < 0) throw bpfError('BPF_MAP_LOOKUP_ELEM', -result, `read map "${this.spec.name}"`)
    return value
  }

  /** Writes `value` under `key`, new or not. @throws SyscallError code BPF_CALL_FAILED, E2BIG when the map is full */
  update(key: Buffer, value: Buffer): void {
    const attr = this.#attr().pointer(ELEMENT.key, key).pointer(ELEMENT.value, value)
    bpf('BPF_MAP_UPDATE_ELEM', attr, `write map "${this.spec.name}"`)
  }

  /** Deletes what is under `key` and tells whether there was something. @throws SyscallError code BPF_CALL_FAILED */
  delete(key: Buffer): boolean {
    const result = tryBpf('BPF_MAP_DELETE_ELEM', this.#attr().pointer(ELEMENT.key, key))
    if (result < 0 && result !== -ENOENT) {
      throw bpfError('BPF_MAP_DELETE_ELEM', -result, `delete from map "${this.spec.name}"`)
    }
    return result === 0
  }

  /**
   * Lists the keys. A key written or deleted meanwhile may be missed or, for hashes, make the walk start over.
   * @param atMost ends the walk after so many: each one is a system call
   */
  keys(atMost = this.spec.maxEntries): Buffer[] {
    const found = new Map<string, Buffer>()
    let previous: Buffer | undefined
    for (let steps = 0; steps <= 2 * atMost && found.size < atMost; steps += 1) {
      const next = allocate(this.spec.keyBytes)
      const attr = this.#attr().pointer(ELEMENT.value, next)
      if (previous !== undefined) attr.pointer(ELEMENT.key, previous)
      const result = tryBpf('BPF_MAP_GET_NEXT_KEY', attr)
      if (result === -ENOENT) break
      if (result < 0) throw bpfError('BPF_MAP_GET_NEXT_KEY', -result, `list map "${this.spec.name}"`)
      found.set(next.toString('hex'), next)
      previous = next
    }
    return [...found.values()]
  }

  /** Closes our descriptor; the kernel frees the map when no program uses it any more. */
  [Symbol.dispose](): void {
    this.#fd.close()
  }

  #attr(): BpfAttr {
    return new BpfAttr(ELEMENT.bytes).u32(ELEMENT.mapFd, this.#fd.number)
  }
}

/**
 * Takes values out of a map, again and again, without allocating: this runs once for every accepted connection.
 * `key` and `value` are the caller's to fill and to read; `take()` overwrites `value`.
 */
export class MapTaker {
  readonly key: Buffer
  readonly value: Buffer
  readonly #map: KernelMap
  readonly #attr: BpfAttr
  readonly #atomic: boolean

  /** @param atomic whether the kernel can look up and delete in one step: see `haveAtomicTake()` */
  constructor(map: KernelMap, atomic: boolean) {
    this.key = allocate(map.spec.keyBytes)
    this.value = allocate(map.spec.valueBytes)
    this.#map = map
    this.#atomic = atomic
    this.#attr = new BpfAttr(ELEMENT.bytes).pointer(ELEMENT.key, this.key).pointer(ELEMENT.value, this.value)
  }

  /**
   * Moves the value under `key` to `value` and tells whether there was one.
   * In two steps where the kernel cannot do it in one: safe as long as nobody else takes, since programs only
   * write under a key again for a later connection with the same source port.
   * @throws SyscallError code BPF_CALL_FAILED
   */
  take(): boolean {
    this.#attr.u32(ELEMENT.mapFd, this.#map.fd)
    const command = this.#atomic ? 'BPF_MAP_LOOKUP_AND_DELETE_ELEM' : 'BPF_MAP_LOOKUP_ELEM'
    const result = tryBpf(command, this.#attr)
    if (result === -ENOENT) return false
    if (result < 0) throw bpfError(command, -result, `take from map "${this.#map.spec.name}"`)
    if (!this.#atomic) this.#map.delete(this.key)
    return true
  }
}

/** Specs by the names of their maps, and the maps of such specs. */
export type MapSpecs = Readonly<Record<string, MapSpec>>
export type MapsOf<Specs> = { readonly [Name in keyof Specs]: KernelMap }

/** Creates all maps or none. @throws as `createMap()` */
export function createMaps<Specs extends MapSpecs>(specs: Specs): MapsOf<Specs> {
  using made = new DisposableStack()
  const maps = Object.entries(specs).map(([name, spec]) => [name, made.use(createMap(spec))])
  made.move()
  return Object.fromEntries(maps) as MapsOf<Specs>
}

/** `struct bpf_map_info` up to the name. Source: linux/bpf.h. */
const MAP_INFO = { type: 0, keySize: 8, valueSize: 12, maxEntries: 16, mapFlags: 20, name: 24, bytes: 40 } as const

/**
 * Tells whether an open map is what `spec` describes: kind, name, sizes, flags. What its bytes mean is not known by that.
 */
export function isOfShape(map: Fd, spec: MapSpec): boolean {
  const info = allocate(MAP_INFO.bytes)
  if (readInfo(map, info) < 0) return false
  const found = [MAP_INFO.type, MAP_INFO.keySize, MAP_INFO.valueSize, MAP_INFO.maxEntries, MAP_INFO.mapFlags]
  const wanted = [MAP_TYPES[spec.type], spec.keyBytes, spec.valueBytes, spec.maxEntries, spec.flags]
  return (
    readName(info, MAP_INFO.name) === spec.name && found.every((at, index) => info.readUInt32LE(at) === wanted[index])
  )
}

/**
 * Creates a map. Socket storage needs a BTF description of its key and value, which is made on the way.
 * @throws SyscallError code BPF_MAP_CREATE_FAILED; EINVAL when the kernel lacks the type
 */
export function createMap(spec: MapSpec): KernelMap {
  const attr = new BpfAttr(CREATE.bytes)
    .u32(CREATE.mapType, MAP_TYPES[spec.type])
    .u32(CREATE.keySize, spec.keyBytes)
    .u32(CREATE.valueSize, spec.valueBytes)
    .u32(CREATE.maxEntries, spec.maxEntries)
    .u32(CREATE.mapFlags, spec.flags)
    .name(CREATE.mapName, spec.name)
  using types = spec.type === 'SK_STORAGE' ? loadStorageTypes(spec.valueBytes) : undefined
  if (types !== undefined) {
    attr.u32(CREATE.btfFd, types.number).u32(CREATE.btfKeyTypeId, KEY_TYPE_ID).u32(CREATE.btfValueTypeId, VALUE_TYPE_ID)
  }
  let result = tryBpf('BPF_MAP_CREATE', attr)
  // Before 5.11 maps count as locked memory, 64 KiB by default; EPERM is how that limit speaks.
  if (result === -EPERM && liftMemlockLimit()) result = tryBpf('BPF_MAP_CREATE', attr)
  if (result < 0) throw bpfError('BPF_MAP_CREATE', -result, `create map "${spec.name}"`, 'BPF_MAP_CREATE_FAILED')
  return new KernelMap(spec, new Fd(result, `map "${spec.name}"`))
}

const KEY_TYPE_ID = 1
const VALUE_TYPE_ID = 3

/**
 * Loads the smallest description that socket storage accepts: [1] a 4-byte int for the key, [2] an 8-byte int,
 * [3] an array of those for the value. Layout in btf.ts.
 */
function loadStorageTypes(valueBytes: number): Fd {
  const strings = Buffer.from('\0int\0u64\0', 'latin1')
  const int = 1 << 24
  const array = 3 << 24
  const types = Buffer.from(
    Uint32Array.of(1, int, 4, 32, 5, int, 8, 64, 0, array, 0, 2, KEY_TYPE_ID, Math.ceil(valueBytes / 8)).buffer,
  )
  const header = Buffer.alloc(24)
  header.writeUInt16LE(0xeb9f, 0)
  header.writeUInt8(1, 2)
  header.writeUInt32LE(header.length, 4)
  header.writeUInt32LE(types.length, 12)
  header.writeUInt32LE(types.length, 16)
  header.writeUInt32LE(strings.length, 20)
  const blob = allocate(header.length + types.length + strings.length)
  Buffer.concat([header, types, strings]).copy(blob)
  const attr = new BpfAttr(28).pointer(0, blob).u32(16, blob.length)
  return new Fd(bpf('BPF_BTF_LOAD', attr, 'load the type description of map "pending"'), 'type description')
}
