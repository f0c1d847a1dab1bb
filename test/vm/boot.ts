/**
 * Boots a machine with a script and collects what the script found out.
 *
 *   root.ext4 ──(copy on write)──► /dev/vda     kept from boot to boot of one machine
 *   payload folder ── mkfs ──────► /dev/vdb     mounted at /vm, read-only, new for each boot; /vm/run.sh is started
 *   /dev/ttyS1 ──────────────────► results      one line a check: state, seconds, name, and what was seen
 *
 * The processor is emulated (TCG), since not every machine of ours has KVM; a boot takes half a minute or more. There is
 * no network card.
 */

import { spawn } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { ROOT, run } from './package.ts'
import type { Root } from './root.ts'

/** One result line of a script. */
export interface Check {
  readonly isOk: boolean
  readonly seconds: number
  readonly name: string
  /** What a check that failed saw, or a number worth telling. */
  readonly detail: string
}

export interface Boot {
  readonly checks: readonly Check[]
  readonly console: string
  readonly seconds: number
  /** Whether the script came to its end; if not, the console says how far it came. */
  readonly isComplete: boolean
}

export interface BootOptions {
  /** Path below /vm to the file or folder to bring. */
  readonly files: Readonly<Record<string, string>>
  /** The script: shell commands with the functions of inside/lib.sh. */
  readonly script: string
  readonly timeoutSeconds: number
  /** More words for the kernel's command line. */
  readonly append?: string
  /** More words for qemu: what else the machine is made of. */
  readonly hardware?: readonly string[]
  /**
   * Emulate both processors by one thread, slower by a third. With a thread for each, programs that compile as they run now and
   * then die under the emulator of Debian 12: 3 of 40 starts of Node did, and none of 40 with one.
   */
  readonly isOneThread?: boolean
}

/** A machine between boots: what it wrote to its disk stays until it is disposed of. */
export interface Machine extends Disposable {
  boot(options: BootOptions): Promise<Boot>
}

export function createMachine(root: Root): Machine {
  const work = mkdtempSync(join(tmpdir(), 'apa-vm-'))
  const disk = join(work, 'disk.qcow2')
  run('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', root.image, disk])
  return {
    boot: (options) => boot(root, work, disk, options),
    [Symbol.dispose]: () => rmSync(work, { recursive: true, force: true }),
  }
}

async function boot(root: Root, work: string, disk: string, options: BootOptions): Promise<Boot> {
  const payload = makePayload(work, options)
  const results = join(work, 'results')
  writeFileSync(results, '')
  const append = `root=/dev/vda rw console=ttyS0 panic=-1 quiet systemd.show_status=0 ${options.append ?? ''}`
  const started = performance.now()
  const child = spawn(
    'qemu-system-x86_64',
    [
      ...[
        '-accel',
        `tcg,thread=${options.isOneThread ? 'single' : 'multi'}`,
        '-cpu',
        'max',
        '-smp',
        '2',
        '-m',
        '2048',
        '-no-reboot',
        '-nic',
        'none',
      ],
      ...['-kernel', root.kernel, '-initrd', root.initrd, '-append', append, '-display', 'none'],
      ...['-drive', `file=${disk},format=qcow2,if=virtio,cache=unsafe`],
      ...['-drive', `file=${payload},format=raw,if=virtio,readonly=on`],
      ...['-serial', 'stdio', '-serial', `file:${results}`],
      ...(options.hardware ?? []),
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  )
  let console = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      console += chunk
    })
  }
  const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutSeconds * 1000)
  await new Promise<void>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', () => resolve())
  }).finally(() => clearTimeout(timer))
  return {
    ...readResults(readFileSync(results, 'utf8')),
    console,
    seconds: (performance.now() - started) / 1000,
  }
}

/** Reads what the functions of inside/lib.sh have written. */
export function readResults(text: string): Pick<Boot, 'checks' | 'isComplete'> {
  const lines = text.split(/\r?\n/).filter(Boolean)
  return {
    checks: lines.filter((line) => line.includes('\t')).map(readCheck),
    isComplete: lines.at(-1) === 'end',
  }
}

/** Puts the files and the script of a boot into `folder`, anew. */
export function fillPayload(folder: string, { files, script }: BootOptions): void {
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder)
  const common = join(ROOT, 'debian', 'tests', 'common.sh')
  const all = { 'lib.sh': join(import.meta.dirname, 'inside', 'lib.sh'), 'common.sh': common, ...files }
  for (const [name, source] of Object.entries(all)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    cpSync(source, join(folder, name), { recursive: true, dereference: true })
  }
  writeFileSync(join(folder, 'run.sh'), `. /vm/lib.sh\n${script}\nend\n`)
}

function makePayload(work: string, options: BootOptions): string {
  const folder = join(work, 'payload')
  fillPayload(folder, options)
  const image = join(work, 'payload.ext4')
  rmSync(image, { force: true })
  run('truncate', ['--size=1G', image])
  run('mkfs.ext4', ['-q', '-d', folder, image])
  return image
}

function readCheck(line: string): Check {
  const [state, seconds, name = '', detail = ''] = line.split('\t')
  return { isOk: state === 'ok', seconds: Number(seconds), name, detail }
}
