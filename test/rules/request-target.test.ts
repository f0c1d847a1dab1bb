import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { splitTarget } from '../../src/rules/request-target.ts'

describe('splitTarget()', () => {
  const none = undefined
  const rows: readonly (readonly [
    target: string,
    scheme: string | undefined,
    authority: string | undefined,
    path: string,
    query: string | undefined,
  ])[] = [
    ['/', none, none, '/', none],
    ['/a?b?c', none, none, '/a', 'b?c'],
    ['/a?', none, none, '/a', ''],
    ['/a#b?c', none, none, '/a', none],
    ['/a?b#c', none, none, '/a', 'b'],
    ['//evil/p', none, none, '//evil/p', none],
    ['/http://h/p', none, none, '/http://h/p', none],
    ['*', none, none, '*', none],
    ['http://h', 'http', 'h', '/', none],
    ['HTTP://u@h:1/p?q', 'HTTP', 'u@h:1', '/p', 'q'],
    ['http://h?q', 'http', 'h', '/', 'q'],
    ['http://h#f', 'http', 'h', '/', none],
    ['http:///p', 'http', '', '/p', none],
    ['h:80', none, 'h:80', '', none],
    ['foo/bar?q', none, 'foo', '/bar', 'q'],
    ['http:/p', none, 'http:', '/p', none],
    ['1http://h/p', none, '1http:', '//h/p', none],
    ['', none, '', '', none],
  ]
  for (const [target, scheme, authority, path, query] of rows) {
    test(JSON.stringify(target), () => assert.deepEqual(splitTarget(target), { scheme, authority, path, query }))
  }
})
