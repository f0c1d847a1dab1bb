import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { add64, and32, mov32, mov64, shiftRight32, shiftRight64 } from '../../src/ebpf/asm/alu.ts'
import { assemble, withMaps } from '../../src/ebpf/asm/assemble.ts'
import { disassemble } from '../../src/ebpf/asm/disassemble.ts'
import { FP, type Line, label, R0, R1, R2, R3, R6, R7, R9 } from '../../src/ebpf/asm/instruction.ts'
import { call, exit, jump, jumpEq32, jumpEq64, jumpLt32, jumpNe32, jumpNe64 } from '../../src/ebpf/asm/jump.ts'
import {
  atomicAdd64,
  Byte,
  Double,
  Half,
  load,
  loadImmediate64,
  loadMap,
  stackAddress,
  store,
  Word,
} from '../../src/ebpf/asm/load-store.ts'

const hex = (line: Line) => assemble([line, label('x')]).bytes.toString('hex')

/** opcode, src and dst, offset, immediate: as `llvm-objdump` and the kernel's own macros give them. */
const OPCODES: readonly (readonly [c: string, have: Line, want: string, text: string])[] = [
  ['r6 = r1', mov64(R6, R1), 'bf16000000000000', 'r6 = r1'],
  ['r2 = 8', mov64(R2, 8), 'b702000008000000', 'r2 = 8'],
  ['r9 = -1, all 64 bits', mov64(R9, -1), 'b7090000ffffffff', 'r9 = -1'],
  ['w1 = 5', mov32(R1, 5), 'b401000005000000', 'w1 = 5'],
  ['r2 += -8', add64(R2, -8), '07020000f8ffffff', 'r2 += -8'],
  ['r3 += r1', add64(R3, R1), '0f13000000000000', 'r3 += r1'],
  ['w1 &= 1', and32(R1, 1), '5401000001000000', 'w1 &= 1'],
  ['w1 >>= 16', shiftRight32(R1, 16), '7401000010000000', 'w1 >>= 16'],
  ['r0 >>= 32', shiftRight64(R0, 32), '7700000020000000', 'r0 >>= 32'],
  ['byte load', load(R1, R6, 1, Byte), '7161010000000000', 'r1 = *(u8 *)(r6 + 1)'],
  ['half load', load(R1, FP, -2, Half), '69a1feff00000000', 'r1 = *(u16 *)(fp - 2)'],
  ['word load', load(R7, R6, 36, Word), '6167240000000000', 'r7 = *(u32 *)(r6 + 36)'],
  ['double load', load(R2, R6, 184, Double), '7962b80000000000', 'r2 = *(u64 *)(r6 + 184)'],
  ['word store', store(R6, 4, R7, Word), '6376040000000000', '*(u32 *)(r6 + 4) = r7'],
  ['half store', store(FP, -4, R1, Half), '6b1afcff00000000', '*(u16 *)(fp - 4) = r1'],
  ['zero store', store(FP, -8, 0, Double), '7a0af8ff00000000', '*(u64 *)(fp - 8) = 0'],
  ['atomic add', atomicAdd64(R0, 0, R1), 'db10000000000000', 'lock *(u64 *)(r0 + 0) += r1'],
  ['goto', jump('x'), '0500000000000000', 'goto 1'],
  ['64-bit ==', jumpEq64(R0, 0, 'x'), '1500000000000000', 'if r0 == 0 goto 1'],
  ['64-bit != of registers', jumpNe64(R1, R2, 'x'), '5d21000000000000', 'if r1 != r2 goto 1'],
  ['32-bit ==', jumpEq32(R1, 1, 'x'), '1601000001000000', 'if w1 == 1 goto 1'],
  ['32-bit != of registers', jumpNe32(R1, R2, 'x'), '5e21000000000000', 'if w1 != w2 goto 1'],
  ['32-bit <', jumpLt32(R9, 2, 'x'), 'a609000002000000', 'if w9 < 2 goto 1'],
  ['an address with the top bit', jumpNe32(R7, 0xfea9fea9, 'x'), '56070000a9fea9fe', 'if w7 != 0xfea9fea9 goto 1'],
  ['call', call('probe_read_kernel'), '8500000071000000', 'call probe_read_kernel'],
  ['exit', exit(), '9500000000000000', 'exit'],
  [
    '64-bit immediate',
    loadImmediate64(R1, 0x1122334455667788n),
    '18010000887766550000000044332211',
    'r1 = 0x1122334455667788 ll',
  ],
  ['map', loadMap(R1, 'policy'), '18110000000000000000000000000000', 'r1 = map policy'],
]

describe('assemble()', () => {
  for (const [situation, have, want] of OPCODES) {
    test(`encodes ${situation}`, () => assert.equal(hex(have), want))
  }

  test('encodes the address of something on the stack in two steps', () => {
    assert.equal(assemble(stackAddress(R2, -112)).bytes.toString('hex'), 'bfa20000000000000702000090ffffff')
  })

  test('counts jumps in slots, over two-slot loads, forward and back', () => {
    const { bytes } = assemble([label('start'), jump('end'), loadMap(R1, 'm'), jump('start'), label('end'), exit()])
    assert.equal(bytes.readInt16LE(2), 3) // from slot 1, over slots 1 to 3
    assert.equal(bytes.readInt16LE(3 * 8 + 2), -4)
  })

  for (const row of [
    { situation: 'an unknown label', lines: [jump('nowhere')], message: /no label "nowhere"/ },
    { situation: 'a label twice', lines: [label('a'), label('a')], message: /label "a" stands twice/ },
    {
      situation: 'a jump too far',
      lines: [jump('end'), ...Array.from({ length: 0x8000 }, () => exit()), label('end')],
      message: /a jump to "end": 32768 is not a signed 16-bit integer/,
    },
  ]) {
    test(`refuses ${row.situation}`, () =>
      assert.throws(() => assemble(row.lines), { name: 'RangeError', message: row.message }))
  }

  for (const [situation, make] of [
    ['a 64-bit comparison that would sign-extend', () => jumpEq64(R7, 0xfea9fea9, 'x')],
    ['an immediate of 33 bits', () => jumpNe32(R7, 0x1_0000_0000, 'x')],
    ['a move that would sign-extend', () => mov64(R1, 0x8000_0000)],
    ['an offset of 17 bits', () => load(R1, R6, 0x8000, Word)],
    ['half an offset', () => store(FP, -0.5, R1, Word)],
  ] as const) {
    test(`refuses ${situation}`, () => assert.throws(make, RangeError))
  }
})

describe('withMaps()', () => {
  test('writes descriptors where the program names maps, and leaves the program as it was', () => {
    const program = assemble([loadMap(R1, 'a'), loadMap(R2, 'b'), exit()])
    const before = program.bytes.toString('hex')
    const loaded = withMaps(program, (name) => (name === 'a' ? 7 : 300))
    assert.equal(
      loaded.toString('hex'),
      '1811000007000000000000000000000018120000' + '2c01000000000000000000009500000000000000',
    )
    assert.equal(program.bytes.toString('hex'), before)
  })
})

describe('disassemble()', () => {
  for (const [situation, have, , text] of OPCODES) {
    test(`reads ${situation}`, () => assert.equal(disassemble(assemble([have, label('x')])), `   0: ${text}\n`))
  }

  test('shows what it does not know', () => {
    assert.equal(
      disassemble({ bytes: Buffer.from('8700000000000000', 'hex'), maps: [] }),
      '   0: unknown opcode 0x87\n',
    )
    assert.equal(disassemble({ bytes: Buffer.from('85000000e7030000', 'hex'), maps: [] }), '   0: call helper 999\n')
  })
})
