import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parseRequestTarget } from '../../src/base/request-target.ts'
import { compileLegacyPattern, legacyPattern, readLegacyRequest } from '../../src/rules/match.ts'
import { PatternIndex } from '../../src/rules/pattern-index.ts'

function matches(target: string, path: string, queryParameters?: Record<string, string>): boolean {
  const patterns = new PatternIndex([legacyPattern(compileLegacyPattern(path, queryParameters))])
  return patterns.find(readLegacyRequest(parseRequestTarget(target))).length === 1
}

describe('the legacy matcher compares paths', () => {
  const rows: readonly (readonly [situation: string, target: string, path: string, expected: boolean])[] = [
    ['a prefix', '/metadata/x', '/metadata', true],
    ['a prefix that ends inside a segment', '/metadata-attacker', '/metadata', true],
    ['a rule with a slash more', '/metadata', '/metadata/', false],
    ['an empty rule', '*', '', true],
    ['a rule without its slash', '/metadata', 'metadata', false],
    ['encoded letters', '/%6Detadata', '/metadata', true],
    ['double encoding is decoded once', '/%256Detadata', '/%6detadata', true],
    ['a rule is not decoded', '/metadata', '/%6Detadata', false],
    ['malformed sequences stay', '/a%zz%4', '/A%ZZ%4', true],
    ['bytes that are no UTF-8', '/a%FF%C0%AF', '/a\ufffd\ufffd\ufffd', true],
    ['a byte-order mark stays', '/%EF%BB%BFa', '/\ufeffa', true],
    ['a byte-order mark is a letter', '/%EF%BB%BFa', '/a', false],
    ['Unicode lower case', '/%E2%84%AA%C3%89', '/ké', true],
    ['a rule in upper case', '/ké', '/KÉ', true],
    ['a question mark in a rule', '/a%3Fb', '/a?', false],
    ['absolute form', 'http://other/a', '/a', true],
    ['absolute form without path', 'http://other', '/', true],
    ['asterisk', '*', '/', false],
    ['authority form', 'host:80', '/', false],
    ['a fragment is dropped', '/a#/b', '/a#', false],
  ]
  for (const [situation, target, path, expected] of rows) {
    test(`${situation}: ${target}`, () => assert.equal(matches(target, path), expected))
  }
})

describe('the legacy matcher compares queries', () => {
  const rows: readonly (readonly [
    situation: string,
    query: string,
    parameters: Record<string, string>,
    expected: boolean,
  ])[] = [
    ['any order, extra pairs', '?b=2&x=9&a=1', { a: '1', b: '2' }, true],
    ['one missing', '?a=1', { a: '1', b: '2' }, false],
    ['first of two wins', '?a=1&a=2', { a: '1' }, true],
    ['second of two is not seen', '?a=1&a=2', { a: '2' }, false],
    ['first of two in another spelling', '?%41=1&a=2', { a: '1' }, true],
    ['plus is a plus', '?a=x+y', { a: 'x+y' }, true],
    ['no constraint', '', {}, true],
    ['a bare key is empty', '?a', { a: '' }, true],
    ['a missing key is not empty', '?b', { a: '' }, false],
    ['an empty name is dropped', '?=1', { '': '1' }, false],
    ['names that objects know', '?constructor=1&__proto__=2', { constructor: '1', ['__proto__']: '2' }, true],
    ['names that objects know, absent', '?a', { constructor: '' }, false],
    ['a second question mark is text', '?a=1?b', { a: '1?b' }, true],
    ['embedded query', '%3Fa=1', { a: '1' }, true],
    ['embedded query is decoded twice', '%3Fa=%252541', { a: '%41' }, true],
    ['embedded query with a question mark', '%3Fa=1%3Fb', { a: '1?b' }, true],
    ['the real query comes first', '%3Fa=1?a=2', { a: '2' }, true],
    ['embedded query after the real one', '%3Fa=1?a=2', { a: '1' }, false],
    ['both queries together', '%3Fa=1?b=2', { a: '1', b: '2' }, true],
    ['a byte-order mark in a value stays', '?a=%EF%BB%BF1', { a: '1' }, false],
    ['a rule value in upper case', '?a=b', { A: 'B' }, true],
    ['rule names that differ in case: the last counts', '?a=2', { A: '1', a: '2' }, true],
    ['rule names that differ in case: the first does not', '?a=1', { A: '1', a: '2' }, false],
  ]
  for (const [situation, query, parameters, expected] of rows) {
    test(`${situation}: ${query}`, () => assert.equal(matches(`/t${query}`, '/t', parameters), expected))
  }
})
