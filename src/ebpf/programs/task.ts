/** Reading the kernel's own structs from a program: one field at a time, by one of two ways. */

import { add64, mov64 } from '../asm/alu.ts'
import { FP, type Line, R0, R1, R2, R3, type Register } from '../asm/instruction.ts'
import { call, jumpEq64 } from '../asm/jump.ts'
import { load, stackAddress } from '../asm/load-store.ts'
import type { KernelField } from '../kernel-fields.ts'
import type { TaskReader } from './program.ts'
import { STACK } from './stack.ts'

/**
 * Emits `dst = current`, the calling thread's `struct task_struct *`.
 * Clobbers r0 to r5.
 */
export function currentTask(reader: TaskReader, dst: Register): Line[] {
  return [call(reader === 'direct' ? 'get_current_task_btf' : 'get_current_task'), mov64(dst, R0)]
}

/**
 * Emits `dst = base->field`. `dst` and `base` may be the same register, one of r6 to r9.
 * Clobbers r0 to r5. A fault while reading yields 0 either way: the helper clears what it could not fill, and the
 * kernel skips a plain load that faults.
 */
export function readField(reader: TaskReader, dst: Register, base: Register, field: KernelField): Line[] {
  if (reader === 'direct') return [load(dst, base, field.offset, field.size)] // dst = base->field
  return [
    ...stackAddress(R1, STACK.scratch), // r1 = &scratch
    mov64(R2, field.size), // r2 = sizeof(field)
    mov64(R3, base),
    add64(R3, field.offset), // r3 = &base->field
    call('probe_read_kernel'),
    load(dst, FP, STACK.scratch, field.size), // dst = scratch
  ]
}

/**
 * Emits a walk along pointers: `dst = base->first->second…`, to `otherwise` as soon as one is NULL.
 * A kernel thread has no mm, an exiting process no nsproxy. Clobbers r0 to r5.
 */
export function followPointers(
  reader: TaskReader,
  dst: Register,
  base: Register,
  fields: readonly KernelField[],
  otherwise: string,
): Line[] {
  return fields.flatMap((field, index) => [
    ...readField(reader, dst, index === 0 ? base : dst, field), // dst = …->field
    jumpEq64(dst, 0, otherwise), // if (dst == NULL) goto otherwise
  ])
}
