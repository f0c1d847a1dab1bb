/**
 * The agent tries its own door: a connection like those of others, through the kernel's redirection, to its listener, with
 * a record that says who made it, to an answer over HTTP. No host is asked and nothing is counted or told.
 *
 * The agent's own connections are exempt from redirection, but for one destination where nobody is, see `SELF_PROBE`. So
 * this costs one connection on loopback, and no other process.
 */

import { randomUUID } from 'node:crypto'
import { request as httpRequest } from 'node:http'
import { type InetAddress, SELF_PROBE } from '../base/endpoints.ts'

export interface SelfProbe {
  /** Tries once. Never rejects. @returns why it failed, `undefined` when the whole way works */
  run(timeoutMs: number): Promise<string | undefined>
  /** Tells the proxy whether `rawTarget` is what a probe that is running asks for. */
  isAsked(rawTarget: string): boolean
}

/** Makes the probe. @param destination for tests */
export function createSelfProbe(destination: InetAddress = SELF_PROBE): SelfProbe {
  /** What the probes that are running ask for: nobody else knows it. */
  const asked = new Set<string>()
  return {
    async run(timeoutMs) {
      const target = `/${randomUUID()}`
      asked.add(target)
      try {
        const status = await ask(destination, target, timeoutMs)
        return status === 200 ? undefined : `the listener answered ${status}`
      } catch (error) {
        return (error as Error).message
      } finally {
        asked.delete(target)
      }
    },
    isAsked: (rawTarget) => asked.has(rawTarget),
  }
}

/** Asks on a connection of its own. @throws Error that says how far it came */
function ask({ address, port }: { address: string; port: number }, path: string, timeoutMs: number): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  const request = httpRequest({ host: address, port, path, agent: false })
  const timer = setTimeout(() => request.destroy(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs)
  request.on('error', (error: NodeJS.ErrnoException) =>
    reject(error.code === 'ECONNREFUSED' ? new Error(REFUSED) : error),
  )
  request.on('close', () => reject(new Error('the connection was closed without an answer')))
  request.on('response', (response) => {
    resolve(response.statusCode ?? 0)
    response.on('error', () => undefined)
    request.destroy()
  })
  request.end()
  return promise.finally(() => clearTimeout(timer))
}

const REFUSED = 'refused: the kernel did not redirect the connection, or nobody listens'
