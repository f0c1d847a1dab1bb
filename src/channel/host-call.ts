/**
 * One HTTP request of the agent itself to the host: a connection of its own, bounded in time and size.
 *
 * `node:http` rather than the pooled client, because the head must be exactly the one that was signed: host first
 * without a port, `content-length: 0` on a GET too, and no `connection` header. Neither redirects nor proxy settings
 * are followed.
 */

import { request as httpRequest, STATUS_CODES } from 'node:http'
import { AUTHORIZATION_HEADER, CLAIMS_HEADER, claimsValue, DATE_HEADER } from '../base/azure-headers.ts'
import { AgentError, describeErrno } from '../base/errors.ts'
import type { LatchedKey } from './secret-key.ts'
import { authorizationValue } from './sign.ts'

export interface HostCall {
  readonly method: 'GET' | 'POST'
  /** Origin-form target. */
  readonly target: string
  /** The caller's own headers, names in lower case. */
  readonly headers: readonly (readonly [name: string, value: string])[]
  readonly body?: string
  /** Signs the request with this key. */
  readonly signWith?: LatchedKey
}

export interface HostAnswer {
  readonly status: number
  readonly statusText: string
  /** First value of each header by lower-case name. */
  readonly headers: ReadonlyMap<string, string>
  readonly body: Buffer
}

export interface HostCallOptions {
  readonly address: string
  readonly port: number
  /** Value of the date header. */
  readonly httpDate: () => string
  /** Time for the whole call. */
  readonly timeoutMs: number
  /** Larger answers are refused. */
  readonly maxBodyBytes: number
}

/**
 * Sends `call` and reads the whole answer.
 * @throws AgentError `HOST_UNREACHABLE` when there was no connection, `HOST_CALL_FAILED` for all that went wrong later.
 * Messages name the target and the system's reason, never headers or bodies.
 */
export async function callHost(call: HostCall, options: HostCallOptions, signal?: AbortSignal): Promise<HostAnswer> {
  const body = Buffer.from(call.body ?? '', 'utf8')
  const headers = [
    DATE_HEADER,
    options.httpDate(),
    'host',
    options.address,
    CLAIMS_HEADER,
    claimsValue(true),
    'content-length',
    String(body.length),
    ...call.headers.flat(),
  ]
  if (call.signWith !== undefined) {
    const [path = '', query = ''] = splitOnce(call.target, '?')
    headers.push(
      AUTHORIZATION_HEADER,
      authorizationValue(call.signWith, {
        method: call.method,
        path,
        query,
        headers,
        body,
      }),
    )
  }
  const timeout = AbortSignal.timeout(options.timeoutMs)
  try {
    return await exchange(call, options, headers, body, signal ? AbortSignal.any([signal, timeout]) : timeout)
  } catch (error) {
    if (timeout.aborted) {
      throw new AgentError(
        'HOST_CALL_FAILED',
        `Failed to send request to ${call.target}: no complete answer within ${options.timeoutMs} ms`,
      )
    }
    throw error
  }
}

const CUT_OFF = 'the connection was closed before the answer was complete'

function exchange(
  call: HostCall,
  options: HostCallOptions,
  headers: string[],
  body: Buffer,
  signal: AbortSignal,
): Promise<HostAnswer> {
  const { address, port, maxBodyBytes } = options
  return new Promise((resolve, reject) => {
    let isConnected = false
    let isAnswered = false
    const fail = (error: Error) => reject(translate(error, call.target, isConnected))
    const request = httpRequest({
      host: address,
      port,
      method: call.method,
      path: call.target,
      headers,
      setDefaultHeaders: false,
      agent: false,
      signal,
    })
    request.on('socket', (socket) => socket.once('connect', () => (isConnected = true)))
    request.on('error', fail)
    // 101: nothing was asked to be upgraded. Node closes the socket without an error event, hence the two close handlers:
    // every way out must settle the promise, or one odd answer would end polling for good.
    request.on('close', () => {
      if (!isAnswered) fail(new Error('the connection was closed before an answer came'))
    })
    request.on('response', (response) => {
      isAnswered = true
      const chunks: Buffer[] = []
      let sizeBytes = 0
      response.on('error', () => fail(new Error(CUT_OFF)))
      response.on('close', () => fail(new Error(CUT_OFF)))
      response.on('data', (chunk: Buffer) => {
        sizeBytes += chunk.length
        if (sizeBytes > maxBodyBytes) {
          fail(new Error(`the answer is larger than ${maxBodyBytes} bytes`))
          request.destroy()
          return
        }
        chunks.push(chunk)
      })
      response.on('end', () => {
        const status = response.statusCode as number
        resolve({
          status,
          statusText: STATUS_CODES[status] ?? '',
          headers: firstValues(response.rawHeaders),
          body: Buffer.concat(chunks),
        })
        request.destroy()
      })
    })
    request.end(body)
  })
}

/** No error keeps its cause: those of Node's parser carry the bytes it read. */
function translate(error: Error, target: string, isConnected: boolean): AgentError {
  const { errno } = error as NodeJS.ErrnoException
  if (!isConnected && errno !== undefined) {
    return new AgentError('HOST_UNREACHABLE', describeErrno(errno))
  }
  const reason = errno === undefined ? error.message : describeErrno(errno)
  return new AgentError('HOST_CALL_FAILED', `Failed to send request to ${target}: ${reason}`)
}

function firstValues(rawHeaders: readonly string[]): Map<string, string> {
  const values = new Map<string, string>()
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = (rawHeaders[i] as string).toLowerCase()
    if (!values.has(name)) values.set(name, rawHeaders[i + 1] as string)
  }
  return values
}

function splitOnce(text: string, separator: string): string[] {
  const at = text.indexOf(separator)
  return at === -1 ? [text] : [text.slice(0, at), text.slice(at + 1)]
}

/**
 * Decodes a text body after all of it has arrived: UTF-8 with replacement, or little-endian UTF-16 when the content
 * type says so.
 * @throws AgentError `HOST_CALL_FAILED` for UTF-32.
 */
export function decodeBody(answer: HostAnswer): string {
  const type = (answer.headers.get('content-type') ?? '').toLowerCase()
  if (type.includes('utf-8')) return answer.body.toString('utf8')
  if (type.includes('utf-16')) return answer.body.toString('utf16le')
  if (type.includes('utf-32')) {
    throw new AgentError('HOST_CALL_FAILED', 'Deserialization failed: utf-32 charset is not supported')
  }
  return answer.body.toString('utf8')
}
