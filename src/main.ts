/** The entry: answers `--version` before anything else is loaded, and knows no other command yet. */

import { writeSync } from 'node:fs'

/** Put in by the build from package.json; absent when the source runs as it is. */
declare const __VERSION__: string | undefined

const VERSION = typeof __VERSION__ === 'string' ? __VERSION__ : '0.0.0'

if (process.argv.includes('--version') || process.argv.includes('-v')) {
  writeSync(1, `${VERSION}\n`)
} else {
  writeSync(2, 'azure-proxy-agent: no command is built in yet\n')
  process.exitCode = 2
}
