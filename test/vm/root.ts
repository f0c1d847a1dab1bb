/**
 * Makes the root file system of a Debian machine that boots, once, and keeps it in dist/vm/ for the next time.
 *
 * The base has what any machine has and what the tests call; which kernel and which further packages it gets is the
 * caller's affair. Nothing of ours is in it: what is tested goes in with each boot (boot.ts).
 */

import { createHash } from 'node:crypto'
import { existsSync, globSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT, run } from './package.ts'

export const VM_FOLDER = join(ROOT, 'dist', 'vm')

export interface RootOptions {
  /** Debian release: `bookworm`, `bullseye`. */
  readonly suite: string
  /** Package of the kernel, and where it is from when that is not the suite: `bookworm-backports`. */
  readonly kernel: string
  readonly kernelSuite?: string
  /** Packages beside the base, with what they depend on. */
  readonly packages?: readonly string[]
}

export interface Root {
  readonly folder: string
  readonly kernel: string
  readonly initrd: string
}

/** What the machine and the tests inside need. libatomic1 is not among it, on purpose. */
const BASE = [
  ...['systemd', 'systemd-sysv', 'dbus', 'udev', 'kmod', 'procps', 'initramfs-tools', 'libstdc++6'],
  ...['iproute2', 'curl', 'jq', 'python3', 'man-db'],
]

const MIRROR = 'http://deb.debian.org/debian'

/** Makes the root, or finds the one made before with the same options. @throws Error when debootstrap or apt fails */
export function makeRoot(options: RootOptions): Root {
  const { suite, kernel, kernelSuite, packages = [] } = options
  const hash = createHash('sha256').update(JSON.stringify([options, BASE])).digest('hex').slice(0, 12)
  const folder = join(VM_FOLDER, `root-${suite}-${hash}`)
  if (!existsSync(folder)) {
    const growing = `${folder}.growing`
    rmSync(growing, { recursive: true, force: true })
    mkdirSync(VM_FOLDER, { recursive: true })
    run('debootstrap', ['--variant=minbase', `--include=${BASE.join(',')}`, suite, growing, MIRROR])
    const inside = (command: string, ...args: string[]) =>
      run('chroot', [growing, 'env', 'DEBIAN_FRONTEND=noninteractive', command, ...args])
    if (kernelSuite !== undefined) {
      writeFileSync(join(growing, 'etc/apt/sources.list.d/kernel.list'), `deb ${MIRROR} ${kernelSuite} main\n`)
    }
    // A service that starts while it is installed would start on this machine.
    writeFileSync(join(growing, 'usr/sbin/policy-rc.d'), '#!/bin/sh\nexit 101\n', { mode: 0o755 })
    inside('apt-get', '-qq', 'update')
    const from = kernelSuite === undefined ? [] : [`--target-release=${kernelSuite}`]
    inside('apt-get', '-qq', '-y', '--no-install-recommends', ...from, 'install', kernel)
    if (packages.length > 0) inside('apt-get', '-qq', '-y', '--no-install-recommends', 'install', ...packages)
    inside('apt-get', 'clean')
    rmSync(join(growing, 'usr/sbin/policy-rc.d'))
    renameSync(growing, folder)
  }
  const find = (name: string) => {
    const found = globSync(`boot/${name}-*`, { cwd: folder }).sort().at(-1)
    if (found === undefined) throw new Error(`${folder} has no ${name}: remove the folder and try again`)
    return join(folder, found)
  }
  return { folder, kernel: find('vmlinuz'), initrd: find('initrd.img') }
}
