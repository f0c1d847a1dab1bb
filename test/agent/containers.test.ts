import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { type ContainersLimits, createContainers } from '../../src/agent/containers.ts'
import { AgentError } from '../../src/base/errors.ts'
import type { NetnsAsk } from '../../src/ebpf/records.ts'
import type { Redirector } from '../../src/ebpf/redirector.ts'
import type { ProxyServer } from '../../src/proxy/server.ts'
import { Fd } from '../../src/sys/fd.ts'
import { SyscallError } from '../../src/sys/syscall-error.ts'
import { createFakeClock } from '../fakes/clock.ts'
import { createFakeLog } from '../fakes/log.ts'

/** A machine of namespaces: cookie and inode are one number, and so is the pid of who lives there. */
interface FakeMachine {
  /** By pid: the namespace, and who owns it. */
  readonly processes: Map<number, { readonly netns: number; readonly ownerUid: number }>
  /** Why nobody can listen in a namespace. */
  readonly obstacles: Map<number, Error>
  /** Of listeners, by namespace. */
  readonly listening: Set<number>
  /** Of these: destroyed by somebody. */
  readonly deaf: Set<number>
  /** Of these: refused by the kernel as a place to send connects to. */
  readonly unadmitted: Set<number>
  /** What is kept for the next agent, by namespace. */
  readonly kept: Map<bigint, number>
  readonly asks: Map<bigint, NetnsAsk>
  readonly refused: Set<bigint>
  readonly served: Set<bigint>
  looks: number
}

interface Situation {
  readonly limits?: ContainersLimits
  /** Left by an earlier agent: descriptors by namespace. */
  readonly inherited?: ReadonlyMap<bigint, number>
  /** Namespaces in which a process lives from the start. */
  readonly inhabited?: readonly number[]
}

function containers(t: TestContext, { limits, inherited = new Map(), inhabited = [] }: Situation = {}) {
  const machine: FakeMachine = {
    processes: new Map(inhabited.map((netns) => [netns, { netns, ownerUid: 0 }])),
    obstacles: new Map(),
    listening: new Set(),
    deaf: new Set(),
    unadmitted: new Set(),
    kept: new Map(inherited),
    asks: new Map(),
    refused: new Set(),
    served: new Set(),
    looks: 0,
  }
  const clock = createFakeClock()
  const log = createFakeLog()
  let ring: (() => void) | undefined
  const createRedirector = (hasBell = true): Redirector =>
    ({
      admitListener(fd: number) {
        if (machine.unadmitted.has(fd - 1000)) throw new Error('not admitted')
      },
      setServed(netns: bigint, isServed: boolean) {
        if (isServed) assert.ok(machine.listening.has(Number(netns)), 'connects are sent where nobody listens')
        machine.served[isServed ? 'add' : 'delete'](netns)
      },
      readAsks: (atMost: number) => [...machine.asks.values()].slice(0, atMost),
      refuse(netns: bigint) {
        machine.asks.delete(netns)
        machine.refused.add(netns)
      },
      withdraw(netns: bigint) {
        machine.asks.delete(netns)
        machine.refused.delete(netns)
      },
      watchAsks(onAsk: () => void) {
        if (!hasBell) return undefined
        ring = onAsk
        return { [Symbol.dispose]: () => (ring = undefined) }
      },
    }) as Partial<Redirector> as Redirector
  const server = {
    adopt(_fd: number, netns: bigint) {
      machine.listening.add(Number(netns))
      return {
        [Symbol.dispose]() {
          assert.ok(!machine.served.has(netns), 'connects are still sent there')
          machine.listening.delete(Number(netns))
        },
      }
    },
  } as Partial<ProxyServer> as ProxyServer
  const part = createContainers({
    env: {
      openNamespace(path) {
        const lives = machine.processes.get(Number(path.split('/')[2]))
        if (lives === undefined) throw new AgentError('NETNS_NOT_OPENED', 'Cannot open: ENOENT')
        return {
          inode: lives.netns,
          ownerUid: lives.ownerUid,
          listen() {
            const obstacle = machine.obstacles.get(lives.netns)
            if (obstacle !== undefined) throw obstacle
            return new Fd(1000 + lives.netns, 'listener')
          },
          [Symbol.dispose]() {},
        }
      },
      namespaceOf: (pid) => machine.processes.get(pid)?.netns,
      pids() {
        machine.looks++
        return [...machine.processes.keys()]
      },
      isListening: (fd) => !machine.deaf.has(fd - 1000),
      openNamespaceOf(fd, expectedCookie) {
        const netns = fd - 1000
        if (BigInt(netns) !== expectedCookie) throw new AgentError('NETNS_IS_ANOTHER', 'Cannot use a listener')
        const unused = () => assert.fail('a listener is there')
        return { inode: netns, ownerUid: 0, listen: unused, [Symbol.dispose]() {} }
      },
    },
    clock,
    log,
    store: {
      inherited,
      keep: (netns, fd) => void machine.kept.set(netns, fd),
      drop: (netns) => void machine.kept.delete(netns),
    },
    ...(limits && { limits }),
  })
  const stopping = new AbortController()
  t.after(() => stopping.abort())
  part.setServer(server)
  part.setRedirector(createRedirector())
  void part.run(stopping.signal)
  /** Somebody connects in a namespace, where he lives from now on. */
  const connect = (netns: number, { pid = netns, ownerUid = 0 } = {}) => {
    machine.processes.set(pid, { netns, ownerUid })
    machine.asks.set(BigInt(netns), { netnsCookie: BigInt(netns), pid, tid: 0 })
    ring?.()
  }
  const passes = async (ms: number) => {
    await clock.advance(ms)
    for (let i = 0; i < 5; i++) await turn()
  }
  return {
    machine,
    part,
    log,
    server,
    createRedirector,
    connect,
    passes,
    served: () => [...machine.served].map(Number),
  }
}

const refusedBecause = (errno: number) =>
  new SyscallError('LISTEN_REFUSED', 'Cannot listen', { command: 'bind', errno })

describe('createContainers()', () => {
  test('serves a namespace that asks, at once', (t) => {
    const { connect, served, machine, part } = containers(t)
    connect(7)
    assert.deepEqual(served(), [7])
    assert.equal(machine.asks.size, 0)
    assert.equal(part.state().served, 1)
  })

  test('looks by itself where the kernel does not wake it', async (t) => {
    const { connect, served, part, createRedirector, passes } = containers(t)
    part.setRedirector(createRedirector(false))
    await passes(2000)
    connect(7)
    assert.deepEqual(served(), [])
    await passes(20)
    assert.deepEqual(served(), [7])
  })

  test('answers more asks than one look takes', async (t) => {
    const { machine, part, passes } = containers(t)
    for (let netns = 1; netns <= 100; netns++) {
      machine.processes.set(netns, { netns, ownerUid: 0 })
      machine.asks.set(BigInt(netns), { netnsCookie: BigInt(netns), pid: netns, tid: 0 })
    }
    await passes(2000)
    assert.equal(part.state().served, 100)
  })

  test('closes the listener when the last process has left, and looks at all processes only when a known one has', async (t) => {
    const { connect, served, machine, passes } = containers(t)
    machine.processes.set(1, { netns: 7, ownerUid: 0 })
    connect(7, { pid: 2 })
    await passes(2000)
    assert.equal(machine.looks, 0)
    machine.processes.delete(2)
    await passes(2000)
    assert.deepEqual([served(), machine.looks], [[7], 1])
    machine.processes.delete(1)
    await passes(2000)
    assert.deepEqual([served(), [...machine.listening]], [[], []])
  })

  test('closes a listener that somebody has destroyed, and serves again who asks again', async (t) => {
    const { connect, served, machine, passes } = containers(t)
    connect(7)
    machine.deaf.add(7)
    await passes(2000)
    assert.deepEqual([served(), [...machine.listening], [...machine.kept]], [[], [], []])
    machine.deaf.clear()
    connect(7)
    assert.deepEqual(served(), [7])
  })

  test('leaves each listener as long as it is open', async (t) => {
    const { connect, machine, passes } = containers(t)
    connect(7)
    connect(8)
    assert.deepEqual([...machine.kept.keys()], [7n, 8n])
    machine.processes.delete(7)
    await passes(2000)
    assert.deepEqual([...machine.kept.keys()], [8n])
  })

  test('goes on with listeners that were left, as long as somebody lives there', async (t) => {
    const left = [7n, 8n].map((netns) => [netns, 1000 + Number(netns)] as const)
    const { machine, served, connect, part, passes } = containers(t, { inherited: new Map(left), inhabited: [8] })
    assert.deepEqual([served(), [...machine.listening], [...machine.kept.keys()]], [[8], [8], [8n]])
    connect(8)
    assert.deepEqual([machine.asks.size, part.state().served], [0, 1])
    machine.processes.clear()
    await passes(2000)
    assert.deepEqual([served(), [...machine.listening], [...machine.kept.keys()]], [[], [], []])
  })

  for (const row of [
    {
      situation: 'the port is taken',
      error: refusedBecause(98),
      reason: 'port_taken',
      told: /port 3080 is taken there/,
    },
    {
      situation: 'loopback is down',
      error: new AgentError('NETNS_LOOPBACK_DOWN', 'down'),
      reason: 'loopback_down',
      told: /loopback interface is down/,
    },
    { situation: 'the kernel refuses', error: refusedBecause(12), reason: 'error', told: /Cannot listen/ },
  ] as const) {
    test(`refuses where ${row.situation}, says so once, and tries again later`, async (t) => {
      const { connect, served, machine, part, log, passes } = containers(t)
      machine.obstacles.set(7, row.error)
      connect(7)
      assert.deepEqual([served(), [...machine.refused]], [[], [7n]])
      await passes(2000)
      connect(7)
      assert.equal(part.state().refused[row.reason], 2)
      assert.equal(log.lines.filter((line) => row.told.test(line)).length, 1)
      machine.obstacles.clear()
      await passes(2000)
      assert.deepEqual([...machine.refused], [])
      connect(7)
      assert.deepEqual(served(), [7])
    })
  }

  test('lets who has gone ask again, without a word', (t) => {
    const { machine, part, log, connect, served } = containers(t)
    const gone = { netnsCookie: 8n, pid: 8, tid: 0 }
    machine.asks.set(8n, gone)
    connect(7)
    assert.deepEqual([served(), machine.asks.size, machine.refused.size], [[7], 0, 0])
    assert.equal(part.state().refused.not_found, 1)
    assert.deepEqual(
      log.lines.filter((line) => line.startsWith('Warn')),
      [],
    )
  })

  test('gives each user a share, and keeps room for root', (t) => {
    const { connect, served, part } = containers(t, { limits: { all: 6, unprivileged: 4, perUser: 2 } })
    for (const netns of [1, 2, 3]) connect(netns, { ownerUid: 1000 })
    assert.deepEqual(served(), [1, 2])
    for (const netns of [4, 5]) connect(netns, { ownerUid: 1001 })
    connect(6, { ownerUid: 1002 })
    assert.deepEqual(served(), [1, 2, 4, 5])
    for (const netns of [7, 8, 9]) connect(netns)
    assert.deepEqual(served(), [1, 2, 4, 5, 7, 8])
    assert.equal(part.state().refused.limit, 3)
  })

  test('tells a new redirector what is served, and asks it what is asked', (t) => {
    const { connect, served, machine, part, createRedirector } = containers(t)
    connect(7)
    part.setRedirector(undefined)
    machine.served.clear()
    connect(8)
    assert.deepEqual(served(), [])
    part.setRedirector(createRedirector())
    assert.deepEqual(served(), [7, 8])
  })

  test('one listener that a new redirector refuses leaves the others, and is tried again when its namespace asks', (t) => {
    const { connect, served, machine, part, createRedirector, log } = containers(t)
    for (const netns of [6, 7, 8]) connect(netns)
    part.setRedirector(undefined)
    machine.served.clear()
    machine.unadmitted.add(7)
    part.setRedirector(createRedirector())
    assert.deepEqual(served(), [6, 8])
    assert.ok(log.lines.some((line) => line.endsWith('Cannot look after network namespaces: not admitted')))
    connect(9)
    assert.deepEqual(served(), [6, 8, 9], 'the bell is heard')
    connect(7)
    assert.deepEqual([served(), [...machine.refused]], [[6, 8, 9], [7n]])
    machine.unadmitted.clear()
    connect(7)
    assert.deepEqual([served(), machine.asks.size, machine.refused.size], [[6, 8, 9, 7], 0, 0])
  })

  test("closes all listeners when the agent's own is lost", (t) => {
    const { connect, served, machine, part, server } = containers(t)
    connect(7)
    part.setServer(undefined)
    assert.deepEqual([served(), [...machine.listening]], [[], []])
    connect(8)
    assert.deepEqual(served(), [])
    part.setServer(server)
    assert.deepEqual(served(), [8])
  })
})
