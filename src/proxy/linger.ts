/**
 * Closes a connection whose request was answered before its body was read.
 *
 * Closing a socket with unread data makes the kernel send a reset, and a reset can overtake the answer: the client would
 * see a broken connection in place of a refusal. So our side is ended, and what still comes is read and dropped, for a
 * short time and a bounded amount.
 * Source: RFC 9112 section 9.6.
 */

import type { IncomingMessage } from 'node:http'

const LINGER_MS = 2000
const MAX_DROPPED_BYTES = 4 * 1024 * 1024

/** Makes the connection of `request` linger when its answer ends it. Call before the answer is ended. */
export function lingerAtEnd(request: IncomingMessage): void {
  const { socket } = request
  // `node:http` calls this method of the socket when the last answer has been written.
  socket.destroySoon = () => {
    socket.end()
    const timer = setTimeout(() => socket.destroy(), LINGER_MS)
    socket.once('close', () => clearTimeout(timer))
    request.once('end', () => socket.destroy())
    request.once('close', () => socket.destroy())
    const startBytes = socket.bytesRead
    request.on('data', () => {
      if (socket.bytesRead - startBytes > MAX_DROPPED_BYTES) socket.destroy()
    })
    request.resume()
  }
}
