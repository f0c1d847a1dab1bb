import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { httpDate } from '../../src/base/dates.ts'
import { createHostClock } from '../../src/channel/host-clock.ts'
import { createFakeClock } from '../fakes/clock.ts'

const GUEST = Date.UTC(2025, 3, 23, 12)
const HOUR = 3_600_000
const DAY = 24 * HOUR

function setUp() {
  const clock = createFakeClock(GUEST)
  return { clock, host: createHostClock(clock) }
}

describe('createHostClock() before any answer', () => {
  test('gives the time of the guest', () => {
    const { clock, host } = setUp()
    assert.equal(host.httpDate(), 'Wed, 23 Apr 2025 12:00:00 GMT')
    clock.stepWall(HOUR)
    assert.equal(host.httpDate(), 'Wed, 23 Apr 2025 13:00:00 GMT')
    assert.equal(host.isSynced, false)
  })
})

describe('sync() takes', () => {
  const inAnHour = httpDate(GUEST + HOUR)
  const inTwoHours = httpDate(GUEST + 2 * HOUR)
  type MaybeDate = string | undefined
  const rows: readonly (readonly [situation: string, hostDate?: MaybeDate, date?: MaybeDate, expectedMs?: number])[] = [
    ['the date of the host', inAnHour, inTwoHours, GUEST + HOUR],
    ['the standard date when there is no other', undefined, inAnHour, GUEST + HOUR],
    ['the standard date when the other is unreadable', 'tomorrow', inAnHour, GUEST + HOUR],
    ['the standard date when the other is empty', '', inAnHour, GUEST + HOUR],
    ['nothing when neither is readable', '2025-04-23T13:00:00Z', 'Wed, 23 Apr 2025 13:00:00 UTC'],
    ['nothing when neither is there'],
  ]
  for (const [situation, hostDate, date, expectedMs] of rows) {
    test(situation, () => {
      const { host } = setUp()
      host.sync(hostDate, date)
      assert.equal(host.isSynced, expectedMs !== undefined)
      assert.equal(host.nowMs(), expectedMs ?? GUEST)
    })
  }

  test('any date at first, however far from the time of the guest', () => {
    const { host } = setUp()
    host.sync('Sat, 01 Jan 2000 00:00:00 GMT', undefined)
    assert.equal(host.httpDate(), 'Sat, 01 Jan 2000 00:00:00 GMT')
  })
})

describe('after sync() the host time', () => {
  test('advances with monotonic time, whatever the wall clock does', async () => {
    const { clock, host } = setUp()
    host.sync(httpDate(GUEST + HOUR), undefined)
    await clock.advance(1999)
    clock.stepWall(-5 * DAY)
    assert.equal(host.nowMs(), GUEST + HOUR + 1999)
    assert.equal(host.httpDate(), 'Wed, 23 Apr 2025 13:00:01 GMT')
    await clock.advance(1)
    assert.equal(host.httpDate(), 'Wed, 23 Apr 2025 13:00:02 GMT')
  })

  test('does not jump for the delay of an answer', async () => {
    const { clock, host } = setUp()
    host.sync(httpDate(GUEST), undefined)
    await clock.advance(1500)
    host.sync(httpDate(GUEST), undefined)
    assert.equal(host.nowMs(), GUEST + 1500)
  })

  test('follows a step of an hour at once', () => {
    const { host } = setUp()
    host.sync(httpDate(GUEST), undefined)
    host.sync(httpDate(GUEST - HOUR), undefined)
    assert.equal(host.nowMs(), GUEST - HOUR)
  })

  test('keeps what it has when a later answer has no readable date', () => {
    const { host } = setUp()
    host.sync(httpDate(GUEST + HOUR), undefined)
    host.sync('garbage', undefined)
    assert.equal(host.nowMs(), GUEST + HOUR)
  })
})

describe('sync() believes a jump of more than a day', () => {
  const far = GUEST + 30 * DAY
  test('not at once', () => {
    const { host } = setUp()
    host.sync(httpDate(GUEST), undefined)
    host.sync(httpDate(far), undefined)
    assert.equal(host.nowMs(), GUEST)
  })

  test('when the next answer says the same', async () => {
    const { clock, host } = setUp()
    host.sync(httpDate(GUEST), undefined)
    host.sync(httpDate(far), undefined)
    await clock.advance(15_000)
    host.sync(httpDate(far + 15_000), undefined)
    assert.equal(host.nowMs(), far + 15_000)
  })

  test('not when the next answer is far as well but says something else', () => {
    const { host } = setUp()
    host.sync(httpDate(GUEST), undefined)
    for (const days of [30, 60, 90]) host.sync(httpDate(GUEST + days * DAY), undefined)
    assert.equal(host.nowMs(), GUEST)
  })

  test('not when an answer in between agreed with the time before', async () => {
    const { clock, host } = setUp()
    host.sync(httpDate(GUEST), undefined)
    host.sync(httpDate(far), undefined)
    host.sync(httpDate(GUEST), undefined)
    await clock.advance(15_000)
    host.sync(httpDate(far + 15_000), undefined)
    assert.equal(host.nowMs(), GUEST + 15_000)
  })
})
