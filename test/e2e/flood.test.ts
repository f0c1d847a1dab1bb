/**
 * What one unprivileged user can do by doing much of it: others must still be heard, told and counted, and the agent must
 * stay small. Counts are large enough to fail where nothing bounds them, and small enough for a few seconds.
 */

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { createMachine, type Machine, waitFor } from './machine.ts'

const MALLORY = { uid: 1000, gid: 1000 }
const BOB = { uid: 33, gid: 33 }

const logBytes = (machine: Machine) =>
  machine.read('log', 'ProxyAgent.log').length + machine.read('log', 'ProxyAgent.Connection.log').length

const rssMiB = (machine: Machine) =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${machine.agent.pid}/status`, 'latin1'))?.[1]) / 1024

/** Runs a script as the unprivileged user, in the guarded cgroup. It must end well. */
async function attack(machine: Machine, script: string): Promise<string> {
  const { code, stdout, stderr } = await machine.lab.run(
    '/usr/bin/python3',
    ['-c', `import socket\n${script}`],
    MALLORY,
  )
  assert.deepEqual({ code, stderr }, { code: 0, stderr: '' })
  return stdout
}

describe('one user', () => {
  test('does not fill the log, or telemetry, with what he does a thousand times', async () => {
    const config = { fileLogLevel: 'Info', fileLogLevelForEvents: 'Info', telemetryIntervalInSeconds: 1 }
    await using machine = await createMachine({ config })
    const countEvents = async () =>
      (await machine.host.readState()).telemetry.reduce((count, { events }) => count + events.length, 0)
    await waitFor(async () => (await countEvents()) > 0, 'what is told of the start')
    const deeds: readonly (readonly [deed: string, script: string])[] = [
      [
        'connections that are reset at once',
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\\1\\0\\0\\0\\0\\0\\0\\0')",
      ],
      ['questions without Metadata', "s.sendall(b'GET /provision HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); s.recv(1000)"],
      [
        'requests for the status',
        "s.sendall(b'GET /gpa-aggregated-status HTTP/1.1\\r\\nMetadata: x\\r\\nHost: x\\r\\n\\r\\n'); s.recv(1000)",
      ],
      ['nonsense', "s.sendall(b'\\0\\0\\0\\0\\r\\n\\r\\n'); s.recv(1000)"],
      ['direct requests', "s.sendall(b'GET /%d HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' % i); s.recv(1000)"],
    ]
    for (const [deed, script] of deeds) {
      const before = logBytes(machine)
      await attack(
        machine,
        `for i in range(1000):\n  s = socket.create_connection(('127.0.0.1', 3080)); ${script}; s.close()`,
      )
      await sleep(300)
      const grown = logBytes(machine) - before
      assert.ok(grown < 4096, `1000 ${deed} wrote ${grown} bytes`)
    }
    const log = machine.read('log', 'ProxyAgent.Connection.log')
    assert.match(log, /Answered 400 to user 'direct': No Metadata header found in the request\./)
    assert.match(log, /Answered 403 to user 'direct': Status refused/)
    assert.doesNotMatch(machine.read('log', 'ProxyAgent.log'), /\[ERROR\]/)
    // A round of telemetry, and the pause between two payloads.
    await sleep(3500)
    assert.ok((await countEvents()) < 60, `${await countEvents()} events for a start and five thousand deeds`)
  })

  test('does not hide the denials of others behind his own', async () => {
    await using machine = await createMachine({ config: { fileLogLevel: 'Info' } })
    // A process may rewrite its own arguments, proc_pid_stat(5) says where they are: field 48.
    await attack(
      machine,
      `import ctypes
start = int(open('/proc/self/stat').read().rsplit(')', 1)[1].split()[45])
for i in range(1100):
  ctypes.memmove(start, b'%06d' % i, 6)
  s = socket.create_connection(('168.63.129.16', 80)); s.sendall(b'GET /machine HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); s.recv(100); s.close()`,
    )
    assert.equal((await machine.curl(['http://168.63.129.16/machine?comp=theft'], BOB)).status, 403)
    const log = () => machine.read('log', 'ProxyAgent.Connection.log')
    await waitFor(() => log().includes('/machine?comp=theft'), 'the denial to be told')
    assert.ok(log().length < 300_000, `1100 denials wrote ${log().length} bytes`)
    const { body } = await machine.curl(['-H', 'Metadata: 1', 'http://168.63.129.16/gpa-aggregated-status'])
    const denied: { userName: string; processFullPath: string; processCmdLine: string; count: number }[] =
      JSON.parse(body).failedAuthenticateSummary
    const others = denied.filter(({ processFullPath }) => processFullPath.includes('curl'))
    assert.deepEqual(
      others.map(({ processCmdLine, count }) => `${processCmdLine} ${count}`),
      ['curl --silent --show-error --include 1'],
    )
    assert.ok(denied.length < 60, `${denied.length} keys`)
    assert.equal(
      denied.reduce((sum, { count }) => sum + count, 0),
      1101,
      'none went uncounted',
    )
  })

  test('makes the agent hold little of what he writes without reading', async () => {
    await using machine = await createMachine({ config: { fileLogLevel: 'Info' } })
    // Nothing flows, so that only what is held counts, and not what the collector has not come to.
    await machine.host.addFault({ endpoint: 'imds', fault: { kind: 'never-answer' } })
    const before = rssMiB(machine)
    let peak = 0
    const timer = setInterval(() => {
      peak = Math.max(peak, rssMiB(machine))
    }, 50).unref()
    const attacking = attack(
      machine,
      `import time
text = (b'GET /metadata/instance?api-version=2021-02-01 HTTP/1.1\\r\\nHost: x\\r\\nMetadata: true\\r\\nx-a: ' + b'a' * 30000 + b'\\r\\n\\r\\n') * 60
sockets = []
for i in range(300):
  s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2000); s.connect(('169.254.169.254', 80)); s.setblocking(False)
  sockets.append([s, memoryview(text)])
end = time.time() + 4
while time.time() < end:
  for each in sockets:
    try: each[1] = each[1][each[0].send(each[1]):]
    except BlockingIOError: pass
  time.sleep(0.01)`,
    )
    const probing = sleep(2000).then(async () => {
      const startMs = performance.now()
      const { status } = await machine.curl(['http://168.63.129.16/machine?comp=goalstate'])
      return { status, tookMs: performance.now() - startMs }
    })
    const [{ status, tookMs }] = await Promise.all([probing, attacking])
    clearInterval(timer)
    assert.equal(status, 200)
    assert.ok(peak - before < 150, `the agent grew by ${Math.round(peak - before)} MiB`)
    assert.ok(tookMs < 3000, `root waited ${Math.round(tookMs)} ms`)
  })

  test('does not take the places of others', async () => {
    await using machine = await createMachine({ config: { fileLogLevel: 'Info' } })
    const open = await attack(
      machine,
      `import resource, select, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
sockets = [socket.create_connection(('169.254.169.254', 80)) for i in range(1200)]
time.sleep(1)
poll = select.poll()
for s in sockets: poll.register(s, select.POLLIN)
print(len(sockets) - len(poll.poll(0)))`,
    )
    assert.equal(Number(open), 1024)
    assert.equal((await machine.curl(['http://168.63.129.16/machine?comp=goalstate'])).status, 200)
    await waitFor(
      () => machine.read('log', 'ProxyAgent.Connection.log').includes('the user has 1024 others'),
      'the refusal to be told',
    )
  })
})
