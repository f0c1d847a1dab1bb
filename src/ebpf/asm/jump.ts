/**
 * Jumps, calls and the exit.
 *
 *    opcode:  | operation 4 bits | source 1 bit | class 3 bits |      class: JMP compares 64 bits, JMP32 the low 32
 *
 * A 64-bit comparison sign-extends its immediate: 0xfea9fea9 (169.254.169.254 as a little-endian word) becomes
 * 0xfffffffffea9fea9, which no zero-extended address ever equals. So the 64-bit forms refuse such an immediate,
 * and the 32-bit forms take it as the unsigned number it is meant to be.
 */

import { CLASS, type Instruction, int32, R0, type Register, SOURCE } from './instruction.ts'

export const JUMP_OPERATION = { ALWAYS: 0x00, EQ: 0x10, GT: 0x20, GE: 0x30, NE: 0x50, LT: 0xa0, LE: 0xb0 } as const
export const CALL_OPCODE = 0x85
export const EXIT_OPCODE = 0x95

/** The helpers we call, by number. Source: include/uapi/linux/bpf.h, `___BPF_FUNC_MAPPER`. */
export const HELPERS = {
  map_lookup_elem: 1,
  map_update_elem: 2,
  map_delete_elem: 3,
  ktime_get_ns: 5,
  get_current_pid_tgid: 14,
  get_current_uid_gid: 15,
  get_current_comm: 16,
  get_current_task: 35,
  get_socket_cookie: 46,
  get_current_cgroup_id: 80,
  sk_lookup_tcp: 84,
  sk_release: 86,
  sk_fullsock: 95,
  sk_storage_get: 107,
  sk_storage_delete: 108,
  probe_read_kernel: 113,
  get_netns_cookie: 122,
  ringbuf_output: 130,
  get_current_task_btf: 158,
} as const

export type Helper = keyof typeof HELPERS

/** `goto target`. */
export function jump(target: string): Instruction {
  return { opcode: CLASS.JMP | JUMP_OPERATION.ALWAYS, dst: R0, src: R0, offset: 0, immediate: 0, target }
}

/** `if (left == right) goto target`, all 64 bits: for pointers and answers of helpers. */
export function jumpEq64(left: Register, right: Register | number, target: string): Instruction {
  return compare64(JUMP_OPERATION.EQ, left, right, target)
}

/** `if (left != right) goto target`, all 64 bits. */
export function jumpNe64(left: Register, right: Register | number, target: string): Instruction {
  return compare64(JUMP_OPERATION.NE, left, right, target)
}

/** `if ((u32) left == (u32) right) goto target`: for addresses, ports and other 32-bit fields. */
export function jumpEq32(left: Register, right: Register | number, target: string): Instruction {
  return compare32(JUMP_OPERATION.EQ, left, right, target)
}

/** `if ((u32) left != (u32) right) goto target`. */
export function jumpNe32(left: Register, right: Register | number, target: string): Instruction {
  return compare32(JUMP_OPERATION.NE, left, right, target)
}

/** `if ((u32) left < (u32) right) goto target`, unsigned. */
export function jumpLt32(left: Register, right: Register | number, target: string): Instruction {
  return compare32(JUMP_OPERATION.LT, left, right, target)
}

/** `r0 = helper(r1, r2, r3, r4, r5)`; r1 to r5 are lost. */
export function call(helper: Helper): Instruction {
  return { opcode: CALL_OPCODE, dst: R0, src: R0, offset: 0, immediate: HELPERS[helper] }
}

/** `return r0`. */
export function exit(): Instruction {
  return { opcode: EXIT_OPCODE, dst: R0, src: R0, offset: 0, immediate: 0 }
}

function compare64(operation: number, left: Register, right: Register | number, target: string): Instruction {
  if (typeof right === 'number') int32(right, 'a 64-bit comparison (it sign-extends)')
  return compare(CLASS.JMP, operation, left, right, target)
}

function compare32(operation: number, left: Register, right: Register | number, target: string): Instruction {
  const signed = typeof right === 'number' && right > 0x7fff_ffff && right <= 0xffff_ffff ? right | 0 : right
  return compare(CLASS.JMP32, operation, left, signed, target)
}

function compare(
  width: number,
  operation: number,
  left: Register,
  right: Register | number,
  target: string,
): Instruction {
  if (typeof right === 'number') {
    const immediate = int32(right, 'a comparison')
    return { opcode: width | operation | SOURCE.K, dst: left, src: R0, offset: 0, immediate, target }
  }
  return { opcode: width | operation | SOURCE.X, dst: left, src: right, offset: 0, immediate: 0, target }
}
