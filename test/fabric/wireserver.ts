/**
 * WireServer: the secure channel, the goal state with its documents, health, telemetry.
 * Paths are compared without regard to case; `/machine` and `/machine/` are one.
 */

import {
  type Answer,
  emptyAnswer,
  type HostRequest,
  JSON_TYPE,
  jsonAnswer,
  parseJson,
  queryValues,
  textAnswer,
  wrongMethod,
  XML_TYPE,
} from './answer.ts'
import type { Channel } from './channel.ts'
import { certificatesXml, configXml, goalStateXml, type VmDocuments, versionsXml } from './documents.ts'
import { lastHeader } from './http-reader.ts'
import { parseHealthState, parseTelemetry, type TelemetryPost } from './telemetry.ts'
import type { SignatureVerdict, StrictOptions } from './verify.ts'
import { parseXmlBytes, XmlError } from './xml.ts'

/** What WireServer needs to know and tell beside the request. */
export interface WireserverContext {
  readonly vm: VmDocuments
  readonly channel: Channel
  readonly strict: StrictOptions
  readonly signature: SignatureVerdict
  /** Tells whether telemetry is still within the rate asked for; always, unless a limit is switched on. */
  mayPostTelemetry(): boolean
  keepTelemetry(post: TelemetryPost): void
  keepHealth(state: 'Ready' | 'NotReady'): void
}

const ACQUIRE_BODY = '{"authorizationScheme": "Azure-HMAC-SHA256"}'
const ATTEST_PATH = /^\/secure-channel\/key\/([^/]+)\/key-attestation$/i

/** Finds the guid in the path of an attestation, with the case it was sent in; `undefined` for any other path. */
export function attestedGuid(path: string): string | undefined {
  return ATTEST_PATH.exec(path)?.[1]
}

/** Answers a request to WireServer. @param rawPath the path with its case kept. */
export function answerWireserver(request: HostRequest, rawPath: string, context: WireserverContext): Answer {
  const { method, path } = request
  if (path.startsWith('/secure-channel/')) return answerSecureChannel(request, rawPath, context)
  if (context.strict.msVersion && lastHeader(request.rawHeaders, 'x-ms-version') === undefined) return emptyAnswer(400)
  if (path === '/healthservice') return method === 'POST' ? answerHealthService(request) : wrongMethod('POST')
  const comp = queryValues(request, 'comp')[0]?.toLowerCase()
  if (path === '/') {
    if (comp !== 'versions') return emptyAnswer(404)
    return method === 'GET' ? xmlAnswer(versionsXml(), context.vm) : wrongMethod('GET')
  }
  if (path === '/machine' || path === '/machine/') return answerMachine(request, comp, context)
  const container = /^\/machine\/([^/]+)\/[^/]+$/.exec(path)?.[1]
  if (container === undefined) return emptyAnswer(404)
  return method === 'GET' ? answerConfig(request, comp, container, context.vm) : wrongMethod('GET')
}

function answerSecureChannel(request: HostRequest, rawPath: string, context: WireserverContext): Answer {
  const { method, path } = request
  const { channel, strict } = context
  if (strict.channelRequests && !hasChannelHeaders(request)) return emptyAnswer(400)
  if (path === '/secure-channel/status') {
    return method === 'GET' ? jsonAnswer(200, channel.statusDocument()) : wrongMethod('GET')
  }
  if (path === '/secure-channel/key') {
    if (method !== 'POST') return wrongMethod('POST')
    if (!asksForKnownScheme(request, strict.channelRequests)) return emptyAnswer(400)
    const offer = channel.offerKey()
    return offer === undefined ? emptyAnswer(403) : jsonAnswer(200, offer)
  }
  const guid = attestedGuid(rawPath)
  if (guid === undefined) return emptyAnswer(404)
  if (method !== 'POST') return wrongMethod('POST')
  switch (channel.attest(guid, context.signature === 'right')) {
    case 'latched':
      return emptyAnswer(200)
    case 'wrong-proof':
      return emptyAnswer(403)
    case 'not-offered':
      return emptyAnswer(404)
  }
}

function hasChannelHeaders({ rawHeaders }: HostRequest): boolean {
  return (
    lastHeader(rawHeaders, 'metadata')?.toLowerCase() === 'true' &&
    lastHeader(rawHeaders, 'x-ms-azure-host-date') !== undefined &&
    lastHeader(rawHeaders, 'x-ms-azure-host-claims') !== undefined
  )
}

function asksForKnownScheme(request: HostRequest, exactly: boolean): boolean {
  if (exactly && request.body.toString() !== ACQUIRE_BODY) return false
  if (!(lastHeader(request.rawHeaders, 'content-type') ?? '').toLowerCase().startsWith('application/json')) return false
  const asked = parseJson(request.body) as { authorizationScheme?: unknown } | null | undefined
  return asked?.authorizationScheme === 'Azure-HMAC-SHA256'
}

function answerMachine(request: HostRequest, comp: string | undefined, context: WireserverContext): Answer {
  switch (comp) {
    case 'goalstate':
      return request.method === 'GET' ? xmlAnswer(goalStateXml(context.vm), context.vm) : wrongMethod('GET')
    case 'health':
      return posted(request, () => {
        context.keepHealth(parseHealthState(request.body))
        return emptyAnswer(200)
      })
    case 'roleproperties':
      return posted(request, () => {
        parseXmlBytes(request.body)
        return emptyAnswer(202)
      })
    case 'telemetrydata':
      return posted(request, () => answerTelemetry(request, context))
    default:
      return emptyAnswer(404)
  }
}

function answerTelemetry(request: HostRequest, context: WireserverContext): Answer {
  if (!context.mayPostTelemetry()) return emptyAnswer(429, [['Retry-After', '1']])
  const post = parseTelemetry(request.body)
  context.keepTelemetry(post)
  if (context.strict.telemetry && post.problems.length > 0)
    return textAnswer(400, XML_TYPE, errorXml(post.problems[0]!))
  return emptyAnswer(200)
}

function answerConfig(request: HostRequest, comp: string | undefined, container: string, vm: VmDocuments): Answer {
  const incarnation = queryValues(request, 'incarnation')[0]
  const current = String(vm.incarnation)
  const isStale = container !== vm.containerId.toLowerCase() || (incarnation ?? current) !== current
  if (isStale) return emptyAnswer(410)
  if (comp === 'certificates') return xmlAnswer(certificatesXml(vm), vm)
  if (comp !== 'config') return emptyAnswer(404)
  const document = configXml(vm, queryValues(request, 'type')[0]?.toLowerCase() ?? '')
  return document === undefined ? emptyAnswer(404) : xmlAnswer(document, vm)
}

function answerHealthService(request: HostRequest): Answer {
  const report = parseJson(request.body) as { Api?: unknown; Observations?: unknown } | null | undefined
  const isReport = report?.Api === 'reporttargethealth' && Array.isArray(report.Observations)
  return isReport ? textAnswer(200, JSON_TYPE, '{}') : emptyAnswer(400)
}

/** Runs `answer` for a POST; XML that is not well-formed, or is the wrong document, answers 400 with the reason. */
function posted(request: HostRequest, answer: () => Answer): Answer {
  if (request.method !== 'POST') return wrongMethod('POST')
  try {
    return answer()
  } catch (error) {
    if (error instanceof XmlError) return textAnswer(400, XML_TYPE, errorXml(error.message))
    throw error
  }
}

function errorXml(message: string): string {
  const text = message.replace(/[<>&"']/g, ' ')
  return `<?xml version="1.0" encoding="utf-8"?>\n<Error><Code>InvalidInput</Code><Message>${text}</Message></Error>\n`
}

function xmlAnswer(text: string, vm: VmDocuments): Answer {
  if (vm.xmlCharset === 'utf-8') return textAnswer(200, XML_TYPE, text)
  const body = Buffer.from(text.replace('encoding="utf-8"', 'encoding="utf-16"'), 'utf16le')
  return { status: 200, headers: [['Content-Type', 'text/xml; charset=utf-16']], body }
}
