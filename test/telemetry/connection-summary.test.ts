import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createConnectionSummary, type SummaryBounds, type SummaryKey } from '../../src/telemetry/connection-summary.ts'

const KEY: SummaryKey = {
  userName: 'alice',
  clientAddress: '127.0.0.1',
  address: '169.254.169.254',
  port: 80,
  processFullPath: '/usr/bin/curl',
  processCmdLine: 'curl x',
  responseStatus: '200 OK',
}
const MINUTE_MS = 60_000

const summary = (bounds?: SummaryBounds) => {
  const time = { nowMs: 1_000_000 }
  return { time, list: createConnectionSummary(() => time.nowMs, bounds) }
}
const OTHER = { clientAddress: 'other', processFullPath: 'other', processCmdLine: 'other' }
const command = (i: number, more: Partial<SummaryKey> = {}) => ({ ...KEY, processCmdLine: `curl ${i}`, ...more })

test('add() tells the first request of a key, then one in 15 minutes', () => {
  const { time, list } = summary()
  assert.equal(list.add(KEY, ['users']), true)
  assert.equal(list.add(KEY, []), false)
  time.nowMs += 15 * MINUTE_MS - 1
  assert.equal(list.add(KEY, []), false)
  time.nowMs += 1
  assert.equal(list.add(KEY, []), true)
  assert.equal(list.add(KEY, []), false)
  assert.deepEqual(list.read(), [{ ...KEY, userGroups: ['users'], count: 5 }])
})

test('add() opens a bucket when it is needed, not by the clock on the wall', () => {
  const { time, list } = summary()
  list.add(KEY, [])
  time.nowMs += 20 * MINUTE_MS
  list.add(KEY, [])
  time.nowMs += 14 * MINUTE_MS
  assert.equal(list.add(KEY, []), false)
})

const MEMBERS: readonly (keyof SummaryKey)[] = [
  'userName',
  'clientAddress',
  'address',
  'port',
  'processFullPath',
  'processCmdLine',
  'responseStatus',
]

for (const member of MEMBERS) {
  test(`add() counts requests apart that differ in ${member}`, () => {
    const { list } = summary()
    const other = { ...KEY, [member]: member === 'port' ? 32526 : 'another' }
    assert.equal(list.add(KEY, []), true)
    assert.equal(list.add(other, []), true)
    assert.deepEqual(list.read(), [
      { ...KEY, userGroups: [], count: 1 },
      { ...other, userGroups: [], count: 1 },
    ])
  })
}

test('add() does not mix keys whose members run together alike', () => {
  const { list } = summary()
  list.add({ ...KEY, processFullPath: '/bin/a b', processCmdLine: 'c' }, [])
  assert.equal(list.add({ ...KEY, processFullPath: '/bin/a', processCmdLine: 'b c' }, []), true)
})

test('read() drops what is four hours old, and keys with nothing left', () => {
  const { time, list } = summary()
  list.add(KEY, [])
  list.add(KEY, [])
  time.nowMs += 60 * MINUTE_MS
  list.add(KEY, [])
  assert.equal(list.read()[0]?.count, 3)
  time.nowMs += 180 * MINUTE_MS - 1
  assert.equal(list.read()[0]?.count, 3)
  time.nowMs += 1
  assert.equal(list.read()[0]?.count, 1)
  time.nowMs += 60 * MINUTE_MS
  assert.deepEqual(list.read(), [])
})

test('read() resets nothing', () => {
  const { list } = summary()
  list.add(KEY, [])
  list.read()
  assert.equal(list.read()[0]?.count, 1)
  assert.equal(list.add(KEY, []), false)
})

test('add() after four hours of silence starts a count anew', () => {
  const { time, list } = summary()
  list.add(KEY, ['old'])
  time.nowMs += 240 * MINUTE_MS
  assert.equal(list.add(KEY, ['new']), true)
  assert.equal(list.read()[0]?.count, 1)
})

test('add() counts the surplus of a user under his name, by destination and status', () => {
  const { list } = summary({ perUser: 2, total: 100 })
  list.add(command(1), ['users'])
  list.add(command(2), ['users'])
  assert.equal(list.add(command(3), ['users']), true, 'the first of the surplus is worth telling')
  for (let i = 4; i < 500; i++) assert.equal(list.add(command(i), ['users']), false)
  assert.equal(list.add(command(500, { responseStatus: '403 Forbidden' }), []), true, 'and the first of a new status')
  assert.deepEqual(list.read().slice(2), [
    { ...KEY, ...OTHER, userGroups: ['users'], count: 497 },
    { ...KEY, ...OTHER, responseStatus: '403 Forbidden', userGroups: [], count: 1 },
  ])
})

test('add() keeps the room of every user, whatever the others do', () => {
  const { list } = summary()
  for (let i = 0; i < 2000; i++) list.add(command(i, { userName: 'mallory', responseStatus: '403 Forbidden' }), [])
  const bob = { ...KEY, userName: 'bob', processCmdLine: 'theft', responseStatus: '403 Forbidden' }
  assert.equal(list.add(bob, []), true)
  assert.deepEqual(list.read().at(-1), { ...bob, userGroups: [], count: 1 })
  assert.equal(list.read().length, 52)
})

test('add() tells the surplus of a user once in 15 minutes', () => {
  const { time, list } = summary({ perUser: 1, total: 100 })
  list.add(command(1), [])
  assert.equal(list.add(command(2), []), true)
  time.nowMs += 15 * MINUTE_MS
  assert.equal(list.add(command(3), []), true)
  assert.equal(list.add(command(4), []), false)
})

test('add() keeps the names of users when all together have too many keys, and only then counts them as one', () => {
  const { list } = summary({ perUser: 2, total: 3 })
  const status = '403 Forbidden'
  for (let user = 0; user < 50; user++)
    for (const i of [1, 2, 3]) list.add(command(i, { userName: `u${user}`, responseStatus: status }), [])
  const entries = list.read()
  assert.deepEqual(
    entries.map(({ userName, processCmdLine, count }) => `${userName} ${processCmdLine} ${count}`),
    ['u0 curl 1 1', 'u0 curl 2 1', 'u0 other 1', 'u1 other 3', 'u2 other 3', 'u3 other 3', 'other other 138'],
  )
})

test('add() gives room again when old keys have gone', () => {
  const { time, list } = summary({ perUser: 1, total: 1 })
  list.add({ ...KEY, processCmdLine: 'old' }, [])
  time.nowMs += 240 * MINUTE_MS
  list.add({ ...KEY, processCmdLine: 'new' }, [])
  assert.deepEqual(
    list.read().map(({ processCmdLine }) => processCmdLine),
    ['new'],
  )
})
