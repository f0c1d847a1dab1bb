/**
 * The calls to the host that telemetry makes. Questions are signed with the key in use, if there is one; the upload is one
 * of the two that the host takes unsigned.
 */

import { IMDS, WIRESERVER } from '../base/endpoints.ts'
import { callHost, decodeBody, type HostCallOptions } from '../channel/host-call.ts'
import type { LatchedKey } from '../channel/secret-key.ts'
import type { PostTelemetry } from './telemetry-sender.ts'
import { type AskHost, PROTOCOL_VERSION } from './vm-metadata.ts'

export interface HostLink {
  readonly ask: AskHost
  readonly post: PostTelemetry
}

export interface HostLinkOptions extends Omit<HostCallOptions, 'address' | 'port'> {
  /** The key that signs now. */
  readonly key: () => LatchedKey | undefined
}

const UPLOAD_TARGET = '/machine/?comp=telemetrydata'

/** Makes the calls. */
export function createHostLink({ key, ...options }: HostLinkOptions): HostLink {
  return {
    async ask(endpoint, target, headers, signal) {
      const { address, port } = endpoint === 'imds' ? IMDS : WIRESERVER
      const signWith = key()
      const call = { method: 'GET', target, headers, ...(signWith && { signWith }) } as const
      const answer = await callHost(call, { ...options, address, port }, signal)
      return { status: answer.status, text: decodeBody(answer) }
    },
    async post(xml, signal) {
      const headers = [PROTOCOL_VERSION, ['content-type', 'text/xml; charset=utf-8']] as const
      const { address, port } = WIRESERVER
      const call = { method: 'POST', target: UPLOAD_TARGET, headers, body: xml } as const
      const answer = await callHost(call, { ...options, address, port }, signal)
      return { status: answer.status, retryAfter: answer.headers.get('retry-after') }
    },
  }
}
