/**
 * Runs benchmarks: `npm run bench` for all, `npm run bench -- NAME [OPTIONS]` for one. Each is a file beside this one and
 * runs in a process of its own, so that none warms up another's code.
 *
 * Nothing is asserted about times: a machine that is slow today is no fault of the code. Compare within one run.
 */

import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'

const ROOT = dirname(dirname(import.meta.dirname))

interface Bench {
  readonly name: string
  readonly shows: string
  readonly needsBuild?: boolean
}

const BENCHES: readonly Bench[] = [
  { name: 'rules', shows: 'compiling rules, and deciding by them' },
  { name: 'attribution', shows: 'knowing who connected, from connect(2) to the caller; as root' },
  { name: 'logging', shows: 'what a request costs with the logs at Error, Info and Trace', needsBuild: true },
  { name: 'loop', shows: 'how long the event loop is kept, with faults and large pieces of work', needsBuild: true },
  { name: 'proxy', shows: 'the executable between wrk and nginx, against direct and plain nginx', needsBuild: true },
]

function usage(): string {
  const list = BENCHES.map(({ name, shows }) => `  ${name.padEnd(12)} ${shows}\n`)
  return `Usage: npm run bench [-- NAME [OPTIONS]]\n\n${list.join('')}\nOptions of one: npm run bench -- NAME --help\n`
}

function run(args: readonly string[]): boolean {
  return spawnSync(process.execPath, args, { cwd: ROOT, stdio: 'inherit' }).status === 0
}

function main([name, ...options]: readonly string[]): number {
  if (name === '--help') {
    process.stdout.write(usage())
    return 0
  }
  const chosen = BENCHES.filter((bench) => name === undefined || bench.name === name)
  if (chosen.length === 0) {
    process.stderr.write(`There is no benchmark '${name}'.\n${usage()}`)
    return 2
  }
  if (chosen.some(({ needsBuild }) => needsBuild) && process.env.AGENT_UNDER_TEST === undefined) {
    process.env.AGENT_UNDER_TEST = join(ROOT, 'dist', 'azure-proxy-agent')
    if (!run(['build.mjs'])) return 1
  }
  if (process.env.AGENT_UNDER_TEST !== undefined && !existsSync(process.env.AGENT_UNDER_TEST)) {
    process.stderr.write(`There is no executable at AGENT_UNDER_TEST=${process.env.AGENT_UNDER_TEST}\n`)
    return 1
  }
  const failed = chosen.filter((bench) => {
    process.stdout.write(`\n== ${bench.name}: ${bench.shows}\n`)
    const script = join(import.meta.dirname, `${bench.name}.ts`)
    return !run(['--disable-warning=ExperimentalWarning', script, ...options])
  })
  return failed.length === 0 ? 0 : 1
}

process.exitCode = main(process.argv.slice(2))
