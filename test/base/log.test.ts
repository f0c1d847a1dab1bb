import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { createLog, isWanted, LEVELS, type Level, type LogSink, parseLevel, toSafeLine } from '../../src/base/log.ts'

function recordingSink(threshold: Level): LogSink & { readonly lines: string[] } {
  const lines: string[] = []
  return { threshold, lines, write: (level, message, epochMs) => lines.push(`${epochMs} ${level} ${message}`) }
}

describe('createLog()', () => {
  test('gives each sink what is at least as severe as its threshold', () => {
    for (const threshold of LEVELS) {
      const [sink, other] = [recordingSink(threshold), recordingSink('Trace')]
      const log = createLog([sink, other], () => 7)
      log.error('e')
      log.warn('w')
      log.info('i')
      log.debug('d')
      log.trace('t')
      assert.deepEqual(other.lines, ['7 Error e', '7 Warn w', '7 Info i', '7 Debug d', '7 Trace t'])
      assert.deepEqual(sink.lines, other.lines.slice(0, LEVELS.indexOf(threshold) + 1))
    }
  })

  test('isEnabled() tells what any sink wants, and builds nothing for nobody', () => {
    let clockReadings = 0
    const log = createLog([recordingSink('Warn'), recordingSink('Error')], () => clockReadings++)
    assert.deepEqual(LEVELS.filter(log.isEnabled), ['Error', 'Warn'])
    log.info('unwanted')
    assert.equal(clockReadings, 0)
    assert.deepEqual(LEVELS.filter(createLog([], () => 0).isEnabled), [])
  })

  test('frees every line of secrets and of characters that forge lines', () => {
    const sink = recordingSink('Info')
    const log = createLog([sink], () => 7)
    log.info('a\n2026-01-01 [ERROR] forged password=hunter2')
    log.write('Warn', '\u001b[2J')
    assert.deepEqual(sink.lines, ['7 Info a\\x0a2026-01-01 [ERROR] forged password=[REDACTED]', '7 Warn \\x1b[2J'])
  })
})

describe('toSafeLine()', () => {
  test('keeps 16 KiB, also when each character becomes four', () => {
    assert.equal(toSafeLine('x'.repeat(16_384)), 'x'.repeat(16_384))
    assert.equal(toSafeLine('x'.repeat(16_385)), `${'x'.repeat(16_384)}...`)
    assert.equal(Buffer.byteLength(toSafeLine('\n'.repeat(16_384))), 16_387)
  })

  test('shows no part of a secret that the cut goes through', () => {
    const secret = '4A404E635266556A586E3272357538782F413F4428472B4B6250645367566B59'
    for (const kept of [1, 30, 63]) {
      assert.doesNotMatch(toSafeLine(`${'x '.repeat(8192).slice(kept)}${secret}`), /4A/)
    }
  })
})

describe('parseLevel()', () => {
  for (const [text, level] of [
    ['Error', 'Error'],
    ['WARN', 'Warn'],
    ['info', 'Info'],
    ['dEbUg', 'Debug'],
    ['trace', 'Trace'],
    ['Off', undefined],
    ['Warning', undefined],
    [' Info', undefined],
    ['Info\n', undefined],
    ['', undefined],
  ] as const) {
    test(`${JSON.stringify(text)} is ${level}`, () => assert.equal(parseLevel(text), level))
  }
})

describe('isWanted()', () => {
  test('compares severity', () => {
    assert.deepEqual(
      LEVELS.map((level) => LEVELS.filter((threshold) => isWanted(level, threshold)).length),
      [5, 4, 3, 2, 1],
    )
  })
})
