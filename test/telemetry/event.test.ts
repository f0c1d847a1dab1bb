import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createLogEvent, createStatusEvent, readLogEvent, readStatusEvent } from '../../src/telemetry/event.ts'
import { logEvent, statusEvent } from './vm.ts'

const WRITER = { version: '1.0.45', pid: 742 }
const NOW_MS = Date.UTC(2026, 0, 2, 3, 4, 5, 678)

test('createLogEvent() has the members of the contract, in their order', () => {
  const origin = { task: 'start', operation: 'proxy_server' }
  const event = createLogEvent(WRITER, 'Info', 'what happened', NOW_MS, origin)
  assert.equal(JSON.stringify(event), JSON.stringify(logEvent()))
})

test('createStatusEvent() has the members of the contract, in their order', () => {
  const event = createStatusEvent(WRITER, true, '{"version":"1.0.45"}', Date.UTC(2026, 0, 2, 3, 19, 5, 678), 900_011.7)
  assert.equal(JSON.stringify(event), JSON.stringify(statusEvent()))
})

test('messages are cut to 4096 bytes between characters', () => {
  for (const [text, kept] of [
    ['x'.repeat(4096), 4096],
    ['x'.repeat(5000), 4096],
    [`${'x'.repeat(4095)}é`, 4095],
    ['\u{1f600}'.repeat(2000), 1024 * 2],
  ] as const) {
    const { Message } = createLogEvent(WRITER, 'Warn', text, NOW_MS, { task: 't', operation: 'o' })
    assert.equal(Message, text.slice(0, kept))
    assert.equal(readLogEvent(logEvent({ Message: text }))?.Message, Message)
  }
})

test('messages of others are freed of secrets before they are cut', () => {
  // Half of a key no longer looks like one.
  const message = `${'x '.repeat(2020)}${'0badc0de'.repeat(8)} pwd=a;pwd=b`
  const expected = `${'x '.repeat(2020)}[REDACTED] pwd=[REDACTED];pwd=[REDACTED]`.slice(0, 4096)
  assert.equal(readLogEvent(logEvent({ Message: message }))?.Message, expected)
  const status = statusEvent()
  const told = readStatusEvent({ ...status, operation_status: { ...status.operation_status, message } })
  assert.equal(told?.operation_status.message, expected)
  const many = readLogEvent(logEvent({ Message: 'pwd=a;'.repeat(600) }))?.Message
  assert.equal(many, 'pwd=[REDACTED];'.repeat(600).slice(0, 4096))
})

test('readLogEvent() and readStatusEvent() take what is whole, and leave out what is not known', () => {
  assert.deepEqual(readLogEvent(logEvent({ more: 1 })), logEvent())
  assert.deepEqual(readStatusEvent({ ...statusEvent(), more: 1 }), statusEvent())
})

const { operation_status: operation, extension } = statusEvent()

const NOT_EVENTS: readonly (readonly [situation: string, value: unknown])[] = [
  ['nothing', null],
  ['a text', 'x'],
  ['a list', [logEvent()]],
  ['an empty object', {}],
  ['a number in place of a text', logEvent({ EventPid: 742 })],
  ['a member that is inherited', Object.create(logEvent())],
  ['a status without an extension', { ...statusEvent(), extension: null }],
  ['a status of texts', { ...statusEvent(), extension: { ...extension, is_internal: 'true' } }],
  ['a duration with a fraction', { ...statusEvent(), operation_status: { ...operation, duration: 1.5 } }],
  [
    'a duration beyond all numbers',
    { ...statusEvent(), operation_status: { ...operation, duration: Number.POSITIVE_INFINITY } },
  ],
  ...Object.keys(logEvent()).map((name) => [`no ${name}`, logEvent({ [name]: undefined })] as const),
]
for (const [situation, value] of NOT_EVENTS) {
  test(`readLogEvent() and readStatusEvent() refuse ${situation}`, () => {
    assert.equal(readLogEvent(value), undefined)
    assert.equal(readStatusEvent(value), undefined)
  })
}
