import assert from 'node:assert/strict'
import { once } from 'node:events'
import { after, before, describe, test } from 'node:test'
import { type Agent, connect, PYTHON, startAgent, startHost } from './agent.ts'
import { createLab, isKernelSince, type Lab, reasonToSkip, SLOWNESS } from './lab.ts'

const skip = reasonToSkip()
const IMDS = '169.254.169.254:80'
const POLICY = [{ address: '169.254.169.254', port: 80 }]
const TIMEOUT_MS = 60_000 * SLOWNESS

/** Reads what the programs counted. */
const counterOf = async (agent: Agent, name: string) =>
  Number((await agent.ask<Record<string, string>>({ do: 'counters' }))[name])

describe('other network namespaces that are denied', { skip, timeout: TIMEOUT_MS }, () => {
  let lab: Lab
  let agent: Agent
  let netns: string

  before(async () => {
    lab = createLab()
    netns = lab.addNamespace()
    await startHost(lab)
    await startHost(lab, netns)
    agent = await startAgent(lab, [], [], { containers: 'deny' })
    await agent.ask({ do: 'policy', entries: POLICY })
  })
  after(() => lab?.[Symbol.asyncDispose]())

  for (const row of [
    { socket: 'an IPv4 socket', to: IMDS, args: [] },
    { socket: 'an IPv6 socket and a mapped address', to: `::ffff:${IMDS}`, args: ['family=6'] },
  ]) {
    test(`cannot connect with ${row.socket}, which is counted`, async () => {
      const before = await counterOf(agent, 'denied')
      const told = await connect(lab, row.to, row.args, { netns })
      assert.deepEqual([told.answer, told.error], [undefined, 'Operation not permitted'])
      assert.equal(await counterOf(agent, 'denied'), before + 1)
    })
  }

  for (const row of [
    { situation: 'a destination that is not guarded', to: '169.254.169.254:8080', options: {} },
    { situation: 'a process outside the cgroup', to: IMDS, options: { inCgroup: false } },
  ]) {
    test(`are left alone for ${row.situation}`, async () => {
      assert.equal((await connect(lab, row.to, [], { netns, ...row.options })).answer?.who, 'host')
    })
  }

  test("do not keep the agent's own from being redirected", async () => {
    assert.equal((await connect(lab, IMDS)).answer?.who, 'listener')
  })
})

describe('other network namespaces that are served', {
  skip: skip ?? (!isKernelSince(5, 14) && 'this kernel does not tell the cookie of a namespace, and denies'),
  timeout: TIMEOUT_MS,
}, () => {
  const SERVE_AFTER_MS = 60

  test('have their first connect held until the listener is there', async () => {
    await using lab = createLab()
    const netns = lab.addNamespace()
    const agent = await startAgent(lab, [], [], { containers: 'serve', serveAfterMs: SERVE_AFTER_MS })
    await agent.ask({ do: 'policy', entries: POLICY })
    const { answer, me } = await connect(lab, IMDS, ['source=127.0.0.1:45001'], { netns, uid: 1000, gid: 1000 })
    assert.equal(answer?.who, 'listener')
    const { record } = answer
    assert.deepEqual([record?.pid, record?.uid, record?.destination.address], [me.pid, 1000, '169.254.169.254'])
    assert.ok(Number(answer.ageNs) >= SERVE_AFTER_MS * 1e6, `connected after ${answer.ageNs} ns`)
    assert.equal(await counterOf(agent, 'held'), 1)
    // Known by now.
    assert.equal((await connect(lab, IMDS, ['source=127.0.0.1:45002'], { netns })).answer?.record?.comm, 'python3')
    assert.equal(await counterOf(agent, 'held'), 1)
  })

  for (const row of [
    { socket: 'an IPv6 socket and a mapped address', to: `::ffff:${IMDS}`, args: ['family=6'] },
    { socket: 'an MPTCP socket', to: IMDS, args: ['proto=mptcp'] },
    { socket: 'TCP Fast Open', to: IMDS, args: ['proto=tfo'] },
    { socket: 'another loopback address as source', to: IMDS, args: ['source=127.0.0.2:45001'] },
  ]) {
    test(`have their first connect held with ${row.socket}`, async (t) => {
      await using lab = createLab()
      const netns = lab.addNamespace()
      const agent = await startAgent(lab, [], [], { containers: 'serve', serveAfterMs: SERVE_AFTER_MS })
      await agent.ask({ do: 'policy', entries: POLICY })
      const { answer, error, me } = await connect(lab, row.to, row.args, { netns })
      if (error === 'Protocol not supported' && !isKernelSince(6, 1)) return t.skip('this kernel has no MPTCP')
      assert.equal(answer?.record?.pid, me.pid)
      assert.equal(await counterOf(agent, 'held'), 1)
    })
  }

  test('let no packet out to who sits on the port, and deny from then on', async () => {
    await using lab = createLab()
    const netns = lab.addNamespace()
    const thief = lab.spawn(PYTHON, ['-c', THIEF], { netns })
    let stolen = ''
    thief.stdout.on('data', (text) => {
      stolen += text
    })
    await once(thief.stdout, 'data')
    const agent = await startAgent(lab, [], [], { containers: 'serve', serveAfterMs: SERVE_AFTER_MS })
    await agent.ask({ do: 'policy', entries: POLICY })
    assert.equal((await connect(lab, IMDS, [], { netns })).answer, undefined)
    assert.equal((await connect(lab, IMDS, [], { netns })).error, 'Operation not permitted')
    assert.equal(stolen, 'ready\n')
  })

  test('let no handshake end with who opens from the port at the same time', async () => {
    await using lab = createLab()
    const netns = lab.addNamespace()
    const agent = await startAgent(lab, [], [], { containers: 'serve', serveAfterMs: 10 * SERVE_AFTER_MS })
    await agent.ask({ do: 'policy', entries: POLICY })
    const thief = lab.run(PYTHON, ['-c', SIMULTANEOUS_THIEF], { netns, uid: 1001, gid: 1001 })
    const told = await connect(lab, IMDS, ['source=127.0.0.1:45001'], { netns })
    // Whether the thief's socket still has the port when the agent comes decides between these two.
    assert.notEqual(told.answer?.who, 'host')
    assert.doesNotMatch((await thief).stdout, /connected/)
  })

  test('are asked for on a kernel that cannot hold: the first connect fails, a later one is served', async () => {
    await using lab = createLab()
    const netns = lab.addNamespace()
    const agent = await startAgent(lab, ['haveSocketStorage'], [], { containers: 'serve' })
    await agent.ask({ do: 'policy', entries: POLICY })
    // The one that fails has to stay until its namespace was looked at: a client that ends at once could not be found.
    const script = `import socket, sys, time
for attempt in range(200):
    try:
        socket.create_connection(("169.254.169.254", 80), 5)
        print(attempt)
        break
    except PermissionError:
        time.sleep(0.02)`
    const { stdout } = await lab.run(PYTHON, ['-c', script], { netns })
    assert.ok(Number(stdout) >= 1 && Number(stdout) < 200, stdout)
  })
})

const THIEF = `import socket
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", 3080))
s.listen()
print("ready", flush=True)
while True:
    s.accept()
    print("stolen", flush=True)`

/** Opens to where the client connects from, from where it connects to: a handshake without a listener. */
const SIMULTANEOUS_THIEF = `import socket, time
end = time.monotonic() + 3
while time.monotonic() < end:
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.settimeout(0.3)
    try:
        s.bind(("127.0.0.1", 3080))
        s.connect(("127.0.0.1", 45001))
        print("connected", s.recv(100), flush=True)
    except OSError:
        pass
    s.close()
    time.sleep(0.01)`
