/** Runs the commands about rules as a process on source. */

import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { parseArguments } from '../../src/cli/arguments.ts'
import { runRules } from '../../src/cli/rules.ts'

const MAIN = new URL('../../src/main.ts', import.meta.url).pathname
const FIXTURES = new URL('../fixtures/rules/', import.meta.url).pathname

/** Runs `azure-proxy-agent rules ...` in the folder of the fixtures, as a process of its own. */
export function runProcess(...words: string[]) {
  const options = { encoding: 'utf8', timeout: 20_000, cwd: FIXTURES } as const
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--no-warnings', MAIN, 'rules', ...words], options)
  return { status, stdout, stderr }
}

/** Runs the same within this process. @param files in place of those on the disk */
export function run(words: readonly string[], files: Readonly<Record<string, string | Uint8Array>> = {}) {
  const command = parseArguments(['rules', ...words])
  if (command.kind !== 'rules') throw new Error(`not a command about rules: ${JSON.stringify(command)}`)
  const printed = { 1: '', 2: '' }
  const status = runRules(command, {
    print: (fd, text) => {
      printed[fd] += text
    },
    readFile: (path) => {
      const file = files[path] ?? readFileSync(`${FIXTURES}${path}`)
      return typeof file === 'string' ? Buffer.from(file) : file
    },
  })
  return { status, stdout: printed[1], stderr: printed[2] }
}
