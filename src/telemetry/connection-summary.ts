/**
 * Counts requests by who asked what and how it ended, over the last four hours in buckets of 15 minutes.
 *
 * A caller chooses his command line, and can have a new one for every request. So every user has a bounded number of
 * keys, and what goes beyond is counted under his name alone, by destination and status: he fills neither the agent's
 * memory nor the room of others, and a denial never hides among somebody else's. Only with more users than there is
 * room for are the last ones counted together.
 */

import { cutList, MAX_GROUPS_BYTES } from '../base/text.ts'

export interface SummaryKey {
  readonly userName: string
  readonly clientAddress: string
  /** `None` and 0 for a direct connection. */
  readonly address: string
  readonly port: number
  readonly processFullPath: string
  readonly processCmdLine: string
  /** Code and reason, such as `200 OK`. */
  readonly responseStatus: string
}

export interface SummaryEntry extends SummaryKey {
  readonly userGroups: readonly string[]
  readonly count: number
}

export interface ConnectionSummary {
  /**
   * Counts one request.
   * @returns true when it opened a new bucket: worth telling, at most once in 15 minutes for each key.
   */
  add(key: SummaryKey, userGroups: readonly string[]): boolean
  /** The keys that still have counts, in no particular order. Nothing is reset. */
  read(): SummaryEntry[]
}

/** Names of groups that are shown, in bytes: a directory service may put users into hundreds. */

const BUCKET_MS = 15 * 60 * 1000
const MAX_AGE_MS = 4 * 60 * 60 * 1000

export interface SummaryBounds {
  /** Keys of one user from which on no further program of his is named. */
  readonly perUser: number
  /** Keys of all users from which on no further program is named; from twice as many on, no further user. */
  readonly total: number
}

export const SUMMARY_BOUNDS: SummaryBounds = { perUser: 50, total: 1000 }

/** How often expired keys are looked for while there is no room: a flood shall not pay the search with every request. */
const SWEEP_INTERVAL_MS = 1000

const OTHER = 'other'

interface Bucket {
  readonly startMs: number
  count: number
}

interface Entry {
  readonly key: SummaryKey
  readonly userGroups: readonly string[]
  buckets: Bucket[]
}

/** Makes an empty summary. @param nowMs a clock that does not jump. */
export function createConnectionSummary(
  nowMs: () => number,
  bounds: SummaryBounds = SUMMARY_BOUNDS,
): ConnectionSummary {
  const entries = new Map<string, Entry>()
  const keysOfUser = new Map<string, number>()
  let sweptAtMs = Number.NEGATIVE_INFINITY

  const expire = (entry: Entry, now: number) => {
    if (entry.buckets.length > 0 && now - (entry.buckets[0] as Bucket).startMs >= MAX_AGE_MS) {
      entry.buckets = entry.buckets.filter((bucket) => now - bucket.startMs < MAX_AGE_MS)
    }
  }
  const hasRoom = ({ userName }: SummaryKey) =>
    entries.size < bounds.total && (keysOfUser.get(userName) ?? 0) < bounds.perUser
  const find = (key: SummaryKey, userGroups: readonly string[], now: number) => {
    const known = entries.get(render(key))
    if (known !== undefined) return known
    if (!hasRoom(key) && now - sweptAtMs >= SWEEP_INTERVAL_MS) removeExpired(now)
    if (hasRoom(key)) return insert(key, userGroups)
    const ofUser = withoutProgram(key)
    const knownOfUser = entries.get(render(ofUser))
    if (knownOfUser !== undefined) return knownOfUser
    if (entries.size < 2 * bounds.total) return insert(ofUser, userGroups)
    const ofAnybody = { ...ofUser, userName: OTHER }
    return entries.get(render(ofAnybody)) ?? insert(ofAnybody, [])
  }
  const insert = (key: SummaryKey, userGroups: readonly string[]) => {
    const entry: Entry = { key, userGroups: cutList(userGroups, MAX_GROUPS_BYTES), buckets: [] }
    entries.set(render(key), entry)
    keysOfUser.set(key.userName, (keysOfUser.get(key.userName) ?? 0) + 1)
    return entry
  }
  const remove = (id: string, { key }: Entry) => {
    entries.delete(id)
    const left = (keysOfUser.get(key.userName) ?? 0) - 1
    if (left > 0) keysOfUser.set(key.userName, left)
    else keysOfUser.delete(key.userName)
  }
  const removeExpired = (now: number) => {
    sweptAtMs = now
    for (const [id, entry] of entries) {
      expire(entry, now)
      if (entry.buckets.length === 0) remove(id, entry)
    }
  }
  return {
    add(key, userGroups) {
      const now = nowMs()
      const entry = find(key, userGroups, now)
      expire(entry, now)
      const last = entry.buckets.at(-1)
      if (last !== undefined && now - last.startMs < BUCKET_MS) {
        last.count++
        return false
      }
      entry.buckets.push({ startMs: now, count: 1 })
      return true
    },
    read() {
      removeExpired(nowMs())
      return [...entries.values()].map(({ key, userGroups, buckets }) => ({
        ...key,
        userGroups,
        count: buckets.reduce((sum, bucket) => sum + bucket.count, 0),
      }))
    },
  }
}

/** Where requests are counted whose own key found no room: by user, destination and status only. */
function withoutProgram(key: SummaryKey): SummaryKey {
  return { ...key, clientAddress: OTHER, processFullPath: OTHER, processCmdLine: OTHER }
}

function render(key: SummaryKey): string {
  return [
    key.userName,
    key.clientAddress,
    key.address,
    key.port,
    key.processFullPath,
    key.processCmdLine,
    key.responseStatus,
  ].join('\0')
}
