import assert from 'node:assert/strict'
import { test } from 'node:test'
import { joinServiceManager } from '../../src/agent/service-manager.ts'
import { createFakeLog } from '../fakes/log.ts'

function join(environment: Record<string, string | undefined>, failure: () => string | undefined = () => undefined) {
  const sent: string[] = []
  const opened: string[] = []
  const log = createFakeLog()
  const manager = joinServiceManager(environment, log, {
    pid: 42,
    monotonicUs: () => 7n,
    open(address) {
      opened.push(address)
      if (address === 'nonsense') throw new RangeError('no such address')
      return {
        send(text) {
          sent.push(text)
          return failure()
        },
        sendWithDescriptor(text, descriptor) {
          sent.push(`${text}\ndescriptor ${descriptor}`)
          return failure()
        },
        [Symbol.dispose]: () => undefined,
      }
    },
  })
  return { manager, sent, opened, log, environment }
}

test('joinServiceManager() takes its variables out of the environment that children inherit', () => {
  const { environment, opened } = join({
    NOTIFY_SOCKET: '/run/n',
    WATCHDOG_USEC: '5',
    WATCHDOG_PID: '42',
    PATH: '/bin',
  })
  assert.deepEqual(environment, { PATH: '/bin' })
  assert.deepEqual(opened, ['/run/n'])
})

test('nothing is sent and nothing is said where there is no manager', () => {
  const { manager, sent, opened, log } = join({ WATCHDOG_USEC: '5000000' })
  manager.ready()
  manager.status('x')
  manager.reloading()()
  manager.beat()
  manager.stopping()
  assert.deepEqual([sent, opened, log.lines], [[], [], []])
  assert.equal(manager.watchdogMs, undefined)
})

test('each is told once: readiness, a status; a reload has a beginning and an end', () => {
  const { manager, sent } = join({ NOTIFY_SOCKET: '@n' })
  manager.reloading()()
  manager.ready()
  manager.ready()
  manager.status('a\nb')
  manager.status('a\nb')
  manager.reloading()()
  manager.beat()
  manager.stopping()
  const told = ['READY=1', 'STATUS=a\\x0ab', 'RELOADING=1\nMONOTONIC_USEC=7', 'READY=1', 'WATCHDOG=1', 'STOPPING=1']
  assert.deepEqual(sent, told)
})

test('a descriptor is left once, and taken back once', () => {
  const { manager, sent } = join({ NOTIFY_SOCKET: '/n' })
  manager.drop('a')
  manager.keep('a', 21)
  manager.keep('a', 21)
  manager.keep('b', 22)
  manager.drop('a')
  manager.drop('a')
  manager.keep('a', 21)
  const kept = 'FDSTORE=1\nFDNAME=a\ndescriptor 21'
  assert.deepEqual(sent, [kept, 'FDSTORE=1\nFDNAME=b\ndescriptor 22', 'FDSTOREREMOVE=1\nFDNAME=a', kept])
})

test('a descriptor that could not be taken back is so with the next beat, and nothing is left under its name before', () => {
  const failure: { now?: string } = { now: 'EAGAIN' }
  const { manager, sent } = join({ NOTIFY_SOCKET: '/n' }, () => failure.now)
  manager.keep('a', 21)
  manager.drop('a')
  manager.keep('a', 22)
  delete failure.now
  sent.length = 0
  manager.beat()
  manager.beat()
  manager.keep('a', 23)
  const removed = 'FDSTOREREMOVE=1\nFDNAME=a'
  assert.deepEqual(sent, ['WATCHDOG=1', removed, 'WATCHDOG=1', 'FDSTORE=1\nFDNAME=a\ndescriptor 23'])
})

const HANDED_OVER: readonly (readonly [string, (string | undefined)[], Readonly<Record<string, number>>])[] = [
  ['nothing', [undefined, undefined, undefined], {}],
  ['a listener', ['42', '1', 'listener'], { listener: 3 }],
  ['a listener among others', ['42', '3', 'a:listener:b'], { a: 3, listener: 4, b: 5 }],
  ['a listener for another process', ['43', '1', 'listener'], {}],
  ['more names than descriptors', ['42', '1', 'a:listener'], { a: 3 }],
  ['a count that is none', ['42', 'x', 'listener'], {}],
  ['no names', ['42', '1', undefined], {}],
]
for (const [situation, [LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES], expected] of HANDED_OVER) {
  test(`what the manager hands over: ${situation}`, () => {
    const { manager, environment } = join({ LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES })
    assert.deepEqual(Object.fromEntries(manager.inherited), expected)
    assert.deepEqual(environment, {})
  })
}

test('a listener that was handed over is taken back when another one is used', () => {
  const { manager, sent } = join({
    NOTIFY_SOCKET: '/n',
    LISTEN_PID: '42',
    LISTEN_FDS: '1',
    LISTEN_FDNAMES: 'listener',
  })
  manager.drop('listener')
  assert.deepEqual(sent, ['FDSTOREREMOVE=1\nFDNAME=listener'])
})

const WATCHDOGS: readonly (readonly [string, string | undefined, string | undefined, number | undefined])[] = [
  ['for this process', '2000000', '42', 2000],
  ['for whoever has the variable', '2000000', undefined, 2000],
  ['for another process', '2000000', '43', undefined],
  ['off', undefined, '42', undefined],
  ['zero', '0', '42', undefined],
  ['nonsense', '2s', '42', undefined],
]
for (const [situation, WATCHDOG_USEC, WATCHDOG_PID, expected] of WATCHDOGS) {
  test(`a watchdog ${situation}`, () => {
    assert.equal(join({ NOTIFY_SOCKET: '/n', WATCHDOG_USEC, WATCHDOG_PID }).manager.watchdogMs, expected)
  })
}

test('an address that cannot be used, or where nobody listens, is told once and does no harm', () => {
  const nowhere = join({ NOTIFY_SOCKET: 'nonsense' })
  nowhere.manager.ready()
  assert.equal(nowhere.log.lines.length, 1)
  const gone = join({ NOTIFY_SOCKET: '/gone' }, () => 'ECONNREFUSED')
  gone.manager.ready()
  gone.manager.beat()
  assert.deepEqual(gone.log.lines, ['Warn The service manager does not listen: ECONNREFUSED'])
})
