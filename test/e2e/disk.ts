/** A disk of its own for a folder of the machine, which can be made to hang. */

import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Machine } from './machine.ts'

export interface Disk extends Disposable {
  /** From now on who writes waits, in the kernel, where no signal reaches him. Reading goes on. */
  freeze(): void
  thaw(): void
}

/** Mounts a new file system on a folder of the machine, for as long as the test needs it. */
export function mountDisk(machine: Machine, name: string): Disk {
  const folder = join(machine.folder, name)
  const image = join(machine.folder, `${name}.img`)
  if (!existsSync(folder)) mkdirSync(folder, 0o700)
  execFileSync('truncate', ['-s', '16M', image])
  execFileSync('mkfs.ext4', ['-q', image])
  execFileSync('mount', ['-o', 'loop', image, folder])
  let isFrozen = false
  const thaw = () => {
    if (isFrozen) execFileSync('fsfreeze', ['--unfreeze', folder])
    isFrozen = false
  }
  return {
    freeze() {
      execFileSync('fsfreeze', ['--freeze', folder])
      isFrozen = true
    },
    thaw,
    [Symbol.dispose]() {
      thaw()
      execFileSync('umount', ['--lazy', folder])
    },
  }
}
