/** Conversations over raw sockets, with a host that does what each request tells it. */

import assert from 'node:assert/strict'
import { startToldHost } from '../fuzz/fuzz.ts'
import { type FuzzAnswer, readAnswers } from '../fuzz/read-answers.ts'
import { ANSWER_HEADER, type Echo, encodeScript, type HostScript } from '../fuzz/told-host.ts'
import { SLOWNESS } from '../kernel/lab.ts'
import { createMachine, type Machine } from './machine.ts'
import type { Conversation, Outcome } from './wire-client.ts'

/** A machine whose metadata service and HostGAPlugin do as they are told. */
export async function createToldMachine(): Promise<Machine> {
  const machine = await createMachine({
    hostArguments: ['--enforce', '--imds', '127.0.0.1:3082', '--hostga', '127.0.0.1:3083'],
    config: { fileLogLevel: 'Info', pollKeyStatusIntervalInSeconds: 15 },
  })
  await startToldHost(machine, 'imds', 'hostga')
  return machine
}

/** Has all of them at once, and gives how they ended in the same order. */
export async function hold(machine: Machine, conversations: readonly Conversation[]): Promise<Outcome[]> {
  const { stdout, stderr } = await machine.lab.run(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', `${import.meta.dirname}/wire-client.ts`],
    { input: JSON.stringify(conversations), timeoutMs: 60_000 * SLOWNESS },
  )
  assert.notEqual(stdout, '', stderr)
  return JSON.parse(stdout) as Outcome[]
}

/** The answers of an outcome. Whatever the agent wrote must be whole answers. @param methods what was asked */
export function answersOf({ received, end }: Outcome, methods: readonly string[]): readonly FuzzAnswer[] {
  const { answers, fault } = readAnswers(received, methods, end !== 'open')
  assert.equal(fault, undefined, received)
  return answers
}

/** What the host tells of a request in an answer; nothing of one that did not come. */
export function echoOf(answer: FuzzAnswer | undefined): Partial<Echo> {
  return JSON.parse(Buffer.from(answer?.body || '{}', 'latin1').toString()) as Partial<Echo>
}

/** A request that makes the host do these steps. */
export function telling(steps: HostScript['steps'], start = 'GET /told HTTP/1.1', more = '', isEarly = false): string {
  return `${start}\r\nHost: h\r\n${ANSWER_HEADER}: ${encodeScript({ steps, isEarly })}\r\n${more}\r\n`
}
