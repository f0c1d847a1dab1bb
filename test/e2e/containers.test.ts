/** Network namespaces of containers, with the executable: served, refused, coming and going. */

import assert from 'node:assert/strict'
import { readdirSync, readlinkSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { findPinFolder } from '../../src/ebpf/pins.ts'
import { type MapSpec, mapSpecs } from '../../src/ebpf/programs/maps.ts'
import { isKernelSince, reasonToSkip, SLOWNESS } from '../kernel/lab.ts'
import { BpfFileSystem } from './bpf-file-system.ts'
import { AGENT_UNDER_TEST, createMachine, type Machine, reasonForNoNamespaces, waitFor } from './machine.ts'

const TELLS_NETNS = isKernelSince(5, 14)

const noLab = reasonToSkip() ?? false
const skip = noLab || (!TELLS_NETNS && 'this kernel does not tell the cookie of a namespace, and denies')
const TIMEOUT_MS = 120_000 * SLOWNESS

/** Namespaces that come and go; an emulated machine has less time. */
const MANY = SLOWNESS === 1 ? 300 : 60

/** A connect that is held gives up after 2.5 s, where the kernel counts 250 jiffies a second. */
const HELD_MS = 2000

const PYTHON = '/usr/bin/python3'
const NEWBORN = join(import.meta.dirname, 'newborn.py')

const INSTANCE = '/metadata/instance?api-version=2021-02-01&who='

/** Arguments of curl for a request to IMDS that can be told from others. */
const ask = (who: string) => ['-H', 'Metadata: true', `http://169.254.169.254${INSTANCE}${who}`]

interface Status {
  readonly containers: { readonly served: number; readonly refused: Readonly<Record<string, number>> }
  readonly redirection: { readonly counters: Readonly<Record<string, number>> }
}

const status = async (machine: Machine) => JSON.parse((await machine.readControl('/status')).body) as Status
const counter = async (machine: Machine, name: string) => (await status(machine)).redirection.counters[name]
const served = async (machine: Machine) => (await status(machine)).containers.served
const openDescriptors = (machine: Machine) => readdirSync(`/proc/${machine.agent.pid}/fd`).length

const waitUntilNoneIsServed = (machine: Machine) =>
  waitFor(async () => (await served(machine)) === 0, 'the listeners to be closed', undefined, 30_000 * SLOWNESS)

interface Newborn {
  readonly status?: number
  readonly error?: string
  readonly connectMs: number
  readonly connectedMs: number
  readonly answeredMs: number
}

async function bear(machine: Machine, count: number, atOnce: number): Promise<Newborn[]> {
  const options = { timeoutMs: 60_000 * SLOWNESS }
  const { stdout, stderr } = await machine.lab.run(PYTHON, [NEWBORN, String(count), String(atOnce)], options)
  assert.equal(stderr, '')
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Newborn)
}

/** For the report: what a figure was in the middle, and at worst. */
const middleAndWorst = (values: readonly number[]) => {
  const sorted = [...values].sort((a, b) => a - b)
  return `${sorted[Math.floor(sorted.length / 2)]} ms, at most ${sorted.at(-1)} ms`
}

describe('containers: serve', { skip, timeout: TIMEOUT_MS }, () => {
  let machine: Machine

  before(async () => {
    machine = await createMachine()
  })
  after(() => machine?.[Symbol.asyncDispose]())

  test('a namespace that nobody has connected from has no listener', async () => {
    machine.lab.addNamespace()
    assert.equal(await served(machine), 0)
  })

  test('the first connect is served, signed, and attributed to who made it', async () => {
    const netns = machine.lab.addNamespace()
    const { result, requests } = await machine.requestsDuring(() =>
      machine.curl(ask('first'), { netns, uid: 1000, gid: 1000 }),
    )
    assert.equal(result.status, 200)
    assert.deepEqual(
      requests.map(({ target }) => target),
      [`${INSTANCE}first`],
    )
    const claims = await machine.toldOf('first', /Use claims/)
    assert.match(claims, /"userId":1000,.*"processFullPath":"\/usr\/bin\/curl"/)
  })

  for (const row of [
    { what: 'a container that root made, with processes and mounts of its own', uid: 0, kinds: ['--mount-proc'] },
    { what: 'a container that a user made, who is root in it', uid: 1000, kinds: ['--map-root-user'] },
  ]) {
    test(`${row.what}, is served, and counted as its maker's`, {
      skip: row.uid !== 0 && (reasonForNoNamespaces() ?? false),
    }, async () => {
      const script = 'ip link set lo up && exec curl -s -o /dev/null -w "%{http_code}" -H "Metadata: true" "$0"'
      const kinds = ['--net', '--pid', '--mount', ...row.kinds]
      const inside = ['/bin/sh', '-c', script, ask(`made-by-${row.uid}`).at(-1)!]
      const { stdout, stderr } = await machine.lab.run('unshare', ['--fork', ...kinds, ...inside], {
        uid: row.uid,
        gid: row.uid,
      })
      assert.deepEqual([stdout, stderr], ['200', ''])
      assert.match(await machine.toldOf(`made-by-${row.uid}`, /Use claims/), new RegExp(`"userId":${row.uid},`))
      assert.match(
        machine.read('log', 'ProxyAgent.log'),
        new RegExp(`Serving network namespace \\d+ of user id ${row.uid},`),
      )
    })
  }

  test('namespaces that use the same source port at the same time keep their callers apart', async () => {
    const uids = [1001, 1002, 1003, 1004, 1005]
    const answers = await Promise.all(
      uids.map((uid) => {
        const netns = machine.lab.addNamespace()
        const from = ['--interface', '127.0.0.1', '--local-port', '45000']
        return machine.curl([...from, ...ask(`same-port-${uid}`)], { netns, uid, gid: uid })
      }),
    )
    assert.deepEqual(
      answers.map((answer) => answer.status),
      uids.map(() => 200),
    )
    for (const uid of uids) {
      assert.match(await machine.toldOf(`same-port-${uid}`, /Use claims/), new RegExp(`"userId":${uid},`))
    }
  })

  test('the agent stays in its own namespace, with all threads', () => {
    const own = statSync(`/run/netns/${machine.lab.netns}`).ino
    const folder = `/proc/${machine.agent.pid}/task`
    const links = new Set(readdirSync(folder).map((thread) => readlinkSync(`${folder}/${thread}/ns/net`)))
    assert.deepEqual([...links], [`net:[${own}]`])
  })

  test('listeners are closed soon after the last process has left', () => waitUntilNoneIsServed(machine))

  test('who connects the moment that his namespace is born is served', async (t) => {
    const newborn = await bear(machine, 20, 1)
    assert.deepEqual(
      newborn.map((each) => each.status ?? each.error),
      newborn.map(() => 200),
    )
    t.diagnostic(`connect called after ${middleAndWorst(newborn.map((each) => each.connectMs))} of life`)
    t.diagnostic(`connected after ${middleAndWorst(newborn.map((each) => each.connectedMs))}`)
    t.diagnostic(`answered after ${middleAndWorst(newborn.map((each) => each.answeredMs))}`)
  })

  test('many that come and go leave nothing behind', async (t) => {
    await waitUntilNoneIsServed(machine)
    const before = openDescriptors(machine)
    const startedAtMs = performance.now()
    const newborn = await bear(machine, MANY, 16)
    const tookMs = performance.now() - startedAtMs
    const failed = newborn.filter((each) => each.status !== 200)
    assert.deepEqual([newborn.length, failed], [MANY, []])
    const atMost = await served(machine)
    await waitUntilNoneIsServed(machine)
    const { redirection, containers } = await status(machine)
    await waitFor(
      () => openDescriptors(machine) <= before,
      'descriptors to be closed',
      () => `${before} before, ${openDescriptors(machine)} now`,
    )
    assert.match((await machine.readControl('/metrics')).body, /^azure_proxy_agent_connection_records 0$/m)
    assert.deepEqual(new Set(Object.values(containers.refused)), new Set([0]))
    t.diagnostic(`${MANY} namespaces in ${Math.round(tookMs)} ms, ${atMost} served when the last had come`)
    t.diagnostic(`connected after ${middleAndWorst(newborn.map((each) => each.connectedMs))} of life`)
    t.diagnostic(`held ${redirection.counters.held} of ${redirection.counters.redirected} connects`)
  })

  test('where the port is taken connects fail, which is told; when it is free they are served', async () => {
    const netns = machine.lab.addNamespace()
    const script = `import socket
s = socket.socket()
s.bind(("127.0.0.1", 3080))
s.listen()
print("ready", flush=True)
s.accept()
print("stolen", flush=True)
input()`
    const thief = machine.lab.spawn(PYTHON, ['-c', script], { netns })
    let said = ''
    thief.stdout.on('data', (text) => {
      said += text
    })
    await waitFor(() => said !== '', 'the port to be taken')
    assert.equal((await machine.curl(ask('taken'), { netns })).status, 0)
    assert.match(
      (await machine.curl(ask('taken'), { netns })).error,
      /Failed to connect|Couldn't connect|not permitted/,
    )
    assert.match(
      machine.read('log', 'ProxyAgent.log'),
      /Connects from network namespace \d+ are refused .*port 3080 is taken there/,
    )
    assert.equal(said, 'ready\n')
    assert.ok((await status(machine)).containers.refused.port_taken)
    thief.kill('SIGKILL')
    await waitFor(async () => (await machine.curl(ask('taken'), { netns })).status === 200, 'a listener there')
  })

  test('where loopback is down connects fail, which is told; when it is up they are served', async () => {
    const netns = machine.lab.addNamespace()
    const link = (state: string) => machine.lab.run('ip', ['-n', netns, 'link', 'set', 'lo', state])
    await link('down')
    // Who is gone by the time the agent looks cannot be found.
    const script = `import socket, time
try:
    socket.create_connection(("169.254.169.254", 80), 5)
except OSError as error:
    print(error)
    time.sleep(1)`
    const { stdout } = await machine.lab.run(PYTHON, ['-c', script], { netns })
    assert.notEqual(stdout, '', 'connected where loopback is down')
    await waitFor(
      () => machine.read('log', 'ProxyAgent.log').includes('its loopback interface is down'),
      'that to be told',
    )
    await link('up')
    await waitFor(async () => (await machine.curl(ask('down'), { netns })).status === 200, 'a listener there')
  })

  for (const { whose, of } of [
    { whose: 'a listener there', of: (inner: string) => inner },
    { whose: "the agent's own", of: () => machine.lab.netns },
  ]) {
    test(`${whose} that somebody destroyed comes back, and who asks from there is served`, async () => {
      const netns = machine.lab.addNamespace()
      assert.equal((await machine.curl(ask('whole'), { netns })).status, 200)
      const kill = ['--kill', '--listening', '--tcp', 'src', '127.0.0.1:3080']
      const { stderr } = await machine.lab.run('ss', kill, { netns: of(netns) })
      assert.equal(stderr, '')
      for (const from of [netns, machine.lab.netns]) {
        const isServed = async () => (await machine.curl(ask('again'), { netns: from })).status === 200
        await waitFor(isServed, 'a listener', machine.agent.output)
      }
    })
  }

  test('many that are refused do not keep one from being served', async () => {
    const before = (await status(machine)).containers.refused.loopback_down ?? 0
    const script = `import ctypes, os, socket, time
for _ in range(60):
    if os.fork() == 0:
        ctypes.CDLL(None).unshare(0x40000000)
        try:
            socket.create_connection(("169.254.169.254", 80), 1)
        except OSError:
            time.sleep(60)
        os._exit(1)
print("ready", flush=True)
time.sleep(60)`
    const refused = machine.lab.spawn(PYTHON, ['-c', script])
    try {
      const count = async () => ((await status(machine)).containers.refused.loopback_down ?? 0) - before
      await waitFor(async () => (await count()) === 60, 'all to be refused')
      const answer = await machine.curl(ask('among'), { netns: machine.lab.addNamespace() })
      assert.equal(answer.status, 200)
    } finally {
      refused.kill('SIGKILL')
    }
  })

  test('an agent that died leaves connects to fail or to go their own way, and the next one serves', async () => {
    const netns = machine.lab.addNamespace()
    assert.equal((await machine.curl(ask('before'), { netns })).status, 200)
    machine.agent.kill('SIGKILL')
    await machine.agent.ended
    assert.equal((await machine.curl(ask('between'), { netns })).status, 0)
    machine.startAgent()
    await machine.waitUntilProvisioned()
    assert.equal((await machine.curl(ask('after'), { netns })).status, 200)
  })
})

describe('containers: direct', { skip: noLab, timeout: TIMEOUT_MS }, () => {
  test('leaves connects alone', async () => {
    await using machine = await createMachine({ config: { containers: 'direct' } })
    const netns = machine.lab.addNamespace()
    // The address is there, and nobody listens.
    assert.match((await machine.curl(ask('direct'), { netns })).error, /refused|Couldn't connect|Failed to connect/)
    assert.deepEqual([await counter(machine, 'notServed'), await counter(machine, 'denied')], [1, 0])
    assert.equal((await machine.curl(ask('own'))).status, 200)
  })
})

describe('containers: deny', { skip: noLab, timeout: TIMEOUT_MS }, () => {
  test('makes connects fail', async () => {
    await using machine = await createMachine({ config: { containers: 'deny' } })
    const netns = machine.lab.addNamespace()
    assert.equal((await machine.curl(ask('deny'), { netns })).status, 0)
    assert.equal(await counter(machine, 'denied'), 1)
    assert.equal((await machine.curl(ask('own'))).status, 200)
  })
})

describe('containers: serve, where the kernel does not tell namespaces apart', {
  skip: noLab || (TELLS_NETNS && 'this kernel does'),
  timeout: TIMEOUT_MS,
}, () => {
  test('makes connects fail, and says why', async () => {
    await using machine = await createMachine()
    const netns = machine.lab.addNamespace()
    assert.equal((await machine.curl(ask('deny'), { netns })).status, 0)
    assert.equal(await counter(machine, 'denied'), 1)
    assert.equal((await machine.curl(ask('own'))).status, 200)
    const lack = 'This kernel lacks something: connects from other network namespaces are denied'
    assert.ok(machine.read('log', 'ProxyAgent.log').includes(lack))
  })
})

/** How many entries the tables have that are kept for namespaces and their connections. */
function entriesOf(pins: string): Record<string, number> {
  using folder = findPinFolder(pins)
  const { served, asked, refused, connections } = mapSpecs('storage')
  const count = (spec: MapSpec) => {
    const maps = folder?.findMapInAnySet(spec) ?? []
    const entries = maps.map((map) => map.keys().length)
    for (const map of maps) map[Symbol.dispose]()
    assert.equal(entries.length, 1, `tables named ${spec.name}`)
    return entries[0] as number
  }
  return { served: count(served), asked: count(asked), refused: count(refused), connections: count(connections) }
}

describe('containers: serve, failing closed', { skip, timeout: TIMEOUT_MS }, () => {
  test('an agent that died leaves connects to be refused until the next one serves', async (t) => {
    using bpffs = new BpfFileSystem()
    await using machine = await createMachine({ config: { failClosed: true, pinFolder: bpffs.pins } })
    const [known, unknown] = [machine.lab.addNamespace(), machine.lab.addNamespace()]
    assert.equal((await machine.curl(ask('before'), { netns: known })).status, 200)
    machine.agent.kill('SIGKILL')
    await machine.agent.ended
    assert.match((await machine.curl(ask('between'), { netns: known })).error, /refused|Couldn't connect/)
    // Held, and nobody comes.
    assert.match((await machine.curl(ask('between'), { netns: unknown })).error, /timed out|Couldn't connect|Failed/)
    const newborn = machine.curl(ask('meanwhile'), { netns: machine.lab.addNamespace() })
    const startedAtMs = performance.now()
    machine.startAgent()
    await machine.waitUntilProvisioned()
    const tookMs = performance.now() - startedAtMs
    const { status } = await newborn
    if (tookMs < HELD_MS) assert.equal(status, 200, 'a first connect did not outlast the start of an agent')
    else t.diagnostic(`a start took ${Math.round(tookMs)} ms, which no first connect outlasts: ${status}`)
    for (const netns of [known, unknown]) assert.equal((await machine.curl(ask('after'), { netns })).status, 200)
    await bear(machine, 50, 10)
    await waitUntilNoneIsServed(machine)
    machine.agent.kill('SIGKILL')
    await machine.agent.ended
    // What hundreds leave in the kernel's tables shows here, where the tables outlive the agent.
    assert.deepEqual(entriesOf(bpffs.pins), { served: 1, asked: 0, refused: 0, connections: 0 })
    assert.equal((await machine.lab.run(AGENT_UNDER_TEST, ['cleanup', '--config', machine.configPath])).code, 0)
  })
})
