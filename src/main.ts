/** The entry: answers `--version` before anything else is loaded, and hands all other words to the commands. */

import { print } from './cli/print.ts'

/** Put in by the build from package.json; absent when the source runs as it is. */
declare const __VERSION__: string | undefined

const VERSION = typeof __VERSION__ === 'string' ? __VERSION__ : '0.0.0'

const words = process.argv.slice(2)

if (words.length === 1 && (words[0] === '--version' || words[0] === '-v')) {
  print(1, `${VERSION}\n`)
} else {
  import('./cli/cli.ts')
    .then(({ runCli }) => runCli(words, VERSION))
    .then(
      (code) => process.exit(code),
      (error: unknown) => {
        print(2, `azure-proxy-agent: internal error: ${error instanceof Error ? error.stack : String(error)}\n`)
        process.exit(101)
      },
    )
}
