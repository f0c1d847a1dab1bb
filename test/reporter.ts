/**
 * Prints a test run shortly: a line for each file, every failure whole, every skip with its reason, the counts at the end.
 * Source: Node.js documentation, test runner, custom reporters.
 */

import { appendFileSync } from 'node:fs'
import { relative } from 'node:path'
import { inspect } from 'node:util'

/** The parts of the runner's events that are read here. */
export interface TestEvent {
  readonly type: string
  readonly data: {
    readonly name: string
    readonly file?: string
    readonly nesting: number
    readonly skip?: string | boolean
    readonly message?: string
    readonly details?: {
      readonly duration_ms?: number
      readonly type?: string
      readonly error?: TestError
    }
  }
}

export type TestError = Error & { readonly cause?: unknown; readonly failureType?: string }

interface FileCount {
  passed: number
  failed: number
  durationMs: number
}

export default async function* report(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const files = new Map<string, FileCount>()
  const skips: string[] = []
  const failures: string[] = []
  const totals: string[] = []
  let current: string | undefined
  const finish = (file: string) => {
    const { passed, failed, durationMs } = files.get(file) as FileCount
    const mark = failed === 0 ? '✔' : '✖'
    const counts = failed === 0 ? `${passed} passed` : `${passed} passed, ${failed} failed`
    return `${mark} ${relative(process.cwd(), file)}: ${counts} in ${(durationMs / 1000).toFixed(1)} s\n`
  }
  for await (const { type, data } of events) {
    if (type === 'test:diagnostic' && data.nesting === 0) {
      totals.push(`ℹ ${data.message}\n`)
    } else if (type === 'test:diagnostic') {
      yield `  ℹ ${data.message}\n`
    } else if (type === 'test:stdout' || type === 'test:stderr') {
      yield data.message ?? ''
    } else if (type === 'test:pass' || type === 'test:fail') {
      const file = data.file ?? ''
      if (current !== undefined && current !== file) yield finish(current)
      current = file
      const count = files.get(file) ?? { passed: 0, failed: 0, durationMs: 0 }
      files.set(file, count)
      if (data.nesting === 0) count.durationMs += data.details?.duration_ms ?? 0
      // A suite passes or fails by its tests, which are told by themselves.
      if (data.details?.type === 'suite' && (type === 'test:pass' || isOfSubtests(data.details.error))) continue
      if (type === 'test:pass') count.passed++
      else {
        count.failed++
        // Whoever asked for the names of the files that failed may run them again.
        if (process.env.FAILED_FILES !== undefined) appendFileSync(process.env.FAILED_FILES, `${file}\n`)
      }
      if (data.skip !== undefined && data.skip !== false) skips.push(`﹣ ${data.name}: ${data.skip}\n`)
      if (type === 'test:fail') {
        const cause = data.details?.error?.cause ?? data.details?.error
        const text = `✖ ${data.name}\n${inspect(cause, { depth: 6 })}\n\n`
        failures.push(text)
        yield text
      }
    }
  }
  if (current !== undefined) yield finish(current)
  if (failures.length > 0) yield `\nFailed:\n\n${failures.join('')}`
  if (skips.length > 0) yield `Skipped:\n${skips.join('')}`
  yield totals.join('')
}

function isOfSubtests(error: TestError | undefined): boolean {
  return error?.failureType === 'subtestsFailed'
}
