/**
 * Names the executable of a program that a shell script starts: `name-program.ts SCRIPT FOLDER`. Run in a mount namespace
 * of its own, so that the agent's side may have any mounts. The script prints the program's pid and is killed afterwards.
 */

import { spawn } from 'node:child_process'
import { statSync } from 'node:fs'
import { nameExecutable } from '../../src/identity/executable.ts'
import { procReader, readHostNamespaces } from '../../src/identity/process.ts'
import { RECORD } from './make.ts'

const [script = '', folder = ''] = process.argv.slice(2)
const shell = spawn('/bin/sh', ['-ec', script], { cwd: folder, stdio: ['ignore', 'pipe', 'inherit'], detached: true })
const pid = Number(await new Promise((resolve) => shell.stdout.once('data', resolve)))
try {
  const file = statSync(`/proc/${pid}/exe`, { bigint: true })
  const record = { ...RECORD, exeInode: file.ino, exeDevice: Number(file.dev), mountNamespace: 0 }
  using view = procReader.open(pid)
  const executable = view?.executable()
  if (executable === undefined) throw new Error(`the program ${pid} is gone`)
  const found = nameExecutable(executable, record, procReader.host, readHostNamespaces())
  process.stdout.write(JSON.stringify(found))
} finally {
  process.kill(-(shell.pid as number), 'SIGKILL')
}
