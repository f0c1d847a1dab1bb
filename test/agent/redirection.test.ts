import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { createRedirection } from '../../src/agent/redirection.ts'
import type { InetAddress } from '../../src/base/endpoints.ts'
import type { Redirector } from '../../src/ebpf/redirector.ts'
import { createFakeClock } from '../fakes/clock.ts'
import { createFakeLog } from '../fakes/log.ts'

const MODES = { wireserver: 'enforce', imds: 'audit', hostga: 'enforce' }
const ALL = ['168.63.129.16:80', '169.254.169.254:80', '168.63.129.16:32526']

/** The kernel as far as redirection sees it. */
interface FakeKernel {
  starts: number
  /** Why it does not start; `undefined`: it does. */
  refuses: string | undefined
  policyFails: string | undefined
  isAttached: boolean
  policy: string[]
  writes: number
  detached: number
  disposed: number
  failClosed: boolean
  /** What an agent before this one left. */
  inherited: string[]
  isPinned: boolean
  pinsFail: string | undefined
  admitted: number[]
  /** Descriptor of the listener. */
  listener: number | undefined
}

function redirection(t: TestContext, set: Partial<FakeKernel> = {}) {
  const kernel: FakeKernel = {
    starts: 0,
    refuses: undefined,
    policyFails: undefined,
    isAttached: false,
    policy: [],
    writes: 0,
    detached: 0,
    disposed: 0,
    failClosed: false,
    inherited: [],
    isPinned: true,
    pinsFail: undefined,
    admitted: [],
    listener: undefined,
    ...set,
  }
  const clock = createFakeClock()
  const log = createFakeLog()
  const told: string[] = []
  const redirected: string[][] = []
  const start = (): Redirector => {
    kernel.starts++
    if (kernel.refuses !== undefined) throw new Error(kernel.refuses)
    kernel.isAttached = true
    kernel.policy = kernel.inherited
    const detach = () => {
      kernel.detached++
      kernel.isAttached = false
      kernel.policy = []
    }
    return {
      takeRecord: () => undefined,
      setServed() {},
      readAsks: () => [],
      refuse() {},
      withdraw() {},
      watchAsks: () => undefined,
      readPolicy: () => [],
      reconcilePolicy(desired: readonly InetAddress[]) {
        kernel.writes++
        if (kernel.policyFails !== undefined) throw new Error(kernel.policyFails)
        const before = kernel.policy
        kernel.policy = desired.map(({ address, port }) => `${address}:${port}`)
        return desired.filter(({ address, port }) => !before.includes(`${address}:${port}`))
      },
      counters: () => ({}),
      countRecords: () => 0,
      features: { failClosed: kernel.failClosed } as Redirector['features'],
      isAttached: () => kernel.isAttached,
      admitListener: (fd) => void kernel.admitted.push(fd),
      restorePins() {
        if (kernel.pinsFail !== undefined) throw new Error(kernel.pinsFail)
        const wasWhole = kernel.isPinned
        kernel.isPinned = true
        return !wasWhole
      },
      detach,
      [Symbol.dispose]() {
        kernel.disposed++
        kernel.isAttached = false
      },
    }
  }
  const part = createRedirection({
    start,
    listener: () => kernel.listener,
    clock,
    log,
    events: {
      onReady: (isReady) => void told.push(`ready ${isReady}`),
      onMessage: (message) => void told.push(message),
      onRedirected: (added) => void redirected.push(added.map(({ address, port }) => `${address}:${port}`)),
    },
  })
  const stopping = new AbortController()
  const running = { promise: undefined as Promise<void> | undefined }
  t.after(async () => {
    stopping.abort()
    await running.promise
  })
  const run = () => {
    running.promise = part.run(stopping.signal)
  }
  return { kernel, clock, log, told, redirected, part, run, stopping, running }
}

test('nothing is loaded before run(), and nothing redirected before a part asks for it', async (t) => {
  const { kernel, part, run, told } = redirection(t)
  part.setModes(MODES)
  part.reconcile()
  assert.equal(kernel.starts, 0)
  assert.equal(part.current(), undefined)
  run()
  assert.deepEqual(told, ['ready true'])
  assert.deepEqual(kernel.policy, [])
  assert.notEqual(part.current(), undefined)
})

test('the policy is what is not disabled, while the listener is there', async (t) => {
  const { kernel, part, run } = redirection(t)
  run()
  part.setModes(MODES)
  assert.deepEqual(kernel.policy, [], 'the listener is not ready')
  part.setListenerReady(true)
  assert.deepEqual(kernel.policy, ALL)
  part.setModes({ ...MODES, imds: 'disabled' })
  assert.deepEqual(kernel.policy, ['168.63.129.16:80', '168.63.129.16:32526'])
  part.setModes({ wireserver: 'disabled', imds: 'an unknown word', hostga: 'disabled' })
  assert.deepEqual(kernel.policy, ['169.254.169.254:80'])
  part.setModes(undefined)
  assert.deepEqual(kernel.policy, [], 'the host has not said anything')
  part.setModes(MODES)
  part.setListenerReady(false)
  assert.deepEqual(kernel.policy, [], 'the listener was lost')
})

test('what begins to be redirected is told each time it does', async (t) => {
  const { part, run, redirected } = redirection(t)
  run()
  part.setListenerReady(true)
  part.setModes({ ...MODES, imds: 'disabled' })
  part.reconcile()
  part.setModes(MODES)
  part.setListenerReady(false)
  part.setListenerReady(true)
  assert.deepEqual(redirected, [['168.63.129.16:80', '168.63.129.16:32526'], ['169.254.169.254:80'], ALL])
})

test('what was asked for before the start is applied by it, before it is called ready', async (t) => {
  const { kernel, part, run, told } = redirection(t)
  part.setModes(MODES)
  part.setListenerReady(true)
  run()
  assert.deepEqual(kernel.policy, ALL)
  assert.deepEqual(told, ['ready true'])
})

test('run() tries for ever, ever more seldom, and tells why', async (t) => {
  const { kernel, clock, run, told } = redirection(t, { refuses: 'no CAP_BPF' })
  run()
  const startedAtMs = clock.monotonicMs()
  const tries: number[] = [0]
  for (let i = 0; i < 3000 && tries.length < 12; i++) {
    const before = kernel.starts
    await clock.advance(100)
    if (kernel.starts > before) tries.push(clock.monotonicMs() - startedAtMs)
  }
  const waits = tries.slice(1).map((at, i) => at - (tries[i] as number))
  assert.deepEqual(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000])
  assert.deepEqual([...new Set(told)], ['Failed to start redirector: no CAP_BPF'])
  kernel.refuses = undefined
  await clock.advance(30_000)
  assert.equal(told.at(-1), 'ready true')
})

test('run() attaches again when somebody removed the links, with the policy of now', async (t) => {
  const { kernel, clock, part, run, told, log } = redirection(t)
  part.setModes(MODES)
  part.setListenerReady(true)
  run()
  kernel.isAttached = false
  kernel.policy = []
  await clock.advance(15_000)
  assert.equal(kernel.starts, 2)
  assert.equal(kernel.disposed, 1, 'what was attached before is given back')
  assert.deepEqual(told, ['ready true', 'ready false', 'ready true'])
  assert.deepEqual(kernel.policy, ALL)
  assert.match(log.lines.join(), /Error The kernel no longer redirects/)
})

test('run() begins with short waits again after a time that went well', async (t) => {
  const { kernel, clock, run, told } = redirection(t, { refuses: 'x' })
  run()
  await clock.advance(10_000)
  kernel.refuses = undefined
  while (!told.includes('ready true')) await clock.advance(100)
  kernel.isAttached = false
  kernel.refuses = 'x'
  await clock.advance(15_000)
  assert.deepEqual(clock.sleeping, [100])
})

test('a policy that cannot be written is told once, and written by the next look at it', async (t) => {
  const { kernel, clock, part, run, log } = redirection(t)
  run()
  part.setListenerReady(true)
  kernel.policyFails = 'ENOMEM'
  part.setModes(MODES)
  part.reconcile()
  part.reconcile()
  assert.deepEqual(log.lines, ['Error Cannot apply the redirect policy: ENOMEM'])
  kernel.policyFails = undefined
  // Also without a new word from the host, which may be unreachable just now.
  await clock.advance(15_000)
  assert.deepEqual(kernel.policy, ALL)
  kernel.policyFails = 'ENOMEM'
  part.reconcile()
  assert.equal(log.lines.length, 2, 'a new failure is told again')
})

test('an entry that somebody else removed from the kernel is put back', async (t) => {
  const { kernel, clock, part, run } = redirection(t)
  run()
  part.setListenerReady(true)
  part.setModes(MODES)
  kernel.policy = []
  await clock.advance(15_000)
  assert.deepEqual(kernel.policy, ALL)
})

test('stop() detaches at once and for good, and keeps the records until release()', async (t) => {
  const { kernel, clock, part, run, stopping, running } = redirection(t)
  run()
  part.setListenerReady(true)
  part.setModes(MODES)
  part.stop()
  assert.equal(kernel.detached, 1)
  assert.notEqual(part.current(), undefined)
  const { writes } = kernel
  part.setModes(MODES)
  await clock.advance(60_000)
  assert.deepEqual([kernel.starts, kernel.writes, kernel.disposed], [1, writes, 0])
  part.release()
  part.release()
  assert.equal(part.current(), undefined)
  assert.equal(kernel.disposed, 1)
  stopping.abort()
  await running.promise
})

test('failing closed, what an earlier agent redirected stays so until the host speaks, with or without a listener', async (t) => {
  const { kernel, clock, part, run, redirected } = redirection(t, { failClosed: true, inherited: ALL })
  run()
  await clock.advance(15_000)
  part.setListenerReady(true)
  assert.deepEqual(kernel.policy, ALL)
  part.setModes({ ...MODES, imds: 'disabled' })
  assert.deepEqual(kernel.policy, ['168.63.129.16:80', '168.63.129.16:32526'])
  part.setListenerReady(false)
  assert.deepEqual(kernel.policy, ['168.63.129.16:80', '168.63.129.16:32526'])
  assert.deepEqual(redirected, [], 'nothing is redirected that was not before')
})

test('not failing closed, what an earlier agent redirected goes until the host speaks', async (t) => {
  const { kernel, run } = redirection(t, { inherited: ALL })
  run()
  assert.deepEqual(kernel.policy, [])
})

test('the listener is marked before anything is sent to it', async (t) => {
  const { kernel, part, run } = redirection(t, { failClosed: true })
  run()
  assert.deepEqual(kernel.admitted, [])
  kernel.listener = 7
  part.setListenerReady(true)
  assert.deepEqual(kernel.admitted, [7])
})

test('pins that somebody removed are put back and told, and so is that they cannot be', async (t) => {
  const { kernel, clock, run, log } = redirection(t, { failClosed: true })
  run()
  kernel.isPinned = false
  await clock.advance(15_000)
  assert.deepEqual([kernel.isPinned, log.lines.length], [true, 1])
  assert.match(log.lines.join(), /^Warn .* had been removed/)
  kernel.pinsFail = 'no bpf file system'
  await clock.advance(60_000)
  assert.deepEqual(log.lines.slice(1), ['Error The redirection will not outlive the agent: no bpf file system'])
})

test('run() ends when its signal does, also while it waits to try again', async (t) => {
  const { run, stopping, running, kernel } = redirection(t, { refuses: 'x' })
  run()
  stopping.abort()
  await running.promise
  assert.equal(kernel.starts, 1)
})
