/**
 * Runs the tests of the kernel side, and those of the executable that are about identity, on other kernels:
 * `npm run test:vm -- --kernel NAME`. Nothing is installed in the machine: the source, the runtime and the executable are on
 * the disk that it boots with.
 */

import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { type BootOptions, createMachine } from './boot.ts'
import { ROOT } from './package.ts'
import { makeRoot, type Root, type RootOptions, VM_FOLDER } from './root.ts'

/** Debian's, by the name that is asked for. `newest` is that of the backports. */
export const KERNELS: Readonly<Record<string, RootOptions>> = {
  '5.10': { suite: 'bullseye', kernel: 'linux-image-amd64' },
  '6.1': { suite: 'bookworm', kernel: 'linux-image-amd64' },
  newest: { suite: 'bookworm', kernel: 'linux-image-amd64', kernelSuite: 'bookworm-backports' },
}

/**
 * What runs there: all of the kernel layer, and of the end-to-end layer what is about identity, containers and failing closed.
 * Each part has a boot to itself, so that one that hangs costs its own results alone.
 */
const PARTS: Readonly<Record<string, readonly string[]>> = {
  kernel: ['load', 'redirect', 'handshake', 'containers'].map((name) => `test/kernel/${name}.test.ts`),
  attacks: endToEnd('attacks', 'stolen-record', 'borrowed-executable', 'stale-connections'),
  names: endToEnd('local-selectors', 'name-service', 'shared-inodes'),
  containers: endToEnd('containers'),
  'fail-closed': endToEnd('fail-closed'),
}

export const PART_NAMES = Object.keys(PARTS)

/** For `--only`: parts, and single files of them: `kernel/handshake`. */
export const SELECTIONS: Readonly<Record<string, readonly string[]>> = {
  ...PARTS,
  ...Object.fromEntries(
    Object.entries(PARTS).flatMap(([part, files]) =>
      files.map((file) => [`${part}/${basename(file, '.test.ts')}`, [file]]),
    ),
  ),
}

/** Emulated, no part takes half of it. */
const BOOT_TIMEOUT_SECONDS = 1800

function endToEnd(...names: readonly string[]): string[] {
  return names.map((name) => `test/e2e/${name}.test.ts`)
}

const TREE = [
  'src',
  'test',
  'package.json',
  'tsconfig.json',
  ...['mri', 'undici', 'valibot'].map((name) => `node_modules/${name}`),
]

/**
 * Boots a machine with that kernel for each part and prints a line for each test.
 * @param parts of `SELECTIONS`
 * @param match of the names of tests; empty: all
 * @returns whether all passed
 */
export async function runKernel(
  name: string,
  parts: readonly string[],
  match: string,
  runtime: string,
): Promise<boolean> {
  const root = makeRoot(KERNELS[name] as RootOptions)
  const files: BootOptions['files'] = {
    ...Object.fromEntries(TREE.map((path) => [`tree/${path}`, join(ROOT, path)])),
    'tree/node_modules/.bin/node': runtime,
    'azure-proxy-agent': join(ROOT, 'dist', 'azure-proxy-agent'),
    inside: join(ROOT, 'test/vm/inside'),
  }
  let isGood = true
  for (const part of parts) isGood = (await runPart(name, part, match, root, files)) && isGood
  return isGood
}

async function runPart(
  kernel: string,
  part: string,
  match: string,
  root: Root,
  files: BootOptions['files'],
): Promise<boolean> {
  process.stdout.write(`\n== kernel ${kernel}: ${part}\n`)
  const suites = SELECTIONS[part] as readonly string[]
  using machine = createMachine(root)
  const script = `SUITES='${suites.join(' ')}' MATCH='${match}'\n. /vm/inside/kernel.sh`
  const boot = await machine.boot({ files, script, timeoutSeconds: BOOT_TIMEOUT_SECONDS, isOneThread: true })
  const log = join(VM_FOLDER, `kernel-${kernel}-${part.replace('/', '-')}.log`)
  writeFileSync(log, boot.console)
  for (const { isOk, seconds, name, detail } of boot.checks) {
    const more = detail === '' ? '' : `: ${detail}`
    process.stdout.write(`${isOk ? 'ok  ' : 'FAIL'} ${seconds.toFixed(1).padStart(6)} s  ${name}${more}\n`)
  }
  const failed = boot.checks.filter(({ isOk }) => !isOk).length
  process.stdout.write(
    `kernel ${kernel}: ${part}: ${boot.checks.length} results, ${failed} failed, ${boot.seconds.toFixed(0)} s\n`,
  )
  if (!boot.isComplete) process.stdout.write(`FAIL the script did not come to its end: see ${log}\n`)
  const isRun = (file: string) => boot.checks.some(({ name }) => name.startsWith(`${basename(file, '.test.ts')}: `))
  const missing = suites.filter((file) => !isRun(file))
  if (missing.length > 0) process.stdout.write(`FAIL nothing was run of ${missing.join(', ')}\n`)
  return boot.isComplete && failed === 0 && missing.length === 0
}

/** Builds the executable. @throws Error when that fails */
export function buildExecutable(): void {
  const { status } = spawnSync(process.execPath, ['build.mjs'], { cwd: ROOT, stdio: 'inherit' })
  if (status !== 0) throw new Error('The executable cannot be built')
}
