/**
 * Reads tables of mounts, as /proc/PID/mountinfo gives them.
 *
 *     36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw
 *     id    device root mount point     optional…  type
 *
 * A mount's id is no other's while the mount exists, and whoever holds a descriptor of a file holds the mount it was
 * reached through. After that the id may be given away: a table is good for one question, asked while holding.
 * Source: proc_pid_mountinfo(5).
 */

import { closeSync, openSync, readSync } from 'node:fs'
import { StringDecoder } from 'node:string_decoder'

/** One mount, as far as it matters here. */
export interface Mount {
  readonly id: number
  /** Device of the file system: major << 20 | minor, as the kernel counts. It can differ from what stat(2) says. */
  readonly kernelDevice: number
  /** Which directory of the file system is mounted: `/` for all of it. */
  readonly root: string
  /** Where, seen from the root directory of the process whose table it is. */
  readonly mountPoint: string
  /** `ext4`, or with a subtype `fuse.sshfs`. */
  readonly fileSystem: string
}

/** Reads a table, in its order. Lines that do not have its form are left out. */
export function parseMounts(table: string): Mount[] {
  return table.split('\n').flatMap((line) => parseMount(line) ?? [])
}

/**
 * Reads a table piece by piece, so that who finds what he wants need not wait for the rest of a long one: machines with
 * many containers have hundreds of mounts, and those of the system come first. A mount made or removed meanwhile may be
 * in the answer or not.
 * @param path `/proc/PID/mountinfo`
 * @throws Error from open(2) or read(2), when iterated
 */
export function* readMounts(path: string): Generator<Mount, void> {
  const fd = openSync(path, 'r')
  try {
    const decoder = new StringDecoder('utf8')
    const piece = Buffer.allocUnsafe(PIECE_BYTES)
    let rest = ''
    let length = readSync(fd, piece, 0, FIRST_PIECE_BYTES, null)
    for (; length > 0; length = readSync(fd, piece)) {
      const lines = (rest + decoder.write(piece.subarray(0, length))).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) {
        const mount = parseMount(line)
        if (mount !== undefined) yield mount
      }
    }
  } finally {
    closeSync(fd)
  }
}

/** The kernel writes as many lines as are asked for, a page at most. */
const PIECE_BYTES = 4096

/** Holds the root of the system on most machines. */
const FIRST_PIECE_BYTES = 512

/** Tells whether `path` is the mount point or lies below it, by name alone. Both are absolute and normal. */
export function isWithin(path: string, mountPoint: string): boolean {
  if (mountPoint === '/') return path.startsWith('/')
  return path === mountPoint || path.startsWith(`${mountPoint}/`)
}

function parseMount(line: string): Mount | undefined {
  const fields = line.split(' ')
  const separator = fields.indexOf('-', 6)
  const [id = '', , device = '', root, mountPoint] = fields
  const fileSystem = separator === -1 ? undefined : fields[separator + 1]
  const numbers = /^(\d+):(\d+)$/.exec(device)
  if (!/^\d+$/.test(id) || numbers === null) return undefined
  if (root === undefined || mountPoint === undefined || fileSystem === undefined) return undefined
  return {
    id: Number(id),
    kernelDevice: ((Number(numbers[1]) << 20) | Number(numbers[2])) >>> 0,
    root: unescapeOctal(root),
    mountPoint: unescapeOctal(mountPoint),
    fileSystem: unescapeOctal(fileSystem),
  }
}

/** The kernel writes space, tab, line feed, backslash and `#` as three octal digits; other bytes are UTF-8 as they are. */
function unescapeOctal(field: string): string {
  if (!field.includes('\\')) return field
  return field.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)))
}
