import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { createBodyBudget } from '../../src/proxy/body-budget.ts'

/** A budget of 10 bytes for each and 20 for all, and who has got room so far. */
function start() {
  const budget = createBodyBudget({ bytesPerUser: 10, totalBytes: 20 })
  const got: string[] = []
  return { got, take: (uid: number, bytes: number, name: string) => budget.take(uid, bytes, () => void got.push(name)) }
}

describe('createBodyBudget()', () => {
  test('makes who has his share wait, and nobody else', () => {
    const { got, take } = start()
    const giveBack = take(1, 6, 'a')
    take(1, 6, 'b')
    take(2, 10, 'c')
    assert.deepEqual(got, ['a', 'c'])
    giveBack()
    assert.deepEqual(got, ['a', 'c', 'b'])
  })

  test('serves the requests of one user in their order, small ones too', () => {
    const { got, take } = start()
    const giveBack = take(1, 6, 'a')
    take(1, 6, 'b')
    take(1, 1, 'c')
    assert.deepEqual(got, ['a'])
    giveBack()
    assert.deepEqual(got, ['a', 'b', 'c'])
  })

  test('lets users take turns when all together have all', () => {
    const { got, take } = start()
    const first = take(1, 10, 'a')
    const second = take(2, 10, 'b')
    take(3, 5, 'c1')
    take(3, 5, 'c2')
    take(4, 5, 'd1')
    take(4, 5, 'd2')
    assert.deepEqual(got, ['a', 'b'])
    first()
    assert.deepEqual(got, ['a', 'b', 'c1', 'd1'])
    second()
    assert.deepEqual(got, ['a', 'b', 'c1', 'd1', 'c2', 'd2'])
  })

  test('forgets a wish that is given up, and serves who waits behind it', () => {
    const { got, take } = start()
    const giveBack = take(1, 6, 'a')
    const giveUp = take(1, 10, 'b')
    take(1, 4, 'c')
    giveUp()
    assert.deepEqual(got, ['a', 'c'])
    giveBack()
    take(1, 6, 'd')
    assert.deepEqual(got, ['a', 'c', 'd'])
  })

  test('never makes root wait', () => {
    const { got, take } = start()
    for (let i = 0; i < 10; i++) take(0, 10, 'root')
    take(1, 10, 'a')
    take(2, 10, 'b')
    assert.equal(got.length, 12)
  })

  test('has all of it again when all was given back', () => {
    const { got, take } = start()
    for (let round = 0; round < 3; round++) {
      const all = [take(1, 10, 'a'), take(1, 10, 'b'), take(2, 3, 'c'), take(2, 10, 'd'), take(3, 10, 'e')]
      for (const giveBack of all) giveBack()
    }
    got.length = 0
    take(1, 10, 'a')
    take(2, 10, 'b')
    assert.deepEqual(got, ['a', 'b'])
  })
})
