import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { keepListening } from '../../src/agent/listener.ts'
import { AgentError } from '../../src/base/errors.ts'
import type { ProxyServer } from '../../src/proxy/server.ts'
import { createFakeClock } from '../fakes/clock.ts'

/** A server that binds as told, and can be lost. */
interface FakeServer extends ProxyServer {
  lose(): void
}

function listener(t: TestContext) {
  const clock = createFakeClock()
  const told: string[] = []
  const servers: FakeServer[] = []
  const asked: string[] = []
  const setting = { errno: undefined as string | undefined, holder: undefined as string | undefined, isDeaf: false }
  const stopping = new AbortController()
  const create = (): ProxyServer => {
    const { promise: closed, resolve: lose } = Promise.withResolvers<void>()
    const server: FakeServer = {
      closed,
      lose,
      async listen(address, port, inherited) {
        asked.push(inherited === undefined ? `${address}:${port}` : `descriptor ${inherited}`)
        if (setting.errno !== undefined)
          throw new AgentError('LISTEN_FAILED', 'IO error: Failed to bind', { errno: setting.errno })
      },
      adopt: () => ({ [Symbol.dispose]() {} }),
      descriptor: () => 3,
      openConnections: () => 0,
      close: async () => lose(),
    }
    servers.push(server)
    return server
  }
  const events = {
    onReady: (server: ProxyServer) => void told.push(`ready ${servers.indexOf(server as FakeServer)}`),
    onDisinherited: (message: string) => void told.push(`disinherited ${message}`),
    onLost: (message: string) => void told.push(`lost ${message}`),
  }
  const env = { describeHolder: () => setting.holder, isListening: () => !setting.isDeaf }
  const start = (inherited?: number) => keepListening({ create, inherited, ...env, clock, events }, stopping.signal)
  t.after(() => stopping.abort())
  return { clock, told, servers, asked, setting, stopping, start }
}

test('keepListening() binds the address of the contract and says so', async (t) => {
  const { start, clock, told, asked, stopping } = listener(t)
  const running = start()
  await clock.settle()
  assert.deepEqual(asked, ['127.0.0.1:3080'])
  assert.deepEqual(told, ['ready 0'])
  stopping.abort()
  await running
  assert.deepEqual(told, ['ready 0'], 'an end that was asked for is no loss')
})

test('keepListening() goes on with a listener that was left, and binds one of its own after that', async (t) => {
  const { start, clock, told, asked, servers } = listener(t)
  start(7)
  await clock.settle()
  assert.deepEqual([asked, told], [['descriptor 7'], ['ready 0']])
  servers[0]!.lose()
  await clock.settle()
  assert.deepEqual(asked, ['descriptor 7', '127.0.0.1:3080'])
})

test('keepListening() binds one of its own at once when what was left cannot be used', async (t) => {
  const { start, clock, told, asked, setting } = listener(t)
  setting.errno = 'EINVAL'
  start(7)
  setting.errno = undefined
  await clock.settle()
  assert.deepEqual(asked, ['descriptor 7', '127.0.0.1:3080'])
  assert.match(told.join(', '), /^disinherited IO error: Failed to bind.*, ready 1$/)
})

test('keepListening() tries for ever, ever more seldom, and names who is in the way once', async (t) => {
  const { start, clock, told, setting, asked } = listener(t)
  setting.errno = 'EADDRINUSE'
  setting.holder = "process 12 'nc'"
  start()
  const waits: number[] = []
  for (let i = 0; i < 8; i++) {
    await clock.settle()
    waits.push(clock.sleeping[0] as number)
    await clock.advance(clock.sleeping[0] as number)
  }
  assert.deepEqual(waits, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000])
  const failure = "IO error: Failed to bind: the port is taken by process 12 'nc'"
  assert.deepEqual(told, [`lost ${failure}`])
  setting.holder = "process 13 'nc'"
  await clock.advance(30_000)
  assert.equal(told.length, 2, 'another holder is told')
  setting.errno = undefined
  await clock.advance(30_000)
  assert.equal(told.at(-1), `ready ${asked.length - 1}`)
})

test('keepListening() does not ask who is in the way of another failure', async (t) => {
  const { start, clock, told, setting } = listener(t)
  setting.errno = 'EACCES'
  setting.holder = 'nobody'
  start()
  await clock.settle()
  assert.deepEqual(told, ['lost IO error: Failed to bind'])
})

test('keepListening() says that the listener was lost, and binds again', async (t) => {
  const { start, clock, told, servers } = listener(t)
  start()
  await clock.settle()
  servers[0]?.lose()
  await clock.settle()
  assert.deepEqual(told, ['ready 0', 'lost The proxy listener was closed', 'ready 1'])
})

test('keepListening() tells the same failure again after a time that went well', async (t) => {
  const { start, clock, told, servers, setting } = listener(t)
  setting.errno = 'EADDRINUSE'
  start()
  await clock.settle()
  setting.errno = undefined
  await clock.advance(1000)
  setting.errno = 'EADDRINUSE'
  servers[1]?.lose()
  await clock.settle()
  const failure = 'lost IO error: Failed to bind'
  assert.deepEqual(told, [failure, 'ready 1', 'lost The proxy listener was closed', failure])
  assert.deepEqual(clock.sleeping, [1000])
})

test('keepListening() ends while it waits to try again', async (t) => {
  const { start, clock, setting, stopping, asked } = listener(t)
  setting.errno = 'EADDRINUSE'
  const running = start()
  await clock.settle()
  stopping.abort()
  await running
  assert.equal(asked.length, 1)
})

test('keepListening() starts over when the socket was destroyed, which nothing tells', async (t) => {
  const { start, clock, told, setting } = listener(t)
  void start()
  await clock.settle()
  await clock.advance(20_000)
  assert.deepEqual(told, ['ready 0'])
  setting.isDeaf = true
  await clock.advance(4000)
  await clock.settle()
  setting.isDeaf = false
  await clock.advance(1000)
  assert.deepEqual(told, ['ready 0'], 'it is looked at every five seconds')
  setting.isDeaf = true
  await clock.advance(5000)
  setting.isDeaf = false
  await clock.settle()
  assert.deepEqual(told, ['ready 0', 'lost The proxy listener was closed', 'ready 1'])
})
