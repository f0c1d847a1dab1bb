import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Caller } from '../../src/identity/caller.ts'
import type { Verdict } from '../../src/rules/decide.ts'
import { createDenials } from '../../src/telemetry/denials.ts'
import { makeCaller } from '../fakes/caller.ts'

const DENIED: Verdict = { outcome: 'forbidden', decidedBy: 'legacy', reason: { kind: 'default-access' } }
const AUDIT: Verdict = { ...DENIED, outcome: 'audit' }

function caller(uid: number, changes: Partial<Caller> = {}): Caller {
  return makeCaller({ uid, gid: uid, userName: `user${uid}`, ...changes })
}

function denials() {
  const time = { ms: Date.UTC(2026, 0, 2) }
  return {
    time,
    denials: createDenials(
      () => time.ms++,
      (verdict) => `${verdict.outcome}: because`,
    ),
  }
}

test('read() gives the last denials first, and counts repetitions', () => {
  const { denials: seen } = denials()
  seen.add('imds', 'GET', '/a', caller(1), DENIED)
  seen.add('imds', 'GET', '/b', caller(1), AUDIT)
  seen.add('imds', 'GET', '/a', caller(1), DENIED)
  const rows = seen.read().map(({ timestamp, count, outcome, url }) => `${timestamp} ${url} ${outcome} ${count}`)
  assert.deepEqual(rows, ['2026-01-02T00:00:00.002 /a forbidden 2', '2026-01-02T00:00:00.001 /b audit 1'])
})

test('one user cannot push out what others were denied', () => {
  const { denials: seen } = denials()
  seen.add('imds', 'GET', '/first', caller(7), DENIED)
  for (let i = 0; i < 1000; i++) seen.add('imds', 'GET', `/${i}`, caller(1), DENIED)
  const users = seen.read().map(({ userName }) => userName)
  assert.equal(users.length, 11)
  assert.equal(users.at(-1), 'user7')
})

test('the memory has an end, however many users there are', () => {
  const { denials: seen } = denials()
  for (let uid = 0; uid < 500; uid++) seen.add('imds', 'GET', '/x', caller(uid), DENIED)
  assert.equal(seen.read().length, 50)
  assert.equal(seen.read()[0]?.userName, 'user499')
})

test('read() gives neither secrets nor control characters, and short texts', () => {
  const { denials: seen } = denials()
  const noisy = caller(1, {
    userName: 'a\nb',
    exePath: undefined,
    commandLine: `curl --password=hunter2 ${'x'.repeat(5000)}`,
  })
  seen.add('imds', 'GET', `/x?sig=verysecretvalue&${'y'.repeat(30_000)}`, noisy, DENIED)
  const [row] = seen.read()
  const text = JSON.stringify(row)
  assert.doesNotMatch(text, /hunter2|verysecret|\\n/)
  assert.ok(text.length < 2500)
  assert.equal(row?.userName, 'a\\x0ab')
  assert.equal(row?.processFullPath, '')
})
