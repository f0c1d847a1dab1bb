/** Turns lines into bytes: numbers the slots, resolves labels, notes where map descriptors go. */

import { CLASS, type Instruction, int16, isLabel, type Line } from './instruction.ts'
import { LOAD_IMMEDIATE_OPCODE } from './load-store.ts'

export const SLOT_BYTES = 8

/** A place where the loader writes the descriptor of a map. */
export interface MapReference {
  /** Index of the first of the two slots. */
  readonly slot: number
  readonly map: string
}

/** A program as bytes. Map descriptors are zero until `withMaps()`. */
export interface Assembled {
  readonly bytes: Buffer
  readonly maps: readonly MapReference[]
}

/**
 * Assembles a program.
 * @throws RangeError when a label is unknown or doubled, or a jump is too long: faults of the program's author
 */
export function assemble(lines: readonly Line[]): Assembled {
  const labels = findLabels(lines)
  const instructions = lines.filter((line): line is Instruction => !isLabel(line))
  const bytes = Buffer.alloc(instructions.reduce((slots, instruction) => slots + slotsOf(instruction), 0) * SLOT_BYTES)
  const maps: MapReference[] = []
  let slot = 0
  for (const instruction of instructions) {
    if (instruction.map !== undefined) maps.push({ slot, map: instruction.map })
    encode(bytes.subarray(slot * SLOT_BYTES), instruction, offsetOf(instruction, slot, labels))
    slot += slotsOf(instruction)
  }
  return { bytes, maps }
}

/**
 * Writes map descriptors into a copy of the program.
 * @param fdOf finds the descriptor of a map by its name
 */
export function withMaps(program: Assembled, fdOf: (map: string) => number): Buffer {
  const bytes = Buffer.from(program.bytes)
  for (const { slot, map } of program.maps) bytes.writeInt32LE(fdOf(map), slot * SLOT_BYTES + 4)
  return bytes
}

function findLabels(lines: readonly Line[]): Map<string, number> {
  const labels = new Map<string, number>()
  let slot = 0
  for (const line of lines) {
    if (!isLabel(line)) {
      slot += slotsOf(line)
      continue
    }
    if (labels.has(line.label)) throw new RangeError(`Cannot assemble: label "${line.label}" stands twice`)
    labels.set(line.label, slot)
  }
  return labels
}

/** A jump counts slots from the one after itself. */
function offsetOf(instruction: Instruction, slot: number, labels: ReadonlyMap<string, number>): number {
  if (instruction.target === undefined) return instruction.offset
  const target = labels.get(instruction.target)
  if (target === undefined) throw new RangeError(`Cannot assemble: no label "${instruction.target}"`)
  return int16(target - slot - 1, `a jump to "${instruction.target}"`)
}

function slotsOf(instruction: Instruction): number {
  return instruction.opcode === LOAD_IMMEDIATE_OPCODE ? 2 : 1
}

function encode(bytes: Buffer, instruction: Instruction, offset: number): void {
  const { opcode, dst, src, immediate } = instruction
  bytes.writeUInt8(opcode, 0)
  bytes.writeUInt8((src.register << 4) | dst.register, 1)
  bytes.writeInt16LE(offset, 2)
  if (opcode === LOAD_IMMEDIATE_OPCODE) {
    const value = BigInt(immediate)
    bytes.writeUInt32LE(Number(value & 0xffff_ffffn), 4)
    bytes.writeUInt32LE(Number(value >> 32n), SLOT_BYTES + 4)
  } else {
    bytes.writeInt32LE(Number(immediate), 4)
  }
}

/** Tells the instruction class from an opcode. */
export function classOf(opcode: number): number {
  return opcode & 0x07
}

/** Tells whether an opcode belongs to a jump with a target: not a call, not the exit. */
export function isJump(opcode: number): boolean {
  const operation = opcode & 0xf0
  return (classOf(opcode) === CLASS.JMP || classOf(opcode) === CLASS.JMP32) && operation !== 0x80 && operation !== 0x90
}
