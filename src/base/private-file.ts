/** Writes small files whole: private from the first byte, never half there, never through a link. */

import { constants } from 'node:fs'
import { open, rename, unlink } from 'node:fs/promises'

/**
 * Replaces `path` by a file with `text`, in one step for readers. Text in pieces is written piece by piece.
 * A temporary file is created anew beside it with `mode`, written, synced when `isDurable`, and renamed.
 * @throws NodeJS.ErrnoException; nothing half-written stays.
 */
export async function replaceFile(
  path: string,
  text: string | Iterable<string> | AsyncIterable<string>,
  options: { readonly mode: number; readonly isDurable?: boolean; readonly temporaryPath?: string },
): Promise<void> {
  const temporary = options.temporaryPath ?? `${path}.tmp`
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants
  await unlink(temporary).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
  })
  try {
    const file = await open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, options.mode)
    try {
      await file.chmod(options.mode)
      await file.writeFile(text, 'utf8')
      if (options.isDurable) await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await unlink(temporary).catch(() => undefined)
    throw error
  }
}

/** Makes the names in `directory` durable. @throws NodeJS.ErrnoException */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}
