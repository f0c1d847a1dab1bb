/** Executables on an overlay of two file systems, where the kernel's numbers of a file can be those of another one. */

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { reasonToSkip, SLOWNESS } from '../kernel/lab.ts'
import { startAttack } from './attacks/attacker.ts'
import { NOBODY } from './attacks/stage.ts'
import { createMachine, type Machine, waitFor } from './machine.ts'

const INSTANCE = ['-H', 'Metadata: true', 'http://169.254.169.254/metadata/instance?api-version=2021-02-01&who=overlay']

const skip = reasonToSkip() ?? false

describe('on an overlay of two file systems', { skip, timeout: 60_000 * SLOWNESS }, () => {
  let machine: Machine
  let folder: string
  let merged: string
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'apa-overlay-'))
    chmodSync(folder, 0o755)
    merged = mountOverlay(folder)
    machine = await createMachine({
      rules: {
        wireserver: { defaultAccess: 'allow', mode: 'enforce', id: 'open' },
        imds: {
          defaultAccess: 'deny',
          mode: 'enforce',
          id: 'curl-there-alone',
          rules: {
            privileges: [{ name: 'p', path: '/metadata' }],
            roles: [{ name: 'r', privileges: ['p'] }],
            identities: [{ name: 'i', exePath: `${merged}/curl` }],
            roleAssignments: [{ role: 'r', identities: ['i'] }],
          },
        },
      },
    })
  })
  after(async () => {
    await machine[Symbol.asyncDispose]()
    for (const name of ['merged', 'upper', 'lower']) execFileSync('umount', ['--lazy', join(folder, name)])
    rmSync(folder, { recursive: true, force: true })
  })

  const ask = async (program: string) =>
    (await machine.lab.run(program, ['-s', '-o', '/dev/null', '-w', '%{http_code}', ...INSTANCE], NOBODY)).stdout

  test('a rule matches the program it names, and no other', async () => {
    assert.deepEqual([await ask(`${merged}/curl`), await ask('curl')], ['200', '403'])
    // The file system and the file do not agree about the device: that is what this is about.
    assert.notEqual(statSync(join(merged, 'curl')).dev, statSync(merged).dev)
  })

  test('a program with the same number that becomes the named one is not taken for it', async () => {
    machine.agent.kill('SIGSTOP')
    const attacker = startAttack(machine.lab, 'same_number.py', [merged, `${merged}/curl`], NOBODY)
    try {
      const { child, same } = await attacker.next()
      assert.deepEqual({ child: typeof child, same }, { child: 'number', same: true })
      machine.agent.kill('SIGCONT')
      attacker.proceed()
      assert.deepEqual(await attacker.next(), { status: 403 })
      const log = () => machine.read('log', 'ProxyAgent.Connection.log')
      const doubt = 'lies on overlay, where files can share an inode number, and is not of the recorded time and size'
      await waitFor(() => log().includes(doubt), 'the doubt', log)
    } finally {
      machine.agent.kill('SIGCONT')
      attacker.kill()
    }
  })
})

/** Lays a file system where users may write over one that holds curl, both counting their files from one. @returns where */
function mountOverlay(folder: string): string {
  const at = (...path: string[]) => join(folder, ...path)
  for (const name of ['lower', 'upper', 'merged']) mkdirSync(at(name))
  for (const name of ['lower', 'upper']) execFileSync('mount', ['-t', 'tmpfs', 'none', at(name)])
  for (const name of ['files', 'work']) mkdirSync(at('upper', name))
  chmodSync(at('upper', 'files'), 0o777)
  // So that curl's number is still to come where a user makes files.
  for (let i = 0; i < 200; i++) writeFileSync(at('lower', `file-${i}`), '')
  copyFileSync('/usr/bin/curl', at('lower', 'curl'))
  chmodSync(at('lower', 'curl'), 0o755)
  const options = `xino=off,lowerdir=${at('lower')},upperdir=${at('upper', 'files')},workdir=${at('upper', 'work')}`
  execFileSync('mount', ['-t', 'overlay', 'none', '-o', options, at('merged')])
  return at('merged')
}
