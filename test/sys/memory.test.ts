import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { findFileOnly, giveMemoryBack } from '../../src/sys/memory.ts'

/** One mapping as /proc/PID/smaps shows it. */
function mapping(line: string, anonymousKb: number, swapKb = 0): string {
  const numbers = { Size: 16, Rss: 16, Anonymous: anonymousKb, Swap: swapKb, SwapPss: swapKb }
  return `${line}\n${Object.entries(numbers)
    .map(([name, kb]) => `${name}: ${kb} kB\n`)
    .join('')}VmFlags: rd mr mw me\n`
}

describe('findFileOnly()', () => {
  const CODE = '55aed6c84000-55aed6c88000 r-xp 00002000 fe:00 247026                     /usr/bin/agent'
  const found = [{ start: 0x55aed6c84000n, sizeBytes: 0x4000n }]
  for (const [situation, smaps, want] of [
    ['code', mapping(CODE, 0), found],
    ['constants', mapping(CODE.replace('r-xp', 'r--p'), 0), found],
    ['a file that is gone', mapping(`${CODE} (deleted)`, 0), found],
    ['what was written to before it was made read-only', mapping(CODE.replace('r-xp', 'r--p'), 4), []],
    ['what was, and is swapped out', mapping(CODE.replace('r-xp', 'r--p'), 0, 4), []],
    ['another file', mapping(CODE.replace('247026', '247027'), 0), []],
    ['what can be written to', mapping(CODE.replace('r-xp', 'rw-p'), 0), []],
    ['what others share', mapping(CODE.replace('r-xp', 'r--s'), 0), []],
    [
      'code without a file',
      mapping('7f0000000000-7f0000004000 r-xp 00000000 00:00 0                          [vdso]', 0),
      [],
    ],
    [
      'the one mapping of several',
      mapping(CODE.replace('r-xp', 'rw-p'), 0) + mapping(CODE, 0) + mapping(CODE, 8),
      found,
    ],
  ] as const) {
    test(situation, () => assert.deepEqual(findFileOnly(smaps, 247026n), want))
  }
})

test('giveMemoryBack() lets go of most code, and all goes on', () => {
  const codeKb = () => Number(/^RssFile:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1])
  const beforeKb = codeKb()
  giveMemoryBack()
  const afterKb = codeKb()
  assert.ok(afterKb < beforeKb / 2, `${beforeKb} kB before, ${afterKb} kB after`)
  // What was dropped comes back when it is used.
  assert.deepEqual(JSON.parse(JSON.stringify({ list: [1, 'two'] })), { list: [1, 'two'] })
})
