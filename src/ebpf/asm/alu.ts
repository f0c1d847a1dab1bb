/**
 * Moves and arithmetic.
 *
 *    opcode:  | operation 4 bits | source 1 bit | class 3 bits |      class: ALU is 32 bits wide, ALU64 is 64
 *
 * 32-bit forms clear the upper half of the destination. 64-bit forms sign-extend an immediate, so `mov64(R1, -1)`
 * sets all 64 bits.
 */

import { CLASS, type Instruction, int32, R0, type Register, SOURCE } from './instruction.ts'

export const ALU_OPERATION = { ADD: 0x00, AND: 0x50, OR: 0x40, LSH: 0x60, RSH: 0x70, MOV: 0xb0 } as const

/** `dst = value` (64 bits). */
export function mov64(dst: Register, value: Register | number): Instruction {
  return alu(CLASS.ALU64, ALU_OPERATION.MOV, dst, value)
}

/** `dst = (u32) value`. */
export function mov32(dst: Register, value: Register | number): Instruction {
  return alu(CLASS.ALU, ALU_OPERATION.MOV, dst, value)
}

/** `dst += value` (64 bits): also how addresses on the stack are made. */
export function add64(dst: Register, value: Register | number): Instruction {
  return alu(CLASS.ALU64, ALU_OPERATION.ADD, dst, value)
}

/** `dst = (u32) dst & value`. */
export function and32(dst: Register, value: Register | number): Instruction {
  return alu(CLASS.ALU, ALU_OPERATION.AND, dst, value)
}

/** `dst = (u32) dst >> bits`, zeroes from the left. */
export function shiftRight32(dst: Register, bits: number): Instruction {
  return alu(CLASS.ALU, ALU_OPERATION.RSH, dst, bits)
}

/** `dst = (u64) dst >> bits`, zeroes from the left. */
export function shiftRight64(dst: Register, bits: number): Instruction {
  return alu(CLASS.ALU64, ALU_OPERATION.RSH, dst, bits)
}

function alu(width: number, operation: number, dst: Register, value: Register | number): Instruction {
  if (typeof value === 'number') {
    const immediate = int32(value, 'an arithmetic immediate')
    return { opcode: width | operation | SOURCE.K, dst, src: R0, offset: 0, immediate }
  }
  return { opcode: width | operation | SOURCE.X, dst, src: value, offset: 0, immediate: 0 }
}
