/**
 * `npm run demo`: one executable guards a simulated Azure host, with real clients, in a namespace of its own.
 *
 * Plain lines of at most 80 columns, so that a log file reads like the screen. Exits non-zero when a row does not end as
 * it must. `--stay` leaves everything running and says how to send more requests. Nothing is left behind, also on Ctrl-C.
 */

import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { AGENT_UNDER_TEST, createMachine, type Machine, ROOT } from '../e2e/machine.ts'
import type { RecordedRequest } from '../fabric/records.ts'
import { type Row, RULES, scene } from './scene.ts'

/** Columns of the table; the last one takes 16, which makes 80. */
const WIDTHS = [3, 25, 23, 8, 5] as const

function say(line = ''): void {
  process.stdout.write(`${line}\n`)
}

function sayRow(cells: readonly string[]): void {
  say(
    cells
      .map((cell, i) => cell.padEnd(WIDTHS[i] ?? 0))
      .join('')
      .trimEnd(),
  )
}

function build(): void {
  if (process.env.AGENT_UNDER_TEST !== undefined) return
  say('Building the executable')
  const result = spawnSync(process.execPath, [join(ROOT, 'build.mjs')], { cwd: ROOT, stdio: 'inherit' })
  if (result.status !== 0) throw new Error('the build failed')
}

/** Says in a few words what of a request reached the host. */
function describeSeen(requests: readonly RecordedRequest[]): string {
  const [request, ...more] = requests
  if (request === undefined) return 'nothing'
  if (more.length > 0) return `${requests.length} requests`
  if (request.signature !== 'right') return `signature ${request.signature}`
  return `signed, ${request.isRoot ? 'root' : 'not root'}`
}

function describeDecision(status: number): string {
  if (status === 403) return 'denied'
  if (status === 421) return 'unknown'
  return status >= 200 && status < 400 ? 'allowed' : '?'
}

/** Plays one row. @returns whether it ended as it must. */
async function play(machine: Machine, row: Row, number: number): Promise<boolean> {
  const [program, ...args] = row.command
  const { result, requests } = await machine.requestsDuring(() => machine.lab.run(program, args, row.as))
  const status = Number(result.stdout.trim().slice(-3))
  const seen = describeSeen(requests)
  const expected = row.hostSaw === 'nothing' ? 'nothing' : `signed, ${row.hostSaw}`
  const isRight = status === row.status && seen === expected
  sayRow([String(number), row.who, row.asks, describeDecision(status), String(status), seen])
  if (!isRight)
    say(`    ^ NOT AS EXPECTED: status ${row.status} and the host seeing: ${expected}. ${result.stderr.trim()}`)
  return isRight
}

async function playScene(machine: Machine): Promise<number> {
  sayRow(['#', 'who', 'asks for', 'verdict', 'code', 'the host saw'])
  sayRow(['--', '-'.repeat(24), '-'.repeat(22), '-'.repeat(7), '-'.repeat(4), '-'.repeat(16)])
  let wrong = 0
  for (const [i, row] of scene(process.execPath).entries()) {
    if (!(await play(machine, row, i + 1))) wrong++
  }
  return wrong
}

function explainStay(machine: Machine): void {
  const { cgroup, netns } = machine.lab
  say()
  say('Everything stays up until Ctrl-C. As root in another terminal, enter with:')
  say(`  sh -c 'echo $$ > ${cgroup}/cgroup.procs`)
  say(`    exec nsenter --net=/run/netns/${netns} bash'`)
  say('and there, for instance:')
  say('  curl -H Metadata:true \\')
  say("    'http://169.254.169.254/metadata/instance?api-version=2021-02-01'")
  say("  curl -i 'http://168.63.129.16/machine/?comp=goalstate'")
  say('  setpriv --reuid=1000 --regid=1000 --clear-groups \\')
  say("    curl -i 'http://168.63.129.16/machine/?comp=goalstate'")
  say(`  ${AGENT_UNDER_TEST} --status; echo $?`)
  say(`Logs, status and key: ${machine.folder}`)
}

async function main(isStaying: boolean): Promise<number> {
  // The machine cleans up whenever the process exits; it only must not die of the signal.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))
  build()
  say('Making a namespace and a cgroup, starting the simulated host and the agent')
  await using machine = await createMachine({ rules: RULES })
  say(`The agent is provisioned: pid ${machine.agent.pid}, listening on 127.0.0.1:3080 in there`)
  say()
  const wrong = await playScene(machine)
  say()
  say(wrong === 0 ? 'Every row ended as it must.' : `${wrong} row(s) did not end as they must. The agent said:`)
  if (wrong > 0) say(machine.agent.output())
  if (isStaying) {
    explainStay(machine)
    await machine.agent.ended
    say('The agent has ended by itself. It said:')
    say(machine.agent.output())
    return 1
  }
  return wrong === 0 ? 0 : 1
}

const words = process.argv.slice(2)
const unknown = words.find((word) => word !== '--stay')
if (unknown !== undefined) {
  say(`Usage: npm run demo [-- --stay]   (there is no '${unknown}')`)
  process.exitCode = 2
} else process.exitCode = await main(words.includes('--stay'))
