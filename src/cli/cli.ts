/** Turns the command line into an exit code. */

import { readFileSync } from 'node:fs'
import { systemClock, unixNanoseconds } from '../base/clock.ts'
import { escapeControls } from '../base/text.ts'
import { parseArguments, USAGE } from './arguments.ts'
import { print } from './print.ts'

const EXIT_USAGE = 2

/** Runs the command that `argv` asks for. @returns the exit code. @param argv words after the program's name. */
export async function runCli(argv: readonly string[], version: string): Promise<number> {
  const command = parseArguments(argv)
  switch (command.kind) {
    case 'usage-error':
      print(2, `azure-proxy-agent: ${escapeControls(command.reason)}\n\n${command.usage ?? USAGE}`)
      return EXIT_USAGE
    case 'help':
      print(1, USAGE)
      return 0
    case 'version':
      print(1, `${version}\n`)
      return 0
    case 'status': {
      const { queryService, runStatus } = await import('./status.ts')
      return await runStatus(command.waitSeconds, {
        query: queryService,
        print: (text) => print(1, text),
        monotonicMs: systemClock.monotonicMs,
        sleep: systemClock.sleep,
        unixNanoseconds,
      })
    }
    case 'command-help':
      print(1, command.usage)
      return 0
    case 'service-status': {
      const { runServiceStatus } = await import('./service-status.ts')
      return await runServiceStatus(command, print)
    }
    case 'cleanup': {
      const { runCleanup } = await import('./cleanup.ts')
      return runCleanup(command, print)
    }
    case 'rules': {
      const { runRules } = await import('./rules.ts')
      return runRules(command, { print, readFile: (path) => readFileSync(path) })
    }
    default: {
      const { runAgent } = await import('./run.ts')
      return await runAgent(command.kind, command.configPath, version)
    }
  }
}
