/**
 * Follows the local rules file of one endpoint: what it holds, whether it may be believed, and what became of it.
 *
 * A file that is there and cannot be used, for whatever reason, fails closed: it may restrict what the host allows, and what it
 * restricts is not known. A file that is not there adds nothing. The words of all events are those of existing agents, which
 * operators search for; file, line and hint stand behind them.
 *
 * A change is a change of the inode, its times, owner or mode, or of the content, which is read on every look: a file can be
 * replaced by one of equal size within one tick of the clock that dates it.
 */

import { createHash } from 'node:crypto'
import type { BigIntStats } from 'node:fs'
import { constants } from 'node:fs'
import { type FileHandle, lstat, open } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { AgentError, describeErrno, describeError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { type LocalRules, LocalRulesError, parseLocalRules } from '../rules/local-rules.ts'

/** What a file stands for; `undefined`: it is not there, or the host does not let it count. */
export type LocalOutcome = LocalRules | 'fail-closed' | undefined

export interface LocalRulesFile {
  /**
   * Looks at the file and tells what changed. Calls must not overlap.
   * @param isOn whether the host lets the file count; while it does not, the file is not touched
   */
  look(isOn: boolean): Promise<LocalOutcome>
}

export interface LocalRulesFileOptions {
  /** The endpoint as events name it. */
  readonly title: 'WireServer' | 'IMDS'
  readonly path: string
  readonly clock: Clock
  readonly log: Log
  /** Who must own file and directory. Default: root. */
  readonly ownerUid?: number
}

/** Largest file that is read, in bytes. */
const MAX_FILE_BYTES = 1024 * 1024

/** For what may be a file that is being written: unreadable, not JSON, or JSON of the wrong shape. */
const ATTEMPTS = 3
const ATTEMPT_PAUSE_MS = 50

/** A file as it was found. `text` is an error where it was not read; then `identity` says which file that was. */
interface Found {
  readonly identity: string
  readonly text: string | Error
}

/** The file as the last look left it. */
type FileState = 'not looked at' | 'missing' | 'error' | { readonly identity: string }

/** A file that is there, and that we do not want to read; trying again would not help. */
class UnfitFileError extends AgentError {
  override name = 'UnfitFileError'
  readonly hint: string

  constructor(problem: string, hint: string) {
    super('LOCAL_RULES_UNFIT', problem)
    this.hint = hint
  }
}

/** Follows the file at `options.path`. Nothing is looked at before `look`. */
export function createLocalRulesFile(options: LocalRulesFileOptions): LocalRulesFile {
  const { title, path, clock, log, ownerUid = 0 } = options
  let wasOn = false
  let state: FileState = 'not looked at'
  let outcome: LocalOutcome

  const miss = (): undefined => {
    if (state !== 'missing') log.warn(`${title} local rules file deleted or not found at ${path}.`)
    state = 'missing'
    return undefined
  }
  const failToStat = (error: unknown): 'fail-closed' => {
    const reason = `Unexpected error reading local rules file metadata: ${describeFailure(error)}`
    if (state !== 'error') log.error(`${title} local rules file metadata read failed at ${path}: ${reason}`)
    state = 'error'
    log.error(
      `Failed to read ${title} local rules file metadata ${path}: ${reason}. Treat it as parse failure and apply fail-closed rules.`,
    )
    return 'fail-closed'
  }
  const fail = (reason: string, explanation: string): 'fail-closed' => {
    log.error(
      `Failed to parse ${title} local rules file ${path}: ${reason}. Apply fail-closed rules. ${explanation}`.trimEnd(),
    )
    return 'fail-closed'
  }
  /** @returns whether the file is another one than at the last look, or another content. */
  const note = ({ identity }: Found): boolean => {
    const isChanged = typeof state !== 'object' || state.identity !== identity
    if (state === 'not looked at' || state === 'missing') log.warn(`${title} local rules file found at ${path}.`)
    else if (isChanged && state !== 'error') log.warn(`${title} local rules file changed at ${path}.`)
    state = { identity }
    return isChanged
  }

  const examine = async (): Promise<LocalOutcome> => {
    for (let attempt = 1; ; attempt++) {
      let found: Found | undefined
      try {
        found = await find(path, ownerUid)
      } catch (error) {
        return failToStat(error)
      }
      if (found === undefined) return miss()
      const isChanged = note(found)
      if (!isChanged && attempt === 1 && outcome !== 'fail-closed') return outcome
      try {
        if (typeof found.text !== 'string') throw found.text
        const { rules } = parseLocalRules(found.text)
        log.info(
          `Successfully parsed ${title} local rules file ${path} with id '${rules.id ?? 'unknown'}' on attempt ${attempt}.`,
        )
        return rules
      } catch (error) {
        if (isFinal(error)) return fail(describeFailure(error), explain(path, error))
        if (attempt === ATTEMPTS) {
          const last = describeFailure(error)
          const reason = `Failed to parse local rules file '${path}' after ${ATTEMPTS} attempts: ${last} is invalid`
          return fail(reason, explain(path, error))
        }
      }
      await clock.sleep(ATTEMPT_PAUSE_MS)
    }
  }

  return {
    async look(isOn) {
      if (isOn !== wasOn) log.warn(`${title} local file rules ${isOn ? 'enabled' : 'disabled'}.`)
      wasOn = isOn
      if (isOn) outcome = await examine()
      else {
        state = 'not looked at'
        outcome = undefined
      }
      return outcome
    },
  }
}

/**
 * Finds the file and reads it, if it is one that root alone can have written.
 * @returns `undefined` when there is none
 * @throws NodeJS.ErrnoException when it cannot even be said whether there is one
 */
async function find(path: string, ownerUid: number): Promise<Found | undefined> {
  const directory = await statIfThere(dirname(path))
  const stat = directory && (await statIfThere(path))
  if (stat === undefined) return undefined
  try {
    checkDirectory(directory as BigIntStats, dirname(path), ownerUid)
    checkFile(stat, path, ownerUid)
    const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants
    await using file = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
    // What was looked at before may have been exchanged since.
    const opened = await file.stat({ bigint: true })
    checkFile(opened, path, ownerUid)
    const bytes = await readUpTo(file, MAX_FILE_BYTES)
    const hash = createHash('sha256').update(bytes).digest('hex')
    return { identity: `${identify(opened)}:${hash}`, text: new TextDecoder('utf-8', STRICT).decode(bytes) }
  } catch (error) {
    if (isNotThere(error)) return undefined
    const identity = `${identify(stat)}:${identify(directory as BigIntStats)}`
    return { identity, text: error instanceof Error ? error : new Error(String(error)) }
  }
}

const STRICT = { fatal: true, ignoreBOM: true } as const

/** Directories on the way are not our business: whoever may write those may replace us as well. */
function checkDirectory(stat: BigIntStats, path: string, ownerUid: number): void {
  if (!stat.isDirectory()) {
    throw new UnfitFileError(`'${path}' is a link or not a directory`, 'Put a directory there, with mode 0700.')
  }
  checkWriters(stat, path, ownerUid)
}

function checkFile(stat: BigIntStats, path: string, ownerUid: number): void {
  if (stat.isSymbolicLink())
    throw new UnfitFileError('it is a link, which is not followed', 'Put the file itself there.')
  if (!stat.isFile()) throw new UnfitFileError('it is not a regular file', 'Put a regular file there.')
  checkWriters(stat, path, ownerUid)
  if (stat.size > MAX_FILE_BYTES) {
    throw new UnfitFileError(`it has ${stat.size} bytes, the limit is ${MAX_FILE_BYTES}`, 'Write a smaller file.')
  }
}

function checkWriters(stat: BigIntStats, path: string, ownerUid: number): void {
  if (stat.uid !== BigInt(ownerUid)) {
    throw new UnfitFileError(
      `'${path}' belongs to uid ${stat.uid}, not to uid ${ownerUid}`,
      `Run: chown ${ownerUid} ${path}`,
    )
  }
  if ((stat.mode & 0o022n) !== 0n) {
    const mode = (stat.mode & 0o7777n).toString(8).padStart(4, '0')
    throw new UnfitFileError(
      `'${path}' has mode ${mode}, others than its owner can write it`,
      `Run: chmod go-w ${path}`,
    )
  }
}

async function readUpTo(file: FileHandle, limit: number): Promise<Buffer> {
  const buffer = Buffer.alloc(limit + 1)
  let length = 0
  for (;;) {
    const { bytesRead } = await file.read(buffer, length, buffer.length - length)
    length += bytesRead
    if (length > limit) throw new UnfitFileError(`it has grown beyond ${limit} bytes`, 'Write a smaller file.')
    if (bytesRead === 0) return buffer.subarray(0, length)
  }
}

async function statIfThere(path: string): Promise<BigIntStats | undefined> {
  try {
    return await lstat(path, { bigint: true })
  } catch (error) {
    if (isNotThere(error)) return undefined
    throw error
  }
}

function isNotThere(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT'
}

function identify({ dev, ino, size, mtimeNs, ctimeNs, uid, mode }: BigIntStats): string {
  return [dev, ino, size, mtimeNs, ctimeNs, uid, mode].join(':')
}

/** Tells whether another attempt would find the same. */
function isFinal(error: unknown): boolean {
  return error instanceof UnfitFileError || (error instanceof LocalRulesError && error.fault === 'meaning')
}

function describeFailure(error: unknown): string {
  if (error instanceof LocalRulesError) return error.message
  const { errno } = error as NodeJS.ErrnoException
  return typeof errno === 'number' ? describeErrno(errno) : describeError(error)
}

/** Where to look and what to do. */
function explain(path: string, error: unknown): string {
  if (error instanceof UnfitFileError) return error.hint
  if (!(error instanceof LocalRulesError)) return ''
  return `${path}:${error.position.line}:${error.position.column}: ${error.hint}`
}
