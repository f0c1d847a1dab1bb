/** Names and numbers of errno, as libc and the kernel use them. */

import { constants } from 'node:os'

/** The numbers that callers branch on. The same on x86-64 and aarch64. Source: asm-generic/errno*.h. */
export const EPERM = 1
export const ENOENT = 2
export const EINTR = 4
export const E2BIG = 7
export const EBADF = 9
export const EAGAIN = 11
export const EINVAL = 22
export const ENOSPC = 28
export const ENOPROTOOPT = 92
export const EOPNOTSUPP = 95

/** What some bpf(2) paths answer for "no such operation". Kernel-internal, so libc has no name for it. Source: linux/errno.h. */
export const ENOTSUPP = 524

/** Where two names share a number, the one that the kernel's own sources write. */
const PREFERRED: Readonly<Record<number, string>> = { 11: 'EAGAIN', 95: 'EOPNOTSUPP', 524: 'ENOTSUPP' }

let names: Map<number, string> | undefined

/** Names an errno: `1` is `EPERM`. A number nobody named comes back as `errno 4095`. */
export function errnoName(errno: number): string {
  names ??= new Map([
    ...Object.entries(constants.errno).map(([name, number]): [number, string] => [number, name]),
    ...Object.entries(PREFERRED).map(([number, name]): [number, string] => [Number(number), name]),
  ])
  return names.get(errno) ?? `errno ${errno}`
}
