import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { Fd } from '../../src/sys/fd.ts'
import { isConnected, isListening, openDatagramSocket } from '../../src/sys/socket.ts'
import {
  type Accepted,
  acceptConnection,
  bindAndListen,
  boundTo,
  openTcpSocket,
  setNoDelay,
} from '../../src/sys/tcp-listener.ts'

const LOOPBACK = [127, 0, 0, 1]

/** Waits on this thread: nothing else runs meanwhile. */
function accept(listener: number): Accepted {
  for (const endMs = Date.now() + 10_000; Date.now() < endMs; ) {
    const accepted = acceptConnection(listener)
    if (typeof accepted === 'object') return accepted
    assert.equal(accepted, undefined)
  }
  return assert.fail('nobody connected')
}

/** Arguments for Node: connects, and then does `then` to `s`. */
function clientOf(port: number, then: string): string[] {
  const options = `{ port: ${port}, host: '127.0.0.1', localAddress: '127.0.0.3' }`
  return ['-e', `const s = require('node:net').connect(${options}, () => { ${then} })`]
}

test('a listener is bound where it is told, and a second one is refused', () => {
  using socket = openTcpSocket()
  bindAndListen(socket.number, LOOPBACK, 0, 8)
  const { address, port } = boundTo(socket.number)
  assert.equal(address, '127.0.0.1')
  assert.ok(port > 0)
  assert.equal(isListening(socket.number), true)
  using other = openTcpSocket()
  assert.throws(() => bindAndListen(other.number, LOOPBACK, port, 8), {
    code: 'LISTEN_REFUSED',
    errno: 98,
    message: 'Cannot listen: bind answered EADDRINUSE',
  })
})

test('acceptConnection() takes what waits at a listener, and says when nothing does', () => {
  using socket = openTcpSocket()
  bindAndListen(socket.number, LOOPBACK, 0, 8)
  setNoDelay(socket.number)
  assert.equal(acceptConnection(socket.number), undefined)
  const client = spawn(process.execPath, clientOf(boundTo(socket.number).port, ''), { stdio: 'ignore' })
  const { fd, peer } = accept(socket.number)
  using accepted = new Fd(fd, 'an accepted connection')
  assert.equal(peer?.address, '127.0.0.3')
  assert.ok(peer.port > 1023)
  assert.equal(isConnected(accepted.number), true)
  assert.match(readFileSync(`/proc/self/fdinfo/${accepted.number}`, 'latin1'), /^flags:\s+02004002$/m)
  client.kill()
})

test('acceptConnection() names no peer of a connection that was reset, whose port may be another’s by now', () => {
  using socket = openTcpSocket()
  bindAndListen(socket.number, LOOPBACK, 0, 8)
  spawnSync(process.execPath, clientOf(boundTo(socket.number).port, 's.resetAndDestroy()'))
  const { fd, peer } = accept(socket.number)
  using _accepted = new Fd(fd, 'an accepted connection')
  assert.equal(peer, undefined)
})

test('acceptConnection() tells why nothing can be had of what does not listen', () => {
  using datagram = openDatagramSocket()
  assert.equal(acceptConnection(datagram.number), -95)
  assert.equal(acceptConnection(-1), -9)
})
