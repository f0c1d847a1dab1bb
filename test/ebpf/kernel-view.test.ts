import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { countCpus } from '../../src/ebpf/kernel-view.ts'

describe('countCpus()', () => {
  for (const [list, want] of [
    ['0\n', 1],
    ['0-1\n', 2],
    ['0-3,8\n', 5],
    ['0-3,8-11\n', 8],
  ] as const) {
    test(`counts ${JSON.stringify(list)}`, () => assert.equal(countCpus(list), want))
  }
})
