import { writeSync } from 'node:fs'
import inspector from 'node:inspector'

/** Says `ready`, and at the end of standard input whether a debugger listens. */
export function wait(): void {
  writeSync(1, 'ready\n')
  process.stdin.resume()
  process.stdin.once('end', () => writeSync(1, `${JSON.stringify({ inspectorUrl: inspector.url() ?? null })}\n`))
}
