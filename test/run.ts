/**
 * Runs the project's checks: `npm test` for all, `npm test -- unit kernel` for some.
 *
 * Layers run one after the other, the quick ones first; the first that fails ends the run. Kernel and end-to-end tests
 * change namespaces and cgroups of the machine and so run one file at a time.
 */

import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

const ROOT = dirname(import.meta.dirname)

/** Folders of unit tests: they need nothing but Node. */
const UNIT = 'agent,base,channel,cli,config,debian,ebpf,fabric,identity,proxy,rules,sys,telemetry'

/** Files of unit tests that run at a time; builders of packages say how many they have processors for. */
const UNIT_CONCURRENCY = Number(process.env.TEST_CONCURRENCY ?? 2)

interface Layer {
  readonly name: string
  readonly command: readonly string[]
  /** Needs the built executable. */
  readonly needsBuild?: boolean
  readonly needsRoot?: boolean
}

const nodeTest = (concurrency: number, ...patterns: string[]) => [
  process.execPath,
  '--disable-warning=ExperimentalWarning',
  '--test',
  `--test-concurrency=${concurrency}`,
  `--test-reporter=${join(ROOT, 'test', 'reporter.ts')}`,
  ...patterns,
]

const LAYERS: readonly Layer[] = [
  { name: 'typecheck', command: ['tsc', '-p', 'tsconfig.json'] },
  { name: 'lint', command: ['biome', 'check', '--error-on-warnings', '.'] },
  { name: 'unit', command: nodeTest(UNIT_CONCURRENCY, 'test/*.test.ts', `test/{${UNIT}}/**/*.test.ts`) },
  { name: 'build', command: nodeTest(1, 'test/build/**/*.test.ts'), needsBuild: true },
  { name: 'kernel', command: nodeTest(1, 'test/kernel/**/*.test.ts'), needsRoot: true },
  { name: 'e2e', command: nodeTest(1, 'test/e2e/**/*.test.ts'), needsRoot: true, needsBuild: true },
]

function run(command: readonly string[]): boolean {
  const [program = '', ...args] = command
  const result = spawnSync(program, args, { cwd: ROOT, stdio: 'inherit' })
  if (result.error !== undefined) process.stderr.write(`${result.error.message}\n`)
  return result.status === 0
}

/**
 * Runs a layer. Files that fail beside others are run once more alone, and that is told: a machine too busy to keep a
 * time is no fault, and a fault fails again.
 */
function runLayer(command: readonly string[]): boolean {
  const folder = mkdtempSync(join(tmpdir(), 'apa-run-'))
  const list = join(folder, 'failed')
  try {
    process.env.FAILED_FILES = list
    if (run(command)) return true
    delete process.env.FAILED_FILES
    const failed = existsSync(list) ? [...new Set(readFileSync(list, 'utf8').split('\n').filter(Boolean))] : []
    if (failed.length === 0 || failed.length > MAX_FILES_AGAIN) return false
    process.stdout.write(`\n== once more, alone: ${failed.join(' ')}\n`)
    return run(nodeTest(1, ...failed))
  } finally {
    delete process.env.FAILED_FILES
    rmSync(folder, { recursive: true, force: true })
  }
}

/** More than these failing is not a busy machine. */
const MAX_FILES_AGAIN = 3

/** Builds once for all layers, unless another executable is to be tested. */
function provideExecutable(): boolean {
  if (process.env.AGENT_UNDER_TEST !== undefined) return existsSync(process.env.AGENT_UNDER_TEST)
  process.stdout.write('\n== build the executable\n')
  process.env.AGENT_UNDER_TEST = join(ROOT, 'dist', 'azure-proxy-agent')
  return run([process.execPath, 'build.mjs'])
}

function main(names: readonly string[]): number {
  const unknown = names.find((name) => !LAYERS.some((layer) => layer.name === name))
  if (unknown !== undefined) {
    process.stderr.write(`There is no layer '${unknown}': know ${LAYERS.map((layer) => layer.name).join(', ')}\n`)
    return 2
  }
  const layers = LAYERS.filter((layer) => names.length === 0 || names.includes(layer.name))
  if (layers.some((layer) => layer.needsRoot) && process.getuid?.() !== 0) {
    process.stderr.write('Kernel and end-to-end tests need root. As another user: npm test -- typecheck lint unit\n')
    return 1
  }
  let isBuilt = false
  for (const layer of layers) {
    if (layer.needsBuild && !isBuilt) {
      isBuilt = provideExecutable()
      if (!isBuilt) return 1
    }
    process.stdout.write(`\n== ${layer.name}\n`)
    if (!runLayer(layer.command)) {
      process.stderr.write(`\nFailed: ${layer.name}\n`)
      return 1
    }
  }
  process.stdout.write(`\nAll passed: ${layers.map((layer) => layer.name).join(', ')}\n`)
  return 0
}

process.exitCode = main(process.argv.slice(2))
