/** Steers a simulated host in another process, with the methods of the object in this one. See `control-server.ts`. */

import { request as httpRequest } from 'node:http'
import type { ChannelLevel, ChannelOptions, ChannelRules, EndpointName, Mode } from './channel.ts'
import { type ControlPlace, REQUESTS_PER_PAGE, type RequestOnTheWire } from './control-server.ts'
import type { VmDocuments } from './documents.ts'
import type { FaultRule } from './faults.ts'
import type { HostControl, HostState, ListenerMode } from './host-control.ts'
import type { ScheduledEvent } from './imds.ts'
import type { RecordedRequest } from './records.ts'

/** Longest time one question stays open. */
const POLL_MS = 2000
/** An answer must come this much after the time it may wait. */
const ANSWER_MS = 10_000

/** A host behind a control socket. Failures carry the host's own message. */
export class FabricClient implements HostControl {
  readonly #place: ControlPlace

  constructor(place: ControlPlace) {
    this.#place = place
  }

  async readRequests(afterSeq = 0): Promise<RecordedRequest[]> {
    const all: RecordedRequest[] = []
    for (;;) {
      const page = await this.#readPage(all.at(-1)?.seq ?? afterSeq, 0)
      all.push(...page)
      if (page.length < REQUESTS_PER_PAGE) return all
    }
  }

  async waitForRequest(predicate: (request: RecordedRequest) => boolean, timeoutMs = 5000): Promise<RecordedRequest> {
    const endMs = performance.now() + timeoutMs
    let after = 0
    for (;;) {
      const leftMs = Math.max(0, Math.ceil(endMs - performance.now()))
      const page = await this.#readPage(after, Math.min(leftMs, POLL_MS))
      const found = page.find(predicate)
      if (found !== undefined) return found
      after = page.at(-1)?.seq ?? after
      if (leftMs === 0 && page.length < REQUESTS_PER_PAGE) {
        throw new Error(`Cannot find the awaited request: none came within ${timeoutMs} ms; ${after} came before`)
      }
    }
  }

  async readState(): Promise<HostState> {
    return (await this.#ask('GET', '/state')) as HostState
  }

  async clearRequests(): Promise<void> {
    await this.#call('clearRequests')
  }

  async setRules(rules: ChannelRules): Promise<void> {
    await this.#call('setRules', rules)
  }

  async setState(level: ChannelLevel): Promise<void> {
    await this.#call('setState', level)
  }

  async setChannel(changes: Partial<ChannelOptions>): Promise<void> {
    await this.#call('setChannel', changes)
  }

  async setHostModes(modes: Partial<Record<EndpointName, Mode>> | undefined): Promise<void> {
    await this.#call('setHostModes', modes)
  }

  async rotateKey(): Promise<void> {
    await this.#call('rotateKey')
  }

  async latchKey(key: { guid: string; keyHex: string }): Promise<void> {
    await this.#call('latchKey', key)
  }

  async addFault(rule: FaultRule): Promise<number> {
    return (await this.#call('addFault', rule)) as number
  }

  async removeFault(id: number): Promise<void> {
    await this.#call('removeFault', id)
  }

  async clearFaults(): Promise<void> {
    await this.#call('clearFaults')
  }

  async setClockSkew(skewMs: number): Promise<void> {
    await this.#call('setClockSkew', skewMs)
  }

  async setListener(endpoint: EndpointName, mode: ListenerMode): Promise<void> {
    await this.#call('setListener', endpoint, mode)
  }

  async setDocuments(changes: Partial<VmDocuments>): Promise<void> {
    await this.#call('setDocuments', changes)
  }

  async raiseIncarnation(): Promise<void> {
    await this.#call('raiseIncarnation')
  }

  async setScheduledEvents(events: readonly ScheduledEvent[]): Promise<void> {
    await this.#call('setScheduledEvents', events)
  }

  async #readPage(afterSeq: number, waitMs: number): Promise<RecordedRequest[]> {
    const path = `/requests?after=${afterSeq}&waitMs=${waitMs}`
    const { requests } = (await this.#ask('GET', path)) as { requests: RequestOnTheWire[] }
    return requests.map(({ bodyBase64, ...request }) => ({ ...request, body: Buffer.from(bodyBase64, 'base64') }))
  }

  async #call(method: keyof HostControl, ...args: unknown[]): Promise<unknown> {
    const answer = (await this.#ask('POST', '/control', JSON.stringify({ method, args }))) as { result: unknown }
    return answer.result
  }

  #ask(method: string, path: string, body = ''): Promise<unknown> {
    const place =
      'path' in this.#place ? { socketPath: this.#place.path } : { host: '127.0.0.1', port: this.#place.port }
    return new Promise((resolve, reject) => {
      const request = httpRequest(
        { ...place, method, path, agent: false, timeout: POLL_MS + ANSWER_MS },
        (response) => {
          const pieces: Buffer[] = []
          response.on('data', (piece: Buffer) => pieces.push(piece))
          response.on('error', reject)
          response.on('end', () => {
            const answer = JSON.parse(Buffer.concat(pieces).toString()) as { error?: string }
            if (response.statusCode === 200) resolve(answer)
            else reject(new Error(answer.error ?? `Cannot ask the host: it answered ${response.statusCode}`))
          })
        },
      )
      request.on('timeout', () => request.destroy(new Error('Cannot ask the host: it does not answer')))
      request.on('error', reject)
      request.end(body)
    })
  }
}
