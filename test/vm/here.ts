/**
 * Boots a machine as boot.ts does, on the kernel and the processors of this one: its systemd is the first process in
 * namespaces of its own. Nothing is emulated, so a boot takes seconds, and times are those of hardware.
 *
 *   root folder ──(overlay)──► /               what is written is kept from boot to boot of one machine
 *   payload folder ── bind ──► /vm             read-only, new for each boot; /vm/run.sh is started
 *   file ── bind ──► /dev/ttyS1                results, as in boot.ts
 *   pseudo terminal of script(1) ── bind ──► /dev/console
 *
 * Its network has no way out, and its cgroups are below one that is made for it, where the agent attaches. What it has not
 * is a kernel of its own and hardware that says what it is. The steps inside are those of here.sh.
 */

import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { findCgroup } from '../../src/ebpf/cgroup.ts'
import { cgroupTree } from '../kernel/lab.ts'
import { type Boot, type BootOptions, fillPayload, type Machine, readResults } from './boot.ts'
import type { Root } from './root.ts'

/** The payload is there already, and no disk has to be mounted. A login on the console would only write between lines. */
const PAYLOAD_DROP_IN = '[Service]\nExecStart=\nExecStart=/bin/sh /vm/run.sh\n'
const WORDS = ['systemd.mask=getty.target']

/** How long what ends has to leave its cgroups. */
const LEAVING_MS = 10_000

export function createMachineHere(root: Root): Machine {
  const work = mkdtempSync(join(tmpdir(), 'apa-vm-'))
  for (const folder of ['upper', 'overlay', 'root']) mkdirSync(join(work, folder))
  const dropIns = join(work, 'upper/etc/systemd/system/vm-payload.service.d')
  mkdirSync(dropIns, { recursive: true })
  writeFileSync(join(dropIns, 'here.conf'), PAYLOAD_DROP_IN)
  return {
    boot: (options) => boot(root, work, options),
    [Symbol.dispose]: () => rmSync(work, { recursive: true, force: true }),
  }
}

async function boot(root: Root, work: string, options: BootOptions): Promise<Boot> {
  fillPayload(join(work, 'payload'), options)
  const results = join(work, 'results')
  writeFileSync(results, '')
  const cgroup = join(findCgroup(undefined).path, `apa-vm-${process.pid}`)
  mkdirSync(cgroup)
  const words = [...WORDS, ...(options.append ?? '').split(' ').filter(Boolean)].join(' ')
  const apart = '--mount --pid --fork --kill-child --net --uts --ipc --cgroup'
  const command = `echo $$ > ${cgroup}/cgroup.procs && exec unshare ${apart} sh ${import.meta.dirname}/here.sh ${words}`
  const started = performance.now()
  const child = spawn('script', ['--quiet', '--command', command, '/dev/null'], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env.PATH, ROOT: root.folder, WORK: work },
  })
  let console = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      console += chunk
    })
  }
  const end = () => writeFileSync(join(cgroup, 'cgroup.kill'), '1')
  const timer = setTimeout(end, options.timeoutSeconds * 1000)
  await new Promise<void>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', () => resolve())
  }).finally(() => clearTimeout(timer))
  const seconds = (performance.now() - started) / 1000
  end()
  await removeCgroup(cgroup)
  return { ...readResults(readFileSync(results, 'utf8')), console, seconds }
}

async function removeCgroup(path: string): Promise<void> {
  const until = Date.now() + LEAVING_MS
  while (existsSync(path)) {
    try {
      for (const each of cgroupTree(path)) rmdirSync(each)
    } catch (error) {
      if (Date.now() > until) throw error
      await sleep(50)
    }
  }
}
