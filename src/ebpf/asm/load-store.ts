/**
 * Loads and stores.
 *
 *    opcode:  | mode 3 bits | size 2 bits | class 3 bits |
 *
 * Loads of less than 64 bits clear the rest of the register.
 */

import { add64, mov64 } from './alu.ts'
import { CLASS, FP, type Instruction, int16, int32, PSEUDO_MAP_FD, R0, type Register } from './instruction.ts'

/** How wide a load or store is, in bytes. */
export type Size = 1 | 2 | 4 | 8

export const Byte: Size = 1
export const Half: Size = 2
export const Word: Size = 4
export const Double: Size = 8

export const SIZE_BITS: Readonly<Record<Size, number>> = { 4: 0x00, 2: 0x08, 1: 0x10, 8: 0x18 }
export const MODE = { IMM: 0x00, MEM: 0x60, ATOMIC: 0xc0 } as const
export const LOAD_IMMEDIATE_OPCODE = 0x18

/** `dst = *(size *)(base + offset)`. */
export function load(dst: Register, base: Register, offset: number, size: Size): Instruction {
  const opcode = CLASS.LDX | MODE.MEM | SIZE_BITS[size]
  return { opcode, dst, src: base, offset: int16(offset, 'a load offset'), immediate: 0 }
}

/** `*(size *)(base + offset) = value`. */
export function store(base: Register, offset: number, value: Register | number, size: Size): Instruction {
  const at = int16(offset, 'a store offset')
  if (typeof value === 'number') {
    const immediate = int32(value, 'a stored immediate')
    return { opcode: CLASS.ST | MODE.MEM | SIZE_BITS[size], dst: base, src: R0, offset: at, immediate }
  }
  return { opcode: CLASS.STX | MODE.MEM | SIZE_BITS[size], dst: base, src: value, offset: at, immediate: 0 }
}

/** `__sync_fetch_and_add((u64 *)(base + offset), value)`: exact even when the program is interrupted by itself. */
export function atomicAdd64(base: Register, offset: number, value: Register): Instruction {
  const opcode = CLASS.STX | MODE.ATOMIC | SIZE_BITS[8]
  return { opcode, dst: base, src: value, offset: int16(offset, 'an atomic offset'), immediate: 0 }
}

/** `dst = value`, any 64 bits; two slots. */
export function loadImmediate64(dst: Register, value: bigint): Instruction {
  return { opcode: LOAD_IMMEDIATE_OPCODE, dst, src: R0, offset: 0, immediate: BigInt.asUintN(64, value) }
}

/** `dst = &map`, by name; two slots. The loader writes the descriptor, so the program stays the same everywhere. */
export function loadMap(dst: Register, map: string): Instruction {
  return { opcode: LOAD_IMMEDIATE_OPCODE, dst, src: { register: PSEUDO_MAP_FD }, offset: 0, immediate: 0n, map }
}

/** `dst = fp + offset`: the address of something on the stack; two instructions. */
export function stackAddress(dst: Register, offset: number): readonly Instruction[] {
  return [mov64(dst, FP), add64(dst, offset)]
}
