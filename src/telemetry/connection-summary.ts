/**
 * Counts requests by who asked what and how it ended, over the last four hours in buckets of 15 minutes.
 *
 * The number of keys is bounded: what comes after the last one is counted under one key of its own, so that a caller
 * with a new command line for every request cannot grow the agent's memory.
 */

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

const BUCKET_MS = 15 * 60 * 1000
const MAX_AGE_MS = 4 * 60 * 60 * 1000
const MAX_KEYS = 1000

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
export function createConnectionSummary(nowMs: () => number, maxKeys = MAX_KEYS): ConnectionSummary {
  const entries = new Map<string, Entry>()

  const expire = (entry: Entry, now: number) => {
    if (entry.buckets.length > 0 && now - (entry.buckets[0] as Bucket).startMs >= MAX_AGE_MS) {
      entry.buckets = entry.buckets.filter((bucket) => now - bucket.startMs < MAX_AGE_MS)
    }
  }
  const find = (key: SummaryKey, userGroups: readonly string[]) => {
    const known = entries.get(render(key))
    if (known !== undefined) return known
    if (entries.size >= maxKeys) removeExpired(nowMs())
    if (entries.size < maxKeys) return insert(key, userGroups)
    const surplus = otherKey(key)
    return entries.get(render(surplus)) ?? insert(surplus, [])
  }
  const insert = (key: SummaryKey, userGroups: readonly string[]) => {
    const entry: Entry = { key, userGroups, buckets: [] }
    entries.set(render(key), entry)
    return entry
  }
  const removeExpired = (now: number) => {
    for (const [id, entry] of entries) {
      expire(entry, now)
      if (entry.buckets.length === 0) entries.delete(id)
    }
  }
  return {
    add(key, userGroups) {
      const now = nowMs()
      const entry = find(key, userGroups)
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

/** Where requests are counted whose own key found no room: by destination and status only. */
function otherKey(key: SummaryKey): SummaryKey {
  return { ...key, userName: OTHER, clientAddress: OTHER, processFullPath: OTHER, processCmdLine: OTHER }
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
