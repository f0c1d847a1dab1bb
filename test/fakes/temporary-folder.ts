/** A folder of a test's own, gone when the test is. */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'

/** Makes a folder with mode 0700 and removes it with all it holds when test `t` ends. @returns its absolute path. */
export function temporaryFolder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'apa-test-'))
  t.after(() => rmSync(path, { recursive: true, force: true }))
  return path
}
