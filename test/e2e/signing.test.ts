/** What the host verifies is what the agent signed: methods, bodies, framings, odd headers and queries. */

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { header } from '../fabric/fabric.ts'
import { createMachine, type Machine } from './machine.ts'

const WIRESERVER = 'http://168.63.129.16'
const HOSTGA = 'http://168.63.129.16:32526'
const IMDS = 'http://169.254.169.254'

describe('the executable signs what it sends', () => {
  let machine: Machine
  before(async () => {
    machine = await createMachine()
  })
  after(() => machine[Symbol.asyncDispose]())

  const rows: readonly (readonly [situation: string, ...args: string[]])[] = [
    ['GET with a query', `${IMDS}/metadata/instance?api-version=2021-02-01&format=json`],
    ['query with doubles, empty values and collisions', `${IMDS}/x?b=2&a=3&A=1&=v&&flag&empty=&a=bc&ab=c&ab=c%2F`],
    ['escaped path', `${IMDS}/a%2Db/%7Eu?x=%20y`],
    ['POST with a body', '-d', '{"a":1}', '-H', 'Content-Type: application/json', `${WIRESERVER}/machine?comp=health`],
    ['POST without a body', '-X', 'POST', `${WIRESERVER}/x`],
    ['PUT without a body', '-X', 'PUT', `${HOSTGA}/status`],
    ['DELETE', '-X', 'DELETE', `${HOSTGA}/x?y`],
    ['DELETE with a body', '-X', 'DELETE', '-d', 'why', `${HOSTGA}/x`],
    ['PATCH', '-X', 'PATCH', '-d', 'p', `${HOSTGA}/x`],
    ['OPTIONS', '-X', 'OPTIONS', `${WIRESERVER}/`],
    ['HEAD', '--head', `${IMDS}/metadata/instance?api-version=2021-02-01`],
    ['GET with a body', '-X', 'GET', '-d', 'body', `${WIRESERVER}/x`],
    ['chunked body', '-H', 'Transfer-Encoding: chunked', '-d', 'hello world', `${WIRESERVER}/x`],
    ['expectation', '-H', 'Expect: 100-continue', '-d', 'body', `${WIRESERVER}/x`],
    ['repeated header', '-H', 'X-Custom: first', '-H', 'x-custom: second', `${WIRESERVER}/x`],
    [
      'header with inner blanks and an empty one',
      '-H',
      'X-Spaces:   two  inner  ',
      '-H',
      'X-Empty;',
      `${WIRESERVER}/x`,
    ],
    ['header with bytes beyond ASCII', '-H', 'X-Name: J\u00f6rg', `${WIRESERVER}/x`],
    [
      'hop-by-hop headers',
      '-H',
      'Connection: close, x-mine',
      '-H',
      'X-Mine: 1',
      '-H',
      'TE: trailers',
      `${WIRESERVER}/x`,
    ],
    ['absolute form', '--request-target', 'http://168.63.129.16/machine?comp=goalstate', `${WIRESERVER}/`],
    ['HTTP/1.0', '--http1.0', `${WIRESERVER}/x`],
    ['forged authorization', '-H', 'x-ms-azure-host-authorization: Azure-HMAC-SHA256 a b', `${WIRESERVER}/x`],
    ['other host headers of the agent', '-H', 'x-ms-azure-host-other: 1', `${WIRESERVER}/x`],
  ]
  for (const [situation, ...args] of rows) {
    test(situation, async () => {
      const { result, requests } = await machine.requestsDuring(() => machine.curl(args))
      assert.equal(requests.length, 1, `${result.status} ${result.error}`)
      const [request] = requests
      assert.equal(request?.signature, 'right')
      assert.equal(request?.date, 'fresh')
      assert.equal(result.headers.get('x-ms-azure-host-authorization'), 'value')
      assert.equal(header(request!, 'x-ms-azure-host-other'), undefined)
      assert.equal(header(request!, 'x-mine'), undefined)
      assert.equal(header(request!, 'te'), undefined)
      assert.equal(header(request!, 'transfer-encoding'), undefined)
    })
  }

  test('a body of 100 KiB passes whole, one byte more is refused', async () => {
    const path = join(machine.folder, 'body')
    for (const [sizeBytes, status] of [
      [100 * 1024, 404],
      [100 * 1024 + 1, 413],
    ] as const) {
      writeFileSync(path, randomBytes(sizeBytes))
      const { result, requests } = await machine.requestsDuring(() =>
        machine.curl(['--data-binary', `@${path}`, '-H', 'Expect:', `${WIRESERVER}/x`]),
      )
      assert.equal(result.status, status)
      assert.deepEqual(
        requests.map(({ signature, bodySizeBytes }) => ({ signature, bodySizeBytes })),
        status === 413 ? [] : [{ signature: 'right', bodySizeBytes: sizeBytes }],
      )
    }
  })

  test('the two uploads pass unsigned and whole, and only for root', async () => {
    const path = join(machine.folder, 'log.zip')
    writeFileSync(path, randomBytes(3 * 1024 * 1024))
    const upload = ['-T', path, '-H', 'x-ms-containerid: c', `${HOSTGA}/vmAgentLog`]
    const { result, requests } = await machine.requestsDuring(() => machine.curl(upload))
    const [request] = requests
    assert.equal(request?.signature, 'absent', result.error)
    assert.equal(request?.bodySizeBytes, 3 * 1024 * 1024)
    assert.equal(request?.claims, '{ "isRoot": "true"}')

    const asUser = { uid: 1000, gid: 1000, input: 'x'.repeat(3 * 1024 * 1024) }
    const refused = await machine.requestsDuring(() => machine.curl(['-T', '-', `${HOSTGA}/vmAgentLog`], asUser))
    assert.equal(refused.result.status, 403, refused.result.error)
    assert.deepEqual(refused.requests, [])
  })

  test('without the agent in the path the host refuses', async () => {
    const { status, headers } = await machine.curl([`${WIRESERVER}/machine?comp=goalstate`], { inCgroup: false })
    assert.equal(status, 401)
    assert.equal(headers.get('x-ms-azure-host-authorization'), undefined)
  })
})
