/** `--status`: asks the running service whether provisioning has finished, for as long as it takes or is allowed. */

import { request as httpRequest } from 'node:http'
import * as v from 'valibot'
import { CLAIMS_HEADER, claimsValue, DATE_HEADER, NOTIFY_HEADER, TIME_TICK_HEADER } from '../base/azure-headers.ts'
import { httpDate } from '../base/dates.ts'
import { LISTENER } from '../base/endpoints.ts'
import { describeError } from '../base/errors.ts'
import { escapeControls } from '../base/text.ts'

const AnswerSchema = v.object({ finished: v.boolean(), errorMessage: v.string() })
export type ProvisionAnswer = v.InferOutput<typeof AnswerSchema>

/** What the command calls of the world. */
export interface StatusEnv {
  /** @throws when there is no answer within `timeoutMs`, or not one that can be used. */
  query(tick: bigint, isFirst: boolean, timeoutMs: number): Promise<ProvisionAnswer>
  print(text: string): void
  monotonicMs(): number
  sleep(ms: number): Promise<void>
  unixNanoseconds(): bigint
}

const PAUSE_MS = 100

/** One query gets at least this long, however little of the wait is left. */
const MIN_QUERY_MS = 1000

/** A query is over by then even if the wait is longer: the next one may find a service that was restarted. */
const MAX_QUERY_MS = 10_000

/**
 * Runs the command. @returns the exit code: 0 finished, 2 finished with errors, 1 not finished in time.
 * A failure is printed once, and at the end how many there were.
 */
export async function runStatus(waitSeconds: number, env: StatusEnv): Promise<number> {
  const tick = env.unixNanoseconds()
  const endMs = env.monotonicMs() + waitSeconds * 1000
  let failures = 0
  let lastFailure = ''
  let partialMessage = ''
  for (let isFirst = true; ; isFirst = false) {
    const leftMs = endMs - env.monotonicMs()
    try {
      const answer = await env.query(tick, isFirst, Math.min(MAX_QUERY_MS, Math.max(MIN_QUERY_MS, leftMs)))
      if (answer.finished) {
        if (answer.errorMessage === '') return 0
        env.print(`${toSafeLines(answer.errorMessage)}\n`)
        return 2
      }
      partialMessage = toSafeLines(answer.errorMessage)
    } catch (error) {
      failures++
      const failure = `Failed to query the current provision state with error: ${describeError(error)}.`
      if (failures === 1) env.print(`${failure}\n`)
      lastFailure = failure
    }
    if (env.monotonicMs() + PAUSE_MS > endMs) break
    await env.sleep(PAUSE_MS)
  }
  if (failures > 1) env.print(`${lastFailure} (${failures} times)\n`)
  if (partialMessage !== '') env.print(`${partialMessage}\n`)
  return 1
}

/** Frees `text` of what a terminal would obey, all but its line ends: who answers on the port may be anybody. */
function toSafeLines(text: string): string {
  return text.replace(/[^\r\n]+/g, escapeControls)
}

const MAX_ANSWER_BYTES = 64 * 1024

/** Asks the service on this machine; a connection of its own for each query. */
export function queryService(tick: bigint, isFirst: boolean, timeoutMs: number): Promise<ProvisionAnswer> {
  const { promise, resolve, reject } = Promise.withResolvers<ProvisionAnswer>()
  const headers = [
    'host',
    LISTENER.address,
    'metadata',
    'true',
    TIME_TICK_HEADER,
    String(tick),
    ...(isFirst ? [NOTIFY_HEADER, 'true'] : []),
    DATE_HEADER,
    httpDate(Date.now()),
    CLAIMS_HEADER,
    claimsValue(true),
    'content-length',
    '0',
  ]
  const request = httpRequest({
    host: LISTENER.address,
    port: LISTENER.port,
    path: '/provision',
    headers,
    setDefaultHeaders: false,
    agent: false,
  })
  const timer = setTimeout(() => request.destroy(new Error(`no answer within ${Math.round(timeoutMs)} ms`)), timeoutMs)
  request.on('error', reject)
  // Not every end is an error event (101 is none), and the command must end.
  request.on('close', () => reject(new Error('the connection was closed before an answer came')))
  request.on('response', (response) => {
    let text = ''
    request.removeAllListeners('close')
    response.setEncoding('utf8')
    response.on('error', reject)
    response.on('close', () => reject(new Error('the connection was closed before the answer was complete')))
    response.on('data', (chunk: string) => {
      text += chunk
      if (text.length > MAX_ANSWER_BYTES) request.destroy(new Error('the answer is too large'))
    })
    response.on('end', () => {
      const status = response.statusCode ?? 0
      request.destroy()
      if (status < 200 || status > 299) return reject(new Error(`status code: ${status}`))
      try {
        resolve(parseAnswer(text))
      } catch (error) {
        reject(error)
      }
    })
  })
  request.end()
  return promise.finally(() => clearTimeout(timer))
}

/** @throws Error when `text` is not what the service answers. */
function parseAnswer(text: string): ProvisionAnswer {
  try {
    return v.parse(AnswerSchema, JSON.parse(text))
  } catch {
    throw new Error('the answer is not a provision state')
  }
}
