import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { inspect } from 'node:util'
import { AgentError, describeError } from '../../src/base/errors.ts'
import { isKeyGuid, type LatchedKey, SecretKey } from '../../src/channel/secret-key.ts'

const HEX = '4A404E635266556A586E3272357538782F413F4428472B4B6250645367566B59'
const key = new SecretKey(HEX)
const latched: LatchedKey = { guid: '9cf81e97-0316-4ad3-94a7-8ccbdee8ccbf', incarnationId: 1, issued: 'now', key }

/** Any run of the key's digits that is long enough to matter, in either letter case, and its bytes as text or numbers. */
const TRACES = [/4A404E63/i, /67566B59/i, /J@NcRfUj/, /SkBOY1Jm/, /74, *64, *78, *99/, /4a 40 4e 63/i]

function assertHidden(text: string): void {
  for (const trace of TRACES) assert.doesNotMatch(text, trace)
}

describe('SecretKey never prints', () => {
  const ways: readonly (readonly [situation: string, print: () => string])[] = [
    ['as text', () => String(key)],
    ['in a template', () => `the key is ${key}`],
    ['joined with text', () => 'key='.concat(key as unknown as string)],
    ['as JSON', () => JSON.stringify({ key, nested: [{ key }] })],
    ['as JSON of a latched key', () => JSON.stringify(latched)],
    ['inspected', () => inspect(key)],
    ['inspected with hidden members and getters', () => inspect(key, { showHidden: true, getters: true, depth: null })],
    [
      'inspected without custom inspection',
      () => inspect(key, { customInspect: false, showHidden: true, depth: null }),
    ],
    ['inspected deep inside', () => inspect({ a: { b: { c: { d: latched } } } }, { depth: null, showHidden: true })],
    ['inspected with its getters read', () => inspect(latched, { depth: null, getters: true, customInspect: false })],
    ['in an error message', () => describeError(new Error(`no use for ${key}`))],
    [
      'as the cause of an error',
      () => {
        const error = new AgentError('X', 'Cannot do it', { key: String(key) }, { cause: latched })
        return `${inspect(error, { depth: null, showHidden: true })} ${describeError(error)}`
      },
    ],
    ['by its members', () => JSON.stringify([Object.entries(key), Object.getOwnPropertyNames(key)])],
    ['as a copy', () => inspect({ ...key }, { depth: null, showHidden: true })],
  ]
  for (const [situation, print] of ways) {
    test(situation, () => {
      const text = print()
      assertHidden(text)
    })
  }

  test('and says so', () => {
    assert.equal(`${key} ${JSON.stringify(key)} ${inspect(key)}`, '[secret] "[secret]" [secret]')
  })
})

describe('new SecretKey()', () => {
  const digits = HEX.slice(0, 62)
  for (const [situation, text] of [
    ['63 digits', HEX.slice(1)],
    ['65 digits', `${HEX}0`],
    ['a letter beyond f', `${digits}5Y`],
    ['a line feed at the end', `${HEX}\n`],
    ['a blank in front', ` ${HEX}`],
    ['nothing', ''],
    ['digits of another alphabet', `${digits}\u0665\u0665`],
  ] as const) {
    test(`refuses ${situation} without repeating it`, () => {
      assert.throws(
        () => new SecretKey(text),
        (error: unknown) => {
          assert.ok(error instanceof AgentError)
          assert.equal(error.code, 'KEY_INVALID')
          assertHidden(inspect(error, { depth: null, showHidden: true }))
          return true
        },
      )
    })
  }

  test('takes either letter case for the same key', () => {
    assert.ok(new SecretKey(HEX.toLowerCase()).equals(key))
    assert.equal(new SecretKey(HEX.toLowerCase()).revealHex(), HEX)
    assert.ok(!new SecretKey(`${digits}58`).equals(key))
  })
})

describe('isKeyGuid()', () => {
  const guid = '9cf81e97-0316-4ad3-94a7-8ccbdee8ccbf'
  for (const [text, answer] of [
    [guid, true],
    [guid.toUpperCase(), true],
    ['', false],
    [`${guid}\n`, false],
    [`{${guid}}`, false],
    [guid.replaceAll('-', ''), false],
    ['../../../../etc/cron.d/9cf81e97-0316', false],
    [`${guid.slice(0, -1)}/`, false],
    [`${guid} x`, false],
    [`${guid}\r\nx: y`, false],
  ] as const) {
    test(`${JSON.stringify(text)}: ${answer}`, () => assert.equal(isKeyGuid(text), answer))
  }
})
