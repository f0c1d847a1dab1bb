/**
 * Runs the tests of the kernel side, and those of the executable that are about identity, on other kernels:
 * `npm run test:vm -- --kernel NAME`. Nothing is installed in the machine: the source, the runtime and the executable are on
 * the disk that it boots with.
 */

import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type BootOptions, createMachine } from './boot.ts'
import { ROOT } from './package.ts'
import { makeRoot, type RootOptions, VM_FOLDER } from './root.ts'

/** Debian's, by the name that is asked for. `newest` is that of the backports. */
export const KERNELS: Readonly<Record<string, RootOptions>> = {
  '5.10': { suite: 'bullseye', kernel: 'linux-image-amd64' },
  '6.1': { suite: 'bookworm', kernel: 'linux-image-amd64' },
  newest: { suite: 'bookworm', kernel: 'linux-image-amd64', kernelSuite: 'bookworm-backports' },
}

/** All of the kernel layer, and a part of the end-to-end layer; a boot must come to its end in minutes, emulated. */
const SUITES = [
  ...['load', 'redirect', 'handshake', 'containers'].map((name) => `test/kernel/${name}.test.ts`),
  ...[
    'attacks',
    'stolen-record',
    'borrowed-executable',
    'stale-connections',
    'local-selectors',
    'name-service',
    'shared-inodes',
  ].map((name) => `test/e2e/${name}.test.ts`),
]

const TREE = [
  'src',
  'test',
  'package.json',
  'tsconfig.json',
  ...['mri', 'undici', 'valibot'].map((name) => `node_modules/${name}`),
]

/** Boots a machine with that kernel and prints a line for each test. @returns whether all passed */
export async function runKernel(name: string, runtime: string): Promise<boolean> {
  process.stdout.write(`\n== kernel ${name}\n`)
  const root = makeRoot(KERNELS[name] as RootOptions)
  const files: BootOptions['files'] = {
    ...Object.fromEntries(TREE.map((path) => [`tree/${path}`, join(ROOT, path)])),
    'tree/node_modules/.bin/node': runtime,
    'azure-proxy-agent': join(ROOT, 'dist', 'azure-proxy-agent'),
    inside: join(ROOT, 'test/vm/inside'),
  }
  using machine = createMachine(root)
  const script = `SUITES='${SUITES.join(' ')}'\n. /vm/inside/kernel.sh`
  const boot = await machine.boot({ files, script, timeoutSeconds: 1800, isOneThread: true })
  const log = join(VM_FOLDER, `kernel-${name}.log`)
  writeFileSync(log, boot.console)
  for (const { isOk, seconds, name: what, detail } of boot.checks) {
    const more = detail === '' ? '' : `: ${detail}`
    process.stdout.write(`${isOk ? 'ok  ' : 'FAIL'} ${seconds.toFixed(1).padStart(6)} s  ${what}${more}\n`)
  }
  const failed = boot.checks.filter(({ isOk }) => !isOk).length
  process.stdout.write(
    `kernel ${name}: ${boot.checks.length} results, ${failed} failed, ${boot.seconds.toFixed(0)} s\n`,
  )
  if (!boot.isComplete) process.stdout.write(`FAIL the script did not come to its end: see ${log}\n`)
  return boot.isComplete && failed === 0 && boot.checks.length > SUITES.length
}

/** Builds the executable. @throws Error when that fails */
export function buildExecutable(): void {
  const { status } = spawnSync(process.execPath, ['build.mjs'], { cwd: ROOT, stdio: 'inherit' })
  if (status !== 0) throw new Error('The executable cannot be built')
}
