import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseRequestTarget } from '../../src/base/request-target.ts'
import { hasTraversal, hasValidCharacters, isAllowedMethod } from '../../src/proxy/guards.ts'

const TARGETS: readonly (readonly [target: string, blocked: boolean])[] = [
  ['/', false],
  ['/metadata/instance', false],
  ['/.well-known/x', false],
  ['/metadata/./instance', false],
  ['/.', false],
  ['/./', false],
  ['/metadata/instance;jsessionid=abc', false],
  ['/a%2F%2Fb', false],
  ['/a/%2F/b', false],
  ['/a%252e%252e/b', false],
  ['/%C0%AE%C0%AE/x', false],
  ['/x?y=../z', false],
  ['/x?y=//z', false],
  ['http://h/x', false],
  ['http://h', false],
  ['*', false],
  ['/a.%', false],
  ['/a%2', false],
  ['/foo/../bar', true],
  ['/..', true],
  ['/a..b', true],
  ['/...', true],
  ['/foo/%2E%2E/bar', true],
  ['/foo/%2e%2E/bar', true],
  ['/foo/.%2e/bar', true],
  ['/foo/%2E./bar', true],
  ['/a%00..', true],
  ['/a%..', true],
  ['/a%2e.%zz', true],
  ['//', true],
  ['/a//', true],
  ['//metadata/instance', true],
  ['/metadata///x', true],
  ['http://h//x', true],
  ['http://h/../x', true],
  ['http://h/%2e%2e/x?y', true],
]

for (const [target, blocked] of TARGETS) {
  test(`hasTraversal() ${blocked ? 'blocks' : 'lets pass'} the path of ${target}`, () => {
    assert.equal(hasTraversal(parseRequestTarget(target).path), blocked)
  })
}

test('isAllowedMethod() knows seven methods, in upper case', () => {
  for (const method of ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'])
    assert.equal(isAllowedMethod(method), true)
  for (const method of ['get', 'TRACE', 'CONNECT', 'QUERY', 'PROPFIND', 'constructor', ''])
    assert.equal(isAllowedMethod(method), false, method)
})

test('hasValidCharacters() accepts visible ASCII, save for < > ` in the path and < > " in the query', () => {
  const accepted: string[] = []
  for (let code = 0; code < 256; code++) {
    const char = String.fromCharCode(code)
    const inPath = hasValidCharacters(parseRequestTarget(`/a${char}b`))
    const inQuery = hasValidCharacters(parseRequestTarget(`/a?b${char}c`))
    if (inPath) accepted.push(`path ${char}`)
    if (inQuery) accepted.push(`query ${char}`)
  }
  const expected: string[] = []
  for (let code = 0x21; code < 0x7f; code++) {
    const char = String.fromCharCode(code)
    if (!'<>`'.includes(char)) expected.push(`path ${char}`)
    if (!'<>"'.includes(char)) expected.push(`query ${char}`)
  }
  // A fragment ends the target, so what follows `#` is not judged; `#` itself passes.
  assert.deepEqual(accepted, expected)
})
