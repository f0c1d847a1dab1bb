/**
 * Keeps the last rule sets on disk, one file for each time that rules took effect, so that people can look up what was in
 * force when something was denied.
 *
 *   AuthorizationRules_2025-04-23T12.00.00.000-1745409600000000000.json     UTC, then nanoseconds since the epoch
 *
 * Nobody waits for these files: a failure is told once and changes nothing. One write runs at a time and one waits at most,
 * always with the newest rules, so rules that change faster than the disk leave gaps rather than a queue.
 */

import { mkdir, readdir, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { fileStamp } from '../base/dates.ts'
import { describeError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { replaceFile } from '../base/private-file.ts'
import { renderRules } from '../rules/render-policy.ts'
import type { EndpointItems, PolicySnapshot } from '../rules/snapshot.ts'

export interface RulesLog {
  /** Takes rules that are in force from now on. Returns at once, never throws. */
  write(items: EndpointItems, snapshot: PolicySnapshot): void
  /** Resolves when what was taken is on disk, or has failed. Never rejects. */
  flush(): Promise<void>
}

/** Files kept, the new one included. */
const MAX_FILES = 5

/** All that bears the name counts, as with other agents, whose rotation this continues; the number in it tells the age. */
const NAME = /^AuthorizationRules_.*\.(json|tmp)$/
const AGE = /-(\d{1,20})\.json$/

/** Makes the writer of rules files in `directory`, which is made when it is missing. */
export function createRulesLog(directory: string, clock: Pick<Clock, 'nowMs'>, log: Log): RulesLog {
  let waiting:
    | { readonly items: EndpointItems; readonly snapshot: PolicySnapshot; readonly takenMs: number }
    | undefined
  let running: Promise<void> | undefined
  let lastNs = 0n
  let hasFailed = false

  /** Names must differ and sort by age, also when the wall clock stands still or is set back, in this run or before it. */
  const nextStamp = (takenMs: number): string => {
    const ns = BigInt(Math.trunc(takenMs * 1000)) * 1000n
    lastNs = ns > lastNs ? ns : lastNs + 1n
    return fileStamp(takenMs, lastNs)
  }
  const run = async () => {
    while (waiting !== undefined) {
      const { items, snapshot, takenMs } = waiting
      waiting = undefined
      try {
        await mkdir(directory, { recursive: true, mode: 0o750 })
        const newestNs = await makeRoom(directory)
        if (newestNs > lastNs) lastNs = newestNs
        const path = join(directory, `AuthorizationRules_${nextStamp(takenMs)}`)
        const text = JSON.stringify(renderRules(items, snapshot), null, 2)
        await replaceFile(`${path}.json`, text, { mode: 0o640, temporaryPath: `${path}.tmp` })
        hasFailed = false
      } catch (error) {
        if (!hasFailed)
          log.error(`Cannot write the rules of epoch ${snapshot.epoch} to ${directory}: ${describeError(error)}`)
        hasFailed = true
      }
    }
    running = undefined
  }
  return {
    write(items, snapshot) {
      waiting = { items, snapshot, takenMs: clock.nowMs() }
      // Rendering and the disk come after the rules are in force, not before.
      running ??= Promise.resolve().then(run)
    },
    async flush() {
      await running
    },
  }
}

/**
 * Removes the oldest files until one more fits, and halves of a run that was killed. A file without a number is the oldest.
 * Files of any other name stay.
 * @returns the number in the newest name; 0 without files
 */
async function makeRoom(directory: string): Promise<bigint> {
  const files: { name: string; ns: bigint }[] = []
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const match = NAME.exec(entry.name)
    if (match === null || !entry.isFile()) continue
    if (match[1] === 'tmp') await unlink(join(directory, entry.name))
    else files.push({ name: entry.name, ns: BigInt(AGE.exec(entry.name)?.[1] ?? 0) })
  }
  files.sort((a, b) => (a.ns < b.ns ? -1 : a.ns > b.ns ? 1 : a.name < b.name ? -1 : 1))
  for (const { name } of files.slice(0, Math.max(0, files.length - (MAX_FILES - 1)))) {
    await unlink(join(directory, name))
  }
  return files.at(-1)?.ns ?? 0n
}
