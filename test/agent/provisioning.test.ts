import assert from 'node:assert/strict'
import { readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { createProvisioning, type ReadyFlag } from '../../src/agent/provisioning.ts'
import { createFakeClock } from '../fakes/clock.ts'
import { createFakeLog } from '../fakes/log.ts'
import { temporaryFolder } from '../fakes/temporary-folder.ts'

const FLAGS: readonly ReadyFlag[] = ['redirector', 'keyLatch', 'listener']
const MILLISECOND_NS = 1_000_000n

async function provisioning(t: TestContext, folder = temporaryFolder(t)) {
  const clock = createFakeClock()
  const log = createFakeLog()
  const console: string[] = []
  const messages: Record<ReadyFlag, string> = {
    redirector: 'eBPF redirector is starting',
    keyLatch: `Failed: Key("acquire", 403) & <more> 'x'`,
    listener: 'Status unknown.',
  }
  const state = createProvisioning({
    directory: folder,
    clock,
    log,
    console: (message) => console.push(message),
    message: (flag) => messages[flag],
  })
  t.after(() => state.stop())
  await state.start()
  const nowTick = () => BigInt(clock.nowMs()) * MILLISECOND_NS
  const tags = async () => {
    // Files are written behind the scenes; `stop` waits for them and the state stays usable.
    await state.stop()
    const read = (name: string) => readFileSync(join(folder, name), 'utf8')
    return readdirSync(folder)
      .sort()
      .map((name) => `${name} ${(statSync(join(folder, name)).mode & 0o777).toString(8)} ${read(name)}`)
  }
  return { clock, log, console, state, nowTick, tags, folder }
}

const ALL_MISSING =
  'ebpfProgramStatus - eBPF redirector is starting\r\n' +
  `keyLatchStatus - Failed: Key("acquire", 403) & <more> 'x'\r\n` +
  'proxyListenerStatus - Status unknown.\r\n'
/** The console shows each line with a header of its own. */
const linesOf = (text: string) => text.trimEnd().split('\r\n')

test('query() is not finished before the flags are set, whatever the tick', async (t) => {
  const { state } = await provisioning(t)
  for (const tick of [0n, -5n, 1n]) {
    for (const isLatched of [false, true])
      assert.deepEqual(state.query(tick, isLatched), { finished: false, errorMessage: ALL_MISSING })
  }
})

test('query() names the flags that are missing, in their order', async (t) => {
  const { state } = await provisioning(t)
  state.set('keyLatch', true)
  assert.equal(
    state.query(0n, false).errorMessage,
    'ebpfProgramStatus - eBPF redirector is starting\r\nproxyListenerStatus - Status unknown.\r\n',
  )
  state.set('redirector', true)
  state.set('listener', true)
  assert.equal(state.query(0n, false).errorMessage, '')
})

for (const last of FLAGS) {
  test(`set() finishes with ${last} as the last flag`, async (t) => {
    const { state, console, tags } = await provisioning(t)
    for (const flag of FLAGS) if (flag !== last) state.set(flag, true)
    assert.equal(state.query(0n, true).finished, false)
    state.set(last, true)
    await state.finished
    assert.equal(state.query(0n, false).finished, true)
    assert.deepEqual(console, ['Provision finished successfully'])
    assert.deepEqual(await tags(), ['provisioned.tag 600 2025-04-23T12:00:00.000', 'status.tag 600 '])
  })
}

test('query() compares ticks with the moment it was finished, unless a key is held', async (t) => {
  const { state, clock, nowTick } = await provisioning(t)
  await clock.advance(1000)
  for (const flag of FLAGS) state.set(flag, true)
  const moment = nowTick()
  const rows: readonly (readonly [situation: string, tick: bigint, isLatched: boolean, finished: boolean])[] = [
    ['no tick', 0n, false, true],
    ['asked before', moment - MILLISECOND_NS, false, true],
    ['asked in the same millisecond', moment + 500_000n, false, true],
    ['asked after', moment + MILLISECOND_NS, false, false],
    ['asked after, key held', moment + MILLISECOND_NS, true, true],
  ]
  for (const [situation, tick, isLatched, finished] of rows)
    assert.equal(state.query(tick, isLatched).finished, finished, situation)
})

test('set() of the key moves the moment each time; of the others it does not', async (t) => {
  const { state, clock, nowTick } = await provisioning(t)
  for (const flag of FLAGS) state.set(flag, true)
  await clock.advance(60_000)
  const later = nowTick()
  state.set('redirector', true)
  state.set('listener', true)
  assert.equal(state.query(later, false).finished, false)
  state.set('keyLatch', true)
  assert.equal(state.query(later, false).finished, true)
})

test('set() goes by the wall clock as it is now, also after it was set', async (t) => {
  const { state, clock, nowTick } = await provisioning(t)
  clock.stepWall(3_600_000)
  const asked = nowTick()
  await clock.advance(10)
  for (const flag of FLAGS) state.set(flag, true)
  assert.equal(state.query(asked, false).finished, true)
  assert.equal(state.query(asked + 11n * MILLISECOND_NS, false).finished, false)
})

test('start() removes the tag files of an earlier run, and nothing else', async (t) => {
  const folder = temporaryFolder(t)
  for (const name of ['provisioned.tag', 'status.tag', 'status.tag.tmp', 'key.json'])
    writeFileSync(join(folder, name), 'old', { mode: 0o644 })
  const { tags } = await provisioning(t, folder)
  assert.deepEqual(await tags(), ['key.json 644 old'])
})

test('tag files replace a link rather than what it points to', async (t) => {
  const { state, folder, tags } = await provisioning(t)
  const outside = temporaryFolder(t)
  writeFileSync(join(outside, 'victim'), 'kept')
  symlinkSync(join(outside, 'victim'), join(folder, 'status.tag.tmp'))
  symlinkSync(join(outside, 'victim'), join(folder, 'status.tag'))
  for (const flag of FLAGS) state.set(flag, true)
  assert.deepEqual(await tags(), ['provisioned.tag 600 2025-04-23T12:00:00.000', 'status.tag 600 '])
  assert.equal(readFileSync(join(outside, 'victim'), 'utf8'), 'kept')
})

test('after 115 s the files say what is missing, escaped for XML', async (t) => {
  const { state, clock, console, log, tags, nowTick } = await provisioning(t)
  state.set('listener', true)
  await clock.advance(114_999)
  assert.equal(state.query(0n, false).finished, false)
  await clock.advance(1)
  assert.deepEqual(state.query(nowTick(), false), {
    finished: true,
    errorMessage: ALL_MISSING.slice(0, ALL_MISSING.indexOf('proxyListener')),
  })
  assert.deepEqual(console, linesOf(ALL_MISSING).slice(0, 2))
  assert.match(log.lines.join(), /^Error Provision ended with errors: ebpfProgramStatus - /)
  assert.deepEqual(await tags(), [
    'provisioned.tag 600 2025-04-23T12:01:55.000',
    'status.tag 600 ebpfProgramStatus - eBPF redirector is starting\r\n' +
      'keyLatchStatus - Failed: Key(&quot;acquire&quot;, 403) &amp; &lt;more&gt; &apos;x&apos;\r\n',
  ])
})

test('a success after the time-out overwrites the failure', async (t) => {
  const { state, clock, console, tags } = await provisioning(t)
  await clock.advance(115_000)
  for (const flag of FLAGS) state.set(flag, true)
  assert.equal(state.query(0n, false).errorMessage, '')
  assert.deepEqual(console, [...linesOf(ALL_MISSING), 'Provision finished successfully'])
  assert.deepEqual((await tags()).at(-1), 'status.tag 600 ')
})

test('the time-out does not speak when all is ready, nor after stop()', async (t) => {
  const ready = await provisioning(t)
  for (const flag of FLAGS) ready.state.set(flag, true)
  await ready.clock.advance(200_000)
  assert.deepEqual(ready.console, ['Provision finished successfully'])
  const stopped = await provisioning(t)
  await stopped.state.stop()
  await stopped.clock.advance(200_000)
  assert.deepEqual(stopped.console, [])
})

test('set() to false is seen by the next query, and does not undo what is finished', async (t) => {
  const { state } = await provisioning(t)
  for (const flag of FLAGS) state.set(flag, true)
  state.set('redirector', false)
  assert.deepEqual(state.query(0n, false), {
    finished: true,
    errorMessage: 'ebpfProgramStatus - eBPF redirector is starting\r\n',
  })
})

test('reset() forgets the key and the moment, and runs the time-out anew', async (t) => {
  const { state, clock, console, tags } = await provisioning(t)
  for (const flag of FLAGS) state.set(flag, true)
  await clock.advance(100_000)
  state.reset()
  assert.equal(state.query(0n, true).finished, false)
  assert.match(state.query(0n, true).errorMessage, /^keyLatchStatus - [^\n]*\r\n$/)
  await clock.advance(114_999)
  assert.equal(state.query(0n, false).finished, false)
  await clock.advance(1)
  assert.equal(state.query(0n, false).finished, true)
  state.set('keyLatch', true)
  assert.equal(console.at(-1), 'Provision finished successfully')
  assert.deepEqual((await tags()).at(-1), 'status.tag 600 ')
})

test('set() again says nothing new on the console', async (t) => {
  const { state, console } = await provisioning(t)
  for (let i = 0; i < 5; i++) for (const flag of FLAGS) state.set(flag, true)
  assert.deepEqual(console, ['Provision finished successfully'])
})

test('a folder that is not there is told, and provisioning goes on', async (t) => {
  const { state, log } = await provisioning(t, join(temporaryFolder(t), 'missing'))
  for (const flag of FLAGS) state.set(flag, true)
  await state.stop()
  assert.equal(state.query(0n, false).finished, true)
  assert.ok(
    log.lines.some((line) => /^Error Cannot write tag files: .*ENOENT/.test(line)),
    log.lines.join('\n'),
  )
})
