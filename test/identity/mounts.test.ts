/** What real mounts, links and removals make of an executable's name. */

import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, realpathSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { isInChroot } from '../fakes/chroot.ts'
import { temporaryFolder } from '../fakes/temporary-folder.ts'

const SLEEP = realpathSync('/usr/bin/sleep')

/** A machine in small: the shell is process 1, and what runs in it as the agent has a mount namespace of its own. */
const MACHINE = [
  ...(process.getuid?.() === 0 ? [] : ['--user', '--map-root-user']),
  ...['--mount', '--pid', '--fork', '--mount-proc', '--kill-child'],
  ...['/bin/sh', '-c', 'unshare --mount "$@"; exit $?', 'sh'],
]
const HELPER = join(import.meta.dirname, 'name-program.ts')

/** Starts a program and waits until it runs, not what leads to it. */
const START =
  'start() { "$@" 30 & while case "$(readlink /proc/$!/exe)" in *sh | */nsenter | */unshare | */chroot) true;; ' +
  '*) false;; esac; do :; done; }; '

/** Prints the pid of the last program. */
const DONE = '; echo $!; wait'

const NOT_PROVEN = 'was not started from a mount of the host and is not proven to be its file'

/** The script begins in an empty folder that holds `tool`, a program of the test's own; F stands for its path. */
const SITUATIONS: readonly (readonly [situation: string, script: string, expected: string])[] = [
  ["a program on the agent's mounts", `start ${SLEEP}`, SLEEP],
  ['a program of the host', `start nsenter --mount=/proc/1/ns/mnt ${SLEEP}`, SLEEP],
  [
    'a removed program of the host',
    'start nsenter --mount=/proc/1/ns/mnt F/tool; until [ "$(readlink /proc/$!/exe)" = F/tool ]; do :; done; rm tool',
    'F/tool',
  ],
  [
    'a program that the host alone has, on a mount that the agent does not see',
    'mkdir data; nsenter --mount=/proc/1/ns/mnt sh -c "mount -t tmpfs none F/data; cp F/tool F/data; exec F/data/tool 30" & ' +
      'until [ "$(readlink /proc/$!/exe)" = F/data/tool ]; do :; done',
    'F/data/tool',
  ],
  ['a program with a link to it', 'ln -s tool link; start ./link', 'F/tool'],
  ['a removed program', 'start ./tool; rm tool', 'F/tool'],
  ['a replaced program', 'start ./tool; cp tool new; mv new tool', 'F/tool'],
  ['a program that was given another name', 'start ./tool; mv tool other', 'F/other'],
  ['a program whose name is like a mark', 'mv tool "tool (deleted)"; start "./tool (deleted)"', 'F/tool (deleted)'],
  [
    'a removed program with such a name',
    'mv tool "tool (deleted)"; start "./tool (deleted)"; rm "tool (deleted)"',
    'F/tool (deleted)',
  ],
  ['one of two names, removed', 'ln tool other; start ./tool; rm tool', 'F/tool (deleted)'],
  ['a program bound to another place by root', 'touch bound; mount --bind tool bound; start ./bound', 'F/bound'],
  [
    'a program moved out of its mount, which is of a part of its file system',
    'mkdir all part; mount -t tmpfs none all; mkdir all/usr all/share; mount --bind all/share part; ' +
      'mkdir part/bin; cp tool part/bin/sleep; start part/bin/sleep; mv all/share/bin all/usr/bin',
    "the executable '/' was moved out of its mount at 'F/part'",
  ],
  ['a program under another root directory', 'start chroot jail /sleep', 'F/jail/sleep'],
  ['a program of the host in a sandbox', `start unshare --mount ${SLEEP}`, SLEEP],
  [
    'another program at its place in a sandbox',
    `start unshare --mount sh -c 'mount --bind tool ${SLEEP}; exec ${SLEEP} 30'; until [ "$(readlink /proc/$!/exe)" = ${SLEEP} ]; do :; done`,
    `the executable '${SLEEP}' ${NOT_PROVEN}`,
  ],
  [
    'a removed program in a sandbox',
    'start unshare --mount ./tool; until [ "$(readlink /proc/$!/exe)" = F/tool ]; do :; done; rm tool',
    `the executable 'F/tool (deleted)' ${NOT_PROVEN}`,
  ],
  [
    'a program whose place has a link on the way outside of its sandbox',
    'mkdir -p host sandbox/way real; cp tool real; ln -s ../real host/way; ln real/tool sandbox/way; ' +
      'unshare --mount sh -c "mount --bind sandbox host; exec host/way/tool 30" & ' +
      'until [ "$(readlink /proc/$!/exe)" = F/host/way/tool ]; do :; done',
    `the executable 'F/host/way/tool' ${NOT_PROVEN}`,
  ],
]

const probe = spawnSync('unshare', [...MACHINE, 'true'], { encoding: 'utf8' })
const refusal = probe.status === 0 ? false : `no such namespaces may be made here: ${probe.stderr ?? probe.error}`
if (process.getuid?.() === 0 && !isInChroot()) assert.equal(refusal, false)

for (const [situation, script, expected] of SITUATIONS) {
  test(`nameExecutable() names ${situation}`, { skip: refusal }, (t) => {
    const folder = realpathSync(temporaryFolder(t))
    layOut(folder)
    const real = (text: string) => text.replaceAll(/\bF\//g, `${folder}/`)
    const args = ['--disable-warning=ExperimentalWarning', HELPER, START + real(script) + DONE, folder]
    const { stdout, stderr } = spawnSync('unshare', [...MACHINE, process.execPath, ...args], {
      encoding: 'utf8',
      timeout: 20_000,
    })
    assert.notEqual(stdout, '', stderr)
    const { path, doubt } = JSON.parse(stdout) as { path?: string; doubt?: string }
    assert.equal(path ?? doubt, real(expected))
  })
}

/** A program, and the same with its libraries below `jail`. */
function layOut(folder: string): void {
  copyFileSync(SLEEP, join(folder, 'tool'))
  const libraries = execFileSync('ldd', [SLEEP], { encoding: 'utf8' }).match(/\/\S+/g) ?? []
  for (const library of libraries) {
    mkdirSync(join(folder, 'jail', dirname(library)), { recursive: true })
    copyFileSync(library, join(folder, 'jail', library))
  }
  copyFileSync(SLEEP, join(folder, 'jail', 'sleep'))
}
