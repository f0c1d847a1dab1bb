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
  assert.equal(shares.add(1000, third), third)
  assert.equal(shares.add(1001, socket()), undefined)
  first.emit('close')
  assert.equal(shares.add(1000, third), undefined)
})

test('add() gives up the oldest of those whom nobody knows', () => {
  const shares = createShares(2, 100)
  const [first, second] = [socket(), socket()]
  shares.add(undefined, first)
  shares.add(undefined, second)
  assert.equal(shares.add(undefined, socket()), first)
  assert.equal(shares.add(undefined, socket()), second)
})

test('add() leaves the reserve alone, however many users there are', () => {
  const shares = createShares(10, 3)
  const sockets = [1, 2, 3].map((uid) => {
    const each = socket()
    assert.equal(shares.add(uid, each), undefined)
    return each
  })
  const late = socket()
  assert.equal(shares.add(4, late), late)
  const unknown = socket()
  assert.equal(shares.add(undefined, unknown), unknown)
  sockets[0]?.emit('close')
  assert.equal(shares.add(4, late), undefined)
  assert.equal(shares.add(5, unknown), unknown)
})
