/** Many connections of one user, in a process of their own that does what it is told. */

import { createInterface } from 'node:readline'
import { PLACES, type Place } from '../fuzz/requests.ts'
import type { CrowdDeed, CrowdState } from './crowd-client.ts'
import type { Machine } from './machine.ts'

export interface Crowd {
  /** Has all of them do something. @throws Error with its words when the process has ended */
  do(deed: CrowdDeed): Promise<CrowdState>
  leave(): void
}

/** Starts a crowd that is not connected yet. */
export function startCrowd(machine: Machine, uid: number, count: number, to: Place = 'imds'): Crowd {
  const child = machine.lab.spawn(
    process.execPath,
    [
      '--disable-warning=ExperimentalWarning',
      `${import.meta.dirname}/crowd-client.ts`,
      JSON.stringify({ to: PLACES[to], count }),
    ],
    { uid, gid: uid },
  )
  let stderr = ''
  child.stderr.on('data', (chunk) => {
    stderr += chunk
  })
  child.stdin.on('error', () => undefined)
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  return {
    async do(deed) {
      child.stdin.write(`${JSON.stringify(deed)}\n`)
      const line = await lines.next()
      if (line.done) throw new Error(`the crowd of user ${uid} has ended: ${stderr}`)
      return JSON.parse(line.value) as CrowdState
    },
    leave: () => child.kill('SIGKILL'),
  }
}
