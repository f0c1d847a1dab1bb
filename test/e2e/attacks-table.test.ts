/** Prints which test shows which weakness closed, and sees to it that all of them are there. */

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { TABLE } from './attacks/table.ts'

const TESTS = dirname(import.meta.dirname)

test('every weakness is shown closed by a test that exists, or says why it cannot be shown', (t) => {
  const missing: string[] = []
  for (const [index, { weakness, shownBy, note }] of TABLE.entries()) {
    t.diagnostic(`${String(index + 1).padStart(2)} ${weakness}`)
    for (const [file, name] of shownBy) {
      t.diagnostic(`     ${file}: ${name}`)
      if (!readFileSync(join(TESTS, file), 'utf8').includes(name)) missing.push(`${file}: ${name}`)
    }
    if (note !== undefined) t.diagnostic(`     ${note}`)
    assert.ok(shownBy.length > 0 || note !== undefined, weakness)
  }
  assert.deepEqual(missing, [])
  assert.equal(TABLE.length, 25)
})
