/** A client that writes exactly the bytes it is given, for tests about bytes; and signs with the host's own rules. */

import { createHmac } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import type { Address } from './host-control.ts'
import { AUTHORIZATION_HEADER, stringToSign } from './string-to-sign.ts'

/** What came back over one connection, as latin-1 text. */
export interface RawReply {
  readonly text: string
  /** The status of the last head; 0 when there is none. */
  readonly status: number
  readonly headText: string
  readonly body: string
  /** How the other side ended: `open` when the time was up first. */
  readonly ended: 'closed' | 'reset' | 'open'
}

/** A request to be written. Headers are name and value pairs, sent as they are; `Host` and lengths are not added. */
export interface RawRequest {
  method: string
  target: string
  headers: readonly (readonly [string, string])[]
  body?: Uint8Array | string
}

/** Writes a request on the wire. */
export function requestBytes({ method, target, headers, body = '' }: RawRequest): Buffer {
  const lines = headers.map(([name, value]) => `${name}: ${value}\r\n`).join('')
  return Buffer.concat([Buffer.from(`${method} ${target} HTTP/1.1\r\n${lines}\r\n`, 'latin1'), Buffer.from(body)])
}

/** Adds claims, date and a signature to a request. @param atMs the time it claims to be made. */
export function signed(request: RawRequest, key: { guid: string; keyHex: string }, atMs = Date.now()): RawRequest {
  const withClaims: (readonly [string, string])[] = [
    ...request.headers,
    ['x-ms-azure-host-claims', '{ "isRoot": "true"}'],
    ['x-ms-azure-host-date', new Date(atMs).toUTCString()],
  ]
  const text = stringToSign({ ...request, rawHeaders: withClaims.flat() }, Buffer.from(request.body ?? ''))
  const signature = createHmac('sha256', Buffer.from(key.keyHex, 'hex')).update(text).digest('hex')
  return {
    ...request,
    headers: [...withClaims, [AUTHORIZATION_HEADER, `Azure-HMAC-SHA256 ${key.guid} ${signature}`]],
  }
}

/**
 * Sends bytes over a connection of their own and collects what comes back until the other side ends, or for `forMs`.
 * Use `Connection: close` in the request to have the other side end.
 */
export function exchange(address: Address, bytes: Uint8Array, forMs = 3000): Promise<RawReply> {
  return new Promise((resolve) => {
    const pieces: Buffer[] = []
    const socket: Socket = connect(address)
    const finish = (ended: RawReply['ended']) => {
      clearTimeout(timer)
      socket.destroy()
      resolve(parseReply(Buffer.concat(pieces).toString('latin1'), ended))
    }
    const timer = setTimeout(() => finish('open'), forMs)
    socket.on('data', (piece: Buffer) => pieces.push(piece))
    socket.on('error', () => finish('reset'))
    socket.on('end', () => finish('closed'))
    socket.write(bytes)
  })
}

function parseReply(text: string, ended: RawReply['ended']): RawReply {
  let at = 0
  while (/^HTTP\/1\.1 1\d\d /.test(text.slice(at)) && text.includes('\r\n\r\n', at))
    at = text.indexOf('\r\n\r\n', at) + 4
  const end = text.indexOf('\r\n\r\n', at)
  const headText = end === -1 ? text.slice(at) : text.slice(at, end)
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(headText)?.[1] ?? 0)
  return { text, status, headText, body: end === -1 ? '' : text.slice(end + 4), ended }
}
