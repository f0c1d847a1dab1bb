/** Runs attacks: python programs that tell what they see, one line of JSON at a time, and wait for the stage to go on. */

import { createInterface } from 'node:readline'
import { PYTHON } from '../../kernel/agent.ts'
import type { Lab, RunOptions } from '../../kernel/lab.ts'
import { sourceOf } from './stage.ts'

/** What an attack tells in one line. */
export type Facts = Readonly<Record<string, unknown>>

export interface Attacker {
  /** Waits for its next line. @throws Error with its words when it ends instead */
  next(): Promise<Facts>
  /** Lets an attack that waits go on. */
  proceed(): void
  kill(): void
}

/** Starts the script of that name in this folder, behind what all of them share. */
export function startAttack(lab: Lab, script: string, args: readonly string[], as: RunOptions): Attacker {
  const child = lab.spawn(PYTHON, ['-c', sourceOf('common.py') + sourceOf(script), ...args], as)
  let stderr = ''
  child.stderr.on('data', (chunk) => {
    stderr += chunk
  })
  child.stdin.on('error', () => undefined)
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  return {
    async next() {
      const line = await lines.next()
      if (line.done) throw new Error(`${script} ended without a word: ${stderr}`)
      return JSON.parse(line.value) as Facts
    },
    proceed: () => child.stdin.write('\n'),
    kill: () => child.kill('SIGKILL'),
  }
}

/** Runs an attack that tells one line. */
export async function runAttack(lab: Lab, script: string, args: readonly string[], as: RunOptions): Promise<Facts> {
  const attacker = startAttack(lab, script, args, as)
  try {
    return await attacker.next()
  } finally {
    attacker.kill()
  }
}
