/** Turns bytes back into text that reads like C, so that a review or a test sees what the kernel will run. */

import { ALU_OPERATION } from './alu.ts'
import { type Assembled, classOf, isJump, SLOT_BYTES } from './assemble.ts'
import { CLASS, PSEUDO_MAP_FD, SOURCE } from './instruction.ts'
import { CALL_OPCODE, EXIT_OPCODE, HELPERS, JUMP_OPERATION } from './jump.ts'
import { LOAD_IMMEDIATE_OPCODE, MODE, SIZE_BITS } from './load-store.ts'

interface Slot {
  readonly opcode: number
  readonly dst: number
  readonly src: number
  readonly offset: number
  readonly immediate: number
}

/**
 * Disassembles a program: one line per instruction, numbered by slot, targets of jumps as slot numbers.
 * Works on the bytes alone; only the names of maps come from the references. Unknown opcodes are shown as such.
 */
export function disassemble(program: Assembled): string {
  const { bytes } = program
  const maps = new Map(program.maps.map(({ slot, map }) => [slot, map]))
  const lines: string[] = []
  for (let slot = 0; slot * SLOT_BYTES < bytes.length; slot += 1) {
    const at = readSlot(bytes, slot)
    const wide = at.opcode === LOAD_IMMEDIATE_OPCODE
    const text = wide ? describeImmediateLoad(at, readSlot(bytes, slot + 1), maps.get(slot)) : describe(at, slot)
    lines.push(`${String(slot).padStart(4)}: ${text}`)
    if (wide) slot += 1
  }
  return `${lines.join('\n')}\n`
}

function readSlot(bytes: Buffer, slot: number): Slot {
  const at = slot * SLOT_BYTES
  const registers = bytes.readUInt8(at + 1)
  return {
    opcode: bytes.readUInt8(at),
    dst: registers & 0x0f,
    src: registers >> 4,
    offset: bytes.readInt16LE(at + 2),
    immediate: bytes.readInt32LE(at + 4),
  }
}

function describe(at: Slot, slot: number): string {
  if (at.opcode === EXIT_OPCODE) return 'exit'
  if (at.opcode === CALL_OPCODE) return `call ${nameOf(HELPERS, at.immediate)}`
  if (isJump(at.opcode)) return describeJump(at, slot)
  switch (classOf(at.opcode)) {
    case CLASS.ALU:
      return describeAlu(at, 'w')
    case CLASS.ALU64:
      return describeAlu(at, 'r')
    case CLASS.LDX:
      return `${register('r', at.dst)} = ${memory(at, at.src)}`
    case CLASS.ST:
      return `${memory(at, at.dst)} = ${at.immediate}`
    case CLASS.STX:
      return describeStore(at)
    default:
      return unknown(at)
  }
}

function describeImmediateLoad(low: Slot, high: Slot, map: string | undefined): string {
  const dst = register('r', low.dst)
  if (low.src === PSEUDO_MAP_FD) return `${dst} = map ${map ?? `fd ${low.immediate}`}`
  const value = (BigInt.asUintN(32, BigInt(high.immediate)) << 32n) | BigInt.asUintN(32, BigInt(low.immediate))
  return `${dst} = 0x${value.toString(16)} ll`
}

function describeJump(at: Slot, slot: number): string {
  const target = `goto ${slot + 1 + at.offset}`
  const operation = at.opcode & 0xf0
  if (operation === JUMP_OPERATION.ALWAYS) return target
  const prefix = classOf(at.opcode) === CLASS.JMP32 ? 'w' : 'r'
  const sign = JUMP_SIGNS[operation]
  return sign === undefined ? unknown(at) : `if ${register(prefix, at.dst)} ${sign} ${operand(at, prefix)} ${target}`
}

function describeAlu(at: Slot, prefix: 'r' | 'w'): string {
  const sign = ALU_SIGNS[at.opcode & 0xf0]
  return sign === undefined ? unknown(at) : `${register(prefix, at.dst)} ${sign} ${operand(at, prefix)}`
}

function describeStore(at: Slot): string {
  const atomic = (at.opcode & 0xe0) === MODE.ATOMIC
  return `${atomic ? 'lock ' : ''}${memory(at, at.dst)} ${atomic ? '+=' : '='} ${register('r', at.src)}`
}

function operand(at: Slot, prefix: 'r' | 'w'): string {
  if ((at.opcode & SOURCE.X) !== 0) return register(prefix, at.src)
  if (prefix === 'w' && Math.abs(at.immediate) > 0xffff) return `0x${(at.immediate >>> 0).toString(16)}`
  return String(at.immediate)
}

function memory(at: Slot, base: number): string {
  const size = Object.entries(SIZE_BITS).find(([, bits]) => bits === (at.opcode & 0x18))?.[0]
  const sign = at.offset < 0 ? '-' : '+'
  return `*(u${Number(size) * 8} *)(${register('r', base)} ${sign} ${Math.abs(at.offset)})`
}

function register(prefix: 'r' | 'w', number: number): string {
  return prefix === 'r' && number === 10 ? 'fp' : `${prefix}${number}`
}

function unknown(at: Slot): string {
  return `unknown opcode 0x${at.opcode.toString(16)}`
}

function nameOf(table: Readonly<Record<string, number>>, value: number): string {
  return Object.entries(table).find(([, number]) => number === value)?.[0] ?? `helper ${value}`
}

const JUMP_SIGNS: Readonly<Record<number, string>> = {
  [JUMP_OPERATION.EQ]: '==',
  [JUMP_OPERATION.NE]: '!=',
  [JUMP_OPERATION.GT]: '>',
  [JUMP_OPERATION.GE]: '>=',
  [JUMP_OPERATION.LT]: '<',
  [JUMP_OPERATION.LE]: '<=',
}

const ALU_SIGNS: Readonly<Record<number, string>> = {
  [ALU_OPERATION.ADD]: '+=',
  [ALU_OPERATION.AND]: '&=',
  [ALU_OPERATION.OR]: '|=',
  [ALU_OPERATION.LSH]: '<<=',
  [ALU_OPERATION.RSH]: '>>=',
  [ALU_OPERATION.MOV]: '=',
}
