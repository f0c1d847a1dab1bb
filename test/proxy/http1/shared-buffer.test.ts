/** All client connections are read into one buffer: whatever is kept of what a connection took must be a copy. */

import assert from 'node:assert/strict'
import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { describe, test } from 'node:test'
import { setImmediate as nextRound } from 'node:timers/promises'
import { ServerConnection, type Turn } from '../../../src/proxy/http1/server-connection.ts'
import { PROXY_SERVER_DEFAULTS } from '../../../src/proxy/server.ts'

const BUFFER = Buffer.alloc(64 * 1024)

/** Another connection's bytes. */
const FOREIGN = 'Z'.charCodeAt(0)

type Take = (turn: Turn) => Promise<string>

const whole: Take = async (turn) => {
  const result = await turn.readBody(1_000_000)
  return result.kind === 'whole' ? result.body.toString('latin1') : result.kind
}
const streamed: Take = async (turn) => {
  let text = ''
  for await (const piece of turn.streamBody(1_000_000)) {
    await nextRound()
    text += piece.toString('latin1')
  }
  return text
}
const late =
  (take: Take): Take =>
  async (turn) => {
    await nextRound()
    return take(turn)
  }

/** Reads `stream` in pieces of `pieceBytes`, the buffer being used by others after each, and tells what was understood. */
async function understand(stream: string, pieceBytes: number, take: Take): Promise<string[]> {
  const understood: string[] = []
  // A client that takes every answer at once.
  const socket = new Duplex({ read: () => undefined, write: (_piece, _encoding, done) => done() })
  const connection = new ServerConnection(socket as Socket, PROXY_SERVER_DEFAULTS, () => 0, {
    async onRequest(turn) {
      const body = await take(turn)
      understood.push(`${turn.head.method} ${turn.head.target} ${turn.head.rawHeaders.join(':')} ${body}`)
      turn.answer(200, [], Buffer.from('done'), false)
    },
    onRefused: (status, detail) => void understood.push(`refused ${status} ${detail}`),
  })
  for (let at = 0; at < stream.length; at += pieceBytes) {
    while (socket.isPaused()) await nextRound()
    connection.take(BUFFER.subarray(0, BUFFER.write(stream.slice(at, at + pieceBytes), 'latin1')))
    BUFFER.fill(FOREIGN)
    await nextRound()
  }
  for (let round = 0; round < 50; round++) await nextRound()
  socket.destroy()
  return understood
}

describe('what a connection keeps is its own', () => {
  const body = 'abcdefghij'.repeat(2000)
  const sized = `POST /sized HTTP/1.1\r\nhost: a\r\ncontent-length: ${body.length}\r\n\r\n${body}`
  const chunks = `7d0\r\n${body.slice(0, 2000)}\r\n`.repeat(10)
  const chunked = `PUT /chunked HTTP/1.1\r\nhost: b\r\ntransfer-encoding: chunked\r\n\r\n${chunks}0\r\n\r\n`
  const short = 'GET /short HTTP/1.1\r\nhost: c\r\n\r\n'
  const stream = short + sized + short + chunked + short
  const expected = [
    'GET /short host:c ',
    `POST /sized host:a:content-length:${body.length} ${body}`,
    'GET /short host:c ',
    `PUT /chunked host:b:transfer-encoding:chunked ${body.slice(0, 2000).repeat(10)}`,
    'GET /short host:c ',
  ]
  const takes = { whole, streamed, 'whole, later': late(whole), 'streamed, later': late(streamed) }
  for (const [name, take] of Object.entries(takes))
    for (const pieceBytes of [7, 1500, 60_000])
      test(`bodies ${name}, in pieces of ${pieceBytes} bytes`, async () => {
        assert.deepEqual(await understand(stream, pieceBytes, take), expected)
      })
})
