/**
 * Reads a telemetry post: TelemetryData / Provider / Event, and inside each event's CDATA a list of parameters.
 *
 * Two layers of verdict. What is not well-formed, or not this envelope, throws: a host drops such a batch. Departures
 * from the parameter lists of the two providers of the agent are `problems`, since other senders (WALinuxAgent) use the
 * same envelope with lists of their own.
 */

import { childrenNamed, parseXmlBytes, parseXmlFragment, type XmlElement, XmlError } from './xml.ts'

export interface TelemetryParam {
  readonly name: string
  readonly value: string
  /** `mt:wstr`, `mt:uint64`, `mt:bool`, … */
  readonly type: string
}

export interface TelemetryEvent {
  readonly providerId: string
  readonly eventId: string
  readonly params: readonly TelemetryParam[]
}

export interface TelemetryPost {
  readonly events: readonly TelemetryEvent[]
  /** Empty when the post is exactly what the agent should send. */
  readonly problems: readonly string[]
}

type ParamRow = readonly [name: string, type: string]

const COMMON_PARAMS: readonly ParamRow[] = [
  ['KeywordName', 'mt:wstr'],
  ['TenantName', 'mt:wstr'],
  ['RoleName', 'mt:wstr'],
  ['RoleInstanceName', 'mt:wstr'],
  ['ContainerId', 'mt:wstr'],
  ['ResourceGroupName', 'mt:wstr'],
  ['SubscriptionId', 'mt:wstr'],
  ['VMId', 'mt:wstr'],
  ['ImageOrigin', 'mt:uint64'],
  ['OSVersion', 'mt:wstr'],
  ['RAM', 'mt:uint64'],
  ['Processors', 'mt:uint64'],
  ['EventPid', 'mt:uint64'],
  ['EventTid', 'mt:uint64'],
  ['GAVersion', 'mt:wstr'],
  ['ExecutionMode', 'mt:wstr'],
  ['TaskName', 'mt:wstr'],
  ['OpcodeName', 'mt:wstr'],
]

/** The parameter lists of the agent, by provider id. */
const PROVIDERS: Readonly<Record<string, { eventId: string; params: readonly ParamRow[] }>> = {
  'FFF0196F-EE4C-4EAF-9AA5-776F622DEB4F': {
    eventId: '7',
    params: [
      ...COMMON_PARAMS,
      ['EventName', 'mt:wstr'],
      ['CapabilityUsed', 'mt:wstr'],
      ['Context1', 'mt:wstr'],
      ['Context2', 'mt:wstr'],
      ['Context3', 'mt:wstr'],
    ],
  },
  '69B669B9-4AF8-4C50-BDC4-6006FA76E975': {
    eventId: '1',
    params: [
      ...COMMON_PARAMS,
      ['ExtensionType', 'mt:wstr'],
      ['IsInternal', 'mt:bool'],
      ['Name', 'mt:wstr'],
      ['Version', 'mt:wstr'],
      ['Operation', 'mt:wstr'],
      ['OperationSuccess', 'mt:bool'],
      ['Message', 'mt:wstr'],
      ['Duration', 'mt:uint64'],
    ],
  },
}

const LARGEST_POST_BYTES = 64 * 1024
const LARGEST_UINT64 = 2n ** 64n - 1n

/**
 * Parses the body of a telemetry post.
 * @throws XmlError when it, or the inside of an event, is not well-formed, or is another document.
 */
export function parseTelemetry(body: Uint8Array): TelemetryPost {
  const root = parseXmlBytes(body)
  expectElement(root, 'TelemetryData')
  const problems: string[] = []
  if (root.attributes.get('version') !== '1.0') problems.push('TelemetryData is not version 1.0')
  if (body.length >= LARGEST_POST_BYTES)
    problems.push(`post of ${body.length} bytes, below ${LARGEST_POST_BYTES} allowed`)
  const events: TelemetryEvent[] = []
  for (const provider of root.children) {
    expectElement(provider, 'Provider')
    const providerId = attribute(provider, 'id')
    for (const element of provider.children) {
      expectElement(element, 'Event')
      const event = { providerId, eventId: attribute(element, 'id'), params: parseParams(element.text) }
      events.push(event)
      problems.push(...findProblems(event))
    }
  }
  if (events.length === 0) problems.push('no event')
  return { events, problems }
}

/** Finds the value of a parameter. */
export function paramValue(event: TelemetryEvent, name: string): string | undefined {
  return event.params.find((param) => param.name === name)?.value
}

/** Tells whether a health report is one: `Health` with a container and a state for each role. @throws XmlError if not. */
export function parseHealthState(body: Uint8Array): 'Ready' | 'NotReady' {
  const root = parseXmlBytes(body)
  expectElement(root, 'Health')
  const container = childrenNamed(root, 'Container')[0]
  const role = container && childrenNamed(container, 'RoleInstanceList')[0]?.children[0]
  const health = role && childrenNamed(role, 'Health')[0]
  const state = health && childrenNamed(health, 'State')[0]?.text
  if (state !== 'Ready' && state !== 'NotReady') throw new XmlError('no State Ready or NotReady', 0)
  return state
}

function parseParams(text: string): TelemetryParam[] {
  return parseXmlFragment(text).map((element) => {
    expectElement(element, 'Param')
    return { name: attribute(element, 'Name'), value: attribute(element, 'Value'), type: attribute(element, 'T') }
  })
}

function findProblems(event: TelemetryEvent): string[] {
  const known = PROVIDERS[event.providerId]
  if (known === undefined) return [`provider ${event.providerId} is not known`]
  const problems: string[] = []
  if (event.eventId !== known.eventId) problems.push(`event id ${event.eventId} in ${event.providerId}`)
  const names = event.params.map(({ name }) => name).join(',')
  const expected = known.params.map(([name]) => name).join(',')
  if (names !== expected) problems.push(`parameters of event ${event.eventId} are ${names}`)
  for (const { name, value, type } of event.params) {
    const row = known.params.find(([known]) => known === name)
    if (row !== undefined && row[1] !== type) problems.push(`parameter ${name} has type ${type}`)
    if (!fitsType(value, type)) problems.push(`parameter ${name} is no ${type}`)
  }
  return problems
}

function fitsType(value: string, type: string): boolean {
  if (type === 'mt:uint64') return /^[0-9]{1,20}$/.test(value) && BigInt(value) <= LARGEST_UINT64
  if (type === 'mt:bool') return value === 'True' || value === 'False'
  return type === 'mt:wstr'
}

function expectElement(element: XmlElement, name: string): void {
  if (element.name !== name) throw new XmlError(`element "${element.name}" where "${name}" must be`, 0)
}

function attribute(element: XmlElement, name: string): string {
  const value = element.attributes.get(name)
  if (value === undefined) throw new XmlError(`element "${element.name}" without attribute "${name}"`, 0)
  return value
}
