import assert from 'node:assert/strict'
import { test } from 'node:test'
import { renderCommandLine } from '../../src/identity/command-line.ts'

const render = (...args: string[]) => renderCommandLine(Buffer.from(`${args.join('\0')}\0`))

const ROWS: readonly (readonly [situation: string, args: string[], text: string])[] = [
  ['one argument', ['curl'], 'curl'],
  ['four arguments', ['a', 'b', 'c', 'd'], 'a b c d'],
  ['more than four', ['a', 'b', 'c', 'd', 'e'], 'a b c d'],
  ['empty arguments, which do not count', ['a', '', 'b', '', '', 'c', 'd', 'e'], 'a b c d'],
  ['none', [''], ''],
  ['a line break', ['a\n[ERROR] forged'], 'a\\x0a[ERROR] forged'],
  ['an escape sequence', ['a\u001b[2Jb'], 'a\\x1b[2Jb'],
  ['a mark that reverses the direction', ['a\u202eb'], 'a\\u202eb'],
  ['a signature', ['azcopy', 'https://x/?sig=SECRET&y'], 'azcopy https://x/?sig=[REDACTED]&y'],
  ['words of another language', ['größe', '日本'], 'größe 日本'],
]

for (const [situation, args, text] of ROWS) {
  test(`renderCommandLine() renders ${situation}`, () => {
    assert.equal(render(...args), text)
  })
}

test('renderCommandLine() takes blanks inside an argument as they are', () => {
  assert.equal(render('a b', 'c'), 'a b c')
})

test('renderCommandLine() renders bytes that are no UTF-8 as replacement characters', () => {
  assert.equal(renderCommandLine(Buffer.from([0x61, 0xff, 0x62, 0])), 'a\ufffdb')
})

test('renderCommandLine() cuts at 256 bytes, between characters', () => {
  assert.equal(render('x'.repeat(256)), 'x'.repeat(256))
  assert.equal(render('x'.repeat(257)), `${'x'.repeat(256)}...`)
  assert.equal(render(`x${'é'.repeat(200)}`), `x${'é'.repeat(127)}...`)
})

test('renderCommandLine() redacts before it cuts, so that no half secret stays', () => {
  const text = render('x'.repeat(240), `sig=${'S'.repeat(100)}`)
  assert.doesNotMatch(text, /S/)
})

test('renderCommandLine() looks at a bounded piece of megabytes', () => {
  const startedAtMs = performance.now()
  const text = renderCommandLine(Buffer.from(`${'password=x '.repeat(500_000)}\0`))
  assert.ok(text.length < 300)
  assert.ok(performance.now() - startedAtMs < 500)
})
