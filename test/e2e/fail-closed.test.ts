/** `failClosed`: nobody reaches the host past an agent that has died, and the next one takes everything over. */

import assert from 'node:assert/strict'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { openCgroup, queryAttached } from '../../src/ebpf/attach.ts'
import { PYTHON } from '../kernel/agent.ts'
import { isKernelSince, reasonToSkip, SLOWNESS } from '../kernel/lab.ts'
import { BpfFileSystem } from './bpf-file-system.ts'
import { createService, loadDuring } from './fail-closed/restart.ts'
import { AGENT_UNDER_TEST, createMachine, type Machine, type MachineOptions, waitFor } from './machine.ts'

const SQUAT = join(import.meta.dirname, 'fail-closed', 'squat.py')

/** Before, namespaces cannot be told apart, and connects from others are denied rather than held. */
const TELLS_NETNS = isKernelSince(5, 14)

const LINKS = ['apa_connect4', 'apa_connect6', ...(TELLS_NETNS ? ['apa_hold'] : []), 'apa_sockops']

/** How requests end where an emulated machine takes longer than a stop, or the wait for the host's first word, has seconds. */
const CUT: readonly string[] = SLOWNESS === 1 ? [] : ['broken', 'no answer', 'timed out', '503']

const OTHER_LAYOUT = 'maps_0123456789abcdef_0123456789abcdef'

/** At a time, while agents come and go. */
const CLIENTS = SLOWNESS === 1 ? 40 : 8

const GOAL_STATE = 'http://168.63.129.16/machine?comp=goalstate'

describe('failClosed', { skip: reasonToSkip() ?? false, timeout: 200_000 * SLOWNESS }, () => {
  let bpffs: BpfFileSystem
  before(() => {
    bpffs = new BpfFileSystem()
  })
  after(() => bpffs[Symbol.dispose]())

  const failingClosed = (options: MachineOptions = {}) =>
    createMachine({ ...options, config: { failClosed: true, pinFolder: bpffs.pins, ...options.config } })
  const cleanUp = (machine: Machine, ...args: string[]) =>
    machine.lab.run(AGENT_UNDER_TEST, ['cleanup', '--config', machine.configPath, ...args])

  const kill = async (machine: Machine) => {
    machine.agent.kill('SIGKILL')
    await machine.agent.ended
  }
  const restart = async (machine: Machine) => {
    machine.startAgent()
    await machine.waitUntilProvisioned()
    return machine.agent.output()
  }
  /** What is left when a test has ended would be found by the next one. */
  const end = async (machine: Machine) => {
    await kill(machine)
    await cleanUp(machine)
    assert.deepEqual(bpffs.names(), [])
  }
  const isServed = async (machine: Machine) => {
    const { result, requests } = await machine.requestsDuring(() => machine.curl([GOAL_STATE]))
    assert.equal(result.status, 200, machine.agent.output())
    assert.deepEqual(
      requests.map(({ signature }) => signature),
      ['right'],
    )
  }
  const isShut = async (machine: Machine, url = GOAL_STATE) => {
    const { result, requests } = await machine.requestsDuring(() => machine.curl([url]))
    assert.deepEqual([result.status, requests], [0, []], 'the host was asked')
    assert.match(result.error, /Couldn't connect|Connection refused/)
  }
  const sets = () => readdirSync(bpffs.pins).filter((name) => name.startsWith('maps_'))
  /** As an agent that has one map more would name its set. */
  const otherLayoutSameRecords = () => sets()[0]!.replace(/[^_]*$/, '0123456789abcdef')
  const attachedTo = (path: string) => {
    using cgroup = openCgroup(path)
    const hooks = ['CGROUP_SOCK_OPS', 'CGROUP_INET6_CONNECT', 'CGROUP_INET4_CONNECT'] as const
    return hooks.map((hook) => queryAttached(cgroup, hook).programs.length)
  }

  test('killed: connections are refused until the next agent is there, which takes all over; cleanup opens', async () => {
    await using machine = await failingClosed()
    await isServed(machine)
    await kill(machine)
    await isShut(machine)
    await isShut(machine, 'http://[::ffff:168.63.129.16]/machine?comp=goalstate')
    assert.match(await restart(machine), /taken over from an earlier agent: links and maps; stays when the agent ends/)
    await isServed(machine)
    const { stdout } = await machine.lab.run(AGENT_UNDER_TEST, ['status', '--config', machine.configPath])
    assert.match(stdout, /^redirection .*; fails closed$/m)
    const { body } = await machine.readControl('/metrics')
    assert.match(body, /^azure_proxy_agent_fails_closed 1$/m)
    assert.match(body, /^azure_proxy_agent_kernel_events_total\{event="shut"\} [2-9]/m)

    const refused = await cleanUp(machine)
    assert.deepEqual([refused.code, refused.stdout], [1, ''])
    assert.match(refused.stderr, /another agent holds it/)
    await isServed(machine)
    await kill(machine)
    const cleaned = await cleanUp(machine)
    assert.equal(cleaned.code, 0, cleaned.stderr)
    assert.match(cleaned.stdout, new RegExp(`^${[...LINKS, 'maps_'].map((name) => `removed .*${name}`).join('.*\\n')}`))
    assert.deepEqual(bpffs.names(), [])
    // The kernel lets go of what has lost its name a moment later.
    await waitFor(() => attachedTo(machine.lab.cgroup).every((count) => count === 0), 'the programs to go')
    assert.equal((await machine.curl([GOAL_STATE])).status, 401, 'straight to the host, which wants a signature')
    assert.deepEqual(await cleanUp(machine), { code: 0, stdout: `nothing is left in ${bpffs.pins}\n`, stderr: '' })
  })

  test('stopped: it stays shut; a start with failClosed off opens it again when it ends', async () => {
    await using machine = await failingClosed()
    machine.agent.kill('SIGTERM')
    assert.equal((await machine.agent.ended).code, 0)
    await isShut(machine)
    machine.writeConfig({ failClosed: false })
    assert.match(await restart(machine), /taken over from an earlier agent: links/)
    await isServed(machine)
    assert.deepEqual(bpffs.names(), [])
    await kill(machine)
    assert.equal((await machine.curl([GOAL_STATE])).status, 401)
  })

  for (const address of ['127.0.0.1', '0.0.0.0', '::']) {
    test(`a user who takes the agent's port on ${address} while it is away gets no connection`, async () => {
      await using machine = await failingClosed()
      await kill(machine)
      const squatter = machine.lab.spawn(PYTHON, ['-c', readFileSync(SQUAT, 'utf8'), address], { uid: 1000, gid: 1000 })
      const lines = createInterface({ input: squatter.stdout })[Symbol.asyncIterator]()
      assert.equal((await lines.next()).value, 'listening')
      await isShut(machine)
      machine.startAgent()
      await waitFor(
        () => machine.agent.output().includes('Address already in use'),
        'the complaint',
        machine.agent.output,
      )
      await isShut(machine)
      squatter.stdin.end()
      assert.equal((await lines.next()).done, true, 'the squatter got a connection')
      await machine.waitUntilProvisioned()
      await waitFor(async () => (await machine.curl([GOAL_STATE])).status === 200, 'the agent to be back')
      await end(machine)
    })
  }

  /** What an agent that died, or an administrator, may have left. */
  const MESSES: readonly { what: string; make: (pins: string) => void; adopted: RegExp }[] = [
    {
      what: 'a set of maps of another layout',
      make: (pins) => renameSync(join(pins, sets()[0]!), join(pins, OTHER_LAYOUT)),
      adopted: /: links;/,
    },
    {
      what: 'a set of maps of another layout but that of records',
      make: (pins) => renameSync(join(pins, sets()[0]!), join(pins, otherLayoutSameRecords())),
      adopted: /: links and records;/,
    },
    {
      what: 'a set in which a map is missing',
      make: (pins) => rmSync(join(pins, sets()[0]!, 'connections')),
      adopted: /: links;/,
    },
    {
      what: 'a set in which a map stands under the name of another',
      make: (pins) => renameSync(join(pins, sets()[0]!, 'self'), join(pins, sets()[0]!, 'served')),
      adopted: /: links and records;/,
    },
    {
      what: 'links without any map',
      make: (pins) => rmSync(join(pins, sets()[0]!), { recursive: true }),
      adopted: /: links;/,
    },
    {
      what: 'a map under the name of a link',
      make: (pins) => renameSync(join(pins, sets()[0]!, 'self'), join(pins, 'apa_connect6')),
      adopted: /: links and records;/,
    },
    {
      what: 'a link under the name of another',
      make: (pins) => renameSync(join(pins, 'apa_connect6'), join(pins, 'apa_connect4')),
      adopted: /: links and maps;/,
    },
    {
      what: 'a set that was not finished, and folders under names of links',
      make(pins) {
        mkdirSync(join(pins, `${OTHER_LAYOUT}_new`, 'deeper'), { recursive: true })
        mkdirSync(join(pins, 'apa_sockops_new', 'deeper'), { recursive: true })
        rmSync(join(pins, 'apa_sockops'))
        mkdirSync(join(pins, 'apa_sockops', 'deeper'), { recursive: true })
      },
      adopted: /: links and maps;/,
    },
    {
      what: 'nothing but maps',
      make: (pins) => {
        for (const name of LINKS) rmSync(join(pins, name))
      },
      adopted: /Attached to the processes of [^;]*; stays/,
    },
  ]
  for (const { what, make, adopted } of MESSES) {
    test(`the next agent copes with ${what}, and leaves what is its own and nothing else`, async () => {
      await using machine = await failingClosed()
      await kill(machine)
      make(bpffs.pins)
      assert.match(await restart(machine), adopted)
      await isServed(machine)
      assert.deepEqual(readdirSync(bpffs.pins).toSorted(), [...LINKS, ...sets()])
      assert.equal(sets().length, 1)
      assert.deepEqual(attachedTo(machine.lab.cgroup), [1, 1, 1])
      await end(machine)
    })
  }

  test('links of another cgroup are replaced by links of the configured one', {
    skip: !TELLS_NETNS && 'this kernel does not tell the namespace of an agent outside the cgroup',
  }, async () => {
    await using machine = await failingClosed({ start: { agent: false } })
    const inner = join(machine.lab.cgroup, 'inner')
    mkdirSync(inner)
    machine.writeConfig({ cgroupRoot: inner })
    machine.startAgent()
    await waitFor(() => existsSync(join(bpffs.pins, 'apa_connect4')), 'the first agent to pin')
    assert.deepEqual(attachedTo(inner), [1, 1, 1])
    await kill(machine)
    machine.writeConfig({})
    await restart(machine)
    assert.deepEqual(
      [attachedTo(inner), attachedTo(machine.lab.cgroup)],
      [
        [0, 0, 0],
        [1, 1, 1],
      ],
    )
    await isServed(machine)
    await end(machine)
  })

  test('two agents do not work in one folder: the second says so, the first goes on', async () => {
    await using machine = await failingClosed()
    const first = machine.agent
    const second = machine.startAgent()
    const complaint = 'Failed to start redirector: Cannot use'
    await waitFor(() => second.output().includes(complaint), 'the complaint', second.output)
    assert.match(second.output(), /another agent holds it/)
    await isServed(machine)
    second.kill('SIGTERM')
    await second.ended
    await isServed(machine)
    first.kill('SIGKILL')
    await first.ended
    await isShut(machine)
    await cleanUp(machine)
  })

  /** Who made the folder, or what else is there. None of it is used, or touched. */
  const STRANGERS: readonly { what: string; make: (pins: string) => void; said: RegExp }[] = [
    {
      what: 'a folder of a user',
      make(pins) {
        mkdirSync(pins, { mode: 0o700 })
        chownSync(pins, 1000, 1000)
      },
      said: /does not fail closed: Cannot use \S+: it belongs to user 1000/,
    },
    {
      what: 'a folder that others may enter',
      make: (pins) => chmodSync(mkdirSync(pins, { recursive: true })!, 0o755),
      said: /does not fail closed: Cannot use \S+: others may look into it/,
    },
    {
      what: 'a link',
      make(pins) {
        mkdirSync(join(bpffs.path, 'elsewhere'), { mode: 0o700 })
        symlinkSync('elsewhere', pins)
      },
      said: /does not fail closed: Cannot use \S+: it is a link or no directory/,
    },
  ]
  for (const { what, make, said } of STRANGERS) {
    test(`${what} in the place of the pins is refused, and the agent guards without`, async () => {
      make(bpffs.pins)
      const before = bpffs.names()
      await using machine = await failingClosed()
      assert.match(machine.agent.output(), said)
      await isServed(machine)
      await kill(machine)
      const cleaned = await cleanUp(machine)
      assert.deepEqual([cleaned.code, cleaned.stdout, bpffs.names()], [1, '', before])
      assert.equal((await machine.curl([GOAL_STATE])).status, 401)
      for (const name of before) rmSync(join(bpffs.path, name), { recursive: true })
    })
  }

  test('a folder that is in no bpf file system is refused, and the agent guards without', async () => {
    await using machine = await failingClosed({ start: { agent: false } })
    machine.writeConfig({ pinFolder: join(machine.folder, 'pins') })
    assert.match(
      await restart(machine),
      /does not fail closed: Cannot pin in \S+: \S+ is no bpf file system .*mount -t bpf/,
    )
    await isServed(machine)
    assert.equal(existsSync(join(machine.folder, 'pins')), false)
  })

  test('a bpf file system that is read-only is told, and the agent guards without', async () => {
    bpffs.remount('ro')
    try {
      await using machine = await failingClosed()
      assert.match(machine.agent.output(), /does not fail closed: EROFS: read-only file system, mkdir/)
      await isServed(machine)
    } finally {
      bpffs.remount('rw')
    }
  })

  test('pins that are removed under a running agent are made again', async () => {
    await using machine = await failingClosed()
    assert.equal((await cleanUp(machine, '--force')).code, 0)
    assert.deepEqual(bpffs.names(), [])
    await isServed(machine)
    await waitFor(
      () => existsSync(join(bpffs.pins, 'apa_sockops')),
      'the pins',
      machine.agent.output,
      40_000 * SLOWNESS,
    )
    await kill(machine)
    await isShut(machine)
    await cleanUp(machine)
  })

  test('who comes before the host has spoken waits for its word, and is not let through without', async () => {
    await using machine = await failingClosed()
    const isListening = () => machine.agent.output().includes('Started proxy listener')
    await kill(machine)
    const id = await machine.host.addFault({ path: '/secure-channel/status', fault: { kind: 'status', status: 500 } })
    machine.startAgent()
    await waitFor(isListening, 'the listener', machine.agent.output)
    const early = machine.requestsDuring(() => machine.curl([GOAL_STATE]))
    await waitFor(() => machine.agent.output().includes('Failed to get key status'), 'a poll that fails')
    await machine.host.removeFault(id)
    const { result } = await early
    assert.equal(result.status, 200)
    await kill(machine)

    await machine.host.addFault({ path: '/secure-channel/status', fault: { kind: 'status', status: 500 } })
    machine.startAgent()
    await waitFor(isListening, 'the listener', machine.agent.output)
    const { result: late, requests } = await machine.requestsDuring(() =>
      machine.curl([GOAL_STATE, '--max-time', '20']),
    )
    assert.deepEqual([late.status, requests], [503, []])
    await end(machine)
  })

  for (const { signal, lost, change } of [
    { signal: 'SIGTERM', lost: [], change: undefined },
    // What the killed process had accepted went with it.
    { signal: 'SIGKILL', lost: ['broken', 'no answer'], change: undefined },
    { signal: 'SIGTERM', lost: [], change: ', maps laid out otherwise but for records,' },
  ] as const) {
    test(`${signal}${change ?? ''} and a start, listeners kept by the service manager: clients wait, nobody is refused`, async (t) => {
      await using machine = await failingClosed({ start: { agent: false } })
      const service = await createService(machine)
      await service.start()
      await service.ready()
      await machine.waitUntilProvisioned()
      assert.deepEqual(service.stored(), ['listener'])
      const others = TELLS_NETNS ? [machine.lab.addNamespace(), machine.lab.addNamespace()] : []
      const loads = await loadDuring(machine, [undefined, ...others], CLIENTS, async () => {
        await waitFor(() => service.stored().length === 1 + others.length, 'all listeners to be kept', service.output)
        for (let round = 0; round < 3; round++) {
          await sleep(300 * SLOWNESS)
          await service.end(signal)
          if (change !== undefined) renameSync(join(bpffs.pins, sets()[0]!), join(bpffs.pins, otherLayoutSameRecords()))
          await service.start()
          await service.ready()
        }
        await sleep(300 * SLOWNESS)
      })
      const adopted = service.output().match(/taken over from an earlier agent: [^;]*/g)
      const parts = change === undefined ? 'maps' : 'records'
      assert.deepEqual(adopted, Array(3).fill(`taken over from an earlier agent: links and ${parts}`))
      for (const [index, load] of loads.entries()) {
        const { counts } = load
        t.diagnostic(`${signal}, ${index === 0 ? 'the host' : `namespace ${index}`}: ${JSON.stringify(load)}`)
        assert.ok((counts['200'] ?? 0) >= CLIENTS, service.output())
        const others = Object.keys(counts).filter(
          (outcome) => outcome !== '200' && ![...lost, ...CUT].includes(outcome),
        )
        assert.deepEqual(others, [], service.output())
      }
      await waitFor(() => service.stored().length === 1, 'listeners of nobody to be dropped', service.output)
      await service.end('SIGTERM')
      await cleanUp(machine)
    })
  }

  test('killed and started without a service manager: refused for a moment, never past the agent', async (t) => {
    await using machine = await failingClosed()
    const [load] = await loadDuring(machine, [undefined], CLIENTS, async () => {
      for (let round = 0; round < 3; round++) {
        await sleep(300 * SLOWNESS)
        machine.agent.kill('SIGKILL')
        await machine.agent.ended
        machine.startAgent()
        await machine.waitUntilProvisioned()
      }
      await sleep(300 * SLOWNESS)
    })
    t.diagnostic(JSON.stringify(load))
    const { refused = 0, broken = 0, 'no answer': unanswered = 0, 200: served = 0, ...rest } = load!.counts
    assert.ok(refused > 0 && served > 0)
    assert.ok(broken + unanswered < served, JSON.stringify(load))
    assert.deepEqual(
      Object.keys(rest).filter((outcome) => !CUT.includes(outcome)),
      [],
    )
    machine.agent.kill('SIGKILL')
    await machine.agent.ended
    await cleanUp(machine)
  })
})
