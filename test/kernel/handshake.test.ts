/**
 * When a record is filed, and for whom: clients that end early, that share a port, that never get an answer.
 *
 * With programs that file at TCP_CONNECT_CB, the half of the first test takes root's record.
 * The listener stands still while halves of connections gather in its queue; see `attack()` for the order of things.
 */

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, connect as dial } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fdOfSocket, isConnected } from '../../src/sys/socket.ts'
import { type Attack, attack, NOBODY, sourceOf, stateOf } from '../e2e/attacks/stage.ts'
import { waitFor } from '../e2e/machine.ts'
import { type Agent, connect, PYTHON, startAgent, startHost, type ToldRecord } from './agent.ts'
import { createLab, type Lab, reasonToSkip, SLOWNESS } from './lab.ts'

/** What the listener saw, in the order of accepting. */
interface Accepted {
  readonly peerPort?: number
  readonly connected: boolean
  readonly record?: ToldRecord
}

const POLICY = [{ address: '169.254.169.254', port: 80 }]
const REQUEST = 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'

const skip = reasonToSkip() ?? false

for (const kernel of [
  { name: 'a kernel in full', without: [] },
  { name: 'a kernel without socket storage', without: ['haveSocketStorage'] },
  { name: 'a kernel without netns in sock_ops', without: ['haveSockopsNetns'] },
] as const) {
  describe(`records on ${kernel.name}`, { skip, timeout: 30_000 * SLOWNESS }, () => {
    let lab: Lab
    let agent: Agent

    before(async () => {
      lab = createLab()
      await startHost(lab)
      agent = await startAgent(lab, kernel.without)
      await agent.ask({ do: 'policy', entries: POLICY })
    })
    after(() => lab[Symbol.asyncDispose]())

    const attackFrom = (sourcePort: number, script: Attack['script']) =>
      attack({
        lab,
        listener: agent.child,
        listenerPort: 3080,
        script,
        sourcePort,
        forged: REQUEST,
        caller: { address: '169.254.169.254', port: 80, request: REQUEST },
      })
    const counter = async (name: string) => Number((await agent.ask<Record<string, string>>({ do: 'counters' }))[name])

    test('a living half whose client timed out takes nothing of who dials from its port', async () => {
      const outcome = await attackFrom(45_101, 'orphan.py')
      assert.deepEqual([outcome.left, outcome.dialling], ['ESTABLISHED', 'SYN_SENT'])
      assert.equal(outcome.root.answer, 'HTTP/1.1 200 OK')
      const [orphan, root, ...more] = await agent.ask<Accepted[]>({ do: 'accepted' })
      assert.deepEqual(orphan, { peerPort: 45_101, connected: true })
      assert.deepEqual([root?.peerPort, root?.connected, root?.record?.uid], [45_101, true, 0])
      assert.deepEqual(more, [])
    })

    for (const row of [
      { situation: 'reset by its client', script: 'reset.py', sourcePort: 45_102 },
      { situation: 'reset because another client took the port beside it', script: 'squat.py', sourcePort: 45_103 },
    ] as const) {
      test(`a half in the queue, ${row.situation}, has no peer and takes nothing`, async () => {
        const outcome = await attackFrom(row.sourcePort, row.script)
        assert.equal(outcome.root.answer, 'HTTP/1.1 200 OK')
        const [dead, root, ...more] = await agent.ask<Accepted[]>({ do: 'accepted' })
        // Where the first packet of root ends the half only after the listener went on, it was accepted alive.
        if (dead?.peerPort === undefined) assert.deepEqual(dead, { connected: false })
        else assert.deepEqual(dead, { peerPort: row.sourcePort, connected: dead.connected })
        assert.deepEqual([root?.peerPort, root?.connected, root?.record?.uid], [row.sourcePort, true, 0])
        assert.deepEqual(more, [])
      })
    }

    test('a socket that ended before it took the record of another one is not connected any more', async () => {
      const folder = mkdtempSync(join(tmpdir(), 'apa-stall-'))
      chmodSync(folder, 0o755)
      const go = join(folder, 'go')
      await agent.ask({ do: 'stall', path: go })
      // It is accepted alive, and reset while the listener is busy; then root takes its port.
      const reset = ['-c', sourceOf('reset.py'), '45105', '3080', REQUEST, `${go}-reached`]
      await lab.run(PYTHON, reset, NOBODY)
      const connecting = connect(lab, '169.254.169.254:80', ['source=127.0.0.1:45105'])
      const isConnecting = () => stateOf(readFileSync(`/proc/${agent.child.pid}/net/tcp`, 'latin1'), 45_105, 3080)
      await waitFor(() => isConnecting() === 'ESTABLISHED', 'root to be connected')
      writeFileSync(go, '')
      await connecting
      rmSync(folder, { recursive: true })
      const [dead, root] = await agent.ask<Accepted[]>({ do: 'accepted' })
      assert.deepEqual([dead?.peerPort, dead?.record?.uid, dead?.connected], [45_105, 0, false])
      // What it costs: root is not known, which is refused, and may come again.
      assert.deepEqual(root, { peerPort: 45_105, connected: true })
    })

    test('each connection is counted once, when it is established', async () => {
      const names = ['redirected', 'recorded', 'direct', 'pendingLost', 'pendingStale'] as const
      const all = async () => Promise.all(names.map(counter))
      const before = await all()
      await connect(lab, '169.254.169.254:80')
      await connect(lab, '127.0.0.1:3080')
      const now = await all()
      assert.deepEqual(
        now.map((count, index) => count - before[index]!),
        [1, 1, 1, 0, 0],
      )
    })

    // Closes the listener, so it is the last.
    test('what a connect left that was turned away does not go to the next one', async () => {
      await agent.ask({ do: 'closeListener' })
      const before = { recorded: await counter('recorded'), pendingStale: await counter('pendingStale') }
      const { stdout, stderr } = await lab.run(PYTHON, ['-c', TURNED_AWAY_THEN_CONNECT])
      assert.deepEqual({ stdout, stderr }, { stdout: 'Connection refused, host\n', stderr: '' })
      assert.equal(await counter('pendingStale'), before.pendingStale + 1)
      assert.equal(await counter('recorded'), before.recorded)
      assert.equal(await agent.ask({ do: 'take', address: '127.0.0.1', port: 45_104 }), undefined)
    })
  })
}

describe('isConnected()', () => {
  test('tells a living socket, one half closed by its peer, and one that was reset', async () => {
    const server = createServer({ allowHalfOpen: true })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as { port: number }
    const client = dial({ host: '127.0.0.1', port, allowHalfOpen: true })
    const [socket] = await once(server, 'connection')
    const fd = fdOfSocket(socket)
    socket.on('error', () => undefined)
    try {
      assert.equal(isConnected(fd), true)
      client.end()
      await once(socket.resume(), 'end')
      assert.equal(isConnected(fd), true)
      client.resetAndDestroy()
      await once(client, 'close')
      // The kernel has it at once; the listener's side learns of it when it looks, so its descriptor is open still.
      assert.deepEqual([isConnected(fd), fdOfSocket(socket)], [false, fd])
    } finally {
      socket.destroy()
      server.close()
    }
  })

  test('says no of what is no connection', () => {
    assert.equal(isConnected(0x7fff_ffff), false)
  })
})

/** A socket that was redirected and refused, and then goes where nobody is redirected, from the same port. */
const TURNED_AWAY_THEN_CONNECT = `
import socket
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('127.0.0.1', 45104))
first = None
try:
    s.connect(('169.254.169.254', 80))
except OSError as error:
    first = error.strerror
s.connect(('168.63.129.16', 80))
s.send(b'GET / HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n')
answer = b''
while chunk := s.recv(65536):
    answer += chunk
print(first + ', ' + ('host' if b'"host"' in answer else 'other'))
`
