/**
 * A process inside the lab that writes random bytes on many connections and judges what comes back:
 * `node fuzz-client.ts JOB`, `JOB` as JSON. It prints one line of JSON for each thing that is wrong, the summary last.
 */

import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { answerFault, type HostTalk, makeTalk } from './host-talk.ts'
import { createRandom } from './random.ts'
import { type FuzzAnswer, type Reading, readAnswers } from './read-answers.ts'
import { bytesOf, type Input, makeInput, makeSoundBatch, markOf, PLACES, type Place } from './requests.ts'

/**
 * What is written: `requests` are sound and unsound ones, `sound` are sound ones alone, `answers` are sound requests that
 * tell the host in this lab what to answer.
 */
export type JobKind = 'requests' | 'sound' | 'answers'

export interface Job {
  readonly kind: JobKind
  readonly seed: number
  /** Begins the marks of its requests. */
  readonly who: string
  /** Number of the first input. */
  readonly first: number
  /** Ends after so many inputs, or after so long. */
  readonly count: number
  readonly seconds: number
}

/** Something that must not be. */
export interface Finding {
  readonly index: number
  readonly reason: string
  /** What was written, piece by piece, as base64; and what came back. */
  readonly written: readonly string[]
  readonly received: string
}

export interface Summary {
  /** Inputs done. */
  readonly inputs: number
  /** Answers by status, and connections that ended without any. */
  readonly outcomes: Readonly<Record<string, number>>
}

export type ClientLine = { readonly finding: Finding } | { readonly summary: Summary }

/** Connections at one time. */
const WORKERS = 24

/** An answer that does not come within this time is a hang, and so is a connection that does not end. */
const PATIENCE_MS = 15_000 * Number(process.env.TEST_SLOWNESS ?? 1)

/** Silence after which a client with an unsound request takes it that no answer comes before it has ended its side. */
const QUIET_MS = 120

/** The connections that found no listener: one that was restarted would refuse for a moment only. */
const MAX_FINDINGS = 20

async function run(job: Job): Promise<void> {
  const endMs = performance.now() + job.seconds * 1000
  const outcomes: Record<string, number> = {}
  let next = job.first
  let inputs = 0
  let findings = 0
  const count = (name: string) => {
    outcomes[name] = (outcomes[name] ?? 0) + 1
  }
  const work = async () => {
    while (next < job.first + job.count && performance.now() < endMs && findings < MAX_FINDINGS) {
      const index = next++
      const finding = await TRIALS[job.kind](job, index, count)
      inputs++
      if (finding === undefined) continue
      findings++
      say({ finding: { index, ...finding } })
    }
  }
  await Promise.all(Array.from({ length: WORKERS }, work))
  say({ summary: { inputs, outcomes } })
}

function say(line: ClientLine): void {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

type Count = (outcome: string) => void
type Trial = (job: Job, index: number, count: Count) => Promise<Omit<Finding, 'index'> | undefined>

const TRIALS: Readonly<Record<JobKind, Trial>> = {
  requests(job, index, count) {
    const input = makeInput(createRandom(job.seed, index), markOf(job.who, index))
    return tryInput({ ...input, methods: input.methods && expectedMethods(job, input.place, input.methods) }, count)
  },
  sound(job, index, count) {
    const { place, requests } = makeSoundBatch(createRandom(job.seed, index), markOf(job.who, index))
    const methods = requests.map(({ method }) => method)
    return tryInput({ place, pieces: [bytesOf(requests)], methods: expectedMethods(job, place, methods) }, count)
  },
  answers: (job, index, count) => tryTalks(makeTalk(createRandom(job.seed, index), markOf(job.who, index)), count),
}

/** The first refusal is the last answer of its connection. */
function expectedMethods({ who }: Job, place: Place, methods: readonly string[]): readonly string[] {
  return who === 'root' || place === 'imds' ? methods : methods.slice(0, 1)
}

/** A connection, and all that came from it. */
interface Open {
  readonly socket: Socket
  readonly reading: (methods: readonly string[] | undefined) => Reading
  received(): string
  /** How it ended, or `undefined` while it has not. */
  end(): string | undefined
  /** Waits until something happened, or for so long. */
  next(timeoutMs: number): Promise<void>
}

function open({ host, port }: { readonly host: string; readonly port: number }): Open {
  const socket = connect({ host, port, noDelay: true, allowHalfOpen: true })
  let text = ''
  let end: string | undefined
  let wake: () => void = () => undefined
  socket.on('data', (bytes) => {
    text += bytes.toString('latin1')
    wake()
  })
  socket.on('end', () => {
    end ??= 'closed'
    wake()
  })
  socket.on('error', (error: NodeJS.ErrnoException) => {
    end ??= error.code ?? error.message
    wake()
  })
  socket.on('close', () => {
    end ??= 'closed'
    wake()
  })
  return {
    socket,
    reading: (methods) => readAnswers(text, methods, end !== undefined),
    received: () => text,
    end: () => end,
    next: (timeoutMs) =>
      new Promise((resolve) => {
        const timer = setTimeout(resolve, timeoutMs)
        wake = () => {
          clearTimeout(timer)
          resolve()
        }
      }),
  }
}

/** Waits until `isDone`, or the connection has ended. @returns false when neither came within `PATIENCE_MS` */
async function waitUntil(connection: Open, isDone: () => boolean): Promise<boolean> {
  const endMs = performance.now() + PATIENCE_MS
  while (!isDone() && connection.end() === undefined) {
    if (performance.now() > endMs) return false
    await connection.next(1000)
  }
  return true
}

/** Ways in which a connection may not end: nobody listens any more. */
const GONE = new Set(['ECONNREFUSED', 'ETIMEDOUT', 'EHOSTUNREACH'])

/** Writes one input, and waits for what becomes of it. */
async function tryInput(input: Input, count: Count) {
  const connection = open(PLACES[input.place])
  const find = (reason: string) => {
    connection.socket.destroy()
    const written = input.pieces.map((piece) => piece.toString('base64'))
    return { reason, written, received: connection.received().slice(0, 4000) }
  }
  for (const piece of input.pieces) {
    if (connection.end() !== undefined) break
    connection.socket.write(piece)
    if (input.pieces.length > 1) await sleep(1)
  }
  const { methods } = input
  if (methods !== undefined) {
    const isDone = () => connection.reading(methods).answers.filter(({ isWhole }) => isWhole).length === methods.length
    if (!(await waitUntil(connection, isDone))) return find('there are fewer answers than requests')
    if (!isDone()) return find(`the connection ended before its answers: ${connection.end()}`)
  } else {
    let length = -1
    while (connection.end() === undefined && connection.received().length !== length) {
      length = connection.received().length
      await connection.next(QUIET_MS)
    }
  }
  connection.socket.end()
  if (!(await waitUntil(connection, () => false))) return find('the connection did not end with its client')
  const { answers, fault } = connection.reading(methods)
  if (fault !== undefined) return find(fault)
  if (GONE.has(connection.end() ?? '')) return find(`nobody listens: ${connection.end()}`)
  if (answers.some(isInternalError)) return find('the agent met a fault of its own')
  if (answers.length === 0) count('no answer')
  for (const { status } of answers) count(String(status))
  connection.socket.destroy()
  return undefined
}

/** The host's own errors have the mark of the agent's path. */
function isInternalError({ status, fields }: FuzzAnswer): boolean {
  return status === 500 && !fields.includes('x-ms-azure-host-authorization')
}

/** Asks one thing after the other on one connection while it stays, and judges the answers by what the host was told to say. */
async function tryTalks(talks: readonly HostTalk[], count: Count) {
  const connection = open(PLACES.imds)
  const methods: string[] = []
  const find = (reason: string) => {
    connection.socket.destroy()
    const written = talks.slice(0, methods.length).map(({ request }) => request.toString('base64'))
    return { reason, written, received: connection.received().slice(-4000) }
  }
  for (const talk of talks) {
    methods.push(talk.method)
    connection.socket.write(talk.request)
    const isDone = () => connection.reading(methods).answers.filter(({ isWhole }) => isWhole).length === methods.length
    const isAnswered = await waitUntil(connection, isDone)
    const { answers, fault } = connection.reading(methods)
    if (fault !== undefined) return find(fault)
    if (!isAnswered) return find('neither an answer nor an end came')
    const answer = answers[methods.length - 1]
    const wrong = answerFault(talk, answer, connection.end())
    if (wrong !== undefined) return find(wrong)
    count(answer === undefined ? 'no answer' : answer.isWhole ? String(answer.status) : 'broken off')
    if (connection.end() !== undefined || answer === undefined || answer.fields.includes('close')) break
  }
  connection.socket.destroy()
  return undefined
}

await run(JSON.parse(process.argv[2] as string) as Job)
