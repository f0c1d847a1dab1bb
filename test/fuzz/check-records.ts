/** What the simulated host recorded, judged: was anything forwarded that should not have been, or otherwise than it should? */

import { header } from '../fabric/fabric.ts'
import type { RecordedRequest } from '../fabric/records.ts'
import { expectedFields, expectedHost, expectedTarget, FOR_THE_CONNECTION, isUpload } from './expected-head.ts'
import { createRandom } from './random.ts'
import { bodyHash, MARK_HEADER, makeSoundBatch, markOf, type Place, type SoundRequest } from './requests.ts'

/** Headers of one connection that the agent may have written itself, for an upload. */
const OF_AN_UPLOAD = ['connection', 'transfer-encoding']

/** Largest body that is signed. */
const MOST_SIGNED_BYTES = 100 * 1024

const AGENTS_OWN = ['x-ms-azure-host-claims', 'x-ms-azure-host-date', 'x-ms-azure-host-authorization']

/** @returns a sentence about a request that must not have reached the host; `undefined` for one that may */
export function recordFault(record: RecordedRequest): string | undefined {
  const { method, target, endpoint, rawHeaders, signature } = record
  const names = rawHeaders.flatMap((name, i) => (i % 2 === 0 ? [name] : []))
  const exempt = isUpload(endpoint, method, target)
  if (record.decision === 'malformed') return `the host could not read it: ${record.reason}`
  if (record.decision === 'cut-off') return exempt ? undefined : `it broke off: ${record.reason}`
  if (new Set(names).size !== names.length) return 'a header is repeated'
  if (names.some((name) => name !== name.toLowerCase())) return 'a name is not in lower case'
  if (names.some((name) => FOR_THE_CONNECTION.includes(name) && !(exempt && OF_AN_UPLOAD.includes(name))))
    return 'it has a header of another connection'
  if (names.some((name) => name.startsWith('x-ms-azure-host-') && !AGENTS_OWN.includes(name)))
    return 'it has a header of the agent that the agent did not make'
  if (signature !== (exempt ? 'absent' : 'right')) return `its signature is ${signature}`
  if (record.date !== 'fresh') return `its date is ${record.date}`
  if (!exempt && record.bodySizeBytes > MOST_SIGNED_BYTES) return `its body has ${record.bodySizeBytes} bytes`
  const who = /^(root|user)-\d+$/.exec(header(record, MARK_HEADER) ?? '')?.[1]
  if (who === undefined) return undefined
  if (record.claims !== `{ "isRoot": "${who === 'root'}"}`) return `${who} was announced as ${record.claims}`
  return who === 'user' && endpoint !== 'imds' ? 'it is none for this user' : undefined
}

/** A sound request that did not arrive as it was meant. */
export interface Difference {
  readonly index: number
  readonly reason: string
}

/**
 * Compares what arrived with what was meant.
 * @param records all that arrived of the inputs `first` to `first + count - 1`
 * @returns the number of requests compared, and those that differ
 */
export function compareRecords(
  records: readonly RecordedRequest[],
  { seed, who, first, count }: { seed: number; who: string; first: number; count: number },
): { compared: number; differences: Difference[] } {
  const byMark = new Map<string, RecordedRequest[]>()
  for (const record of records) {
    const mark = header(record, MARK_HEADER) ?? ''
    byMark.set(mark, [...(byMark.get(mark) ?? []), record])
  }
  let compared = 0
  const differences: Difference[] = []
  for (let index = first; index < first + count; index++) {
    const mark = markOf(who, index)
    const { place, requests } = makeSoundBatch(createRandom(seed, index), mark)
    const arrived = byMark.get(mark) ?? []
    const meant = who === 'user' && place !== 'imds' ? [] : requests
    compared += meant.length
    if (arrived.length !== meant.length)
      differences.push({ index, reason: `${arrived.length} requests arrived, ${meant.length} were meant to` })
    else
      for (const [nth, request] of meant.entries()) {
        const reason = difference(arrived[nth] as RecordedRequest, request, place)
        if (reason !== undefined) differences.push({ index, reason: `request ${nth}: ${reason}` })
      }
  }
  return { compared, differences }
}

function difference(record: RecordedRequest, meant: SoundRequest, place: Exclude<Place, 'direct'>): string | undefined {
  const is = (what: string, got: unknown, wanted: unknown) =>
    JSON.stringify(got) === JSON.stringify(wanted)
      ? undefined
      : `${what} is ${JSON.stringify(got)}, meant was ${JSON.stringify(wanted)}`
  const ours = new Set(['content-length', 'transfer-encoding', ...AGENTS_OWN])
  // An upload goes by a connection that says of itself that it stays.
  if (isUpload(place, meant.method, meant.target)) ours.add('connection')
  const fields = record.rawHeaders.flatMap((name, i) =>
    i % 2 === 0 && !ours.has(name) ? [`${name}: ${(record.rawHeaders[i + 1] as string).replace(/[ \t]+$/, '')}`] : [],
  )
  const wanted = expectedFields(meant)
  if (!wanted.some((line) => line.startsWith('host: '))) wanted.push(`host: ${expectedHost(place)}`)
  return (
    is('the endpoint', record.endpoint, place) ??
    is('the method', record.method, meant.method) ??
    is('the target', record.target, expectedTarget(meant.target)) ??
    is('the body', record.bodySha256, bodyHash(meant.body)) ??
    is('the size', record.bodySizeBytes, meant.body.length) ??
    is('the head', fields.sort(), wanted.sort())
  )
}
