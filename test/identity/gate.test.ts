import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createGate } from '../../src/identity/gate.ts'

/** Work that ends when it is told to. */
function works() {
  const started: string[] = []
  const ends = new Map<string, () => void>()
  const work = (name: string) => () => {
    started.push(name)
    return new Promise<string>((resolve) => ends.set(name, () => resolve(name)))
  }
  const end = async (name: string) => {
    ends.get(name)?.()
    await new Promise((resolve) => setImmediate(resolve))
  }
  return { started, work, end }
}

test('run() lets others pass who wait for nothing of their own', async () => {
  const { started, work, end } = works()
  const gate = createGate(2, 10)
  const first = gate.run(1, work('a1'))
  void gate.run(1, work('a2'))
  void gate.run(1, work('a3'))
  void gate.run(2, work('b1'))
  void gate.run(3, work('c1'))
  assert.deepEqual(started, ['a1', 'b1'])
  await end('a1')
  assert.equal(await first, 'a1')
  assert.deepEqual(started, ['a1', 'b1', 'a2'])
  await end('b1')
  assert.deepEqual(started, ['a1', 'b1', 'a2', 'c1'])
  await end('c1')
  assert.deepEqual(started, ['a1', 'b1', 'a2', 'c1'], 'one of a key at a time, though there is room')
  await end('a2')
  assert.equal(started.at(-1), 'a3')
})

test('run() has no place when too many wait', async () => {
  const { started, work, end } = works()
  const gate = createGate(1, 1)
  void gate.run(1, work('a'))
  void gate.run(2, work('b'))
  assert.equal(await gate.run(3, work('c')), undefined)
  await end('a')
  void gate.run(3, work('d'))
  await end('b')
  assert.deepEqual(started, ['a', 'b', 'd'])
})

test('run() goes on after work that failed', async () => {
  const gate = createGate(1, 1)
  await assert.rejects(
    gate.run(1, async () => {
      throw new Error('no')
    }),
    /no/,
  )
  assert.equal(await gate.run(1, async () => 'yes'), 'yes')
})
