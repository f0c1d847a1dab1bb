/**
 * SHA-256 of executables: of the file that a process runs, not of what has its path now.
 *
 * It is read outside of the event loop, for one user one file at a time. What was computed is remembered under device, inode,
 * size and change time, which the owner of a file cannot set back.
 *
 * A program may connect, be written over once it has become another program, and be run again by the same process: same
 * start, same inode, another content. So a file that changed after the connect, or shortly before, has no known hash.
 */

import { createHash } from 'node:crypto'
import { close, fstatSync, read } from 'node:fs'
import { promisify } from 'node:util'
import { createGate } from './gate.ts'

interface OpenFile {
  readonly fd: number
  readonly key: string
  readonly sizeBytes: number
  readonly changedAtMs: number
}

export interface ContentHashes {
  /**
   * Computes the hash of a file, or remembers it. Never rejects.
   * @param fd open for reading, on a local file system; it is closed in the end
   * @param uid whose account the work is on
   * @param connectedAtMs epoch milliseconds; a file that changed later than that is another one
   * @returns 64 hexadecimal digits in lower case; `undefined`: too large, changed, unreadable, or too much asked for
   */
  hash(fd: number, uid: number, connectedAtMs: number): Promise<string | undefined>
}

/** Larger ones are not read: programs of hundreds of megabytes exist, this agent is one. */
const MAX_FILE_BYTES = 512 * 1024 * 1024

/** At a time; one is always left for others than him who has the slowest. */
const MAX_RUNNING = 2
const MAX_WAITING = 64
const MAX_ENTRIES = 1024
const CHUNK_BYTES = 256 * 1024

/** The clock that stamps files ticks up to 10 ms late, and the system's may be stepped a little. */
const CHANGE_MARGIN_MS = 100

const readAsync = promisify(read)
const closeAsync = promisify(close)

/** Makes one with an empty memory. */
export function createContentHashes(): ContentHashes {
  const known = new Map<string, string>()
  const gate = createGate(MAX_RUNNING, MAX_WAITING)
  const compute = async (file: OpenFile): Promise<string | undefined> => {
    const hash = await hashFile(file)
    // Whoever wrote to it meanwhile changed its time.
    if (hash === undefined || describeOpen(file.fd).key !== file.key) return undefined
    if (known.size >= MAX_ENTRIES) known.delete(known.keys().next().value as string)
    known.set(file.key, hash)
    return hash
  }
  return {
    async hash(fd, uid, connectedAtMs) {
      try {
        const file = describeOpen(fd)
        if (file.sizeBytes > MAX_FILE_BYTES || file.changedAtMs > connectedAtMs - CHANGE_MARGIN_MS) return undefined
        return known.get(file.key) ?? (await gate.run(uid, async () => known.get(file.key) ?? (await compute(file))))
      } catch {
        return undefined
      } finally {
        await closeAsync(fd)
      }
    },
  }
}

function describeOpen(fd: number): OpenFile {
  const { dev, ino, size, ctimeNs } = fstatSync(fd, { bigint: true })
  return {
    fd,
    key: `${dev}:${ino}:${size}:${ctimeNs}`,
    sizeBytes: Number(size),
    changedAtMs: Number(ctimeNs / 1_000_000n),
  }
}

/** Reads to the end, or to the size that was seen, if somebody makes the file grow. */
async function hashFile({ fd, sizeBytes }: OpenFile): Promise<string | undefined> {
  const hash = createHash('sha256')
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES)
  let length = 0
  for (;;) {
    const { bytesRead } = await readAsync(fd, chunk, 0, CHUNK_BYTES, length)
    if (bytesRead === 0) return hash.digest('hex')
    length += bytesRead
    if (length > sizeBytes) return undefined
    hash.update(chunk.subarray(0, bytesRead))
  }
}
