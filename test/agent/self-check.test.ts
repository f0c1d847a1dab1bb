import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createSelfCheck } from '../../src/agent/self-check.ts'
import { createFakeClock } from '../fakes/clock.ts'
import { createFakeLog } from '../fakes/log.ts'

const WATCHDOG_MS = 4000

async function running(world: {
  gap?: string | undefined
  failure?: string | undefined
  obstacle?: string | undefined
}) {
  const clock = createFakeClock()
  const log = createFakeLog()
  const told: string[] = []
  const stopping = new AbortController()
  const check = createSelfCheck({
    probe: { run: async () => world.failure, isAsked: () => false },
    findGap: () => world.gap,
    findObstacle: () => world.obstacle,
    manager: {
      watchdogMs: WATCHDOG_MS,
      ready: () => void told.push('ready'),
      status: () => undefined,
      reloading: () => () => undefined,
      stopping: () => undefined,
      inherited: new Map(),
      keep: () => undefined,
      drop: () => undefined,
      beat: () => void told.push('beat'),
    },
    describe: () => '',
    clock,
    log,
  })
  const done = check.run(stopping.signal)
  await clock.settle()
  const count = (word: string) => told.filter((each) => each === word).length
  return {
    check,
    log,
    world,
    /** Beats while time goes on. */
    async beats(ms: number) {
      const before = count('beat')
      await clock.advance(ms)
      return count('beat') - before
    },
    isReady: () => told.includes('ready'),
    async stop() {
      stopping.abort()
      await done
    },
  }
}

test('it beats four times in the time of the watchdog while the probe passes, and is ready at once', async () => {
  const { check, beats, isReady, stop } = await running({})
  assert.equal(isReady(), true)
  assert.equal(check.state().result, 'passed')
  assert.equal(await beats(WATCHDOG_MS), 4)
  await stop()
})

test('it beats no more when what once worked fails, and again when it works again; each is told once', async () => {
  const { world, beats, log, stop } = await running({})
  world.failure = 'refused'
  assert.equal(await beats(3 * WATCHDOG_MS), 0)
  world.failure = undefined
  assert.ok((await beats(WATCHDOG_MS)) > 0)
  assert.deepEqual(log.lines, [
    'Error Self-check: the way through the redirection does not work: refused',
    'Info Self-check: all is well again',
  ])
  await stop()
})

test('it beats no more when a part that once ran is known to be gone', async () => {
  const { world, check, beats, stop } = await running({})
  world.gap = 'the kernel does not redirect'
  assert.equal(await beats(2 * WATCHDOG_MS), 0)
  assert.equal(check.state().result, 'failed')
  await stop()
})

test('a probe that cannot be made here does not end a service that works', async () => {
  const { check, beats, isReady, stop } = await running({ failure: 'refused', obstacle: 'another cgroup' })
  assert.equal(isReady(), true)
  assert.equal(await beats(WATCHDOG_MS), 4)
  assert.deepEqual([check.state().result, check.state().reason], ['untried', 'another cgroup'])
  await stop()
})

test('a guard that cannot be had from the start does not hold up the boot for ever, nor is it ended for it', async () => {
  const { world, check, beats, isReady, stop } = await running({ gap: 'the kernel does not redirect' })
  assert.ok((await beats(29_000)) > 0)
  assert.equal(isReady(), false)
  assert.equal(await beats(2_000), 2)
  assert.equal(isReady(), true)
  assert.equal(check.state().result, 'starting')
  assert.equal(await beats(WATCHDOG_MS), 4)
  world.gap = undefined
  await beats(WATCHDOG_MS)
  assert.equal(check.state().result, 'passed')
  await stop()
})
