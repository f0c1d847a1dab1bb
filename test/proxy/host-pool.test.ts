/** Who gets a connection to the host, and in which order, when there are not enough. */

import assert from 'node:assert/strict'
import { describe, type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { HOST_CLIENT_DEFAULTS } from '../../src/proxy/host-client.ts'
import type { HostClientOptions } from '../../src/proxy/host-exchange.ts'
import { createHostPool } from '../../src/proxy/host-pool.ts'
import { type HostCall, startRawHost } from './raw-host.ts'

const LIMITS = { maxConnections: 6, maxConnectionsPerUser: 2, reservedConnections: 2 }
const ROOT = 0
const MALLORY = 1000
const BOB = 1001
const CAROL = 1002

/** A pool in front of a host that answers nothing by itself. */
async function start(t: TestContext, options: Partial<HostClientOptions> = {}) {
  const host = await startRawHost()
  host.onCall(() => undefined)
  const pool = createHostPool(
    { address: '127.0.0.1', port: host.port },
    { ...HOST_CLIENT_DEFAULTS, ...LIMITS, ...options },
  )
  t.after(async () => {
    pool.close()
    await host.close()
  })
  const ended: string[] = []
  const request = (target: string) => ({
    method: 'GET',
    target,
    headers: ['host', 'h'],
    authorization: undefined,
    body: undefined,
  })
  const ask = (uid: number, target: string, make = () => request(target)) =>
    pool.send(
      { uid, upload: undefined, make },
      {
        onUnmade: (error) => void ended.push(`${target}: ${(error as Error).message}`),
        onHead: () => undefined,
        onData: () => true,
        onPause: () => undefined,
        onEnd: () => void ended.push(target),
        onError: ({ reason }) => void ended.push(`${target}: ${reason}`),
      },
    )
  const arrived = async (...targets: string[]) => {
    const now = () => host.calls.map(({ target }) => target).sort()
    const endMs = performance.now() + 5000
    while (now().length < targets.length && performance.now() < endMs) await delay(2)
    // What should wait has time to show that it does not.
    await delay(20)
    assert.deepEqual(now(), [...targets].sort())
  }
  const answer = (target: string) => {
    const call = host.calls.find((each) => each.target === target) as HostCall
    call.answer(200, {}, 'ok')
  }
  return { host, ask, arrived, answer, ended }
}

describe('createHostPool()', () => {
  test('gives one user his share of the connections, and others theirs', async (t) => {
    const { ask, arrived, answer } = await start(t)
    for (const target of ['/m1', '/m2', '/m3', '/m4']) ask(MALLORY, target)
    await arrived('/m1', '/m2')
    ask(BOB, '/b1')
    await arrived('/m1', '/m2', '/b1')
    answer('/m1')
    await arrived('/m1', '/m2', '/b1', '/m3')
  })

  test('keeps connections for root when users have all others', async (t) => {
    const { ask, arrived } = await start(t)
    for (const [uid, target] of [
      [MALLORY, '/m1'],
      [MALLORY, '/m2'],
      [BOB, '/b1'],
      [BOB, '/b2'],
      [CAROL, '/c1'],
      [ROOT, '/r1'],
      [ROOT, '/r2'],
      [ROOT, '/r3'],
    ] as const)
      ask(uid, target)
    await arrived('/m1', '/m2', '/b1', '/b2', '/r1', '/r2')
  })

  test('lets users take turns, however many requests one of them has waiting', async (t) => {
    const { ask, arrived, answer } = await start(t, { maxConnections: 3, reservedConnections: 1 })
    for (const target of ['/m1', '/m2', '/m3', '/m4', '/m5']) ask(MALLORY, target)
    ask(BOB, '/b1')
    ask(BOB, '/b2')
    ask(CAROL, '/c1')
    await arrived('/m1', '/m2')
    answer('/m1')
    await arrived('/m1', '/m2', '/m3')
    answer('/m2')
    await arrived('/m1', '/m2', '/m3', '/b1')
    answer('/m3')
    await arrived('/m1', '/m2', '/m3', '/b1', '/c1')
    answer('/b1')
    await arrived('/m1', '/m2', '/m3', '/b1', '/c1', '/m4')
  })

  test('uses a connection that one user is done with for the next', async (t) => {
    const { host, ask, arrived, answer, ended } = await start(t)
    ask(MALLORY, '/m1')
    await arrived('/m1')
    answer('/m1')
    while (ended.length === 0) await delay(2)
    ask(BOB, '/b1')
    await arrived('/m1', '/b1')
    assert.equal(host.connections(), 1)
  })

  test('gives the place of a request that was taken back to the next', async (t) => {
    const { ask, arrived, ended } = await start(t)
    const first = ask(MALLORY, '/m1')
    ask(MALLORY, '/m2')
    const third = ask(MALLORY, '/m3')
    ask(MALLORY, '/m4')
    await arrived('/m1', '/m2')
    third.abort()
    first.abort()
    await arrived('/m1', '/m2', '/m4')
    assert.deepEqual(ended, [])
  })

  test('gives the connections of requests that were not answered in time to those who wait', async (t) => {
    const { ask, arrived, ended } = await start(t, { headTimeoutMs: 400 })
    for (const target of ['/m1', '/m2']) ask(MALLORY, target)
    await arrived('/m1', '/m2')
    for (const target of ['/m3', '/m4']) ask(MALLORY, target)
    while (ended.length < 2) await delay(5)
    assert.deepEqual(ended.slice(0, 2), [
      '/m1: the host did not answer in time',
      '/m2: the host did not answer in time',
    ])
    await arrived('/m1', '/m2', '/m3', '/m4')
  })

  test('has a request made when there is a connection for it, and passes over one that cannot be made', async (t) => {
    const { host, ask, arrived, answer, ended } = await start(t)
    const made: string[] = []
    const order = (target: string) => () => {
      made.push(target)
      if (target.endsWith('bad')) throw new Error('it has no key')
      return { method: 'GET', target, headers: ['host', 'h'], authorization: undefined, body: undefined }
    }
    for (const target of ['/m1', '/m2', '/m3-bad', '/m4']) ask(MALLORY, target, order(target))
    await arrived('/m1', '/m2')
    assert.deepEqual(made, ['/m1', '/m2'])
    answer('/m1')
    await arrived('/m1', '/m2', '/m4')
    assert.deepEqual(made, ['/m1', '/m2', '/m3-bad', '/m4'])
    ask(BOB, '/b1-bad', order('/b1-bad'))
    assert.deepEqual(
      ended.filter((line) => line.includes('bad')),
      ['/m3-bad: it has no key', '/b1-bad: it has no key'],
    )
    assert.equal(host.connections(), 2)
  })
})
