/** The three calls of the secure channel, as the host's WireServer offers them. */

import { DATE_HEADER } from '../base/azure-headers.ts'
import { AgentError, describeError } from '../base/errors.ts'
import { callHost, decodeBody, type HostAnswer, type HostCallOptions } from './host-call.ts'
import { parseLatchedKey } from './key-document.ts'
import { type KeyStatus, parseKeyStatus, type RuleParser } from './key-status.ts'
import type { LatchedKey } from './secret-key.ts'
import { AUTHORIZATION_SCHEME } from './sign.ts'

/** What the key keeper asks of the host. Every call is bounded in time and rejects with an `AgentError`. */
export interface HostChannel {
  /** Polls the status. The dates of the answer are handed to `onDate` before its body is read. */
  getStatus(signal?: AbortSignal): Promise<KeyStatus>
  /** Asks for a new key. */
  acquireKey(signal?: AbortSignal): Promise<LatchedKey>
  /** Proves that the key arrived, signing with the key itself. */
  attestKey(key: LatchedKey, signal?: AbortSignal): Promise<void>
}

export interface HostChannelOptions extends HostCallOptions {
  readonly rules: RuleParser
  /** Receives `x-ms-azure-host-date` and `Date` of each successful status answer. */
  readonly onDate: (hostDate: string | undefined, date: string | undefined) => void
}

/** The trailing blank is what existing agents send. */
const METADATA = ['metadata', 'True '] as const

const STATUS_TARGET = '/secure-channel/status'
const KEY_TARGET = '/secure-channel/key'

/** Makes the calls to the host at `options.address`. */
export function createHostChannel(options: HostChannelOptions): HostChannel {
  /** The last status as the host wrote it and as it was read: from one poll to the next it is mostly the same. */
  let last: { readonly text: string; readonly status: KeyStatus } | undefined
  return {
    async getStatus(signal) {
      const answer = await callHost({ method: 'GET', target: STATUS_TARGET, headers: [METADATA] }, options, signal)
      if (answer.status < 200 || answer.status > 299) {
        const url = `http://${options.address}:${options.port}${STATUS_TARGET}`
        throw new AgentError(
          'HOST_CALL_FAILED',
          `Failed to get response from ${url}, status code: ${answer.status} ${answer.statusText}`.trimEnd(),
        )
      }
      options.onDate(answer.headers.get(DATE_HEADER), answer.headers.get('date'))
      const text = decodeBody(answer)
      if (text !== last?.text) last = { text, status: parseKeyStatus(text, options.rules) }
      return last.status
    },

    async acquireKey(signal) {
      const answer = await callNamed('acquire', () =>
        callHost(
          {
            method: 'POST',
            target: KEY_TARGET,
            headers: [METADATA, ['content-type', 'application/json']],
            body: `{"authorizationScheme": "${AUTHORIZATION_SCHEME}"}`,
          },
          options,
          signal,
        ),
      )
      return parseLatchedKey(decodeBody(answer))
    },

    async attestKey(key, signal) {
      const target = `${KEY_TARGET}/${key.guid}/key-attestation`
      await callNamed('attest', () =>
        callHost({ method: 'POST', target, headers: [METADATA], signWith: key }, options, signal),
      )
    },
  }
}

/** Runs one key call; any status but 200 is a failure in the words that existing tools know. */
async function callNamed(name: 'acquire' | 'attest', run: () => Promise<HostAnswer>): Promise<HostAnswer> {
  let answer: HostAnswer
  try {
    answer = await run()
  } catch (error) {
    throw new AgentError('KEY_REQUEST_FAILED', `Key(SendKeyRequest("${name}", "${describeError(error)}"))`)
  }
  if (answer.status !== 200) throw new AgentError('KEY_REFUSED', `Key(KeyResponse("${name}", ${answer.status}))`)
  return answer
}
