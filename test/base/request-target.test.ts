import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseRequestTarget } from '../../src/base/request-target.ts'

describe('parseRequestTarget()', () => {
  const none = undefined
  const rows: readonly (readonly [
    target: string,
    scheme: string | undefined,
    authority: string | undefined,
    path: string,
    query: string,
    withoutFragment?: string,
  ])[] = [
    ['/', none, none, '/', ''],
    ['/a?b?c', none, none, '/a', 'b?c'],
    ['/a?', none, none, '/a', ''],
    ['/a#b?c', none, none, '/a', '', '/a'],
    ['/a?b#c', none, none, '/a', 'b', '/a?b'],
    ['//evil/p', none, none, '//evil/p', ''],
    ['/http://h/p', none, none, '/http://h/p', ''],
    ['*', none, none, '*', ''],
    ['http://h', 'http', 'h', '/', ''],
    ['HTTP://u@h:1/p?q', 'HTTP', 'u@h:1', '/p', 'q'],
    ['http://h?q', 'http', 'h', '/', 'q'],
    ['http://h#f', 'http', 'h', '/', '', 'http://h'],
    ['http:///p', 'http', '', '/p', ''],
    ['h:80', none, 'h:80', '', ''],
    ['foo/bar?q', none, 'foo', '/bar', 'q'],
    ['http:/p', none, 'http:', '/p', ''],
    ['1http://h/p', none, '1http:', '//h/p', ''],
    ['', none, '', '', ''],
  ]
  for (const [target, scheme, authority, path, query, withoutFragment = target] of rows) {
    test(JSON.stringify(target), () =>
      assert.deepEqual(parseRequestTarget(target), { scheme, authority, path, query, withoutFragment }),
    )
  }
})
