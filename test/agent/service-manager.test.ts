import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { joinServiceManager } from '../../src/agent/service-manager.ts'
import { Fd } from '../../src/sys/fd.ts'
import { sysBind, sysRecv, sysSocket } from '../../src/sys/libc.ts'
import { openNotifySocket } from '../../src/sys/notify-socket.ts'
import { createFakeLog } from '../fakes/log.ts'

function join(environment: Record<string, string | undefined>, failure: () => string | undefined = () => undefined) {
  const sent: string[] = []
  const opened: string[] = []
  const waiting: (() => void)[] = []
  const time = { us: 7n }
  const log = createFakeLog()
  const manager = joinServiceManager(environment, log, {
    pid: 42,
    monotonicUs: () => time.us,
    later: (action) => void waiting.push(action),
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
  /** Lets the time pass that is waited for. @returns what was sent, or tried, then */
  const pass = () => {
    sent.length = 0
    for (const action of waiting.splice(0)) action()
    return [...sent]
  }
  return { manager, sent, opened, log, environment, waiting, time, pass }
}

/** A manager whose socket has no room for anything, until `now` is deleted. */
function joinFull(environment: Record<string, string | undefined> = {}) {
  const failure: { now?: string } = { now: 'EAGAIN' }
  return { ...join({ NOTIFY_SOCKET: '/n', ...environment }, () => failure.now), failure }
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

test('what there is no room for is sent when there is: words, of each the last one, before descriptors', () => {
  const { manager, failure, waiting, pass, log } = joinFull()
  manager.keep('a', 21)
  manager.ready()
  manager.status('old')
  manager.beat()
  manager.status('new')
  manager.beat()
  manager.keep('b', 22)
  assert.equal(waiting.length, 1, 'one timer for all')
  assert.deepEqual(pass(), ['READY=1'], 'nothing else is tried while the first one finds no room')
  delete failure.now
  const descriptors = ['FDSTORE=1\nFDNAME=a\ndescriptor 21', 'FDSTORE=1\nFDNAME=b\ndescriptor 22']
  assert.deepEqual(pass(), ['READY=1', 'STATUS=new', 'WATCHDOG=1', ...descriptors])
  assert.deepEqual([pass(), waiting.length, log.lines], [[], 0, []])
  manager.ready()
  manager.keep('a', 21)
  assert.deepEqual(pass(), [], 'each was taken')
})

test('what waits goes before what is said now', () => {
  const { manager, failure, sent } = joinFull()
  manager.ready()
  delete failure.now
  sent.length = 0
  manager.beat()
  assert.deepEqual(sent, ['READY=1', 'WATCHDOG=1'])
})

test('a reload has no beginning before readiness was taken, and its end comes last', () => {
  const { manager, failure, sent, pass } = joinFull()
  manager.ready()
  manager.reloading()()
  delete failure.now
  assert.deepEqual(pass(), ['READY=1'])
  failure.now = 'EAGAIN'
  manager.reloading()()
  manager.reloading()()
  delete failure.now
  assert.deepEqual(pass(), ['RELOADING=1\nMONOTONIC_USEC=7', 'READY=1'])
  sent.length = 0
  manager.ready()
  assert.deepEqual(sent, [])
})

test('a descriptor that was dropped before there was room is never sent', () => {
  const { manager, failure, pass } = joinFull()
  manager.keep('a', 21)
  manager.keep('b', 22)
  manager.drop('a')
  delete failure.now
  assert.deepEqual(pass(), ['FDSTORE=1\nFDNAME=b\ndescriptor 22'])
})

test('what is closed when the service stops is not left later', () => {
  const { manager, failure, pass } = joinFull()
  manager.keep('a', 21)
  manager.stopping()
  manager.keep('b', 22)
  delete failure.now
  assert.deepEqual(pass(), ['STOPPING=1'])
})

test('nothing is left under a name before what was there has been taken back, whatever its number', () => {
  const { manager, failure, pass } = joinFull({ LISTEN_PID: '42', LISTEN_FDS: '1', LISTEN_FDNAMES: 'a' })
  manager.drop('a')
  manager.keep('a', 3)
  delete failure.now
  assert.deepEqual(pass(), ['FDSTOREREMOVE=1\nFDNAME=a', 'FDSTORE=1\nFDNAME=a\ndescriptor 3'])
})

test('a message that fails for another reason is given up, but what lives on with the manager is taken back later', () => {
  const { manager, failure, sent, waiting, log } = joinFull()
  delete failure.now
  manager.keep('a', 21)
  failure.now = 'ECONNREFUSED'
  manager.ready()
  manager.status('x')
  manager.keep('b', 22)
  manager.drop('a')
  assert.deepEqual([waiting.length, log.lines], [0, ['Warn The service manager does not listen: ECONNREFUSED']])
  delete failure.now
  sent.length = 0
  manager.beat()
  assert.deepEqual(sent, ['WATCHDOG=1', 'FDSTOREREMOVE=1\nFDNAME=a'])
  sent.length = 0
  manager.ready()
  manager.keep('b', 22)
  assert.deepEqual(sent, ['READY=1', 'FDSTORE=1\nFDNAME=b\ndescriptor 22'], 'neither was taken')
})

test('a socket without room is told once, when it has been so for a second', () => {
  const { manager, time, pass, log } = joinFull()
  manager.ready()
  time.us += 999_999n
  pass()
  assert.deepEqual(log.lines, [])
  time.us += 1n
  pass()
  pass()
  assert.deepEqual(log.lines, ['Warn The service manager does not listen: EAGAIN, what it is to be told waits'])
})

test('a real socket that somebody has filled gets everything once it is read', async () => {
  const AF_UNIX = 1
  const SOCK_DGRAM = 2
  const MSG_DONTWAIT = 0x40
  const address = `@apa-outbox-${process.pid}`
  using receiver = new Fd(sysSocket(AF_UNIX, SOCK_DGRAM, 0), 'receiver')
  const sockaddr = Buffer.from(`\x01\0\0${address.slice(1)}`)
  assert.equal(sysBind(receiver.number, sockaddr), 0)
  using flooder = openNotifySocket(address)
  while (flooder.send('junk') === undefined);
  const manager = joinServiceManager({ NOTIFY_SOCKET: address }, createFakeLog(), {
    pid: 42,
    monotonicUs: () => process.hrtime.bigint() / 1000n,
    later: (action, ms) => void setTimeout(action, ms),
    open: openNotifySocket,
  })
  manager.ready()
  manager.beat()
  manager.keep('a', receiver.number)
  const received: string[] = []
  const bytes = Buffer.alloc(4096)
  await sleep(100)
  for (const endMs = Date.now() + 10_000; Date.now() < endMs && received.length < 3; await sleep(5)) {
    for (;;) {
      const length = sysRecv(receiver.number, bytes, MSG_DONTWAIT)
      if (length < 0) break
      const text = bytes.toString('utf8', 0, length)
      if (text !== 'junk') received.push(text)
    }
  }
  assert.deepEqual(received, ['READY=1', 'WATCHDOG=1', 'FDSTORE=1\nFDNAME=a'])
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
