/**
 * Makes the root file system of a Debian machine that boots, once, and keeps it in dist/vm/ for the next time.
 *
 * The base has what any machine has and what the tests call; which kernel and which further packages it gets is the
 * caller's affair. Nothing of ours is in it but the unit that runs what a boot brings along (boot.ts).
 */

import { createHash } from 'node:crypto'
import { existsSync, globSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
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
  /** The tree, to look into; machines start from `image`. */
  readonly folder: string
  /** The same as an ext4 file system, never written to. */
  readonly image: string
  readonly kernel: string
  readonly initrd: string
}

/** What the machine and the tests inside need. libatomic1 is not among it, on purpose. */
const BASE = [
  ...['systemd', 'systemd-sysv', 'dbus', 'udev', 'kmod', 'procps', 'initramfs-tools', 'libstdc++6'],
  ...['iproute2', 'curl', 'jq', 'python3', 'man-db'],
]

/**
 * The machine mounts its second disk and runs `run.sh` from it once it has booted, and goes off when that ends. What
 * run.sh prints is on the console; the second serial line is for results.
 */
const PAYLOAD_UNIT = `[Unit]
Description=What this boot is for
After=multi-user.target

[Service]
Type=exec
ExecStart=/bin/sh -c 'mkdir -p /vm && mount -o ro /dev/vdb /vm && exec /bin/sh /vm/run.sh'
ExecStopPost=/bin/systemctl poweroff --force
StandardOutput=journal+console
StandardError=journal+console
`

/** A timer starts it, so that it is no part of the boot that it looks at. */
const PAYLOAD_TIMER = `[Timer]
OnBootSec=1
AccuracySec=1
Unit=vm-payload.service
`

const MIRROR = 'http://deb.debian.org/debian'

/** Makes the root, or finds the one made before with the same options. @throws Error when debootstrap or apt fails */
export function makeRoot(options: RootOptions): Root {
  const { suite, kernel, kernelSuite, packages = [] } = options
  const hash = createHash('sha256')
    .update(JSON.stringify([options, BASE, PAYLOAD_UNIT, PAYLOAD_TIMER]))
    .digest('hex')
    .slice(0, 12)
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
    addPayloadUnit(growing)
    renameSync(growing, folder)
  }
  const image = `${folder}.ext4`
  if (!existsSync(image)) {
    run('truncate', ['--size=4G', `${image}.growing`])
    run('mkfs.ext4', ['-q', '-d', folder, `${image}.growing`])
    renameSync(`${image}.growing`, image)
  }
  const find = (name: string) => {
    const found = globSync(`boot/${name}-*`, { cwd: folder }).sort().at(-1)
    if (found === undefined) throw new Error(`${folder} has no ${name}: remove the folder and try again`)
    return join(folder, found)
  }
  return { folder, image, kernel: find('vmlinuz'), initrd: find('initrd.img') }
}

function addPayloadUnit(folder: string): void {
  const units = join(folder, 'etc/systemd/system')
  writeFileSync(join(units, 'vm-payload.service'), PAYLOAD_UNIT)
  writeFileSync(join(units, 'vm-payload.timer'), PAYLOAD_TIMER)
  mkdirSync(join(units, 'timers.target.wants'), { recursive: true })
  symlinkSync('../vm-payload.timer', join(units, 'timers.target.wants', 'vm-payload.timer'))
  writeFileSync(join(folder, 'etc/hostname'), 'vm\n')
  // Messages of the kernel's and systemd's own go where ours go.
  writeFileSync(join(folder, 'etc/fstab'), '/dev/vda / ext4 defaults 0 1\n')
}
