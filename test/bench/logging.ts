/**
 * What the logs cost: CPU time of a request with the file at Error, at Info as on standard output, and at Trace.
 * One agent for each, all running, loaded in turn; ratios to Error are made within a round.
 */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { AGENT_UNDER_TEST } from '../e2e/machine.ts'
import { PATHS } from './nginx.ts'
import { IMDS, measure, type Sample, type Scenario, type Subject, startMachine } from './subject.ts'
import { median, renderTable, round } from './table.ts'
import { WRK_SCRIPT } from './wrk.ts'

const SETTINGS: readonly (readonly [name: string, config: Readonly<Record<string, unknown>>])[] = [
  ['Error', { fileLogLevel: 'Error' }],
  ['Info', { fileLogLevel: 'Info', fileLogLevelForSystemEvents: 'Info' }],
  ['Trace', { fileLogLevel: 'Trace' }],
]

const SCENARIO: Scenario = { name: 'keep-alive', path: PATHS.small, connections: 32 }

const USAGE = `Usage: npm run bench -- logging [OPTIONS]

  --rounds N      rounds through all levels (default 7)
  --seconds N     length of one load (default 2)
`

async function run(rounds: number, seconds: number): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'apa-bench-'))
  const script = join(folder, WRK_SCRIPT.name)
  writeFileSync(script, WRK_SCRIPT.text)
  await using machines = new AsyncDisposableStack()
  machines.defer(() => rmSync(folder, { recursive: true, force: true }))
  const subjects: Subject[] = []
  for (const [name, config] of SETTINGS) {
    const machine = machines.use(await startMachine(AGENT_UNDER_TEST, config))
    subjects.push({ name, base: `http://${IMDS}`, machine, isRedirected: true, pid: machine.agent.pid })
  }
  const samples = new Map<Subject, Sample[]>(subjects.map((subject) => [subject, []]))
  // The first round warms up and is not counted.
  for (let i = 0; i <= rounds; i++) {
    for (const subject of subjects) {
      const sample = await measure(subject, SCENARIO, script, seconds, 0)
      if (i > 0) samples.get(subject)?.push(sample)
    }
    process.stderr.write(`round ${i} of ${rounds} done\n`)
  }
  const atError = samples.get(subjects[0] as Subject) ?? []
  const levels = subjects.map((subject) => {
    const own = samples.get(subject) ?? []
    const ratios = own.map((sample, i) => sample.cpuUsPerRequest / (atError[i]?.cpuUsPerRequest ?? Number.NaN))
    return {
      level: subject.name,
      'req/s': Math.round(median(own.map((sample) => sample.requestsPerSecond))),
      'p99 ms': round(median(own.map((sample) => sample.p99Ms))),
      'CPU us': round(median(own.map((sample) => sample.cpuUsPerRequest))),
      '/Error': round(median(ratios)),
    }
  })
  process.stdout.write(renderTable(levels))
  const setting = { rounds, seconds, processors: availableParallelism() }
  process.stdout.write(`${JSON.stringify({ bench: 'logging', ...setting, levels })}\n`)
}

const string = { type: 'string' } as const
const { values } = parseArgs({
  options: { rounds: { ...string, default: '7' }, seconds: { ...string, default: '2' }, help: { type: 'boolean' } },
})
if (values.help) process.stdout.write(USAGE)
else await run(Number(values.rounds), Number(values.seconds))
