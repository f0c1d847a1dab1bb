/** A bpf file system of a test's own, at a temporary mount point. */

import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Mounted until disposed, at the latest until the process ends; what is pinned in it goes with it. */
export class BpfFileSystem implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), 'apa-bpf-'))
  readonly #atExit = () => this[Symbol.dispose]()

  constructor() {
    execFileSync('mount', ['-t', 'bpf', '-o', 'mode=0700', 'none', this.path])
    process.once('exit', this.#atExit)
  }

  /** Where an agent may pin. */
  get pins(): string {
    return join(this.path, 'azure-proxy-agent')
  }

  /** What is in it, the kernel's own two files left out. */
  names(): string[] {
    return readdirSync(this.path).filter((name) => !name.endsWith('.debug'))
  }

  /** Makes it read-only, or writable again. */
  remount(mode: 'ro' | 'rw'): void {
    execFileSync('mount', ['-o', `remount,${mode},mode=0700`, this.path])
  }

  [Symbol.dispose](): void {
    process.off('exit', this.#atExit)
    execFileSync('umount', [this.path])
    rmdirSync(this.path)
  }
}
