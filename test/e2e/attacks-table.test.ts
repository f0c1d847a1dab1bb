/** Prints which test shows which weakness closed and which attack failing, and sees to it that all of them are there. */

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { ATTACKS, type Row, WEAKNESSES } from './attacks/table.ts'

const TESTS = dirname(import.meta.dirname)

const TABLES: readonly { readonly what: string; readonly rows: readonly Row[]; readonly size: number }[] = [
  { what: 'weakness is shown closed', rows: WEAKNESSES, size: 25 },
  { what: 'attack is shown failing', rows: ATTACKS, size: 15 },
]

for (const { what: claim, rows, size } of TABLES) {
  test(`every ${claim} by a test that exists, or says why it cannot be shown`, (t) => {
    const missing: string[] = []
    for (const [index, { what, shownBy, note }] of rows.entries()) {
      t.diagnostic(`${String(index + 1).padStart(2)} ${what}`)
      for (const [file, name] of shownBy) {
        t.diagnostic(`     ${file}: ${name}`)
        if (!readFileSync(join(TESTS, file), 'utf8').includes(name)) missing.push(`${file}: ${name}`)
      }
      if (note !== undefined) t.diagnostic(`     ${note}`)
      assert.ok(shownBy.length > 0 || note !== undefined, what)
    }
    assert.deepEqual(missing, [])
    assert.equal(rows.length, size)
  })
}
