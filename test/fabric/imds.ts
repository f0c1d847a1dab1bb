/**
 * IMDS: instance metadata, tokens, the attested document, scheduled events.
 * Every request passes the same gate (Metadata header, no X-Forwarded-For, known path, method, api-version), in that
 * order; only the probe of newer token clients is looked at first, since it comes without headers and wants a plain 404.
 */

import {
  type Answer,
  emptyAnswer,
  type HostRequest,
  jsonAnswer,
  parseJson,
  queryValues,
  TEXT_TYPE,
  textAnswer,
  wrongMethod,
} from './answer.ts'
import { instanceMetadata, type VmDocuments } from './documents.ts'
import { lastHeader } from './http-reader.ts'

/** An event of `/metadata/scheduledevents`. */
export interface ScheduledEvent {
  EventId: string
  EventType: 'Freeze' | 'Reboot' | 'Redeploy' | 'Preempt' | 'Terminate'
  EventStatus: 'Scheduled' | 'Started'
  ResourceType?: string
  Resources?: string[]
  NotBefore?: string
  Description?: string
  EventSource?: 'Platform' | 'User'
  DurationInSeconds?: number
}

/** Scheduled events with the number that changes whenever they do. */
export interface ScheduledEvents {
  readonly incarnation: number
  readonly events: readonly ScheduledEvent[]
}

export interface ImdsContext {
  readonly vm: VmDocuments
  readonly nowMs: number
  readonly scheduled: ScheduledEvents
  startEvents(eventIds: readonly string[]): void
  attestedDocument(content: Record<string, unknown>): string
}

export const IMDS_VERSIONS: readonly string[] = [
  '2017-03-01',
  '2017-04-02',
  '2017-08-01',
  '2017-11-01',
  '2017-12-01',
  '2018-02-01',
  '2018-10-01',
  '2019-01-01',
  '2019-02-01',
  '2019-04-01',
  '2019-06-01',
  '2019-08-01',
  '2019-11-01',
  '2020-06-01',
  '2020-07-01',
  '2020-09-01',
  '2020-10-01',
  '2020-12-01',
  '2021-01-01',
  '2021-02-01',
  '2021-05-01',
  '2021-08-01',
  '2021-12-13',
  '2023-07-01',
  '2023-11-15',
  '2024-03-15',
  '2024-07-17',
  '2025-04-07',
]

const TOKEN_PATH = '/metadata/identity/oauth2/token'
const IDENTITY_SELECTORS = ['client_id', 'object_id', 'msi_res_id']
const TOKEN_LIFE_S = 3600

type Route = {
  methods: readonly string[]
  needsVersion: boolean
  answer(request: HostRequest, context: ImdsContext): Answer
}

/** Answers a request to IMDS. */
export function answerImds(request: HostRequest, context: ImdsContext): Answer {
  if (request.path === '/metadata/identity/credential') return emptyAnswer(404)
  if (lastHeader(request.rawHeaders, 'x-forwarded-for') !== undefined) {
    return errorAnswer(request, 'Bad request. X-Forwarded-For is not allowed')
  }
  if (lastHeader(request.rawHeaders, 'metadata')?.toLowerCase() !== 'true') {
    return errorAnswer(request, 'Bad request. Required metadata header not specified')
  }
  const route = findRoute(request.path)
  if (route === undefined) return jsonAnswer(404, { error: 'Not found' })
  if (!route.methods.includes(request.method)) return wrongMethod(...route.methods)
  if (route.needsVersion) {
    const versions = queryValues(request, 'api-version')
    if (versions.length !== 1 || !IMDS_VERSIONS.includes(versions[0]!)) {
      return jsonAnswer(400, {
        error: 'Bad request. api-version is invalid or was not specified in the request.',
        'newest-versions': [...IMDS_VERSIONS].reverse().slice(0, 3),
      })
    }
  }
  return route.answer(request, context)
}

/** Tells whether a request counts for the rate of tokens, and not for that of all the rest. `path` in lower case. */
export function isIdentityPath(path: string): boolean {
  return path.startsWith('/metadata/identity/')
}

function findRoute(path: string): Route | undefined {
  const plain = path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path
  if (plain === '/metadata/instance' || plain.startsWith('/metadata/instance/')) {
    return { methods: ['GET'], needsVersion: true, answer: (request, { vm }) => answerInstance(request, plain, vm) }
  }
  return ROUTES[plain]
}

const ROUTES: Readonly<Record<string, Route>> = {
  '/metadata/versions': {
    methods: ['GET'],
    needsVersion: false,
    answer: () => jsonAnswer(200, { apiVersions: IMDS_VERSIONS }),
  },
  [TOKEN_PATH]: { methods: ['GET'], needsVersion: true, answer: answerToken },
  '/metadata/attested/document': { methods: ['GET'], needsVersion: true, answer: answerAttested },
  '/metadata/scheduledevents': { methods: ['GET', 'POST'], needsVersion: true, answer: answerScheduledEvents },
  '/metadata/reprovisiondata': {
    methods: ['GET'],
    needsVersion: true,
    answer: (_request, { vm }) =>
      vm.reprovisionData === undefined
        ? emptyAnswer(404)
        : textAnswer(200, 'text/xml; charset=utf-8', vm.reprovisionData),
  },
}

function answerInstance(request: HostRequest, path: string, vm: VmDocuments): Answer {
  const isExtended = queryValues(request, 'extended')[0]?.toLowerCase() === 'true'
  const format = queryValues(request, 'format')[0]?.toLowerCase() ?? 'json'
  if (format !== 'json' && format !== 'text') return jsonAnswer(400, { error: 'Bad request. format is not supported' })
  const steps = path.slice('/metadata/instance'.length).split('/').filter(Boolean)
  if (steps.length === 0 && format === 'json' && !isExtended) return wholeInstance(vm)
  const whole = instanceMetadata(vm)
  if (isExtended) whole.extended = { compute: { hasCustomData: 'false' } }
  let at: unknown = whole
  for (const step of steps) at = memberOf(at, step)
  if (at === undefined) return jsonAnswer(404, { error: 'Not found' })
  if (typeof at === 'string')
    return format === 'text' ? textAnswer(200, TEXT_TYPE, at) : jsonAnswer(404, { error: 'Not found' })
  if (format === 'text') return textAnswer(200, TEXT_TYPE, listMembers(at as object))
  return jsonAnswer(200, at)
}

const WHOLE_INSTANCES = new WeakMap<VmDocuments, Answer>()

/** The document that load tests ask for, written once per machine: a changed machine is another object. */
function wholeInstance(vm: VmDocuments): Answer {
  let answer = WHOLE_INSTANCES.get(vm)
  if (answer === undefined) {
    answer = jsonAnswer(200, instanceMetadata(vm))
    WHOLE_INSTANCES.set(vm, answer)
  }
  return answer
}

/** Steps into an object by a name in any case, or into a list by its index. */
function memberOf(value: unknown, step: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined
  return Object.entries(value).find(([name]) => name.toLowerCase() === step)?.[1]
}

function listMembers(value: object): string {
  return Object.entries(value)
    .map(([name, member]) => (typeof member === 'object' ? `${name}/` : name))
    .join('\n')
}

function answerToken(request: HostRequest, { vm, nowMs }: ImdsContext): Answer {
  const resource = queryValues(request, 'resource')[0]
  if (resource === undefined || resource === '')
    return tokenError(400, 'invalid_request', 'Required parameter resource is missing')
  if (!/^(https?|api):\/\/[^\s]+$|^[0-9a-f-]{36}$/i.test(resource)) {
    return tokenError(400, 'invalid_resource', `The resource ${resource} was not found in the tenant`)
  }
  const chosen = IDENTITY_SELECTORS.flatMap((name) => queryValues(request, name))
  if (chosen.length > 1) return tokenError(400, 'invalid_request', 'At most one identity may be chosen')
  const clientId = chosen.length === 0 ? vm.identityClientIds[0] : vm.identityClientIds.find((id) => id === chosen[0])
  if (clientId === undefined) return tokenError(400, 'invalid_request', 'Identity not found')
  const nowS = Math.floor(nowMs / 1000)
  const payload = { aud: resource, appid: clientId, nbf: nowS, exp: nowS + TOKEN_LIFE_S, demo: true }
  return jsonAnswer(200, {
    access_token: `${base64Url({ typ: 'JWT', alg: 'none' })}.${base64Url(payload)}.c2ln`,
    client_id: clientId,
    expires_in: String(TOKEN_LIFE_S - 1),
    expires_on: String(nowS + TOKEN_LIFE_S),
    ext_expires_in: String(TOKEN_LIFE_S - 1),
    not_before: String(nowS - 300),
    resource,
    token_type: 'Bearer',
  })
}

function answerAttested(request: HostRequest, { vm, nowMs, attestedDocument }: ImdsContext): Answer {
  if (queryValues(request, 'api-version')[0]! < '2018-10-01')
    return jsonAnswer(400, { error: 'Bad request. api-version is too old' })
  const nonce = queryValues(request, 'nonce')[0] ?? String(nowMs).slice(-10)
  if (!/^[0-9]{1,10}$/.test(nonce))
    return jsonAnswer(400, { error: 'Bad request. nonce is not a number of ten digits' })
  const signature = attestedDocument({
    nonce,
    plan: { name: '', product: '', publisher: '' },
    timeStamp: { createdOn: attestedTime(nowMs), expiresOn: attestedTime(nowMs + 6 * 3600 * 1000) },
    vmId: vm.vmId,
    subscriptionId: vm.subscriptionId,
    sku: 'server',
  })
  return jsonAnswer(200, { encoding: 'pkcs7', signature })
}

function answerScheduledEvents(request: HostRequest, context: ImdsContext): Answer {
  const { incarnation, events } = context.scheduled
  if (request.method === 'GET') return jsonAnswer(200, { DocumentIncarnation: incarnation, Events: events })
  const asked = parseJson(request.body) as { StartRequests?: unknown } | null | undefined
  if (!Array.isArray(asked?.StartRequests)) return jsonAnswer(400, { error: 'Bad request. StartRequests is missing' })
  const ids = asked.StartRequests.map((start: { EventId?: unknown } | null) => start?.EventId)
  if (!ids.every((id) => events.some((event) => event.EventId === id))) {
    return jsonAnswer(400, { error: 'Bad request. EventId is not known' })
  }
  context.startEvents(ids as string[])
  return emptyAnswer(200)
}

/** Answers 400 in the style of the path: token requests have their own shape of error. */
function errorAnswer(request: HostRequest, message: string): Answer {
  if (request.path === TOKEN_PATH) return tokenError(400, 'bad_request_102', message.replace(/^Bad request\. /, ''))
  return jsonAnswer(400, { error: message })
}

function tokenError(status: number, code: string, description: string): Answer {
  return jsonAnswer(status, { error: code, error_description: description })
}

function base64Url(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}

/** `01/02/26 03:04:05 -0000`, as attested documents write time. */
function attestedTime(atMs: number): string {
  const [date, time] = new Date(atMs).toISOString().split('T')
  const [year, month, day] = date!.split('-')
  return `${month}/${day}/${year!.slice(2)} ${time!.slice(0, 8)} -0000`
}
