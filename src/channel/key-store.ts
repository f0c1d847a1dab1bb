/**
 * The latched key on disk: one file per key id in a directory that only root can enter.
 *
 * A file is private from its first byte and is complete or absent: it is created with mode 0600 under a temporary name,
 * synced, renamed, and the directory is synced. What was written is read back before anybody relies on it.
 * Files read must be what we write: regular, owned by us, closed to others, never a link.
 */

import { constants } from 'node:fs'
import { chmod, chown, lstat, mkdir, open, readdir, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { AgentError, describeError } from '../base/errors.ts'
import { replaceFile, syncDirectory } from '../base/private-file.ts'
import { parseLatchedKey, renderKeyFile } from './key-document.ts'
import { isKeyGuid, type LatchedKey } from './secret-key.ts'

export interface KeyStore {
  /** Makes `directory` and keeps it private. @returns complaints for the log; the agent goes on with what it has. */
  prepare(): Promise<string[]>
  /** @throws AgentError `KEY_FILE_UNUSABLE` when there is no file for `guid`, or not one we would have written. */
  read(guid: string): Promise<LatchedKey>
  /**
   * Writes `key` durably, never over another key of the same id, making the directory anew if it is gone. Of older files
   * a few are kept, and that of `heldGuid` always.
   * @throws AgentError `KEY_STORE_FAILED`; nothing half-written stays.
   */
  write(key: LatchedKey, heldGuid?: string): Promise<void>
  /** Reads `key` back and compares. @throws AgentError `KEY_CHECK_FAILED` */
  check(key: LatchedKey): Promise<void>
  /** Removes the files of all keys but `guid`. @returns how many. */
  removeOthers(guid: string): Promise<number>
}

/** Files of keys that are neither held nor just written; one of them may be what the host took, its answer lost. */
const MAX_UNUSED_KEYS = 16

/** Larger than any key document; a file above it is not ours. */
const MAX_KEY_FILE_BYTES = 16 * 1024

/** Makes the store in `directory`. Does not touch the disk yet. */
export function createKeyStore(directory: string): KeyStore {
  const pathOf = (guid: string) => join(directory, `${guid}.key`)

  const read = async (guid: string) => {
    const path = pathOf(guid)
    // A link may point to where others write; what stands there is not our word.
    if (await isLink(directory)) {
      throw unusable(`Key directory '${directory}' is a link; links are not followed`)
    }
    if (!isKeyGuid(guid)) throw unusable('Cannot read a key file: the id is not a guid')
    const text = await readPrivateFile(path)
    let key: LatchedKey
    try {
      key = parseLatchedKey(text)
    } catch (error) {
      throw unusable(`Parse key data with error: ${describeError(error)}`)
    }
    if (key.guid !== guid) throw unusable(`Key file '${path}' holds another key`)
    return key
  }

  return {
    prepare: () => preparePrivateDirectory(directory),
    read,

    async write(key, heldGuid) {
      const path = pathOf(key.guid)
      if (await isLink(directory)) {
        throw new AgentError(
          'KEY_STORE_FAILED',
          `Key(StoreLocalKey("'${directory}' is a link; links are not followed"))`,
        )
      }
      const stored = await read(key.guid).catch(() => undefined)
      if (stored !== undefined && !stored.key.equals(key.key)) {
        const reason = `'${path}' holds another key under this id; remove it if the host never took that one`
        throw new AgentError('KEY_STORE_FAILED', `Key(StoreLocalKey("${reason}"))`)
      }
      // What is wrong with it shows in the write itself, in the words that are known.
      await preparePrivateDirectory(directory)
      try {
        const text = renderKeyFile(key)
        await replaceFile(path, text, {
          mode: 0o600,
          isDurable: true,
          temporaryPath: join(directory, `${key.guid}.tmp`),
        })
        await syncDirectory(directory)
        await removeOldest(directory, new Set([`${key.guid}.key`, `${heldGuid}.key`]))
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException
        throw new AgentError(
          'KEY_STORE_FAILED',
          `Key(StoreLocalKey("json_write_to_file '${path}' failed ${code ?? 'unknown error'}"))`,
        )
      }
    },

    async check(key) {
      const stored = await read(key.guid)
      if (!stored.key.equals(key.key)) {
        throw new AgentError('KEY_CHECK_FAILED', 'Key(CheckLocalKey("Local key guid or key value is not matched."))')
      }
    },

    async removeOthers(guid) {
      let removed = 0
      for (const name of await readdir(directory).catch(() => [] as string[])) {
        const id = name.replace(/\.(?:key|tmp)$/, '')
        if (id === name || id === guid || !isKeyGuid(id)) continue
        await unlink(join(directory, name)).then(
          () => removed++,
          () => undefined,
        )
      }
      return removed
    },
  }
}

/**
 * Makes `directory` with mode 0700 for root, or tightens what is there.
 * @returns complaints, such as a link in the place of the directory.
 */
export async function preparePrivateDirectory(directory: string): Promise<string[]> {
  const complaints: string[] = []
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 })
    const stat = await lstat(directory)
    if (!stat.isDirectory()) return [`'${directory}' is not a directory (a link is not followed): remove it`]
    if (stat.uid !== process.getuid?.()) await chown(directory, process.getuid?.() ?? 0, process.getgid?.() ?? 0)
    if ((stat.mode & 0o777) !== 0o700) await chmod(directory, 0o700)
  } catch (error) {
    complaints.push(`Cannot keep directory '${directory}' private: ${describeError(error)}`)
  }
  return complaints
}

/** Keys that a host gave and did not take pile up if it goes on like that: the oldest beyond a few go. */
async function removeOldest(directory: string, kept: ReadonlySet<string>): Promise<void> {
  const names = (await readdir(directory)).filter((name) => isKeyGuid(name.replace(/\.key$/, '')) && !kept.has(name))
  if (names.length <= MAX_UNUSED_KEYS) return
  const files = await Promise.all(
    names.map(async (name) => ({
      name,
      mtimeMs: (await lstat(join(directory, name)).catch(() => undefined))?.mtimeMs ?? 0,
    })),
  )
  files.sort((a, b) => a.mtimeMs - b.mtimeMs)
  for (const { name } of files.slice(0, files.length - MAX_UNUSED_KEYS)) {
    await unlink(join(directory, name)).catch(() => undefined)
  }
}

async function isLink(path: string): Promise<boolean> {
  const stat = await lstat(path).catch(() => undefined)
  return stat?.isSymbolicLink() ?? false
}

async function readPrivateFile(path: string): Promise<string> {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants
  const file = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') throw unusable(`Key file '${path}' does not exist locally.`)
    if (error.code === 'ELOOP') throw unusable(`Key file '${path}' is a link; links are not followed`)
    throw unusable(`Cannot open key file '${path}': ${error.code}`)
  })
  try {
    const stat = await file.stat()
    if (!stat.isFile()) throw unusable(`Key file '${path}' is not a regular file`)
    if (stat.uid !== process.getuid?.()) throw unusable(`Key file '${path}' belongs to uid ${stat.uid}`)
    // The directory keeps others out anyway: tightening beats losing the only key the host will accept.
    if ((stat.mode & 0o077) !== 0) await file.chmod(0o600)
    if (stat.size > MAX_KEY_FILE_BYTES) throw unusable(`Key file '${path}' is too large`)
    return await file.readFile('utf8')
  } finally {
    await file.close()
  }
}

function unusable(message: string): AgentError {
  return new AgentError('KEY_FILE_UNUSABLE', `Key(FetchLocalKey("${message}"))`)
}
