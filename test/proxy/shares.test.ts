import assert from 'node:assert/strict'
import { EventEmitter } from 'node:events'
import type { Socket } from 'node:net'
import { test } from 'node:test'
import { createShares } from '../../src/proxy/shares.ts'

const socket = () => new EventEmitter() as Socket

test('add() gives up the newest of a user who has his share, and takes one again when another closes', () => {
  const shares = createShares(2, 100)
  const [first, second, third] = [socket(), socket(), socket()]
  assert.equal(shares.add(1000, first), undefined)
  assert.equal(shares.add(1000, second), undefined)
  assert.deepEqual(shares.add(1000, third), { uid: 1000, socket: third })
  assert.equal(shares.add(1001, socket()), undefined)
  first.emit('close')
  assert.equal(shares.add(1000, third), undefined)
})

test('add() gives up the oldest of those whom nobody knows', () => {
  const shares = createShares(2, 100)
  const [first, second] = [socket(), socket()]
  shares.add(undefined, first)
  shares.add(undefined, second)
  assert.equal(shares.add(undefined, socket())?.socket, first)
  assert.equal(shares.add(undefined, socket())?.socket, second)
})

test('add() leaves the reserve alone, however many users there are', () => {
  const shares = createShares(10, 3)
  const sockets = [1, 2, 3].map((uid) => {
    const each = socket()
    assert.equal(shares.add(uid, each), undefined)
    return each
  })
  const late = socket()
  assert.equal(shares.add(4, late)?.socket, late)
  const unknown = socket()
  assert.equal(shares.add(undefined, unknown)?.socket, unknown)
  sockets[0]?.emit('close')
  assert.equal(shares.add(4, late), undefined)
  assert.equal(shares.add(5, unknown)?.socket, unknown)
})

test('add() lets who has the most make room when all have all, down to an even share', () => {
  const shares = createShares(10, 6)
  const rich = Array.from({ length: 4 }, socket)
  for (const each of rich) shares.add(1000, each)
  const [first, second] = [socket(), socket()]
  shares.add(1001, first)
  shares.add(1001, second)
  assert.deepEqual(shares.add(1002, socket()), { uid: 1000, socket: rich[0] })
  assert.deepEqual(shares.add(1002, socket()), { uid: 1000, socket: rich[1] })
  const late = socket()
  assert.deepEqual(shares.add(1002, late), { uid: 1002, socket: late }, 'all have two')
  assert.deepEqual(shares.add(1000, late), { uid: 1000, socket: late }, 'and nobody gets his back by force')
  assert.equal(shares.add(1003, socket())?.uid, 1000)
})

test('add() counts a connection that was given up no more when it closes', () => {
  const shares = createShares(10, 3)
  const rich = [socket(), socket(), socket()]
  for (const each of rich) shares.add(1000, each)
  assert.equal(shares.add(1001, socket())?.socket, rich[0])
  rich[0]?.emit('close')
  rich[1]?.emit('close')
  assert.equal(shares.add(1001, socket()), undefined, 'there is room for one')
  assert.notEqual(shares.add(1002, socket()), undefined, 'and for no other')
})
