/**
 * Remembers the last denials with their reasons, for the administrator who asks why.
 *
 * The memory is bounded for each user and as a whole: who is denied all day cannot push out what others were denied, and
 * one who repeats himself counts up. Nothing is rendered before somebody reads.
 */

import { isoMs } from '../base/dates.ts'
import type { EndpointName } from '../base/endpoints.ts'
import { redactSecrets } from '../base/redact.ts'
import { cutUtf8, escapeControls } from '../base/text.ts'
import type { Caller } from '../identity/caller.ts'
import type { Verdict } from '../rules/decide.ts'

/** One denial as readers of the status see it: free of secrets and control characters, and short. */
export interface Denial {
  /** Of the last time, as in logs. */
  readonly timestamp: string
  /** How often in a row. */
  readonly count: number
  /** `audit`: denied by the rules, and carried. */
  readonly outcome: 'audit' | 'forbidden'
  readonly endpoint: EndpointName
  readonly method: string
  readonly url: string
  readonly userName: string
  /** Empty: unknown. */
  readonly processFullPath: string
  readonly processCmdLine: string
  readonly reason: string
}

export interface Denials {
  add(endpoint: EndpointName, method: string, rawTarget: string, caller: Caller, verdict: Verdict): void
  /** The last ones first. */
  read(): Denial[]
}

interface Entry {
  readonly endpoint: EndpointName
  readonly method: string
  /** Whole, 32 KiB at most: half a secret would no longer look like one. */
  readonly rawTarget: string
  readonly caller: Caller
  verdict: Verdict
  atMs: number
  count: number
}

const MAX_ENTRIES = 50
const MAX_PER_USER = 10
/** Longest text of a member as it is shown. */
const MAX_TEXT_BYTES = 512

/** Makes an empty memory. @param describeVerdict renders the reason */
export function createDenials(nowMs: () => number, describeVerdict: (verdict: Verdict) => string): Denials {
  /** The oldest first. */
  const entries: Entry[] = []
  const makeRoom = (uid: number) => {
    const ofUser = entries.filter(({ caller }) => caller.uid === uid)
    if (ofUser.length >= MAX_PER_USER) entries.splice(entries.indexOf(ofUser[0] as Entry), 1)
    else if (entries.length >= MAX_ENTRIES) entries.shift()
  }
  return {
    add(endpoint, method, rawTarget, caller, verdict) {
      const at = entries.findIndex(
        (each) =>
          each.caller.uid === caller.uid &&
          each.rawTarget === rawTarget &&
          each.method === method &&
          each.endpoint === endpoint &&
          each.caller.exePath === caller.exePath &&
          each.verdict.outcome === verdict.outcome,
      )
      if (at === -1) {
        makeRoom(caller.uid)
        entries.push({ endpoint, method, rawTarget, caller, verdict, atMs: nowMs(), count: 1 })
        return
      }
      const [known] = entries.splice(at, 1) as [Entry]
      known.verdict = verdict
      known.atMs = nowMs()
      known.count++
      entries.push(known)
    },
    read: () =>
      entries.toReversed().map(({ endpoint, method, rawTarget, caller, verdict, atMs, count }) => ({
        timestamp: isoMs(atMs),
        count,
        outcome: verdict.outcome === 'audit' ? 'audit' : 'forbidden',
        endpoint,
        method: escapeControls(method),
        url: toSafeText(rawTarget),
        userName: toSafeText(caller.userName),
        processFullPath: toSafeText(caller.exePath ?? ''),
        processCmdLine: toSafeText(caller.commandLine),
        reason: toSafeText(describeVerdict(verdict)),
      })),
  }
}

/** Cut last, for the same reason. */
function toSafeText(text: string): string {
  return cutUtf8(escapeControls(redactSecrets(text)), MAX_TEXT_BYTES, '...')
}
