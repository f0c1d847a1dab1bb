/**
 * The program that the build tests put into an executable. As the agent does, it answers `--version` before it loads
 * anything else.
 */

import { writeSync } from 'node:fs'

declare const __VERSION__: string

/** Node's own list of what it has loaded, as `NativeModule http`; not in the published types. */
const { moduleLoadList } = process as unknown as { moduleLoadList: string[] }

const command = process.argv[2]
if (command === '--version') writeSync(1, `${__VERSION__}\n`)
else if (command === 'loaded') writeSync(1, `${JSON.stringify(moduleLoadList)}\n`)
else if (command === 'report') import('./program-report.ts').then(({ report }) => report())
else if (command === 'wait') import('./program-wait.ts').then(({ wait }) => wait())
