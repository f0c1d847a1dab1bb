/**
 * Reads BTF, the kernel's description of its own types, as far as needed to find where a struct keeps a member.
 *
 *    header   magic u16 = 0xeb9f | version u8 = 1 | flags u8 | header length u32
 *             | types: offset u32, length u32 | strings: offset u32, length u32      (offsets count from the header's end)
 *    type     name u32 (offset in strings) | info u32 | size or type u32, then details that depend on the kind
 *    info     bit 31: kind flag | bits 24-28: kind | bits 0-15: count of members, values or parameters
 *    member   name u32 | type u32 | bit offset u32 (with the kind flag: 8 bits of bit-field width above 24 bits of offset)
 *
 * Type ids count from 1 in order of appearance; id 0 is void. The file is data from the kernel, yet nothing in it is
 * believed: every offset is checked, so that a truncated or invented file ends in `BtfError`, never in a wrong number
 * or an endless loop.
 *
 * Source: Documentation/bpf/btf.rst; include/uapi/linux/btf.h.
 */

import { AgentError } from '../base/errors.ts'

const MAGIC = 0xeb9f
const VERSION = 1
const MIN_HEADER_BYTES = 24
const TYPE_BYTES = 12
const MEMBER_BYTES = 12

/** Source: include/uapi/linux/btf.h, `BTF_KIND_*`. */
const KIND = {
  INT: 1,
  PTR: 2,
  ARRAY: 3,
  STRUCT: 4,
  UNION: 5,
  ENUM: 6,
  FWD: 7,
  TYPEDEF: 8,
  VOLATILE: 9,
  CONST: 10,
  RESTRICT: 11,
  FUNC: 12,
  FUNC_PROTO: 13,
  VAR: 14,
  DATASEC: 15,
  FLOAT: 16,
  DECL_TAG: 17,
  TYPE_TAG: 18,
  ENUM64: 19,
} as const

/** Details after the common 12 bytes: a fixed part, and a part per counted item. */
const DETAIL_BYTES: Readonly<Record<number, readonly [fixed: number, perItem: number]>> = {
  [KIND.INT]: [4, 0],
  [KIND.PTR]: [0, 0],
  [KIND.ARRAY]: [12, 0],
  [KIND.STRUCT]: [0, MEMBER_BYTES],
  [KIND.UNION]: [0, MEMBER_BYTES],
  [KIND.ENUM]: [0, 8],
  [KIND.FWD]: [0, 0],
  [KIND.TYPEDEF]: [0, 0],
  [KIND.VOLATILE]: [0, 0],
  [KIND.CONST]: [0, 0],
  [KIND.RESTRICT]: [0, 0],
  [KIND.FUNC]: [0, 0],
  [KIND.FUNC_PROTO]: [0, 8],
  [KIND.VAR]: [4, 0],
  [KIND.DATASEC]: [0, 12],
  [KIND.FLOAT]: [0, 0],
  [KIND.DECL_TAG]: [4, 0],
  [KIND.TYPE_TAG]: [0, 0],
  [KIND.ENUM64]: [0, 12],
}

const ALIASES: ReadonlySet<number> = new Set([KIND.TYPEDEF, KIND.VOLATILE, KIND.CONST, KIND.RESTRICT, KIND.TYPE_TAG])

/** Chains of typedefs and nests of arrays are short; a longer one is a cycle. */
const MAX_DEPTH = 32

/** How many structs one search may enter: the largest real one has some hundred anonymous members. */
const MAX_STRUCTS_ENTERED = 1_000

/** A BTF file that cannot be used. Code BTF_UNUSABLE: malformed; BTF_NO_MEMBER: sound, but without that member. */
export class BtfError extends AgentError {
  override name = 'BtfError'
}

/** Where a struct keeps a member. */
export interface BtfMember {
  /** From the start of the outermost struct. */
  readonly offsetBytes: number
  /** 0 for a flexible array. */
  readonly sizeBytes: number
  /** For an array: its length (0 = flexible) and the size of one element. */
  readonly array?: { readonly length: number; readonly elementBytes: number } | undefined
}

/** A parsed BTF file. Keeps the whole file alive: drop it after the lookups. */
export interface Btf {
  /** How many types it holds, void not counted. */
  readonly typeCount: number
  /**
   * Finds a member of a named struct. A path of several names goes into embedded structs, and into the elements of an
   * array (element 0), but never through a pointer. Members of anonymous structs and unions count as direct ones.
   * @throws BtfError code BTF_NO_MEMBER when the struct or a member is missing or is a bit field
   */
  member(struct: string, ...path: string[]): BtfMember
}

interface Type {
  readonly at: number
  readonly kind: number
  readonly kindFlag: boolean
  readonly count: number
  /** Size in bytes, or the id of another type. */
  readonly sizeOrType: number
}

interface FoundMember {
  readonly offsetBytes: number
  readonly typeId: number
}

/**
 * Parses a BTF file: /sys/kernel/btf/vmlinux, 5 MB, takes about 30 ms.
 * @throws BtfError code BTF_UNUSABLE
 */
export function parseBtf(file: Uint8Array): Btf {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.byteLength)
  const { types, strings } = readSections(bytes)
  return new ParsedBtf(types, strings, indexTypes(types))
}

class ParsedBtf implements Btf {
  readonly #types: Buffer
  readonly #strings: Buffer
  /** Where type `id` starts; index 0 is void and unused. */
  readonly #starts: Uint32Array
  readonly #structs = new Map<string, number>()

  constructor(types: Buffer, strings: Buffer, starts: Uint32Array) {
    this.#types = types
    this.#strings = strings
    this.#starts = starts
  }

  get typeCount(): number {
    return this.#starts.length - 1
  }

  member(struct: string, ...path: string[]): BtfMember {
    const what = [struct, ...path].join('.')
    let typeId = this.#findStruct(struct)
    let offsetBytes = 0
    for (const name of path) {
      const found = this.#findMember(this.#elementOf(typeId), name, { structsLeft: MAX_STRUCTS_ENTERED })
      if (found === undefined) throw new BtfError('BTF_NO_MEMBER', `Cannot find ${what}: no member "${name}"`)
      offsetBytes += found.offsetBytes
      typeId = found.typeId
    }
    return { offsetBytes, sizeBytes: this.#sizeOf(typeId, 0), array: this.#arrayOf(typeId) }
  }

  /** Scans for a struct with members; a file may also hold forward declarations under the same name. */
  #findStruct(name: string): number {
    const known = this.#structs.get(name)
    if (known !== undefined) return known
    const wanted = Buffer.from(`${name}\0`)
    for (let id = 1; id < this.#starts.length; id += 1) {
      const at = this.#starts[id]!
      if (((this.#types.readUInt32LE(at + 4) >>> 24) & 0x1f) !== KIND.STRUCT) continue
      if (!this.#isName(this.#types.readUInt32LE(at), wanted)) continue
      this.#structs.set(name, id)
      return id
    }
    throw new BtfError('BTF_NO_MEMBER', `Cannot find struct ${name}: not in this file`)
  }

  #findMember(structId: number, name: string, budget: { structsLeft: number }): FoundMember | undefined {
    budget.structsLeft -= 1
    if (budget.structsLeft < 0) throw malformed('anonymous members nest without end')
    const struct = this.#type(structId)
    if (struct.kind !== KIND.STRUCT && struct.kind !== KIND.UNION) return undefined
    const wanted = Buffer.from(`${name}\0`)
    for (let index = 0; index < struct.count; index += 1) {
      const at = struct.at + TYPE_BYTES + index * MEMBER_BYTES
      const nameAt = this.#types.readUInt32LE(at)
      const typeId = this.#types.readUInt32LE(at + 4)
      const place = this.#types.readUInt32LE(at + 8)
      const isBitField = struct.kindFlag && place >>> 24 !== 0
      const offsetBits = struct.kindFlag ? place & 0xff_ffff : place
      if (nameAt === 0) {
        const inner = this.#findMember(this.#resolve(typeId), name, budget)
        if (inner !== undefined) return { ...inner, offsetBytes: inner.offsetBytes + offsetBits / 8 }
      } else if (this.#isName(nameAt, wanted)) {
        if (isBitField || offsetBits % 8 !== 0)
          throw new BtfError('BTF_NO_MEMBER', `Cannot use ${name}: it is a bit field`)
        return { offsetBytes: offsetBits / 8, typeId }
      }
    }
    return undefined
  }

  #sizeOf(typeId: number, depth: number): number {
    if (depth > MAX_DEPTH) throw malformed('arrays nest without end')
    const type = this.#type(this.#resolve(typeId))
    if (type.kind === KIND.PTR) return 8
    if (type.kind === KIND.ARRAY) {
      const { elementId, length } = this.#arrayDetail(type)
      return length === 0 ? 0 : length * this.#sizeOf(elementId, depth + 1)
    }
    return type.sizeOrType
  }

  #arrayOf(typeId: number): BtfMember['array'] {
    const type = this.#type(this.#resolve(typeId))
    if (type.kind !== KIND.ARRAY) return undefined
    const { elementId, length } = this.#arrayDetail(type)
    return { length, elementBytes: this.#sizeOf(elementId, 0) }
  }

  /** What a path step looks into: the struct itself, or what an array is made of. */
  #elementOf(typeId: number): number {
    const id = this.#resolve(typeId)
    const type = this.#type(id)
    return type.kind === KIND.ARRAY ? this.#resolve(this.#arrayDetail(type).elementId) : id
  }

  #arrayDetail(type: Type): { elementId: number; length: number } {
    const at = type.at + TYPE_BYTES
    return { elementId: this.#types.readUInt32LE(at), length: this.#types.readUInt32LE(at + 8) }
  }

  /** Follows typedefs and qualifiers. */
  #resolve(typeId: number): number {
    let id = typeId
    for (let depth = 0; depth <= MAX_DEPTH; depth += 1) {
      const type = this.#type(id)
      if (!ALIASES.has(type.kind)) return id
      id = type.sizeOrType
    }
    throw malformed('typedefs refer to one another')
  }

  #type(id: number): Type {
    const at = id > 0 ? this.#starts[id] : undefined
    if (at === undefined) throw malformed(`no type has the id ${id}`)
    return readType(this.#types, at)
  }

  /** Compares without making strings: this runs for every struct of the kernel. */
  #isName(offset: number, wanted: Buffer): boolean {
    const end = offset + wanted.length
    return end <= this.#strings.length && this.#strings.compare(wanted, 0, wanted.length, offset, end) === 0
  }
}

function readSections(bytes: Buffer): { types: Buffer; strings: Buffer } {
  if (bytes.length < MIN_HEADER_BYTES) throw malformed('shorter than its header')
  if (bytes.readUInt16LE(0) !== MAGIC) throw malformed('no magic number')
  if (bytes.readUInt8(2) !== VERSION) throw malformed(`version ${bytes.readUInt8(2)}`)
  const headerBytes = bytes.readUInt32LE(4)
  if (headerBytes < MIN_HEADER_BYTES) throw malformed('header length is too small')
  return {
    types: section(bytes, headerBytes, bytes.readUInt32LE(8), bytes.readUInt32LE(12)),
    strings: section(bytes, headerBytes, bytes.readUInt32LE(16), bytes.readUInt32LE(20)),
  }
}

function section(bytes: Buffer, headerBytes: number, offset: number, length: number): Buffer {
  const start = headerBytes + offset
  if (start + length > bytes.length) throw malformed('a section ends after the file')
  return bytes.subarray(start, start + length)
}

/** Walks all types once and notes where each starts. Every type moves on by at least 12 bytes, so the walk ends. */
function indexTypes(types: Buffer): Uint32Array {
  const starts = new Uint32Array(1 + Math.floor(types.length / TYPE_BYTES))
  let count = 1
  let at = 0
  while (at < types.length) {
    if (at + TYPE_BYTES > types.length) throw malformed('a type is cut short')
    const info = types.readUInt32LE(at + 4)
    const detail = DETAIL_BYTES[(info >>> 24) & 0x1f]
    if (detail === undefined) throw malformed(`unknown kind ${(info >>> 24) & 0x1f}`)
    starts[count] = at
    count += 1
    at += TYPE_BYTES + detail[0] + detail[1] * (info & 0xffff)
  }
  if (at !== types.length) throw malformed('the details of a type are cut short')
  return starts.subarray(0, count)
}

function readType(types: Buffer, at: number): Type {
  const info = types.readUInt32LE(at + 4)
  return {
    at,
    kind: (info >>> 24) & 0x1f,
    kindFlag: info >>> 31 === 1,
    count: info & 0xffff,
    sizeOrType: types.readUInt32LE(at + 8),
  }
}

function malformed(why: string): BtfError {
  return new BtfError('BTF_UNUSABLE', `Cannot read BTF: ${why}`)
}
