/**
 * One eBPF instruction, as data: what the other files of this folder make, and `assemble.ts` turns into bytes.
 *
 *      byte 0     byte 1      bytes 2-3     bytes 4-7
 *    +--------+-----+-----+-------------+-------------+
 *    | opcode | src | dst |   offset    |  immediate  |     all little-endian; src is the high half of its byte
 *    +--------+-----+-----+-------------+-------------+
 *
 * The 64-bit immediate load takes two such slots: the second holds only the upper half in its immediate.
 *
 * Source: Documentation/bpf/standardization/instruction-set.rst; include/uapi/linux/bpf.h, `struct bpf_insn`.
 */

/** One of the eleven registers. An object, so that no number can be taken for a register or the reverse. */
export interface Register {
  readonly register: number
}

/** Answers of calls, and the program's own answer at exit. */
export const R0: Register = { register: 0 }
/** Arguments of calls, R1 to R5; every call clobbers all five. At entry R1 is the context. */
export const R1: Register = { register: 1 }
export const R2: Register = { register: 2 }
export const R3: Register = { register: 3 }
export const R4: Register = { register: 4 }
export const R5: Register = { register: 5 }
/** What must outlive a call, R6 to R9. */
export const R6: Register = { register: 6 }
export const R7: Register = { register: 7 }
export const R8: Register = { register: 8 }
export const R9: Register = { register: 9 }
/** The frame pointer: read only, just above 512 bytes of stack. */
export const FP: Register = { register: 10 }

/** One instruction. `target` and `map` are names that the assembler and the loader replace. */
export interface Instruction {
  readonly opcode: number
  readonly dst: Register
  readonly src: Register
  /** Signed 16 bits: bytes for loads and stores, slots for jumps. */
  readonly offset: number
  /** Signed 32 bits; 64 bits for the immediate load. */
  readonly immediate: number | bigint
  /** The label a jump goes to; fills `offset`. */
  readonly target?: string
  /** The map whose descriptor the loader writes into the immediate. */
  readonly map?: string
}

/** A place in a program, for jumps. */
export interface Label {
  readonly label: string
}

/** What a program is written in: instructions and labels, in order. */
export type Line = Instruction | Label

/** The low three bits of an opcode. */
export const CLASS = { LD: 0, LDX: 1, ST: 2, STX: 3, ALU: 4, JMP: 5, JMP32: 6, ALU64: 7 } as const

/** The bit that says where the second operand is: in the immediate (K) or in the source register (X). */
export const SOURCE = { K: 0x00, X: 0x08 } as const

/** The source register value that makes an immediate load mean "the map with this descriptor". */
export const PSEUDO_MAP_FD = 1

/** Marks a place: `jump('done')` goes to `label('done')`. */
export function label(name: string): Label {
  return { label: name }
}

/** Tells a label from an instruction. */
export function isLabel(line: Line): line is Label {
  return 'label' in line
}

/**
 * Checks a value for a 32-bit immediate field.
 * @throws RangeError when it does not fit: a truncated constant would be another program
 */
export function int32(value: number, where: string): number {
  if (!Number.isInteger(value) || value < -0x8000_0000 || value > 0x7fff_ffff) {
    throw new RangeError(`Cannot encode ${where}: ${value} is not a signed 32-bit integer`)
  }
  return value
}

/** Checks a value for a 16-bit offset field, as `int32` does. */
export function int16(value: number, where: string): number {
  if (!Number.isInteger(value) || value < -0x8000 || value > 0x7fff) {
    throw new RangeError(`Cannot encode ${where}: ${value} is not a signed 16-bit integer`)
  }
  return value
}
