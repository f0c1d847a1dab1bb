/**
 * The key keeper against a host that behaves in every way: a small model of the host, faults at every call, crashes of
 * nothing but the disk. After each poll the invariants of the channel must hold.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { AgentError } from '../../src/base/errors.ts'
import type { HostChannel } from '../../src/channel/host-channel.ts'
import { createKeyKeeper } from '../../src/channel/key-keeper.ts'
import type { ChannelSnapshot } from '../../src/channel/key-machine.ts'
import { computeChannelState, type KeyStatus } from '../../src/channel/key-status.ts'
import type { KeyStore } from '../../src/channel/key-store.ts'
import { type LatchedKey, SecretKey } from '../../src/channel/secret-key.ts'
import { createFakeClock } from '../fakes/clock.ts'
import { createFakeLog } from '../fakes/log.ts'

const RUNS = 2000
const POLL_MS = 15_000

/** What may go wrong in one poll; `lost` means that the host did its part and the answer never came. */
type Fault = 'none' | 'error' | 'lost' | 'refused'

interface Faults {
  readonly status: Fault
  readonly acquire: Fault
  readonly attest: Fault
  readonly write: boolean
  readonly check: boolean
  readonly read: boolean
  /** What is asked of the disk from now on gets its answer when the disk does not hang any more. */
  readonly hangs: boolean
}

const HEALTHY: Faults = {
  status: 'none',
  acquire: 'none',
  attest: 'none',
  write: false,
  check: false,
  read: false,
  hangs: false,
}

/** What happens between two polls. */
type Turn =
  | { readonly kind: 'poll'; readonly faults: Faults }
  | { readonly kind: 'rotate' | 'wake' | 'lose-file' }
  | { readonly kind: 'state'; readonly level: Level }

type Level = 'Disabled' | 'Wireserver' | 'WireserverAndImds'

const fault = fc.constantFrom<Fault>('none', 'none', 'none', 'error', 'lost', 'refused')
const broken = fc.constantFrom(false, false, false, true)
const turn: fc.Arbitrary<Turn> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('poll' as const),
      faults: fc.record({
        status: fault,
        acquire: fault,
        attest: fault,
        write: broken,
        check: broken,
        read: broken,
        hangs: broken,
      }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constantFrom('rotate' as const, 'wake' as const, 'lose-file' as const) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('state' as const),
      level: fc.constantFrom<Level>('Disabled', 'Wireserver', 'WireserverAndImds'),
    }),
  },
)

/** The host's side of the latch, and the disk. Counts keys, so that each has an id and digits of its own. */
class World {
  level: Level = 'Wireserver'
  incarnationId = 1
  latchedGuid: string | undefined
  faults = HEALTHY
  readonly issued = new Map<string, LatchedKey>()
  readonly attested = new Set<string>()
  readonly disk = new Map<string, LatchedKey>()
  readonly offered = new Set<string>()

  status(): KeyStatus {
    return {
      version: '1.0',
      authorizationScheme: 'Azure-HMAC-SHA256',
      keyDeliveryMethod: 'http',
      keyGuid: this.latchedGuid,
      keyIncarnationId: this.incarnationId,
      secureChannelState: this.level,
      secureChannelEnabled: undefined,
      authorizationRules: undefined,
      remarks: [],
    }
  }

  rotate(): void {
    this.incarnationId++
    this.latchedGuid = undefined
    this.offered.clear()
  }

  /** A host that has latched a key still gives another: the simulated operator allows it. */
  issue(): LatchedKey {
    const number = this.issued.size + 1
    const hex = number.toString(16).padStart(12, '0')
    const guid = `00000000-0000-4000-8000-${hex}`
    const key = { guid, incarnationId: this.incarnationId, issued: '', key: new SecretKey(hex.padStart(64, '0')) }
    this.issued.set(guid, key)
    this.offered.add(guid)
    return key
  }

  readonly host: HostChannel = {
    getStatus: () => this.#call(this.faults.status, () => this.status()),
    acquireKey: () => this.#call(this.faults.acquire, () => this.issue()),
    attestKey: (key) =>
      this.#call(this.faults.attest, () => {
        if (!this.offered.has(key.guid)) throw new AgentError('KEY_REFUSED', 'Key(KeyResponse("attest", 403))')
        this.latchedGuid = key.guid
        this.attested.add(key.guid)
      }),
  }

  readonly store: KeyStore = {
    prepare: async () => [],
    read: (guid) =>
      this.#onDisk(() => {
        const key = this.disk.get(guid)
        if (key === undefined || this.faults.read) throw new AgentError('KEY_FILE_UNUSABLE', 'no such file')
        return key
      }),
    write: (key) =>
      this.#onDisk(() => {
        if (this.faults.write) throw new AgentError('KEY_STORE_FAILED', 'disk full')
        this.disk.set(key.guid, key)
      }),
    check: (key) =>
      this.#onDisk(() => {
        if (this.faults.check) throw new AgentError('KEY_CHECK_FAILED', 'not matched')
        assert.equal(this.disk.get(key.guid), key)
      }),
    removeOthers: (guid) =>
      this.#onDisk(() => {
        for (const other of [...this.disk.keys()]) if (other !== guid) this.disk.delete(other)
        return 0
      }),
  }

  /** Pending while the disk hangs. */
  #answering: PromiseWithResolvers<void> | undefined
  #running = 0
  /** Operations on the disk that ran at once, at most. Told here, since the keeper takes what is thrown for a fault of the disk. */
  mostRunning = 0

  setFaults(faults: Faults): void {
    this.faults = faults
    if (faults.hangs) this.#answering ??= Promise.withResolvers()
    else {
      this.#answering?.resolve()
      this.#answering = undefined
    }
  }

  async #onDisk<T>(run: () => T): Promise<T> {
    this.#running++
    this.mostRunning = Math.max(this.mostRunning, this.#running)
    try {
      await this.#answering?.promise
      return run()
    } finally {
      this.#running--
    }
  }

  async #call<T>(kind: Fault, run: () => T): Promise<T> {
    if (kind === 'error') throw new AgentError('HOST_CALL_FAILED', 'reset')
    if (kind === 'refused') throw new AgentError('KEY_REFUSED', 'Key(KeyResponse("x", 403))')
    const result = run()
    if (kind === 'lost') throw new AgentError('HOST_CALL_FAILED', 'time-out')
    return result
  }
}

/** Runs a keeper in `world` through `turns`, then lets all faults end for one poll interval. */
async function play(turns: readonly Turn[]): Promise<void> {
  const world = new World()
  const clock = createFakeClock()
  const bornMs = clock.monotonicMs()
  const stopping = new AbortController()
  const published: ChannelSnapshot[] = []
  let milestones = 0
  const keeper = createKeyKeeper({
    host: world.host,
    store: world.store,
    clock,
    log: createFakeLog(),
    pollIntervalMs: POLL_MS,
    processAgeMs: () => 400_000 + clock.monotonicMs() - bornMs,
    events: {
      onMessage: () => undefined,
      onMilestone: () => milestones++,
      onRules: () => undefined,
      onReset: () => undefined,
      onSnapshot: (snapshot) => published.push(snapshot),
    },
  })
  const check = () => {
    assert.ok(world.mostRunning <= 1, 'two operations on the disk at once')
    for (const { key, isLatched, stateText, state } of [...published.splice(0), keeper.snapshot()]) {
      if (key !== undefined) {
        assert.equal(world.issued.get(key.guid), key, 'a key and an id that the host did not give together')
        assert.ok(world.attested.has(key.guid), 'signs with a key that the host never took')
      }
      if (isLatched && stateText !== 'disabled') assert.ok(key !== undefined, 'latched without a key')
      if (stateText === 'disabled') assert.equal(key, undefined, 'keeps a key while disabled')
      if (state !== undefined && stateText !== 'Unknown') assert.equal(state.text, stateText)
    }
  }

  world.setFaults(turns[0]?.kind === 'poll' ? turns[0].faults : HEALTHY)
  const done = keeper.run(stopping.signal)
  await clock.settle()
  check()
  for (const each of turns) {
    if (each.kind === 'poll') {
      world.setFaults(each.faults)
      await clock.advance(POLL_MS)
    } else if (each.kind === 'state') world.level = each.level
    else if (each.kind === 'rotate') world.rotate()
    else if (each.kind === 'lose-file') world.disk.clear()
    else keeper.wake()
    await clock.settle()
    check()
  }

  world.setFaults(HEALTHY)
  await clock.advance(POLL_MS)
  await clock.settle()
  check()
  const { key, isLatched, state } = keeper.snapshot()
  assert.ok(isLatched, 'not latched one poll after the last fault')
  assert.equal(key?.guid, world.level === 'Disabled' ? undefined : world.latchedGuid)
  assert.deepEqual(state?.modes, computeChannelState(world.status()).modes, 'modes that are not those of the host')
  if (key !== undefined) assert.ok(world.disk.has(key.guid) || turns.some(({ kind }) => kind === 'lose-file'))
  assert.ok(milestones > 0)
  stopping.abort()
  await done
}

test(`the key keeper holds its invariants and recovers within one poll, in ${RUNS} random histories`, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(turn, { minLength: 1, maxLength: 25 }), (turns) => play(turns)),
    { numRuns: RUNS },
  )
})

test('the host that never acknowledges a key is not asked for a new one at every poll', async () => {
  const world = new World()
  const clock = createFakeClock()
  const stopping = new AbortController()
  const attest = world.host.attestKey
  const forgetful: HostChannel = {
    ...world.host,
    attestKey: async (key) => {
      await attest(key)
      world.latchedGuid = undefined
    },
  }
  const keeper = createKeyKeeper({
    host: forgetful,
    store: world.store,
    clock,
    log: createFakeLog(),
    pollIntervalMs: POLL_MS,
    processAgeMs: () => 400_000,
    events: {
      onMessage: () => undefined,
      onMilestone: () => undefined,
      onRules: () => undefined,
      onReset: () => undefined,
      onSnapshot: () => undefined,
    },
  })
  const done = keeper.run(stopping.signal)
  await clock.advance(100 * POLL_MS)
  assert.ok(world.issued.size >= 3, 'a rotation must still be followed')
  assert.ok(world.issued.size <= 12, `${world.issued.size} keys in 100 polls`)
  assert.ok(keeper.snapshot().isLatched)
  const before = world.issued.size
  world.rotate()
  await clock.advance(POLL_MS)
  assert.equal(world.issued.size, before + 1, 'a raised incarnation is followed at once')
  stopping.abort()
  await done
})
