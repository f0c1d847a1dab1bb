import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { ConnectionRecord } from '../../src/ebpf/records.ts'
import { createKnownPrograms } from '../../src/identity/known-programs.ts'
import { RECORD } from './make.ts'

const SECOND = 1_000_000_000n
const FIRST: ConnectionRecord = { ...RECORD, recordedAtNs: 100n * SECOND }

function remembering(record: ConnectionRecord = FIRST) {
  const known = createKnownPrograms<string>()
  known.remember(record, 'curl')
  return known
}

test('the same process and program is known for a second, before and after', () => {
  const known = remembering()
  for (const apart of [0n, SECOND, -SECOND])
    assert.equal(known.find({ ...FIRST, recordedAtNs: FIRST.recordedAtNs + apart }), 'curl')
  for (const apart of [SECOND + 1n, -SECOND - 1n])
    assert.equal(known.find({ ...FIRST, recordedAtNs: FIRST.recordedAtNs + apart }), undefined)
})

describe('is not known', () => {
  const others: Record<string, Partial<ConnectionRecord>> = {
    'another process': { pid: 4712 },
    'another process that was given the pid': { startTimeNs: FIRST.startTimeNs + 1n },
    'another executable': { exeInode: 78n },
    'an executable on another disk': { exeDevice: 0xfe02 },
    'an executable that was changed, or another file that got its number': {
      exeChangedAtNs: FIRST.exeChangedAtNs + 1n,
    },
    'an executable of another size': { exeSizeBytes: 1n },
    'a process that was moved to another cgroup': { cgroupId: 6n },
    'a process that went to another mount namespace': { mountNamespace: 1 },
    'a record without an executable': { reduced: true },
  }
  for (const [name, change] of Object.entries(others))
    test(name, () => assert.equal(remembering().find({ ...FIRST, ...change }), undefined))
})

test('is not remembered: what a record does not tell apart from others', () => {
  for (const change of [{ reduced: true }, { pid: 0 }, { exeChangedAtNs: 0n }]) {
    const record = { ...FIRST, ...change }
    assert.equal(remembering(record).find(record), undefined)
  }
})

test('the user is no part of it: whoever a process is by now, the record tells', () => {
  assert.equal(remembering().find({ ...FIRST, uid: 0, gid: 0 }), 'curl')
})

test('of more than 1024 processes the ones from longest ago are forgotten', () => {
  const known = createKnownPrograms<string>()
  for (let pid = 1; pid <= 1025; pid++) known.remember({ ...FIRST, pid }, `p${pid}`)
  assert.equal(known.find({ ...FIRST, pid: 1 }), undefined)
  assert.equal(known.find({ ...FIRST, pid: 2 }), 'p2')
  assert.equal(known.find({ ...FIRST, pid: 1025 }), 'p1025')
})
