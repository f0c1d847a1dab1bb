/** `rules`: chooses the command of the family, and prints what it says. */

import { makeSchema } from '../rules/schema.ts'
import type { RulesCommand } from './rules-arguments.ts'
import { checkFiles } from './rules-check.ts'
import { explainFile } from './rules-explain.ts'
import type { Answer, ReadFile } from './rules-print.ts'
import { testFile } from './rules-test.ts'

/** What the commands call of the world. */
export interface RulesEnv {
  print(fd: 1 | 2, text: string): void
  readonly readFile: ReadFile
}

/** Runs one command. @returns the exit code. */
export function runRules(command: RulesCommand, env: RulesEnv): number {
  const { out, err, exitCode } = answer(command, env.readFile)
  if (out !== '') env.print(1, out)
  if (err !== '') env.print(2, err)
  return exitCode
}

function answer(command: RulesCommand, readFile: ReadFile): Answer {
  switch (command.name) {
    case 'help':
      return { out: command.usage, err: '', exitCode: 0 }
    case 'schema':
      return { out: `${JSON.stringify(makeSchema(command.schema), undefined, 2)}\n`, err: '', exitCode: 0 }
    case 'check':
      return checkFiles(command.files, command.json, readFile)
    case 'explain':
      return explainFile(command.file, command.question, command.canonicalMode, command.json, readFile)
    case 'test':
      return testFile(command.file, command.json, readFile)
  }
}
