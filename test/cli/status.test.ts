import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type ProvisionAnswer, runStatus } from '../../src/cli/status.ts'

const FINISHED: ProvisionAnswer = { finished: true, errorMessage: '' }
const NOT_YET = (errorMessage = ''): ProvisionAnswer => ({ finished: false, errorMessage })
const REFUSED = new Error('connect ECONNREFUSED 127.0.0.1:3080')
const FAILURE = 'Failed to query the current provision state with error: connect ECONNREFUSED 127.0.0.1:3080.'

/** Runs the command against a service that gives these answers, the last one for ever; each takes `tookMs`. */
async function run(waitSeconds: number, answers: readonly (ProvisionAnswer | Error)[], tookMs = 1) {
  let nowMs = 1_000_000
  let output = ''
  const queries: { readonly tick: bigint; readonly isFirst: boolean; readonly timeoutMs: number }[] = []
  const code = await runStatus(waitSeconds, {
    async query(tick, isFirst, timeoutMs) {
      queries.push({ tick, isFirst, timeoutMs })
      nowMs += Math.min(tookMs, timeoutMs)
      const answer = answers[Math.min(queries.length, answers.length) - 1]
      if (tookMs > timeoutMs) throw new Error(`no answer within ${timeoutMs} ms`)
      if (answer === undefined || answer instanceof Error) throw answer
      return answer
    },
    print: (text) => {
      output += text
    },
    monotonicMs: () => nowMs,
    sleep: async (ms) => {
      nowMs += ms
    },
    unixNanoseconds: () => 1767323045123456789n,
  })
  return { code, output, queries, tookMs: nowMs - 1_000_000 }
}

describe('runStatus() exits', () => {
  const message = 'keyLatchStatus - Failed to get key status - x\r\n'
  const rows: readonly (readonly [
    situation: string,
    waitSeconds: number,
    answers: readonly (ProvisionAnswer | Error)[],
    code: number,
    output: string,
  ])[] = [
    ['with 0 and silence when finished', 0, [FINISHED], 0, ''],
    ['with 0 and silence when finished after a while', 10, [NOT_YET('a'), NOT_YET('b'), FINISHED], 0, ''],
    [
      'with 2 and the errors when finished with errors',
      0,
      [{ finished: true, errorMessage: message }],
      2,
      `${message}\n`,
    ],
    ['with 1 and silence when not finished and nothing is known', 0, [NOT_YET()], 1, ''],
    ['with 1 and what is known when not finished', 0, [NOT_YET(message)], 1, `${message}\n`],
    ['with 1 and what was known last', 1, [NOT_YET('old'), NOT_YET('new')], 1, 'new\n'],
    ['with 1 and the failure when nobody answers', 0, [REFUSED], 1, `${FAILURE}\n`],
    ['with 0 after a failure that is told', 5, [REFUSED, FINISHED], 0, `${FAILURE}\n`],
    ['with 1, the failure and its count', 1, [REFUSED], 1, `${FAILURE}\n${FAILURE} (10 times)\n`],
    ['with 1 and all three', 1, [REFUSED, REFUSED, NOT_YET('a')], 1, `${FAILURE}\n${FAILURE} (2 times)\na\n`],
  ]
  for (const [situation, waitSeconds, answers, code, output] of rows) {
    test(situation, async () => {
      const result = await run(waitSeconds, answers)
      assert.deepEqual([result.code, result.output], [code, output])
    })
  }

  test('with an output that no terminal obeys, whoever answered', async () => {
    const { output } = await run(0, [{ finished: true, errorMessage: 'a\u001b[2J\r\nb\u202e\u0000' }])
    assert.equal(output, 'a\\x1b[2J\r\nb\\u202e\\x00\n')
  })
})

describe('runStatus() asks', () => {
  test('once without a wait', async () => {
    const { queries } = await run(0, [NOT_YET()])
    assert.deepEqual(queries, [{ tick: 1767323045123456789n, isFirst: true, timeoutMs: 1000 }])
  })

  test('with one tick for all queries, and to be noticed with the first alone', async () => {
    const { queries } = await run(1, [NOT_YET()])
    assert.equal(queries.length, 10)
    assert.ok(queries.every(({ tick }) => tick === 1767323045123456789n))
    assert.deepEqual(queries.map(({ isFirst }) => isFirst).slice(0, 3), [true, false, false])
  })

  test('for no longer than the wait, when answers are quick', async () => {
    const { tookMs, code } = await run(3, [NOT_YET()])
    assert.equal(code, 1)
    assert.ok(tookMs > 2800 && tookMs <= 3000, `${tookMs} ms`)
  })

  test('for no longer than the wait and a second, when the service hangs', async () => {
    for (const [waitSeconds, maxMs] of [
      [0, 1000],
      [1, 2000],
      [15, 16_000],
      [120, 121_000],
    ] as const) {
      const { tookMs, code, output, queries } = await run(waitSeconds, [FINISHED], Number.POSITIVE_INFINITY)
      assert.equal(code, 1)
      assert.ok(tookMs <= maxMs, `${tookMs} ms of ${maxMs}`)
      assert.match(output, /^Failed to query the current provision state with error: no answer within \d+ ms\.\n/)
      assert.ok(queries.every(({ timeoutMs }) => timeoutMs >= 1000 && timeoutMs <= 10_000))
    }
  })
})
