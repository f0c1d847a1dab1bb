/**
 * Nobody borrows the name of another executable, whatever he does with mounts of his own.
 *
 * The rules let /usr/bin/curl read the metadata, a copy of it that root keeps elsewhere, and nobody else. The impostor is a
 * copy of it that lies elsewhere, so that file name, arguments and requests are all the same and only the file is not. Its
 * user, 1000, has no more than any other.
 */

import assert from 'node:assert/strict'
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import type { ChannelRules } from '../fabric/channel.ts'
import type { RunOptions } from '../kernel/lab.ts'
import { createMachine, type Machine, reasonForNoNamespaces, waitFor } from './machine.ts'

const TARGET = realpathSync('/usr/bin/curl')
const USER = { uid: 1000, gid: 1000 }

const rulesWith = (daemon: string): ChannelRules => ({
  wireserver: { defaultAccess: 'allow', mode: 'enforce', id: 'open' },
  imds: {
    defaultAccess: 'deny',
    mode: 'enforce',
    id: 'curl-alone',
    rules: {
      privileges: [{ name: 'p', path: '/metadata' }],
      roles: [{ name: 'r', privileges: ['p'] }],
      identities: [
        { name: 'i', exePath: TARGET, processName: 'curl' },
        { name: 'd', exePath: daemon, processName: 'daemon' },
      ],
      roleAssignments: [{ role: 'r', identities: ['i', 'd'] }],
    },
  },
})

const ASK = [
  ...['--silent', '--output', '/dev/null', '--write-out', '%{http_code}', '--max-time', '10'],
  ...['-H', 'Metadata: true', 'http://169.254.169.254/metadata/instance?api-version=2021-02-01'],
]

/** Prepares namespaces by the script $mounts, keeps them, and runs `start` outside; $ns is their root directory there. */
const fromOutside = (start: string) =>
  `sh -c 'echo $$; exec unshare --user --map-root-user --mount sh -c "$mounts"' |
  { read pid; read ready; ns=/proc/$pid/root; ${start}; kill $pid; }`

const inside = (script: string) => `exec unshare --user --map-root-user --mount sh -c '${script}' sh "$@"`
const KEEP = 'echo ready; exec sleep 30'
const NEVER_STARTED = new RegExp(`the executable '${TARGET}' was not started from a mount of the host`)

interface Impostor {
  readonly how: string
  /** Knows $target, $evil and $tree; "$@" are the arguments that ask for the metadata. */
  readonly script: string
  /** For `fromOutside()`. */
  readonly mounts?: string
  /** How the log puts it; without it the executable is known, by another name. */
  readonly unknown?: RegExp
}

const IMPOSTORS: readonly Impostor[] = [
  { how: 'by its file name', script: 'exec "$evil" "$@"' },
  {
    how: 'bound over the path in a namespace of its own',
    script: inside('mount --bind "$evil" "$target"; exec "$target" "$@"'),
    unknown: NEVER_STARTED,
  },
  {
    how: 'bound over the path there, started from the namespace of the host',
    mounts: `mount --bind "$evil" "$target"; ${KEEP}`,
    script: fromOutside('"$ns$target" "$@"'),
    unknown: NEVER_STARTED,
  },
  {
    how: 'bound with its directory, started from the namespace of the host by a relative path',
    mounts: `mount --bind "$tree/usr/bin" /usr/bin; ${KEEP}`,
    script: fromOutside('cd "$ns/usr/bin"; ./curl "$@"'),
    unknown: NEVER_STARTED,
  },
  {
    how: 'in memory of its own, bound over the path',
    script: inside(
      'mount -t tmpfs none /mnt; cp "$evil" /mnt/curl; mount --bind /mnt/curl "$target"; exec "$target" "$@"',
    ),
    unknown: NEVER_STARTED,
  },
  {
    how: 'laid over the directory by an overlay',
    script: inside(
      'mount -t overlay none -o "lowerdir=$tree/usr/bin:/usr/bin" /usr/bin || { echo refused; exit; }; exec "$target" "$@"',
    ),
    unknown: NEVER_STARTED,
  },
  {
    how: 'under a root directory of its own, started from the namespace of the host',
    mounts: 'mount --bind "$tree" "$tree"; cd "$tree"; pivot_root . old; echo ready; exec /old/usr/bin/sleep 30',
    script: fromOutside('"$ns$target" "$@"'),
    unknown: NEVER_STARTED,
  },
  {
    how: 'from a mount that was taken away while it runs',
    script: inside(
      'mount --bind "$tree" /mnt; mkfifo "$tree/go"; "/mnt$target" --config "$tree/go" "$@" & ' +
        'exec 3>"$tree/go"; umount -l /mnt; echo silent >&3; exec 3>&-; wait; rm "$tree/go"',
    ),
    unknown: NEVER_STARTED,
  },
  {
    how: 'bound over the path, its own name removed',
    script: inside('cp "$evil" "$evil-2"; mount --bind "$evil-2" "$target"; rm "$evil-2"; exec "$target" "$@"'),
    unknown: /was not started from a mount of the host/,
  },
  {
    how: 'in memory without a name',
    script:
      'exec /usr/bin/python3 -c \'import os, sys; fd = os.memfd_create("curl"); ' +
      'os.write(fd, open(sys.argv[1], "rb").read()); os.execv(f"/proc/self/fd/{fd}", ["curl", *sys.argv[2:]])\' ' +
      '"$evil" "$@"',
    unknown: /the executable '\/memfd:curl \(deleted\)' was not started from a mount of the host/,
  },
]

/** Asks as the program that it is, tells the answer, and becomes the next of its arguments: one process all the time. */
const CHAIN = `
import http.client, os, sys
connection = http.client.HTTPConnection('169.254.169.254', timeout=10)
connection.request('GET', '/metadata/instance?api-version=2021-02-01', headers={'Metadata': 'true'})
print(connection.getresponse().status, flush=True)
if len(sys.argv) > 1: os.execv(sys.argv[1], [sys.argv[1], sys.argv[0], *sys.argv[2:]])
`

const HONEST: readonly { readonly who: string; readonly script: string; readonly as: RunOptions }[] = [
  { who: 'a user', script: 'exec "$target" "$@"', as: USER },
  { who: 'root', script: 'exec "$target" "$@"', as: {} },
  { who: 'a service with mounts of its own', script: 'exec unshare --mount "$target" "$@"', as: {} },
  {
    who: 'a service with a /tmp of its own and a read-only /usr',
    script:
      "exec unshare --mount sh -c 'mount -t tmpfs none /tmp; mount --bind /usr /usr; mount -o remount,bind,ro /usr; " +
      'exec "$target" "$@"\' sh "$@"',
    as: {},
  },
  { who: 'a user in namespaces of his own', script: inside('exec "$target" "$@"'), as: USER },
]

/** What an upgrade does to the file of a daemon that runs. */
const UPGRADES: readonly { readonly what: string; readonly script: string }[] = [
  { what: 'removed', script: 'rm "$daemon"' },
  { what: 'replaced by another', script: 'cp /usr/bin/sleep "$daemon-new"; mv "$daemon-new" "$daemon"' },
]

const noNamespaces = reasonForNoNamespaces()
const needsNamespaces = (script: string) => (script.includes('--user') && noNamespaces) || false

describe('the executable that a rule names is the file of the host', () => {
  let machine: Machine
  let folder: string
  let daemon: string
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'apa-borrowed-'))
    layOutTree(folder)
    mkdirSync(join(folder, 'root'), { mode: 0o755 })
    daemon = join(folder, 'root', 'daemon')
    machine = await createMachine()
    await machine.host.setRules(rulesWith(daemon))
    const log = () => machine.read('log', 'ProxyAgent.log')
    await waitFor(() => log().includes("to 'curl-alone'"), 'the rules', log)
  })
  after(async () => {
    rmSync(folder, { recursive: true, force: true })
    await machine[Symbol.asyncDispose]()
  })

  const run = async (script: string, as: RunOptions, mounts = '') => {
    const env = {
      ...process.env,
      target: TARGET,
      evil: join(folder, 'curl'),
      tree: join(folder, 'tree'),
      daemon,
      mounts,
    }
    const { stdout, stderr } = await machine.lab.run('/bin/sh', ['-c', script, 'sh', ...ASK], { ...as, env })
    return stdout === '' ? stderr : stdout
  }
  const connectionLog = () => machine.read('log', 'ProxyAgent.Connection.log')

  for (const { who, script, as } of HONEST) {
    test(`${who} may ask by it`, { skip: needsNamespaces(script) }, async () => {
      assert.equal(await run(script, as), '200')
    })
  }

  for (const { what, script } of UPGRADES) {
    test(`a program whose file is ${what} while it runs keeps its name`, async () => {
      copyFileSync(TARGET, daemon)
      const before = connectionLog().length
      const go = 'mkfifo "$daemon-go"; "$daemon" --config "$daemon-go" "$@" & exec 3>"$daemon-go"'
      const end = 'echo silent >&3; exec 3>&-; wait; rm "$daemon-go"'
      assert.equal(await run([go, script, end].join('; '), {}), '200')
      const added = () => connectionLog().slice(before)
      await waitFor(() => added().includes(`"processFullPath":"${daemon}"`), 'the claims', added)
    })
  }

  test('a process that becomes another program, and again the named one, is each time what it is', async () => {
    const python = realpathSync('/usr/bin/python3')
    const impostor = join(folder, 'daemon')
    for (const file of [daemon, impostor]) copyFileSync(python, file)
    const chain = join(folder, 'chain.py')
    writeFileSync(chain, CHAIN)
    const others = [daemon, impostor, impostor, daemon, impostor]
    // Quicker than anything that is known of a process is forgotten.
    const { stdout, stderr } = await machine.lab.run(daemon, [chain, ...others], USER)
    assert.equal(stdout, '200\n200\n403\n403\n200\n403\n', stderr)
  })

  for (const { how, script, mounts, unknown } of IMPOSTORS) {
    test(`an impostor may not: ${how}`, { skip: needsNamespaces(script) }, async (t) => {
      const before = connectionLog().length
      const status = await run(script, USER, mounts)
      // An overlay is for root alone before Linux 5.11.
      if (/^refused/.test(status)) return t.skip('users may not make such mounts here')
      assert.equal(status, '403')
      const added = () => connectionLog().slice(before)
      await waitFor(() => added().includes('Request denied'), 'the log', added)
      const said = /The executable is unknown: (.*)/.exec(added())?.[1]
      if (unknown === undefined) assert.equal(said, undefined)
      else assert.match(said ?? 'nothing', unknown)
    })
  }
})

/** The impostor, and a small tree to use as a root directory, whose libraries are those of the host. */
function layOutTree(folder: string): void {
  const tree = join(folder, 'tree')
  for (const path of ['usr/bin', 'old']) mkdirSync(join(tree, path), { recursive: true })
  for (const name of ['lib', 'lib64']) symlinkSync(`old/usr/${name}`, join(tree, name))
  for (const path of [join(folder, 'curl'), join(tree, TARGET)]) copyFileSync(TARGET, path)
  copyFileSync('/usr/bin/sleep', join(tree, 'usr/bin/sleep'))
  for (const path of [folder, tree]) chmodSync(path, 0o777)
}
