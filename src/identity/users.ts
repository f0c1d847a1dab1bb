/**
 * Names for user ids: /etc/passwd and /etc/group first, the name service for ids that are not there.
 *
 * Answers are kept for a minute and absences for a few seconds, so that new users are seen soon and a missing directory
 * server is not asked for every connection. A slow name service delays only the callers that need it, and only until a
 * time-out, after which the user is unknown. It is asked for a few users at a time, however many come.
 * Source: passwd(5), group(5), getent(1), getgrouplist(3).
 */

import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { UNDEFINED_TEXT } from './caller.ts'
import { createGate, type Gate } from './gate.ts'

export interface UserNames {
  readonly userName: string
  /** Group names in the order of their numbers; empty for an unknown user. */
  readonly groups: readonly string[]
}

export interface UserDirectory {
  /** Never rejects: what cannot be found out is unknown. */
  lookUp(uid: number): Promise<UserNames>
}

/** What the directory calls of the world. */
export interface UserDirectoryEnv {
  /** @throws when unreadable */
  readFile(path: string): Promise<string>
  /** Runs `getent` with `args`. @returns what it found, which may be nothing; `undefined` when it could not tell. */
  getent(args: readonly string[]): Promise<string | undefined>
  monotonicMs(): number
}

const GETENT_TIMEOUT_MS = 2000
const GETENT_MAX_BYTES = 1024 * 1024

/** Exit status of getent when a key was not found; what was found for the others is printed all the same. */
const NOT_ALL_FOUND = 2

/** The real files and the real name service. */
export function userDirectoryEnv(monotonicMs: () => number): UserDirectoryEnv {
  return {
    readFile: (path) => readFile(path, 'utf8'),
    getent: (args) =>
      new Promise((resolve) => {
        const options = {
          timeout: GETENT_TIMEOUT_MS,
          killSignal: 'SIGKILL',
          maxBuffer: GETENT_MAX_BYTES,
          env: {},
        } as const
        execFile('/usr/bin/getent', args, options, (error, stdout) =>
          resolve(error === null || error.code === NOT_ALL_FOUND ? stdout : undefined),
        )
      }),
    monotonicMs,
  }
}

/**
 * Children at a time. One that cannot even be killed, waiting for a dead file server, keeps its place until it ends: they do
 * not pile up. Users of the local files need none.
 */
const MAX_GETENT = 4
const MAX_GETENT_WAITING = 64

/** Longest that an answer is waited for, with the time until it is one's turn: a connection waits as long. */
const GETENT_DEADLINE_MS = 2 * GETENT_TIMEOUT_MS + 500

const POSITIVE_TTL_MS = 60_000
const NEGATIVE_TTL_MS = 5_000
const MAX_ENTRIES = 1024

/** More groups than this and the list is dropped, as getgrouplist callers do. */
const MAX_GROUPS = 1024

const UNKNOWN: UserNames = { userName: UNDEFINED_TEXT, groups: [] }

interface PasswdEntry {
  readonly name: string
  readonly gid: number
}

interface GroupEntry {
  readonly name: string
  readonly gid: number
  readonly members: readonly string[]
}

/** What was found out, and whether that is all there is to know. */
interface Finding {
  readonly names: UserNames
  readonly isComplete: boolean
}

/** Makes a directory with an empty cache. */
export function createUserDirectory(env: UserDirectoryEnv): UserDirectory {
  const cache = new Map<number, { answer: Promise<UserNames>; expiresAtMs: number }>()
  const gate = createGate(MAX_GETENT, MAX_GETENT_WAITING)
  return {
    lookUp(uid) {
      const nowMs = env.monotonicMs()
      const cached = cache.get(uid)
      if (cached !== undefined && nowMs < cached.expiresAtMs) return cached.answer
      cache.delete(uid)
      if (cache.size >= MAX_ENTRIES) cache.delete(cache.keys().next().value as number)
      const finding = find(uid, env, gate).catch((): Finding => ({ names: UNKNOWN, isComplete: false }))
      // Whoever asks meanwhile gets the same answer.
      const entry = { answer: finding.then(({ names }) => names), expiresAtMs: Number.POSITIVE_INFINITY }
      cache.set(uid, entry)
      void finding.then(({ isComplete }) => {
        entry.expiresAtMs = env.monotonicMs() + (isComplete ? POSITIVE_TTL_MS : NEGATIVE_TTL_MS)
      })
      return entry.answer
    },
  }
}

async function find(uid: number, env: UserDirectoryEnv, gate: Gate): Promise<Finding> {
  const [passwd, group] = await Promise.all([
    env.readFile('/etc/passwd').catch(() => ''),
    env.readFile('/etc/group').catch(() => ''),
  ])
  let isComplete = true
  const ask: Ask = async (...args) => {
    const output = await withDeadline(gate.run(uid, () => env.getent(args)))
    if (output === undefined) isComplete = false
    return output ?? ''
  }
  const local = findUser(passwd, uid)
  const groups = parseGroups(group)
  if (local !== undefined) {
    const gids = groups.filter((entry) => entry.members.includes(local.name)).map((entry) => entry.gid)
    const names = { userName: local.name, groups: await nameGroups([local.gid, ...gids], groups, ask) }
    return { names, isComplete }
  }
  const remote = findUser(await ask('passwd', String(uid)), uid)
  if (remote === undefined) return { names: UNKNOWN, isComplete: false }
  const listed = parseInitgroups(await ask('initgroups', remote.name))
  const names = { userName: remote.name, groups: await nameGroups([remote.gid, ...listed], groups, ask) }
  return { names, isComplete }
}

/** Asks getent. @returns its output; empty when it could not tell. */
type Ask = (...args: readonly string[]) => Promise<string>

function withDeadline(answer: Promise<string | undefined>): Promise<string | undefined> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(undefined), GETENT_DEADLINE_MS)
    const settle = (output: string | undefined) => {
      clearTimeout(timer)
      resolve(output)
    }
    answer.then(settle, () => settle(undefined))
  })
}

/** Sorts, drops doubles and groups without a name. */
async function nameGroups(gids: readonly number[], known: readonly GroupEntry[], ask: Ask): Promise<string[]> {
  const sorted = [...new Set(gids)].sort((a, b) => a - b)
  if (sorted.length > MAX_GROUPS) return []
  const names = sorted.map((gid) => known.find((entry) => entry.gid === gid)?.name)
  const missing = sorted.filter((_, i) => names[i] === undefined)
  const found = missing.length === 0 ? [] : parseGroups(await ask('group', ...missing.map(String)))
  return sorted
    .map((gid, i) => names[i] ?? found.find((entry) => entry.gid === gid)?.name)
    .filter((name): name is string => name !== undefined)
}

/** Finds the first entry for `uid`, as getpwuid does. */
export function findUser(passwd: string, uid: number): PasswdEntry | undefined {
  const wanted = String(uid)
  for (const line of passwd.split('\n')) {
    const fields = line.split(':')
    if (fields.length < 7 || fields[2] !== wanted || fields[0] === '') continue
    const gid = Number(fields[3])
    if (Number.isInteger(gid)) return { name: fields[0] as string, gid }
  }
  return undefined
}

/** Reads the lines of a group file; lines of another form are passed over. */
export function parseGroups(text: string): GroupEntry[] {
  const entries: GroupEntry[] = []
  for (const line of text.split('\n')) {
    const fields = line.split(':')
    const gid = Number(fields[2])
    if (fields.length < 4 || fields[0] === '' || !/^\d+$/.test(fields[2] as string)) continue
    entries.push({
      name: fields[0] as string,
      gid,
      members: (fields[3] as string).split(',').filter((name) => name !== ''),
    })
  }
  return entries
}

/** Reads `name  gid gid gid`. */
function parseInitgroups(text: string): number[] {
  return text
    .trim()
    .split(/\s+/)
    .slice(1)
    .map(Number)
    .filter((gid) => Number.isInteger(gid) && gid >= 0)
}
