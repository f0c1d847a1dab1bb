import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { canonicalQuery, hasQueryCollision, RunningSignature, splitTarget, stringToSign } from './string-to-sign.ts'

interface Vector {
  name: string
  keyHex: string
  method: string
  target: string
  headers: [string, string][]
  bodyBase64: string
  stringToSignBase64: string
  signatureHex: string
}
const VECTORS: Vector[] = JSON.parse(readFileSync(new URL('../fixtures/signing.json', import.meta.url), 'utf8'))

test('the fixture holds all vectors', () => {
  assert.equal(VECTORS.length, 29)
})

for (const vector of VECTORS) {
  test(`stringToSign() agrees with vector ${vector.name}`, () => {
    const head = { method: vector.method, target: vector.target, rawHeaders: vector.headers.flat() }
    const body = Buffer.from(vector.bodyBase64, 'base64')
    assert.equal(
      stringToSign(head, body).toString('latin1'),
      Buffer.from(vector.stringToSignBase64, 'base64').toString('latin1'),
    )
    const running = new RunningSignature(head, vector.keyHex)
    for (const byte of body) running.update(Buffer.from([byte]))
    assert.equal(running.digest().toString('hex'), vector.signatureHex)
  })
}

const TARGETS: [target: string, path: string, query: string][] = [
  ['/a/b?x=1', '/a/b', 'x=1'],
  ['/a%2Db', '/a%2Db', ''],
  ['/a?', '/a', ''],
  ['http://169.254.169.254/a?x=1', '/a', 'x=1'],
  ['http://169.254.169.254?x=1', '/', 'x=1'],
  ['*', '*', ''],
  ['/a?x=1#frag', '/a', 'x=1'],
  ['/a?u=http://b/c', '/a', 'u=http://b/c'],
]
for (const [target, path, query] of TARGETS) {
  test(`splitTarget() cuts ${target}`, () => assert.deepEqual(splitTarget(target), { path, query }))
}

test('canonicalQuery() orders the worked example', () => {
  const canonical = canonicalQuery('comp=config&keyOnly&comp=again&type=X&incarnation=1')
  assert.equal(canonical, 'comp=again&comp=config&incarnation=1&keyonly&type=X')
})

test('hasQueryCollision() sees parameters that run together alike, not repeated ones', () => {
  assert.equal(hasQueryCollision('a=bc&ab=c'), true)
  assert.equal(hasQueryCollision('a=b&ab'), true)
  assert.equal(hasQueryCollision('a=1&a=1&A=1&b=2'), false)
})
