/** Memory that this process shares with the kernel: one page of a file, mapped. */

import { errnoName } from './errno.ts'
import { sysMmap, sysMunmap, sysPageSize } from './libc.ts'
import { SyscallError } from './syscall-error.ts'

/** Source: bits/mman-linux.h. */
const PROT_READ = 1
const PROT_WRITE = 2
const MAP_SHARED = 1

/** One mapped page. Its buffer must not be touched after it was disposed. */
export class MappedMemory implements Disposable {
  readonly buffer: ArrayBuffer
  #address: bigint

  private constructor(address: bigint, buffer: ArrayBuffer) {
    this.#address = address
    this.buffer = buffer
  }

  /**
   * Maps page number `page` of a file.
   * @throws SyscallError code MEMORY_NOT_MAPPED
   * Source: mmap(2).
   */
  static map(fd: number, page: number, access: 'readable' | 'writable'): MappedMemory {
    const sizeBytes = sysPageSize()
    const protection = access === 'writable' ? PROT_READ | PROT_WRITE : PROT_READ
    const mapped = sysMmap(sizeBytes, protection, MAP_SHARED, fd, page * sizeBytes)
    if (typeof mapped === 'number') {
      const message = `Cannot map page ${page} of descriptor ${fd}: kernel answered ${errnoName(-mapped)}`
      throw new SyscallError('MEMORY_NOT_MAPPED', message, { command: 'mmap', errno: -mapped })
    }
    return new MappedMemory(mapped.address, mapped.buffer)
  }

  [Symbol.dispose](): void {
    if (this.#address === 0n) return
    sysMunmap(this.#address, this.buffer.byteLength)
    this.#address = 0n
  }
}
