/** A key that the host replaces while requests are on their way costs no request. */

import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { SecretKey } from '../../src/channel/secret-key.ts'
import { authorizationValue } from '../../src/channel/sign.ts'
import { startProxy } from './proxy-under-test.ts'
import type { HostCall } from './raw-host.ts'

const OLD = latched('00000000-0000-4000-8000-00000000000a', 'aa')
const NEW = latched('00000000-0000-4000-8000-00000000000b', 'bb')

function latched(guid: string, digits: string) {
  return { guid, incarnationId: 1, issued: '', key: new SecretKey(digits.repeat(32)) }
}

const POST = 'POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody'

/** A proxy that signs with the old key until `renew`, and a host that takes the new one alone. */
async function start(t: TestContext) {
  const proxy = await startProxy()
  t.after(() => proxy.close())
  let key = OLD
  const { promise: agreed, resolve } = Promise.withResolvers<void>()
  const renew = () => {
    key = NEW
    resolve()
  }
  Object.assign(proxy.stages, {
    authorize: (request: Parameters<typeof authorizationValue>[1]) => authorizationValue(key, request),
    keyAfter: () => agreed,
  })
  const guids: string[] = []
  proxy.host.onCall((call: HostCall) => {
    const guid = /x-ms-azure-host-authorization: \S+ (\S+)/.exec(call.head)?.[1] ?? ''
    guids.push(guid)
    if (guid === NEW.guid) call.answer(200, {}, 'served')
    else call.answer(401, {}, 'refused')
  })
  return { proxy, guids, renew }
}

test('a refused request waits for the key that is being agreed on, and is sent again under it', async (t) => {
  const { proxy, guids, renew } = await start(t)
  setTimeout(renew, 100)
  const { status, body } = await proxy.ask(POST)
  assert.deepEqual([status, body], [200, 'served'])
  assert.deepEqual(guids, [OLD.guid, NEW.guid])
  assert.equal(proxy.host.calls[1]?.body.toString(), 'body')
})

test('a refusal that no other key explains is the answer of the host', async (t) => {
  const { proxy, guids } = await start(t)
  Object.assign(proxy.stages, { keyAfter: () => undefined })
  const { status, body } = await proxy.ask(POST)
  assert.deepEqual([status, body], [401, 'refused'])
  assert.deepEqual(guids, [OLD.guid])
})

test('a fault while another key is waited for ends the request alone', async (t) => {
  const { proxy, guids } = await start(t)
  Object.assign(proxy.stages, { keyAfter: () => Promise.reject(new Error('a fault of ours')) })
  const { status } = await proxy.ask(POST)
  assert.equal(status, 500)
  assert.deepEqual(guids, [OLD.guid])
  assert.ok(proxy.told.some((line) => line.includes('a fault of ours')))
})

test('a header that speaks of authorization makes no unsigned request go twice', async (t) => {
  const { proxy, guids } = await start(t)
  let asked = 0
  Object.assign(proxy.stages, {
    authorize: () => undefined,
    keyAfter: () => {
      asked++
      return Promise.resolve()
    },
  })
  const request = POST.replace('Host: h', 'Host: h\r\nX-A: x-ms-azure-host-authorization')
  assert.equal((await proxy.ask(request)).status, 401)
  assert.deepEqual([guids.length, asked], [1, 0])
})

test('a second refusal is the answer of the host', async (t) => {
  const { proxy, guids } = await start(t)
  Object.assign(proxy.stages, { keyAfter: () => Promise.resolve() })
  const { status } = await proxy.ask(POST)
  assert.equal(status, 401)
  assert.deepEqual(guids, [OLD.guid, OLD.guid])
})
