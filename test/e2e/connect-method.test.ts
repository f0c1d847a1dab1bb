/** `CONNECT` makes Node's server let go of the socket: it must neither end the agent nor outlive its limits. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createMachine } from './machine.ts'

const GOAL_STATE = 'http://168.63.129.16/machine?comp=goalstate'

/** Sends requests and resets the connections at different moments. */
const RESETS = `
import socket, struct, sys, time
GET = b'GET /metadata/instance?api-version=2021-02-01 HTTP/1.1\\r\\nHost: x\\r\\nMetadata: true\\r\\n\\r\\n'
CONNECT = b'CONNECT x:1 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'
for address in (('127.0.0.1', 3080), ('169.254.169.254', 80)):
    for request in (CONNECT, GET + CONNECT, GET):
        for i in range(50):
            connection = socket.create_connection(address)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            connection.sendall(request)
            time.sleep(0.003 * (i % 5))
            connection.close()
print('done')
`

/** Leaves a connection open with a request that the host does not answer, and CONNECT behind it. */
const PENDING = `
import socket, time
connection = socket.create_connection(('168.63.129.16', 80))
connection.sendall(b'GET /machine?comp=goalstate HTTP/1.1\\r\\nHost: x\\r\\n\\r\\nCONNECT x:1 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')
print('sent', flush=True)
time.sleep(60)
`

test('CONNECT and a reset, 300 times and by any user, leave the agent alive', async () => {
  await using machine = await createMachine()
  const { stdout, stderr } = await machine.lab.run('/usr/bin/python3', ['-c', RESETS], { uid: 1000, gid: 1000 })
  assert.equal(stdout.trim(), 'done', stderr)
  assert.equal((await machine.curl([GOAL_STATE])).status, 200)
  assert.doesNotMatch(machine.agent.output(), /internal error/)
})

test('CONNECT behind a request in flight does not put an ordered stop off', async () => {
  await using machine = await createMachine()
  await machine.host.addFault({ endpoint: 'wireserver', path: '/machine', fault: { kind: 'never-answer' } })
  const client = machine.lab.spawn('/usr/bin/python3', ['-c', PENDING])
  await new Promise((resolve) => client.stdout.once('data', resolve))
  const startMs = performance.now()
  machine.agent.kill('SIGTERM')
  assert.deepEqual(await machine.agent.ended, { code: 0, signal: null })
  assert.ok(performance.now() - startMs < 5000)
})
