import { readFileSync } from 'node:fs'

/**
 * Tells whether the root directory is no mount, as where chroot(2) alone made it: some builders of packages work so. No mount
 * namespace can be made there then, and no mount leads to a file.
 * Source: proc_pid_mountinfo(5), field 5.
 */
export function isInChroot(): boolean {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').trimEnd().split('\n')
  return !mounts.some((line) => line.split(' ')[4] === '/')
}
