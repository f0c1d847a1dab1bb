/** Writes the results of tests as lib.sh does: state, seconds, name and detail, a line for each test; and what they tell. */

import { basename } from 'node:path'
import type { TestEvent } from '../../reporter.ts'

export default async function* report(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const { type, data } of events) {
    const { name, file = '', skip, details } = data
    if (type === 'test:diagnostic' && data.nesting > 0) yield line('ok', 0, 'told', data.message ?? '')
    if ((type !== 'test:pass' && type !== 'test:fail') || details?.type === 'suite') continue
    const { error, duration_ms: tookMs = 0 } = details ?? {}
    const cause = error?.cause instanceof Error ? error.cause : error
    const detail = skip ? `skipped: ${skip}` : type === 'test:fail' ? (cause?.stack ?? 'failed') : ''
    const what = `${basename(file, '.test.ts')}: ${name}`
    yield line(type === 'test:pass' ? 'ok' : 'FAIL', tookMs / 1000, what, detail)
  }
}

function line(state: string, seconds: number, name: string, detail: string): string {
  const oneLine = (text: string) => text.replaceAll(/\s+/g, ' ').slice(0, 1500)
  return `${[state, seconds.toFixed(1), oneLine(name), oneLine(detail)].join('\t')}\n`
}
