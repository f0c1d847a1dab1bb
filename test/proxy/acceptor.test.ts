import assert from 'node:assert/strict'
import { constants } from 'node:os'
import { test } from 'node:test'
import { setTimeout as delay, setImmediate as nextRound } from 'node:timers/promises'
import { type ListenerSockets, startAccepting } from '../../src/proxy/acceptor.ts'

type Answer = ReturnType<ListenerSockets['accept']>

const PEER = { address: '127.0.0.1', port: 40_000 }
const { ECONNABORTED, EINVAL, EMFILE } = constants.errno

/** A listener at which `queue` waits; once that is empty, nothing does. */
function listener(queue: Answer[]) {
  const told: string[] = []
  let onReadable: (() => void) | undefined
  let watches = 0
  const sockets: ListenerSockets = {
    listen: () => assert.fail('not asked for'),
    boundTo: () => assert.fail('not asked for'),
    close: () => assert.fail('the descriptor is the caller’s'),
    accept: () => queue.shift(),
    watch(_fd, callback) {
      watches++
      onReadable = callback
      return {
        [Symbol.dispose]: () => {
          onReadable = undefined
        },
      }
    },
  }
  const accepting = startAccepting(7, sockets, {
    onConnection: (fd, peer) => told.push(`connection ${fd} ${peer?.port}`),
    onRefused: (errno) => told.push(`refused ${errno}`),
    onLost: () => told.push('lost'),
  })
  return {
    told,
    accepting,
    /** As the loop does, several times in one round perhaps. */
    ring: () => onReadable?.(),
    isWatched: () => onReadable !== undefined,
    watches: () => watches,
  }
}

test('all that wait are accepted in one turn, which never runs inside the loop’s own call', async () => {
  const { told, ring } = listener([
    { fd: 10, peer: PEER },
    { fd: 11, peer: undefined },
  ])
  ring()
  ring()
  assert.deepEqual(told, [])
  await nextRound()
  assert.deepEqual(told, ['connection 10 40000', 'connection 11 undefined'])
})

test('a turn ends after 128, and the rest has its turn when the kernel tells of it again', async () => {
  const { told, ring } = listener(Array.from({ length: 200 }, (_, i) => ({ fd: i, peer: PEER })))
  ring()
  await nextRound()
  assert.equal(told.length, 128)
  ring()
  await nextRound()
  assert.equal(told.length, 200)
})

test('a connection that failed while it waited does not hold up the next', async () => {
  const { told, ring } = listener([-ECONNABORTED, { fd: 12, peer: PEER }])
  ring()
  await nextRound()
  assert.deepEqual(told, ['connection 12 40000'])
})

test('without descriptors nothing is accepted for a while, and it is told once', async () => {
  const { told, ring, isWatched, watches } = listener([-EMFILE, -EMFILE, { fd: 13, peer: PEER }, -EMFILE])
  ring()
  await nextRound()
  assert.deepEqual([told, isWatched()], [[`refused ${-EMFILE}`], false])
  for (const count of [2, 3]) {
    while (watches() < count) await delay(1)
    ring()
    await nextRound()
  }
  assert.deepEqual(told, [`refused ${-EMFILE}`, 'connection 13 40000', `refused ${-EMFILE}`])
})

test('a socket that does not listen any more is lost at once', async () => {
  const { told, ring, isWatched } = listener([-EINVAL, { fd: 14, peer: PEER }])
  ring()
  await nextRound()
  assert.deepEqual([told, isWatched()], [['lost'], false])
})

test('once it has ended nothing is accepted, also of a turn that was due', async () => {
  const { told, ring, accepting, isWatched } = listener([{ fd: 15, peer: PEER }])
  ring()
  accepting[Symbol.dispose]()
  await nextRound()
  assert.deepEqual([told, isWatched()], [[], false])
})
