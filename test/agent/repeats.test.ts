import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { limitRepeats } from '../../src/agent/repeats.ts'

function sink() {
  const time = { ms: 0 }
  const lines: string[] = []
  const limited = limitRepeats(
    {
      threshold: 'Debug',
      write: (level, message, epochMs, origin) =>
        void lines.push(`${level} ${message} ${epochMs}${origin?.task ?? ''}`),
    },
    () => time.ms,
  )
  return { time, lines, limited }
}

describe('limitRepeats()', () => {
  test('hands on level, line, time and origin, at the threshold of the sink', () => {
    const { limited, lines } = sink()
    limited.write('Info', 'a', 5, { task: 'start', operation: 'x' })
    assert.deepEqual([lines, limited.threshold], [['Info a 5start'], 'Debug'])
  })

  test('writes the same line 20 times a minute, and tells then how often it was left out', () => {
    const { limited, lines, time } = sink()
    for (let i = 0; i < 1000; i++) limited.write('Error', 'again', 0)
    assert.equal(lines.length, 20)
    limited.write('Info', 'another', 0)
    assert.deepEqual(lines.slice(20), ['Info another 0'])
    time.ms = 59_999
    limited.write('Error', 'again', 0)
    time.ms = 60_000
    limited.write('Error', 'again', 7)
    assert.deepEqual(lines.slice(21), ['Error 981 more of this line were left out: again 7', 'Error again 7'])
    time.ms = 120_000
    limited.write('Info', 'another', 8)
    assert.deepEqual(lines.slice(23), ['Info another 8'])
  })

  test('counts as the same what differs far behind', () => {
    const { limited, lines } = sink()
    for (let i = 0; i < 1000; i++) limited.write('Warn', `${'x'.repeat(600)}${i}`, 0)
    assert.equal(lines.length, 20)
  })

  test('leaves out no line that came once, however many there are', () => {
    const { limited, lines, time } = sink()
    for (let i = 0; i < 5000; i++) limited.write('Warn', `line ${i}`, 0)
    time.ms = 60_000
    limited.write('Info', 'next', 0)
    assert.equal(lines.length, 5001)
  })
})
