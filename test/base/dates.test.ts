import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { fileStamp, httpDate, isoMs, parseHttpDate } from '../../src/base/dates.ts'

const NOON = Date.UTC(2025, 3, 23, 12)
/** Whole seconds of four-digit years. */
const second = fc.integer({ min: Date.UTC(1000, 0) / 1000, max: Date.UTC(9999, 11, 31, 23, 59, 59) / 1000 })

describe('isoMs()', () => {
  for (const [epochMs, text] of [
    [Date.UTC(2026, 0, 2, 3, 4, 5, 678), '2026-01-02T03:04:05.678'],
    [Date.UTC(2026, 0, 2, 3, 4, 5), '2026-01-02T03:04:05.000'],
    [0, '1970-01-01T00:00:00.000'],
  ] as const) {
    test(text, () => assert.equal(isoMs(epochMs), text))
  }
})

describe('fileStamp()', () => {
  test('has no character that a file name cannot have', () => {
    assert.equal(
      fileStamp(Date.UTC(2026, 0, 2, 3, 4, 5, 678), 1767323045678901234n),
      '2026-01-02T03.04.05.678-1767323045678901234',
    )
  })
})

describe('httpDate()', () => {
  for (const [epochMs, text] of [
    [NOON, 'Wed, 23 Apr 2025 12:00:00 GMT'],
    [NOON + 999.9, 'Wed, 23 Apr 2025 12:00:00 GMT'],
    [Date.UTC(2026, 0, 2, 3, 4, 5), 'Fri, 02 Jan 2026 03:04:05 GMT'],
    [-1, 'Wed, 31 Dec 1969 23:59:59 GMT'],
  ] as const) {
    test(`${epochMs} is ${text}`, () => assert.equal(httpDate(epochMs), text))
  }
})

describe('parseHttpDate()', () => {
  test('reads what httpDate() writes', () => {
    fc.assert(fc.property(second, (s) => assert.equal(parseHttpDate(httpDate(s * 1000)), s * 1000)))
  })

  for (const [situation, text, epochMs] of [
    ['a weekday that does not fit', 'Mon, 23 Apr 2025 12:00:00 GMT', NOON],
    ['29 February of a leap year', 'Thu, 29 Feb 2024 00:00:00 GMT', Date.UTC(2024, 1, 29)],
    ['29 February of another year', 'Sat, 29 Feb 2025 00:00:00 GMT', undefined],
    ['31 April', 'Wed, 31 Apr 2025 12:00:00 GMT', undefined],
    ['day 0', 'Wed, 00 Apr 2025 12:00:00 GMT', undefined],
    ['a day of one digit', 'Wed, 3 Apr 2025 12:00:00 GMT', undefined],
    ['hour 24', 'Wed, 23 Apr 2025 24:00:00 GMT', undefined],
    ['minute 60', 'Wed, 23 Apr 2025 12:60:00 GMT', undefined],
    ['second 60', 'Wed, 23 Apr 2025 12:00:60 GMT', undefined],
    ['a year of two digits', 'Wed, 23 Apr 25 12:00:00 GMT', undefined],
    ['year 99', 'Wed, 23 Apr 0099 12:00:00 GMT', undefined],
    ['names in lower case', 'wed, 23 apr 2025 12:00:00 GMT', undefined],
    ['an unknown weekday', 'Wet, 23 Apr 2025 12:00:00 GMT', undefined],
    ['an unknown month', 'Wed, 23 Apx 2025 12:00:00 GMT', undefined],
    ['another zone', 'Wed, 23 Apr 2025 12:00:00 UTC', undefined],
    ['an offset', 'Wed, 23 Apr 2025 12:00:00 +0000', undefined],
    ['something in front', ' Wed, 23 Apr 2025 12:00:00 GMT', undefined],
    ['something behind', 'Wed, 23 Apr 2025 12:00:00 GMT\n', undefined],
    ['the older form', 'Wednesday, 23-Apr-25 12:00:00 GMT', undefined],
    ['an ISO date', '2025-04-23T12:00:00Z', undefined],
    ['digits of another alphabet', 'Wed, \u0662\u0663 Apr 2025 12:00:00 GMT', undefined],
    ['nothing', '', undefined],
  ] as const) {
    test(`${epochMs === undefined ? 'refuses' : 'reads'} ${situation}`, () =>
      assert.equal(parseHttpDate(text), epochMs))
  }

  test('gives a date or nothing for any text', () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.string(), fc.stringMatching(/^[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/)),
        (text) => {
          const epochMs = parseHttpDate(text)
          if (epochMs !== undefined) assert.equal(httpDate(epochMs).slice(5), text.slice(5))
        },
      ),
    )
  })
})
