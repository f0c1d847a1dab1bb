import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { BtfError, parseBtf } from '../../src/ebpf/btf.ts'
import { readKernelFields } from '../../src/ebpf/kernel-fields.ts'

const VMLINUX = '/sys/kernel/btf/vmlinux'
const [INT, PTR, ARRAY, STRUCT, UNION, FWD, TYPEDEF, CONST] = [1, 2, 3, 4, 5, 7, 8, 10]

/** Writes a BTF file by hand: names become offsets, types are numbered from 1 in order. */
class Blob {
  readonly #types: number[] = []
  readonly #names = new Map([['', 0]])
  #strings = '\0'

  name(text: string): number {
    const known = this.#names.get(text)
    if (known !== undefined) return known
    const at = this.#strings.length
    this.#names.set(text, at)
    this.#strings += `${text}\0`
    return at
  }

  type(kind: number, name: string, sizeOrType: number, ...details: number[]): this {
    return this.typeWithInfo(kind << 24, name, sizeOrType, ...details)
  }

  typeWithInfo(info: number, name: string, sizeOrType: number, ...details: number[]): this {
    this.#types.push(this.name(name), info, sizeOrType, ...details)
    return this
  }

  /** `members`: name, type, offset in bits. */
  struct(
    kind: number,
    name: string,
    sizeBytes: number,
    members: readonly (readonly [string, number, number])[],
    flag = 0,
  ): this {
    const details = members.flatMap(([member, type, offset]) => [this.name(member), type, offset])
    return this.typeWithInfo((flag << 31) | (kind << 24) | members.length, name, sizeBytes, ...details)
  }

  bytes(): Buffer {
    const types = Buffer.from(Uint32Array.from(this.#types).buffer)
    const strings = Buffer.from(this.#strings, 'latin1')
    const header = Buffer.alloc(24)
    header.writeUInt16LE(0xeb9f, 0)
    header.writeUInt8(1, 2)
    header.writeUInt32LE(24, 4)
    header.writeUInt32LE(types.length, 12)
    header.writeUInt32LE(types.length, 16)
    header.writeUInt32LE(strings.length, 20)
    return Buffer.concat([header, types, strings])
  }
}

/** A small kernel: `struct outer { u32 a; struct { u32 b; union { u32 c; u64 d; }; }; inner e; u32 bits : 3; upid f[]; ptr }`. */
function sample(): Blob {
  return new Blob()
    .type(INT!, 'u32', 4, 32) // 1
    .type(INT!, 'u64', 8, 64) // 2
    .type(TYPEDEF!, 'u32_t', 1) // 3
    .type(CONST!, '', 3) // 4
    .type(FWD!, 'outer', 0) // 5
    .struct(UNION!, '', 8, [
      ['c', 4, 0],
      ['d', 2, 0],
    ]) // 6
    .struct(STRUCT!, '', 16, [
      ['b', 1, 0],
      ['', 6, 64],
    ]) // 7
    .struct(STRUCT!, 'inner', 8, [
      ['x', 1, 0],
      ['y', 3, 32],
    ]) // 8
    .type(ARRAY!, '', 0, 8, 1, 0) // 9: inner[]
    .type(PTR!, '', 8) // 10: inner *
    .struct(
      STRUCT!,
      'outer',
      64,
      [
        ['a', 1, 0],
        ['', 7, 64],
        ['e', 8, 192],
        ['p', 10, 256],
        ['bits', 1, (3 << 24) | 320],
        ['f', 9, 384],
      ],
      1,
    ) // 11
    .type(ARRAY!, '', 0, 8, 1, 3) // 12: inner[3]
    .struct(STRUCT!, 'fixed', 24, [['g', 12, 0]]) // 13
}

describe('parseBtf()', () => {
  const btf = parseBtf(sample().bytes())

  for (const row of [
    { situation: 'a plain member', path: ['outer', 'a'], want: { offsetBytes: 0, sizeBytes: 4 } },
    { situation: 'a member of an anonymous struct', path: ['outer', 'b'], want: { offsetBytes: 8, sizeBytes: 4 } },
    {
      situation: 'a qualified typedef in an anonymous union',
      path: ['outer', 'c'],
      want: { offsetBytes: 16, sizeBytes: 4 },
    },
    { situation: 'its wider sibling', path: ['outer', 'd'], want: { offsetBytes: 16, sizeBytes: 8 } },
    { situation: 'an embedded struct', path: ['outer', 'e'], want: { offsetBytes: 24, sizeBytes: 8 } },
    { situation: 'a member of an embedded struct', path: ['outer', 'e', 'y'], want: { offsetBytes: 28, sizeBytes: 4 } },
    { situation: 'a pointer', path: ['outer', 'p'], want: { offsetBytes: 32, sizeBytes: 8 } },
    { situation: 'a member of a flexible array', path: ['outer', 'f', 'y'], want: { offsetBytes: 52, sizeBytes: 4 } },
    {
      situation: 'a flexible array',
      path: ['outer', 'f'],
      want: { offsetBytes: 48, sizeBytes: 0, array: { length: 0, elementBytes: 8 } },
    },
    {
      situation: 'an array',
      path: ['fixed', 'g'],
      want: { offsetBytes: 0, sizeBytes: 24, array: { length: 3, elementBytes: 8 } },
    },
  ]) {
    test(`member() finds ${row.situation}`, () => {
      const [struct, ...path] = row.path
      assert.deepEqual(btf.member(struct!, ...path), { array: undefined, ...row.want })
    })
  }

  for (const row of [
    {
      situation: 'a struct that is not there',
      path: ['nobody', 'a'],
      message: 'Cannot find struct nobody: not in this file',
    },
    { situation: 'a member that is not there', path: ['outer', 'z'], message: 'Cannot find outer.z: no member "z"' },
    { situation: 'a bit field', path: ['outer', 'bits'], message: 'Cannot use bits: it is a bit field' },
    {
      situation: 'a path through a pointer',
      path: ['outer', 'p', 'x'],
      message: 'Cannot find outer.p.x: no member "x"',
    },
    {
      situation: 'a path through a number',
      path: ['outer', 'a', 'x'],
      message: 'Cannot find outer.a.x: no member "x"',
    },
    { situation: 'a prefix of a name', path: ['oute', 'a'], message: 'Cannot find struct oute: not in this file' },
  ]) {
    test(`member() refuses ${row.situation}`, () => {
      const [struct, ...path] = row.path
      assert.throws(() => btf.member(struct!, ...path), {
        name: 'BtfError',
        code: 'BTF_NO_MEMBER',
        message: row.message,
      })
    })
  }

  for (const [situation, bytes, message] of [
    ['nothing', Buffer.alloc(0), /shorter than its header/],
    ['another kind of file', Buffer.from('\x7fELF'.padEnd(64, '\0'), 'latin1'), /no magic number/],
    ['a later version', edited((bytes) => bytes.writeUInt8(2, 2)), /version 2/],
    ['a header length of nothing', edited((bytes) => bytes.writeUInt32LE(0, 4)), /header length is too small/],
    ['types beyond the file', edited((bytes) => bytes.writeUInt32LE(0xffff_ffff, 12)), /a section ends after the file/],
    [
      'strings beyond the file',
      edited((bytes) => bytes.writeUInt32LE(0xffff_fff0, 16)),
      /a section ends after the file/,
    ],
    ['a type of no known kind', new Blob().type(31, 'x', 0).bytes(), /unknown kind 31/],
    [
      'a member list cut short',
      new Blob().typeWithInfo((4 << 24) | 9, 'x', 4, 0, 0).bytes(),
      /details of a type are cut short/,
    ],
    ['half a type', edited((bytes) => bytes.writeUInt32LE(bytes.readUInt32LE(12) - 4, 12)), /cut short/],
  ] as const) {
    test(`refuses ${situation}`, () => {
      assert.throws(() => parseBtf(bytes), { name: 'BtfError', code: 'BTF_UNUSABLE', message })
    })
  }

  for (const [situation, blob, path, message] of [
    [
      'typedefs in a circle',
      new Blob().struct(STRUCT!, 's', 8, [['a', 2, 0]]).type(TYPEDEF!, 't', 2),
      ['s', 'a'],
      /typedefs refer to one another/,
    ],
    [
      'a struct that holds itself',
      new Blob().struct(STRUCT!, 's', 8, [
        ['', 1, 0],
        ['', 1, 0],
      ]),
      ['s', 'a'],
      /nest without end/,
    ],
    [
      'an array of itself',
      new Blob().struct(STRUCT!, 's', 8, [['a', 2, 0]]).type(ARRAY!, '', 0, 2, 2, 1),
      ['s', 'a'],
      /arrays nest without end/,
    ],
    [
      'a member of a type that is not there',
      new Blob().struct(STRUCT!, 's', 8, [['a', 77, 0]]),
      ['s', 'a'],
      /no type has the id 77/,
    ],
  ] as const) {
    test(`member() ends on ${situation}`, () => {
      const hostile = parseBtf(blob.bytes())
      assert.throws(() => hostile.member(...path), { name: 'BtfError', code: 'BTF_UNUSABLE', message })
    })
  }

  test('ends in an answer or a BtfError whatever bytes are cut off or changed', () => {
    const whole = sample().bytes()
    const change = fc.record({ at: fc.nat(whole.length - 1), to: fc.nat(255), length: fc.nat(whole.length) })
    const property = fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
      const bytes = Buffer.from(whole)
      for (const { at, to } of changes) bytes[at] = to
      try {
        parseBtf(bytes.subarray(0, changes[0]!.length)).member('outer', 'f', 'y')
        parseBtf(bytes).member('outer', 'f', 'y')
      } catch (error) {
        if (!(error instanceof BtfError)) throw error
      }
    })
    fc.assert(property, { numRuns: 2_000 })
  })

  test('reads a part of a larger buffer', () => {
    const bytes = sample().bytes()
    const shifted = Buffer.concat([Buffer.alloc(3), bytes]).subarray(3)
    assert.equal(parseBtf(shifted).member('outer', 'd').offsetBytes, 16)
  })
})

describe('readKernelFields()', () => {
  test('leaves out a group of which a member is missing, and names it', () => {
    const { fields, missing } = readKernelFields(
      parseBtf(
        new Blob()
          .type(PTR!, '', 0)
          .type(INT!, 'u64', 8, 64)
          .struct(STRUCT!, 'task_struct', 64, [
            ['group_leader', 1, 0],
            ['start_boottime', 2, 64],
            ['mm', 1, 128],
          ])
          .bytes(),
      ),
    )
    assert.deepEqual(fields.start, { groupLeader: { offset: 0, size: 8 }, startBoottime: { offset: 8, size: 8 } })
    assert.equal(fields.executable, undefined)
    assert.deepEqual(missing, [
      'pid: Cannot find struct pid: not in this file',
      'executable: Cannot find struct mm_struct: not in this file',
      'mount namespace: Cannot find task_struct.nsproxy: no member "nsproxy"',
      'user namespace: Cannot find task_struct.cred: no member "cred"',
    ])
  })

  test('leaves out a field that no single load can read', () => {
    const blob = new Blob().type(PTR!, '', 0).struct(STRUCT!, 'task_struct', 64, [
      ['group_leader', 1, 8 * 40_000],
      ['start_boottime', 1, 0],
    ])
    const { fields, missing } = readKernelFields(parseBtf(blob.bytes()))
    assert.equal(fields.start, undefined)
    assert.match(missing[0]!, /^start time: Cannot use task_struct.group_leader: 8 bytes at offset 40000$/)
  })

  for (const [situation, members, changed] of [
    ['Linux 6.11', ['i_ctime_sec', 'i_ctime_nsec'], { seconds: 24, nanoseconds: 32 }],
    ['Linux 6.6', ['__i_ctime'], { seconds: 24, nanoseconds: 32 }],
    ['Linux 5.10', ['i_ctime'], { seconds: 24, nanoseconds: 32 }],
    ['a kernel that keeps it elsewhere', ['i_other'], undefined],
  ] as const) {
    test(`finds the change time of an inode on ${situation}`, () => {
      const times =
        members.length === 2
          ? members.map((name, i) => [name, 2, 192 + 64 * i] as const)
          : [[members[0], 8, 192] as const]
      const blob = new Blob()
        .type(PTR!, '', 0)
        .type(INT!, 'u64', 8, 64)
        .struct(STRUCT!, 'task_struct', 64, [['mm', 1, 0]])
        .struct(STRUCT!, 'mm_struct', 64, [['exe_file', 1, 0]])
        .struct(STRUCT!, 'file', 64, [['f_inode', 1, 0]])
        .struct(STRUCT!, 'super_block', 64, [['s_dev', 2, 0]])
        .struct(STRUCT!, 'inode', 64, [['i_ino', 2, 0], ['i_sb', 1, 64], ['i_size', 2, 128], ...times])
        .struct(STRUCT!, 'timespec64', 16, [
          ['tv_sec', 2, 0],
          ['tv_nsec', 2, 64],
        ])
      const { fields, missing } = readKernelFields(parseBtf(blob.bytes()))
      const found = fields.executable?.version
      assert.deepEqual(found && { seconds: found.seconds.offset, nanoseconds: found.nanoseconds.offset }, changed)
      assert.equal(
        missing.some((what) => what.startsWith('change time of executables')),
        changed === undefined,
      )
    })
  }

  const skip = existsSync(VMLINUX) ? false : `needs ${VMLINUX}, which this kernel does not offer`
  test('finds every field in the running kernel', { skip }, () => {
    const btf = parseBtf(readFileSync(VMLINUX))
    assert.ok(btf.typeCount > 10_000)
    assert.deepEqual(readKernelFields(btf).missing, [])
  })
})

function edited(edit: (bytes: Buffer) => void): Buffer {
  const bytes = sample().bytes()
  edit(bytes)
  return bytes
}
