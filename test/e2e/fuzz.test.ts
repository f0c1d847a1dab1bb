/** The executable under random requests and answers for a while; `npm run fuzz` does the same for longer. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compareRequests, describeComparison, describeReport, fuzzAnswers, fuzzRequests } from '../fuzz/fuzz.ts'
import { SLOWNESS } from '../kernel/lab.ts'

/** Another one each time; what fails is printed with it. */
const SEED = Number(process.env.FUZZ_SEED ?? Date.now() % 1_000_000)

const SECONDS = 10

const timeout = 180_000 * SLOWNESS

test('10 000 random sound requests are parsed by the host as they were meant, and signed right', {
  timeout,
}, async (t) => {
  const comparison = await compareRequests(SEED, 10_000)
  t.diagnostic(`seed ${SEED}, ${describeComparison(comparison)}`)
  assert.deepEqual(comparison.faults, [])
})

test('random requests crash nothing, hold nothing, and make nothing unsigned pass', { timeout }, async (t) => {
  const report = await fuzzRequests({ seed: SEED, seconds: SECONDS })
  t.diagnostic(`seed ${SEED}, ${describeReport('requests', report)}`)
  assert.deepEqual(report.faults, [])
  assert.ok(report.forwarded > 100, 'some of them were forwarded')
})

test('random answers of the host crash nothing, hold nothing, and reach nobody else', { timeout }, async (t) => {
  const report = await fuzzAnswers({ seed: SEED, seconds: SECONDS })
  t.diagnostic(`seed ${SEED}, ${describeReport('answers', report)}`)
  assert.deepEqual(report.faults, [])
  assert.ok((report.outcomes['200'] ?? 0) > 100, 'some of them were sound')
})
