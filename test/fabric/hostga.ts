/**
 * HostGAPlugin: what the guest agent asks of the host beside the goal state.
 * Requests name the container and the configuration they were made for; stale names are answered 410, as they tell the
 * guest agent to read the goal state again.
 */

import { type Answer, emptyAnswer, type HostRequest, JSON_TYPE, parseJson, textAnswer, wrongMethod } from './answer.ts'
import { configName, type VmDocuments, vmSettings } from './documents.ts'
import { lastHeader } from './http-reader.ts'

/** A status document that the host was asked to store. */
export interface StatusUpload {
  readonly requestUri: string
  /** `undefined` for the first of the two calls of a page blob. */
  readonly content: Buffer | undefined
}

/** A log archive that passed through; its bytes are counted and hashed, never kept. */
export interface LogUpload {
  readonly sizeBytes: number
  readonly sha256: string
}

export interface HostgaContext {
  readonly vm: VmDocuments
  keepStatus(upload: StatusUpload): void
  keepLog(upload: LogUpload): void
}

/** Tells whether the body of a request is an upload to be counted, not held. `path` in lower case. */
export function isLogUpload(method: string, path: string): boolean {
  return method === 'PUT' && path === '/vmagentlog'
}

/** Answers a request to HostGAPlugin. */
export function answerHostga(request: HostRequest, context: HostgaContext): Answer {
  const { method, path } = request
  switch (path) {
    case '/health':
      return method === 'GET' ? emptyAnswer(200) : wrongMethod('GET')
    case '/versions':
      if (method !== 'GET') return wrongMethod('GET')
      return refuseStale(request, context.vm, false) ?? textAnswer(200, JSON_TYPE, '["2015-09-01"]')
    case '/vmsettings':
      if (method !== 'GET') return wrongMethod('GET')
      return refuseStale(request, context.vm, true) ?? answerVmSettings(request, context.vm)
    case '/extensionartifact':
      if (method !== 'GET') return wrongMethod('GET')
      return refuseStale(request, context.vm, true) ?? answerArtifact(request, context.vm)
    case '/status':
      if (method !== 'PUT') return wrongMethod('PUT')
      return refuseStale(request, context.vm, true) ?? answerStatus(request, context)
    case '/vmagentlog':
      if (method !== 'PUT') return wrongMethod('PUT')
      return refuseStale(request, context.vm, false) ?? answerLog(request, context)
    default:
      return emptyAnswer(404)
  }
}

function answerVmSettings(request: HostRequest, vm: VmDocuments): Answer {
  const { text, etag } = vmSettings(vm)
  if (lastHeader(request.rawHeaders, 'if-none-match') === etag) return emptyAnswer(304, [['ETag', etag]])
  const answer = textAnswer(200, JSON_TYPE, text)
  return { ...answer, headers: [...answer.headers, ['ETag', etag]] }
}

function answerArtifact(request: HostRequest, vm: VmDocuments): Answer {
  if (lastHeader(request.rawHeaders, 'x-ms-artifact-location') === undefined) {
    return textAnswer(400, 'text/plain', 'x-ms-artifact-location is missing')
  }
  return {
    status: 200,
    headers: [['Content-Type', 'application/octet-stream']],
    body: { patternSizeBytes: vm.artifactSizeBytes },
  }
}

function answerStatus(request: HostRequest, context: HostgaContext): Answer {
  const put = parseJson(request.body) as
    | { requestUri?: unknown; headers?: unknown; content?: unknown }
    | null
    | undefined
  const hasContent = put?.content === undefined || typeof put.content === 'string'
  if (typeof put?.requestUri !== 'string' || !Array.isArray(put.headers) || !hasContent) return emptyAnswer(400)
  const content = typeof put.content === 'string' ? Buffer.from(put.content, 'base64') : undefined
  context.keepStatus({ requestUri: put.requestUri, content })
  return emptyAnswer(200)
}

function answerLog(request: HostRequest, context: HostgaContext): Answer {
  context.keepLog({ sizeBytes: request.bodySizeBytes, sha256: request.bodySha256 })
  return emptyAnswer(200)
}

/** Checks the two names a request carries. The text of a 400 says which header is missing, for people with curl. */
function refuseStale(request: HostRequest, vm: VmDocuments, asksConfigName: boolean): Answer | undefined {
  const containerId = lastHeader(request.rawHeaders, 'x-ms-containerid')
  if (containerId === undefined) return textAnswer(400, 'text/plain', 'x-ms-containerid is missing')
  if (containerId.toLowerCase() !== vm.containerId.toLowerCase()) {
    return textAnswer(400, 'text/plain', 'InvalidContainerConfiguration')
  }
  if (!asksConfigName) return undefined
  const config = lastHeader(request.rawHeaders, 'x-ms-host-config-name')
  if (config === undefined) return textAnswer(400, 'text/plain', 'x-ms-host-config-name is missing')
  return config === configName(vm) ? undefined : emptyAnswer(410)
}
