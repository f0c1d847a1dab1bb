/** Many connections, many requests at once, and large bodies: all are served, and what that costs is printed. */

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { memory } from '../bench/processes.ts'
import { startToldHost } from '../fuzz/fuzz.ts'
import { ANSWER_HEADER, encodeScript, type HostStep } from '../fuzz/told-host.ts'
import { SLOWNESS } from '../kernel/lab.ts'
import { type Crowd, startCrowd } from './crowd.ts'
import { createMachine, type Machine } from './machine.ts'

const USERS = Array.from({ length: 10 }, (_, i) => 2000 + i)
const WITHIN_MS = 60_000 * SLOWNESS

const GET = 'GET /x HTTP/1.1\r\nHost: h\r\n\r\n'
/** The end of what the told host tells of a request without a body. */
const TOLD = '"nth":'

let machine: Machine
before(async () => {
  machine = await createMachine({
    hostArguments: ['--enforce', '--imds', '127.0.0.1:3082', '--hostga', '127.0.0.1:3083'],
    config: { fileLogLevel: 'Info', pollKeyStatusIntervalInSeconds: 15 },
  })
  await startToldHost(machine, 'imds', 'hostga')
})
after(() => machine[Symbol.asyncDispose]())

const privateMb = () => memory(machine.agent.pid).privateMb

describe('many connections', { timeout: 300_000 * SLOWNESS }, () => {
  const crowds: Crowd[] = []
  const all = (deed: Parameters<Crowd['do']>[0]) => Promise.all(crowds.map((crowd) => crowd.do(deed)))
  const sum = (list: readonly number[]) => list.reduce((total, each) => total + each, 0)
  after(() => {
    for (const crowd of crowds) crowd.leave()
  })

  test('10 000 of ten users stay open, each having asked once, and others are served', async (t) => {
    const beforeMb = privateMb()
    for (const uid of USERS) crowds.push(startCrowd(machine, uid, 1000))
    const opened = await all({ open: true })
    assert.equal(sum(opened.map(({ open }) => open)), 10_000)
    const asked = await all({ ask: GET, until: TOLD, withinMs: WITHIN_MS })
    assert.equal(sum(asked.map(({ answered }) => answered)), 10_000)
    const grownMb = privateMb() - beforeMb
    t.diagnostic(
      `10 000 idle connections: ${Math.round(grownMb)} MB, ${Math.round((grownMb * 1024) / 100) / 100} kB each`,
    )
    assert.ok(grownMb < 300, `the agent grew by ${Math.round(grownMb)} MB`)
    const { status, error } = await machine.curl(['http://169.254.169.254/x'], { uid: 33, gid: 33 })
    assert.equal(status, 200, error)
  })

  test('1 000 of ten users, at once, are all answered', async (t) => {
    for (const crowd of crowds.splice(0)) crowd.leave()
    for (const uid of USERS) crowds.push(startCrowd(machine, uid, 100))
    await all({ open: true })
    for (let round = 0; round < 5; round++) {
      const states = await all({ ask: GET, until: TOLD, withinMs: WITHIN_MS })
      assert.equal(sum(states.map(({ answered }) => answered)), 1000)
      if (round < 4) continue
      const slowest = Math.max(...states.map(({ mostMs }) => mostMs))
      const p50 = Math.max(...states.map(({ p50Ms }) => p50Ms))
      t.diagnostic(`1 000 requests at once: half of each user's within ${p50} ms, all within ${slowest} ms`)
    }
  })
})

describe('an upload of 96 MB', { timeout: 200_000 * SLOWNESS }, () => {
  const SIZE = 96 * 1024 * 1024
  /** Buffers that were read and not collected yet, on a busy machine: all of the body would be more. */
  const MOST_MB = 64
  const received: HostStep = { write: 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok' }

  /** Uploads, and watches memory. @returns the most that the agent grew by, in MB */
  async function upload(steps: readonly HostStep[], isEarly: boolean, ...more: string[]) {
    const beforeMb = privateMb()
    let mostMb = 0
    const timer = setInterval(() => {
      mostMb = Math.max(mostMb, privateMb() - beforeMb)
    }, 50)
    const script = `head -c ${SIZE} /dev/zero | curl --silent --show-error --include --max-time 120 -T - \
-H 'Content-Length: ${SIZE}' -H 'Transfer-Encoding:' -H 'Expect:' -H '${ANSWER_HEADER}: ${encodeScript({ steps, isEarly })}' \
${more.join(' ')} http://168.63.129.16:32526/vmAgentLog`
    const { stdout, stderr } = await machine.lab.run('sh', ['-c', script], { timeoutMs: 150_000 * SLOWNESS })
    clearInterval(timer)
    assert.match(stdout, /^HTTP\/1\.1 200 OK/, stderr)
    return { mostMb, stdout }
  }

  test('streams: memory stays flat', async (t) => {
    // What carries uploads is loaded with the first.
    await machine.curl(['-T', '/etc/hostname', 'http://168.63.129.16:32526/vmAgentLog'])
    const { mostMb } = await upload([received], false)
    t.diagnostic(`at full speed: ${Math.round(mostMb)} MB more at most`)
    assert.ok(mostMb < MOST_MB, `the agent grew by ${Math.round(mostMb)} MB`)
  })

  test('to a host that reads slowly: memory stays flat', async (t) => {
    const slow: HostStep[] = Array.from({ length: 20 }, () => ({ restMs: 150 }))
    const { mostMb } = await upload([...slow, received], true)
    t.diagnostic(`to a slow host: ${Math.round(mostMb)} MB more at most`)
    assert.ok(mostMb < MOST_MB, `the agent grew by ${Math.round(mostMb)} MB`)
  })

  test('whose answer of 96 MB is read slowly: memory stays flat', async (t) => {
    const answer: HostStep[] = [
      { write: `HTTP/1.1 200 OK\r\nContent-Length: ${SIZE}\r\n\r\n` },
      { write: 'x'.repeat(1024), times: 1024 * 96 },
    ]
    const { mostMb, stdout } = await upload(answer, false, '--limit-rate 30M')
    t.diagnostic(`with a slow reader: ${Math.round(mostMb)} MB more at most`)
    assert.ok(stdout.length > SIZE, 'it came whole')
    assert.ok(mostMb < MOST_MB, `the agent grew by ${Math.round(mostMb)} MB`)
  })
})
