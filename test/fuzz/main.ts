/**
 * Fuzzes the executable: `npm run fuzz [-- OPTIONS]`, see `USAGE`. Exits with 1 when something is found.
 */

import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { parseArgs } from 'node:util'
import type { FuzzOptions } from './fuzz.ts'

const ROOT = dirname(dirname(import.meta.dirname))

const USAGE = `Usage: npm run fuzz [-- OPTIONS]        as root

  --seconds N    time for all (default 600)
  --seed S       a whole number; the same seed makes the same inputs (default: by the clock, printed)
  --only KIND    requests, answers or sound
  --index I      with --only: this input alone

requests  sound and unsound requests over raw sockets, redirected by the kernel to the simulated host, as two users
answers   sound and unsound answers of a host that does as it is told
sound     what the host parsed of sound requests, compared with what was meant
`

const KINDS = ['requests', 'answers', 'sound'] as const

type Kind = (typeof KINDS)[number]

interface Options extends FuzzOptions {
  readonly kinds: readonly Kind[]
}

/** @returns a sentence about what is wrong with the command line; `undefined` when help is wanted */
function readOptions(): Options | string | undefined {
  const string = { type: 'string' } as const
  const { values } = parseArgs({
    options: { seconds: string, seed: string, only: string, index: string, help: { type: 'boolean' } },
  })
  if (values.help) return undefined
  const kinds = KINDS.filter((kind) => values.only === undefined || values.only === kind)
  const seed = Number(values.seed ?? Date.now() % 1_000_000)
  const seconds = Number(values.seconds ?? 600)
  const only = values.index === undefined ? undefined : Number(values.index)
  if (kinds.length === 0) return `There is no kind '${values.only}': know ${KINDS.join(', ')}`
  if (![seed, only ?? 0].every(Number.isSafeInteger) || !(seconds > 0)) return 'Seed, index and seconds are numbers'
  return { seed, seconds, only, kinds }
}

async function run({ kinds, seed, seconds, only }: Options): Promise<number> {
  process.stdout.write(`seed ${seed}\n`)
  if (process.env.AGENT_UNDER_TEST === undefined) {
    process.env.AGENT_UNDER_TEST = join(ROOT, 'dist', 'azure-proxy-agent')
    if (spawnSync(process.execPath, ['build.mjs'], { cwd: ROOT, stdio: 'inherit' }).status !== 0) return 1
  }
  // Which executable is under test is read when this is loaded.
  const { compareRequests, describeComparison, describeReport, fuzzAnswers, fuzzRequests } = await import('./fuzz.ts')
  const share = seconds / kinds.length
  const runs: Readonly<Record<Kind, () => Promise<{ text: string; faults: readonly string[] }>>> = {
    async requests() {
      const report = await fuzzRequests({ seed, seconds: share, only })
      return { text: describeReport('requests', report), faults: report.faults }
    },
    async answers() {
      const report = await fuzzAnswers({ seed, seconds: share, only })
      return { text: describeReport('answers', report), faults: report.faults }
    },
    async sound() {
      const comparison = await compareRequests(seed, Math.round(share * SOUND_PER_SECOND))
      return { text: describeComparison(comparison), faults: comparison.faults }
    },
  }
  let found = 0
  for (const kind of kinds) {
    const { text, faults } = await runs[kind]()
    process.stdout.write(`${text}\n`)
    for (const fault of faults) process.stdout.write(`  FAULT ${fault}\n`)
    found += faults.length
  }
  process.stdout.write(found === 0 ? 'Nothing was found.\n' : `Found: ${found}. Again: --seed ${seed}\n`)
  return found === 0 ? 0 : 1
}

/** What two processors carry, roughly. */
const SOUND_PER_SECOND = 500

const options = readOptions()
if (typeof options === 'object') process.exitCode = await run(options)
else {
  process.stdout.write(options === undefined ? USAGE : `${options}\n${USAGE}`)
  process.exitCode = options === undefined ? 0 : 2
}
