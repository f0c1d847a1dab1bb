import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createTurns, inTurns } from '../../src/agent/turns.ts'

/** Computes for so long. */
function work(ms: number): void {
  const endMs = performance.now() + ms
  while (performance.now() < endMs);
}

test('createTurns() lets others work when pieces together took the time, and not before', async () => {
  const turn = createTurns(10_000)
  assert.equal(turn(), undefined)
  const short = createTurns(5)
  work(6)
  let hadTurn = false
  setImmediate(() => {
    hadTurn = true
  })
  const waited = short()
  assert.ok(waited instanceof Promise)
  await waited
  assert.equal(hadTurn, true)
})

test('inTurns() makes each piece when the one before it was taken, and lets others work in between', async () => {
  const log: string[] = []
  function* pieces() {
    for (const name of ['a', 'b']) {
      work(2)
      log.push(`made ${name}`)
      yield name
    }
  }
  setImmediate(() => log.push('others'))
  for await (const piece of inTurns(pieces())) log.push(`took ${piece}`)
  assert.deepEqual(log, ['made a', 'took a', 'others', 'made b', 'took b'])
})
