import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { AgentError, describeError } from '../../src/base/errors.ts'

describe('describeError()', () => {
  const io = Object.assign(new Error('EACCES: permission denied'), { code: 'EACCES' })
  const circle = new Error('snake')
  circle.cause = circle
  for (const [situation, error, text] of [
    ['a message', new AgentError('X', 'Cannot do it'), 'Cannot do it'],
    [
      'facts',
      new AgentError('X', 'Cannot do it', { fd: 3, size: 5n, ok: false }),
      'Cannot do it (fd=3, size=5, ok=false)',
    ],
    ['facts that are not known', new AgentError('X', 'Cannot do it', { fd: undefined }), 'Cannot do it'],
    ['a cause', new AgentError('X', 'Cannot do it', {}, { cause: io }), 'Cannot do it: EACCES: permission denied'],
    [
      'causes of causes',
      new AgentError('X', 'a', { n: 1 }, { cause: new AgentError('Y', 'b', { n: 2 }, { cause: 'c' }) }),
      'a (n=1): b (n=2): c',
    ],
    ['an error that causes itself', circle, 'snake'],
    ['an error without a message', new TypeError(), 'TypeError'],
    ['text', 'just text', 'just text'],
    ['nothing', undefined, ''],
  ] as const) {
    test(`tells ${situation}`, () => assert.equal(describeError(error), text))
  }
})

describe('AgentError', () => {
  test('keeps its name and code, which bundlers must not change', () => {
    const error = new AgentError('KEY_INVALID', 'Cannot use the key')
    assert.equal(String(error), 'AgentError: Cannot use the key')
    assert.equal(error.code, 'KEY_INVALID')
    assert.ok(error instanceof Error)
  })
})
