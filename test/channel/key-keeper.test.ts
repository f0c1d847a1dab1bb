import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { AgentError } from '../../src/base/errors.ts'
import type { HostChannel } from '../../src/channel/host-channel.ts'
import { createKeyKeeper, type KeyKeeper } from '../../src/channel/key-keeper.ts'
import type { ChannelSnapshot } from '../../src/channel/key-machine.ts'
import type { KeyStatus } from '../../src/channel/key-status.ts'
import type { KeyStore } from '../../src/channel/key-store.ts'
import { type LatchedKey, SecretKey } from '../../src/channel/secret-key.ts'
import { createFakeClock } from '../fakes/clock.ts'
import { createFakeLog } from '../fakes/log.ts'

const [GUID_A, GUID_B, GUID_C] = ['a', 'b', 'c'].map((letter) => `${letter.repeat(8)}-0316-4ad3-94a7-8ccbdee8ccbf`) as [
  string,
  string,
  string,
]
const KEYS: Readonly<Record<string, LatchedKey>> = Object.fromEntries(
  [GUID_A, GUID_B, GUID_C].map((guid) => [
    guid,
    { guid, incarnationId: 1, issued: '', key: new SecretKey((guid[0] as string).repeat(64)) },
  ]),
)
const keyOf = (guid: string) => KEYS[guid] as LatchedKey

/** An enforcing status of protocol 1.0, or what `changes` make of it. */
function status(changes: Partial<KeyStatus> = {}): KeyStatus {
  return {
    version: '1.0',
    authorizationScheme: 'Azure-HMAC-SHA256',
    keyDeliveryMethod: 'http',
    keyGuid: undefined,
    keyIncarnationId: undefined,
    secureChannelState: 'Wireserver',
    secureChannelEnabled: undefined,
    authorizationRules: undefined,
    remarks: [],
    ...changes,
  }
}

const DISABLED = status({ secureChannelState: 'Disabled' })
const failure = (message: string) => new AgentError('TEST', message, { fact: 'not for the status line' })
const REFUSED = failure('Connection refused (os error 111)')

/** What the host and the disk do when they are asked; a test changes the members. */
interface World {
  status: KeyStatus | Error
  acquired: LatchedKey | Error
  attested: Error | undefined
  written: Error | undefined
  checked: Error | undefined
  whileAcquiring: (() => void) | undefined
  /** What begins on the disk waits for this, if it is an operation of that name, or of any. */
  disk: Promise<void> | undefined
  hangingOperation: string
  /** What whoever takes the rules waits for. */
  rulesTaken: Promise<void> | undefined
  /** Ids of the keys on disk. */
  readonly onDisk: Set<string>
}

/** Runs a keeper whose every act and word goes to `journal`, in order. */
function startKeeper(t: TestContext, changes: Partial<World> = {}) {
  const clock = createFakeClock()
  const bornMs = clock.monotonicMs()
  const log = createFakeLog()
  const journal: string[] = []
  const snapshots: ChannelSnapshot[] = []
  const world: World = {
    status: REFUSED,
    acquired: keyOf(GUID_A),
    attested: undefined,
    written: undefined,
    checked: undefined,
    whileAcquiring: undefined,
    disk: undefined,
    hangingOperation: '',
    rulesTaken: undefined,
    onDisk: new Set(),
    ...changes,
  }
  const ask = async <T>(what: string, answer: T | Error, signal?: AbortSignal): Promise<T> => {
    journal.push(what)
    await Promise.resolve()
    if (signal?.aborted) throw failure('aborted')
    if (answer instanceof Error) throw answer
    return answer
  }
  const askDisk = async <T>(what: string, answer: () => T | Error): Promise<T> => {
    const { disk } = world
    journal.push(what)
    if (disk !== undefined && what.startsWith(world.hangingOperation)) {
      await disk
      journal.push(`${what}, late`)
    } else await Promise.resolve()
    const result = answer()
    if (result instanceof Error) throw result
    return result
  }
  const host: HostChannel = {
    getStatus: (signal) => ask('status', world.status, signal),
    acquireKey: (signal) => {
      world.whileAcquiring?.()
      return ask('acquire', world.acquired, signal)
    },
    attestKey: (key, signal) => ask(`attest ${key.guid[0]}`, world.attested, signal),
  }
  const store: KeyStore = {
    prepare: () => askDisk('prepare', () => ['the folder is odd']),
    read: (guid) =>
      askDisk<LatchedKey>(`read ${guid[0]}`, () => (world.onDisk.has(guid) ? keyOf(guid) : failure('no such file'))),
    write: async (key) => {
      await askDisk(`write ${key.guid[0]}`, () => world.written)
      world.onDisk.add(key.guid)
    },
    check: (key) => askDisk(`check ${key.guid[0]}`, () => world.checked),
    removeOthers: (guid) => askDisk(`remove all but ${guid[0]}`, () => 2),
  }
  const stopping = new AbortController()
  const keeper: KeyKeeper = createKeyKeeper({
    host,
    store,
    clock,
    log,
    pollIntervalMs: 15_000,
    processAgeMs: () => clock.monotonicMs() - bornMs,
    events: {
      onMessage: (message) => journal.push(`message: ${message}`),
      onMilestone: (message, elapsedMs) => journal.push(`milestone: ${message} ${elapsedMs}`),
      onRules: (rules) => {
        journal.push(`rules: ${JSON.stringify(rules) ?? 'none'}`)
        return world.rulesTaken
      },
      onReset: () => journal.push('reset'),
      onSnapshot: (snapshot) => {
        assert.equal(snapshot, keeper.snapshot())
        snapshots.push(snapshot)
        journal.push(`snapshot: ${show(snapshot)}`)
      },
    },
  })
  const done = keeper.run(stopping.signal)
  t.after(() => {
    stopping.abort()
    return done
  })
  return {
    clock,
    log,
    world,
    keeper,
    snapshots,
    done,
    stop: () => stopping.abort(),
    /** Lets time pass and gives what happened meanwhile. */
    async pass(ms: number): Promise<string[]> {
      journal.length = 0
      await clock.advance(ms)
      return [...journal]
    },
    /** Lets what was started come to rest and gives all that happened since the last look. */
    async look(): Promise<string[]> {
      await clock.settle()
      return journal.splice(0)
    },
  }
}

function show(snapshot: ChannelSnapshot): string {
  const key = snapshot.key === undefined ? 'no key' : `key ${snapshot.key.guid[0]}`
  return `${snapshot.stateText}, ${key}, ${snapshot.isLatched ? 'latched' : 'not latched'}`
}

const FOUND = 'Found key details from local and ready to use.'
const ATTESTED = 'Successfully attest the key and ready to use.'
const NOT_ENFORCED = 'Customer has not enforce the secure channel state.'

describe('run() starts', () => {
  test('with the folder, then polls at once', async (t) => {
    const { look, log, keeper } = startKeeper(t)
    assert.equal(show(keeper.snapshot()), 'Unknown, no key, not latched')
    assert.deepEqual(await look(), [
      'message: poll secure channel status task started.',
      'prepare',
      'status',
      'message: Failed to get key status - Connection refused (os error 111)',
    ])
    assert.ok(log.lines.includes('Warn the folder is odd'))
  })

  test('and polls every second while it knows nothing, for five minutes, then at the interval', async (t) => {
    const { look, pass } = startKeeper(t)
    await look()
    const polls = (entries: string[]) => entries.filter((entry) => entry === 'status').length
    assert.equal(polls(await pass(299_000)), 299)
    assert.equal(polls(await pass(1_000)), 1)
    assert.equal(polls(await pass(14_999)), 0)
    assert.equal(polls(await pass(1)), 1)
    assert.equal(polls(await pass(60_000)), 4)
  })

  test('and polls at the interval once the state is known', async (t) => {
    const { look, pass } = startKeeper(t, { status: DISABLED })
    await look()
    assert.deepEqual(await pass(14_999), [])
    assert.deepEqual(await pass(1), ['status', 'rules: none', 'snapshot: disabled, no key, latched'])
  })
})

describe('a key is obtained', () => {
  const start = ['message: poll secure channel status task started.', 'prepare']

  test('from disk when the host names one that is there, without attesting it anew', async (t) => {
    const { look } = startKeeper(t, { status: status({ keyGuid: GUID_B }), onDisk: new Set([GUID_B]) })
    assert.deepEqual(await look(), [
      ...start,
      'status',
      'rules: none',
      'read b',
      `milestone: ${FOUND} 0`,
      'snapshot: wireserver, key b, latched',
      'remove all but b',
    ])
  })

  test('from the host when there is none on disk: acquire, write, check, attest', async (t) => {
    const { look, log } = startKeeper(t, { status: status({ keyGuid: GUID_B }) })
    assert.deepEqual(await look(), [
      ...start,
      'status',
      'rules: none',
      'read b',
      'acquire',
      'write a',
      'check a',
      'attest a',
      `milestone: ${ATTESTED} 0`,
      'snapshot: wireserver, key a, latched',
      'remove all but a',
    ])
    assert.ok(
      log.lines.includes(
        'Info Failed to fetch local key details with error: no such file (fact=not for the status line). ' +
          'Will try acquire the key details from Server.',
      ),
    )
  })

  for (const [situation, keyGuid] of [
    ['names none', undefined],
    ['names nothing', ''],
    ['names something that is no id', '../../etc/passwd'],
  ] as const) {
    test(`from the host, without a look at the disk, when it ${situation}`, async (t) => {
      const { look } = startKeeper(t, { status: status({ keyGuid }), onDisk: new Set(['', '../../etc/passwd']) })
      assert.deepEqual((await look()).slice(4), [
        'acquire',
        'write a',
        'check a',
        'attest a',
        `milestone: ${ATTESTED} 0`,
        'snapshot: wireserver, key a, latched',
        'remove all but a',
      ])
    })
  }

  test('not again while the host names the key that is held', async (t) => {
    const { look, pass, world } = startKeeper(t, { status: status() })
    await look()
    world.status = status({ keyGuid: GUID_A })
    assert.deepEqual(await pass(15_000), ['status', 'rules: none', 'snapshot: wireserver, key a, latched'])
  })

  test('again when the host names another', async (t) => {
    const { look, pass, world } = startKeeper(t, {
      status: status({ keyGuid: GUID_A }),
      onDisk: new Set([GUID_A, GUID_C]),
    })
    await look()
    world.status = status({ keyGuid: GUID_C })
    assert.deepEqual(await pass(15_000), [
      'status',
      'rules: none',
      'read c',
      `milestone: ${FOUND} 15000`,
      'snapshot: wireserver, key c, latched',
      'remove all but c',
    ])
  })

  test('not at all while the channel is disabled', async (t) => {
    const { look, keeper } = startKeeper(t, { status: DISABLED, onDisk: new Set([GUID_A]) })
    assert.deepEqual((await look()).slice(2), [
      'status',
      'rules: none',
      `milestone: ${NOT_ENFORCED} 0`,
      'snapshot: disabled, no key, latched',
    ])
    assert.deepEqual(keeper.snapshot().state?.modes, { wireserver: 'disabled', imds: 'disabled', hostga: 'disabled' })
  })

  test('when an enabled channel has all its modes disabled', async (t) => {
    const item = { defaultAccess: 'allow', mode: 'disabled', id: '' }
    const { look, keeper } = startKeeper(t, {
      status: status({
        version: '2.0',
        secureChannelState: undefined,
        secureChannelEnabled: true,
        authorizationRules: { wireserver: item, imds: item },
      }),
    })
    await look()
    assert.equal(show(keeper.snapshot()), 'WireServer Disabled -  IMDS Disabled - HostGA Disabled, key a, latched')
  })
})

describe('a step that fails is told in the known words and leaves the key as it was', () => {
  const key403 = failure('Key(KeyResponse("acquire", 403))')
  const attest403 = failure('Key(KeyResponse("attest", 403))')
  const rows: readonly (readonly [step: string, world: Partial<World>, message: string, last: string])[] = [
    ['acquire', { acquired: key403 }, 'Failed to acquire key details: Key(KeyResponse("acquire", 403))', 'acquire'],
    ['write', { written: failure('X') }, 'Failed to save key details to file: X', 'write c'],
    ['check', { checked: failure('X') }, `Failed to check the key '${GUID_C}' details saved locally: X.`, 'check c'],
    ['attest', { attested: attest403 }, 'Failed to attest the key: Key(KeyResponse("attest", 403))', 'attest c'],
    ['a bug', { acquired: new TypeError('oops') }, 'Failed to acquire key details: oops', 'acquire'],
  ]
  for (const [step, change, message, last] of rows) {
    test(`${step}, with no key before`, async (t) => {
      const { look, keeper } = startKeeper(t, { status: status(), acquired: keyOf(GUID_C), ...change })
      const entries = await look()
      assert.deepEqual(entries.slice(-3), [last, `message: ${message}`, 'snapshot: wireserver, no key, not latched'])
      assert.equal(keeper.snapshot().key, undefined)
    })

    test(`${step}, with a key before that the host no longer names`, async (t) => {
      const { look, pass, world } = startKeeper(t, { status: status({ keyGuid: GUID_A }), onDisk: new Set([GUID_A]) })
      await look()
      Object.assign(world, { status: status({ keyGuid: GUID_B }), acquired: keyOf(GUID_C) }, change)
      const entries = await pass(15_000)
      assert.deepEqual(entries.slice(-3), [last, `message: ${message}`, 'snapshot: wireserver, key a, not latched'])
    })
  }

  test('and is tried again from the status at the next poll', async (t) => {
    const { look, pass, world } = startKeeper(t, { status: status(), acquired: key403 })
    await look()
    assert.deepEqual((await pass(15_000)).slice(0, 3), ['status', 'rules: none', 'acquire'])
    world.acquired = keyOf(GUID_B)
    assert.equal((await pass(15_000)).at(-2), 'snapshot: wireserver, key b, latched')
  })

  test('a status that fails changes nothing but the message', async (t) => {
    const { look, pass, world, keeper } = startKeeper(t, {
      status: status({ keyGuid: GUID_A }),
      onDisk: new Set([GUID_A]),
    })
    await look()
    const before = keeper.snapshot()
    world.status = REFUSED
    assert.deepEqual(await pass(15_000), [
      'status',
      'message: Failed to get key status - Connection refused (os error 111)',
    ])
    assert.equal(keeper.snapshot(), before)
  })
})

describe('a disk that hangs', () => {
  const HANGS = 'the disk of the keys hangs, no answer within 10 s'
  const RULES = { imds: { id: 'new', mode: 'enforce', defaultAccess: 'deny' } }

  /** A keeper that holds key a, the host wants another, and the disk hangs from now on. */
  async function startRotation(t: TestContext) {
    const scene = startKeeper(t, { status: status({ keyGuid: GUID_A }), onDisk: new Set([GUID_A]) })
    await scene.look()
    const { promise, resolve } = Promise.withResolvers<void>()
    t.after(() => resolve())
    Object.assign(scene.world, { status: status(), acquired: keyOf(GUID_C), disk: promise })
    return {
      ...scene,
      async thaw() {
        await scene.look()
        scene.world.disk = undefined
        resolve()
        return await scene.look()
      },
    }
  }

  test('in a write: polls go on, what they bring is followed, and the disk is asked nothing more', async (t) => {
    const { pass, world, thaw, keeper } = await startRotation(t)
    assert.deepEqual(await pass(15_000), ['status', 'rules: none', 'acquire', 'write c'])
    assert.deepEqual(await pass(10_000), [
      `message: Failed to save key details to file: ${HANGS}`,
      'snapshot: wireserver, key a, latched',
    ])
    world.status = status({ authorizationRules: RULES, secureChannelState: 'WireserverAndImds' })
    for (let poll = 0; poll < 3; poll++) {
      assert.deepEqual(await pass(15_000), [
        'status',
        `rules: ${JSON.stringify(RULES)}`,
        `message: Failed to save key details to file: ${HANGS}`,
        'snapshot: wireserverandimds, key a, latched',
      ])
    }
    assert.equal(keeper.snapshot().state?.modes.imds, 'enforce')

    assert.deepEqual(await thaw(), ['write c, late'], 'a late outcome starts nothing')
    assert.deepEqual((await pass(15_000)).slice(2), [
      'write c',
      'check c',
      'attest c',
      `milestone: ${ATTESTED} 85000`,
      'snapshot: wireserverandimds, key c, latched',
      'remove all but c',
    ])
  })

  test('in a write that fails late: it is tried again, with the same key', async (t) => {
    const { pass, world, thaw, keeper } = await startRotation(t)
    await pass(40_000)
    world.written = failure('No space left on device')
    await thaw()
    world.written = undefined
    const entries = await pass(15_000)
    assert.ok(!entries.includes('acquire'))
    assert.equal(entries[2], 'write c')
    assert.equal(keeper.snapshot().key?.guid, GUID_C)
  })

  test('in a write of a key that the host has replaced meanwhile: the next one is not begun before, and is used', async (t) => {
    const { pass, world, thaw, keeper } = await startRotation(t)
    await pass(40_000)
    Object.assign(world, { status: status({ keyIncarnationId: 2 }), acquired: keyOf(GUID_B) })
    assert.deepEqual((await pass(15_000)).slice(2, 4), [
      'acquire',
      `message: Failed to save key details to file: ${HANGS}`,
    ])
    assert.equal(keeper.snapshot().key?.guid, GUID_A)
    assert.deepEqual(await thaw(), ['write c, late'])
    assert.deepEqual((await pass(15_000)).slice(2, 5), ['write b', 'check b', 'attest b'])
    assert.equal(keeper.snapshot().key?.guid, GUID_B)
  })

  test('in a check: the key is neither attested nor given up', async (t) => {
    const { pass, world, thaw, keeper } = await startRotation(t)
    world.hangingOperation = 'check'
    assert.deepEqual((await pass(15_000)).slice(-2), ['write c', 'check c'])
    assert.deepEqual((await pass(10_000)).slice(0, 1), [
      `message: Failed to check the key '${GUID_C}' details saved locally: ${HANGS}.`,
    ])
    const next = await pass(15_000)
    assert.ok(!next.includes('acquire') && !next.includes('attest c'), next.join('\n'))
    assert.deepEqual(await thaw(), ['check c, late'])
    assert.deepEqual((await pass(15_000)).slice(2, 5), ['write c', 'check c', 'attest c'])
    assert.equal(keeper.snapshot().key?.guid, GUID_C)
  })

  test('at the start: the host is asked all the same, and a key that can be read is used', async (t) => {
    const { promise, resolve } = Promise.withResolvers<void>()
    t.after(() => resolve())
    const { pass, log } = startKeeper(t, {
      status: status({ keyGuid: GUID_B }),
      onDisk: new Set([GUID_B]),
      disk: promise,
      hangingOperation: 'prepare',
    })
    assert.ok((await pass(10_000)).includes('snapshot: wireserver, key b, latched'))
    assert.ok(log.lines.includes(`Warn The key directory is not prepared yet: ${HANGS}`))
  })

  test('in a read: the key that may be there is not replaced, and found when the disk answers', async (t) => {
    const { promise, resolve } = Promise.withResolvers<void>()
    const { look, pass, world } = startKeeper(t, {
      status: status({ keyGuid: GUID_B }),
      onDisk: new Set([GUID_B]),
      disk: promise,
    })
    t.after(() => resolve())
    await look()
    const entries = await pass(100_000)
    assert.ok(entries.filter((entry) => entry === 'status').length >= 5, entries.join('\n'))
    assert.ok(!entries.includes('acquire'))
    assert.deepEqual(entries.slice(-2), [
      `message: Failed to fetch local key details with error: ${HANGS}.`,
      'snapshot: wireserver, no key, not latched',
    ])
    world.disk = undefined
    resolve()
    assert.ok((await pass(15_000)).includes('snapshot: wireserver, key b, latched'))
  })

  test('in the removal of old keys: the new one is in use, and told, before', async (t) => {
    const { pass, world, log } = await startRotation(t)
    world.hangingOperation = 'remove'
    assert.deepEqual((await pass(15_000)).slice(-2), ['snapshot: wireserver, key c, latched', 'remove all but c'])
    world.status = status({ keyGuid: GUID_C })
    assert.deepEqual(await pass(25_000), ['status', 'rules: none', 'snapshot: wireserver, key c, latched'])
    assert.ok(log.lines.includes(`Warn Superseded key files stay for now: ${HANGS}`))
  })

  test('that the rules wait for: modes and polls do not, and it is told once', async (t) => {
    const { look, pass, world, log, keeper } = startKeeper(t, { status: status({ keyGuid: GUID_A }) })
    await look()
    world.rulesTaken = new Promise(() => undefined)
    world.status = status({ keyGuid: GUID_A, secureChannelState: 'WireserverAndImds' })
    const entries = await pass(100_000)
    assert.equal(entries.filter((entry) => entry === 'status').length, 4)
    assert.equal(keeper.snapshot().state?.modes.imds, 'enforce')
    assert.equal(log.lines.filter((line) => line === 'Warn The rules of the host wait for a disk that hangs').length, 1)
  })
})

describe('the status message recovers', () => {
  test('at the first good poll after a failure, with a key', async (t) => {
    const { look, pass, world } = startKeeper(t, { status: status({ keyGuid: GUID_A }), onDisk: new Set([GUID_A]) })
    await look()
    world.status = REFUSED
    await pass(15_000)
    world.status = status({ keyGuid: GUID_A })
    assert.deepEqual(await pass(15_000), [
      'status',
      'rules: none',
      `message: ${FOUND} - 0`,
      'snapshot: wireserver, key a, latched',
    ])
    assert.deepEqual(await pass(15_000), ['status', 'rules: none', 'snapshot: wireserver, key a, latched'])
  })

  test('at the first good poll after a failure, in the disabled state', async (t) => {
    const { look, pass, world } = startKeeper(t, { status: DISABLED })
    await look()
    world.status = REFUSED
    await pass(15_000)
    world.status = DISABLED
    assert.deepEqual(await pass(15_000), [
      'status',
      'rules: none',
      `message: ${NOT_ENFORCED} - 0`,
      'snapshot: disabled, no key, latched',
    ])
  })
})

describe('the channel changes', () => {
  test('to disabled: the key is cleared', async (t) => {
    const { look, pass, world, keeper } = startKeeper(t, { status: status() })
    await look()
    world.status = DISABLED
    assert.deepEqual(await pass(15_000), [
      'status',
      'rules: none',
      `milestone: ${NOT_ENFORCED} 15000`,
      'snapshot: disabled, no key, latched',
    ])
    assert.equal(keeper.snapshot().key, undefined)
  })

  test('from disabled to enforcing: latched only once there is a key', async (t) => {
    const { look, pass, world } = startKeeper(t, { status: DISABLED })
    await look()
    Object.assign(world, { status: status(), acquired: failure('no') })
    assert.equal((await pass(15_000)).at(-1), 'snapshot: wireserver, no key, not latched')
  })

  test('in its status text: told once, with what the host did not do well', async (t) => {
    const remarks = ["keyDeliveryMethod 'HTTP' is invalid; "]
    const { look, pass, log } = startKeeper(t, { status: status({ secureChannelState: 'Disabled', remarks }) })
    await look()
    await pass(30_000)
    const told = log.lines.filter((line) => line.includes('Got key status') || line.includes('is used although'))
    assert.equal(told.length, 4)
    assert.match(told[0] as string, /^Warn Got key status successfully: /)
    assert.equal(told[1], "Warn Key status is used although keyDeliveryMethod 'HTTP' is invalid")
    assert.match(told[2] as string, /^Trace /)
    assert.match(told[3] as string, /^Trace /)
  })

  test('its rules are handed on at every poll', async (t) => {
    const authorizationRules = { imds: { defaultAccess: 'deny', mode: 'audit', id: 'i' } }
    const { look, pass } = startKeeper(t, { status: status({ authorizationRules }) })
    await look()
    assert.ok((await pass(15_000)).includes(`rules: ${JSON.stringify(authorizationRules)}`))
  })
})

describe('wake()', () => {
  test('in the disabled state polls at once, and forgets nothing while the host answers', async (t) => {
    const { look, keeper, pass } = startKeeper(t, { status: DISABLED })
    await look()
    await pass(5_000)
    keeper.wake()
    assert.deepEqual(await look(), ['status', 'rules: none', 'snapshot: disabled, no key, latched'])
  })

  test('in the disabled state starts over when the host does not answer', async (t) => {
    const { look, keeper, pass, world } = startKeeper(t, { status: DISABLED })
    await look()
    await pass(5_000)
    world.status = REFUSED
    keeper.wake()
    assert.deepEqual(await look(), [
      'status',
      'message: Failed to get key status - Connection refused (os error 111)',
      'reset',
      'snapshot: Unknown, no key, not latched',
    ])
    world.status = DISABLED
    assert.deepEqual((await pass(1_000)).slice(-2), [
      `milestone: ${NOT_ENFORCED} 6000`,
      'snapshot: disabled, no key, latched',
    ])
  })

  test('refresh() polls at once in every state', async (t) => {
    const { look, keeper, pass } = startKeeper(t, { status: status({ keyGuid: GUID_A }), onDisk: new Set([GUID_A]) })
    await look()
    await pass(5_000)
    keeper.refresh()
    assert.equal((await look())[0], 'status')
    assert.deepEqual(await pass(14_999), [], 'the interval begins anew')
  })

  test('before the first good status starts over and polls at once', async (t) => {
    const { look, keeper } = startKeeper(t)
    await look()
    keeper.wake()
    assert.deepEqual((await look()).slice(0, 3), ['reset', 'snapshot: Unknown, no key, not latched', 'status'])
  })

  test('with a key tells the snapshot again, and does not poll', async (t) => {
    const { look, keeper } = startKeeper(t, { status: status() })
    await look()
    keeper.wake()
    assert.deepEqual(await look(), ['snapshot: wireserver, key a, latched'])
  })

  test('with a key does not put the next poll off, however often it comes', async (t) => {
    const { look, keeper, pass } = startKeeper(t, { status: status({ keyGuid: GUID_A }), onDisk: new Set([GUID_A]) })
    await look()
    for (let second = 1; second < 15; second++) {
      assert.deepEqual(
        (await pass(1000)).filter((entry) => entry === 'status'),
        [],
      )
      keeper.wake()
    }
    assert.ok((await pass(1000)).includes('status'))
  })

  test('while a key is wanted polls at once, without starting over', async (t) => {
    const { look, keeper, world } = startKeeper(t, { status: status(), acquired: REFUSED })
    await look()
    world.acquired = keyOf(GUID_B)
    keeper.wake()
    const entries = await look()
    assert.equal(entries[0], 'status')
    assert.equal(entries.at(-2), 'snapshot: wireserver, key b, latched')
    assert.ok(!entries.includes('reset'))
  })

  test('while a key is wanted polls out of turn once in an interval, whoever asks how often', async (t) => {
    const { look, keeper, pass } = startKeeper(t, { status: status(), acquired: REFUSED })
    await look()
    let polls = 0
    for (let second = 0; second < 30; second++) {
      keeper.wake()
      polls += (await pass(1000)).filter((entry) => entry === 'status').length
    }
    assert.equal(polls, 4, 'two that were due, and one more for each interval')
  })

  test('within a second of the last one is put off, and several become one', async (t) => {
    const { look, keeper, pass } = startKeeper(t, { status: DISABLED })
    await look()
    keeper.wake()
    await look()
    await pass(998)
    keeper.wake()
    keeper.wake()
    assert.deepEqual(await look(), [])
    assert.equal((await pass(2)).filter((entry) => entry === 'status').length, 1)
  })

  test('during a poll is kept for the end of it', async (t) => {
    const { look, keeper } = startKeeper(t, { status: DISABLED })
    keeper.wake()
    const entries = await look()
    assert.equal(entries.filter((entry) => entry === 'status').length, 2)
  })
})

describe('snapshot()', () => {
  test('never pairs a key with the id of another, through any order of changes', async (t) => {
    const { look, pass, world, snapshots } = startKeeper(t)
    await look()
    const statuses = [undefined, GUID_A, GUID_B, GUID_C].map((keyGuid) => status({ keyGuid }))
    const scenes: readonly Partial<World>[] = [
      ...statuses.flatMap((each) => [
        { status: each, acquired: keyOf(GUID_B) },
        { status: each, acquired: keyOf(GUID_C), attested: REFUSED },
        { status: each, acquired: keyOf(GUID_A), attested: undefined },
      ]),
      { status: DISABLED },
      { status: REFUSED },
    ]
    for (let step = 0; step < 300; step++) {
      Object.assign(world, scenes[(step * 7919) % scenes.length])
      if (step % 11 === 0) world.onDisk.delete(GUID_B)
      await pass(15_000)
    }
    const withKey = snapshots.filter(({ key }) => key !== undefined)
    assert.ok(withKey.length > 100)
    for (const { key, stateText } of snapshots) {
      if (key === undefined) continue
      assert.equal(key.key.revealHex(), (key.guid[0] as string).toUpperCase().repeat(64))
      assert.notEqual(stateText, 'disabled')
    }
    assert.ok(snapshots.every((snapshot) => snapshot.stateText !== 'disabled' || snapshot.isLatched))
    assert.ok(
      snapshots.every(({ isLatched, key, stateText }) => !isLatched || key !== undefined || stateText === 'disabled'),
    )
  })
})

describe('run() ends', () => {
  test('at once while it waits', async (t) => {
    const { look, done, stop } = startKeeper(t, { status: DISABLED })
    await look()
    stop()
    await done
    assert.deepEqual(await look(), ['message: poll_secure_channel_status task cancelled.'])
  })

  test('during a status call, without a word of failure', async (t) => {
    const { look, done, stop } = startKeeper(t)
    stop()
    await done
    const entries = await look()
    assert.equal(entries.at(-1), 'message: poll_secure_channel_status task cancelled.')
    assert.ok(!entries.some((entry) => entry.includes('Failed')), entries.join('\n'))
  })

  test('while a key is being acquired, without a word of failure', async (t) => {
    const { look, done, stop, world } = startKeeper(t, { status: status() })
    world.whileAcquiring = stop
    await done
    const entries = await look()
    assert.deepEqual(entries.slice(-2), ['acquire', 'message: poll_secure_channel_status task cancelled.'])
  })
})
