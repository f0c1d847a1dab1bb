/** What can be said about the package without a machine to install it on: how it is built, and what is in it. */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { make as makeVendor } from '../../debian/vendor.mjs'
import { buildPackage, findDeb, PACKAGE_FOLDER, ROOT } from './package.ts'

export interface PackageCheck {
  readonly name: string
  /** @returns something worth telling. @throws when it is not so */
  run(): string
}

function hashOf(file: string): string {
  return createHash('sha256').update(readFileSync(file)).digest('hex')
}

function output(command: string, ...args: string[]): string {
  const { stdout, stderr, status, error } = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 1 << 26 })
  if (error !== undefined) throw error
  assert.equal(status, 0, stdout + stderr)
  return stdout
}

function inFolder<T>(use: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'apa-check-'))
  try {
    return use(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Files of the package, beside what documentation a package has. */
const CONTENTS = [
  './etc/azure/proxy-agent.json',
  './lib/systemd/system/azure-proxy-agent.service',
  './usr/sbin/azure-proxy-agent',
  ...['document', 'log', 'rules', 'test'].map((kind) => `./usr/share/azure-proxy-agent/schemas/${kind}.schema.json`),
  './usr/share/bash-completion/completions/azure-proxy-agent',
  './usr/share/lintian/overrides/azure-proxy-agent',
  './usr/share/man/man5/proxy-agent.json.5.gz',
  './usr/share/man/man8/azure-proxy-agent.8.gz',
]

/**
 * Said of every package without a script for another init, which could not promise what the unit does: the sandbox, and a start
 * before the network. Not overridden, since newer versions of lintian do not know it and call the override an error.
 */
const NO_INIT_SCRIPT = 'I: azure-proxy-agent: package-supports-alternative-init-but-no-init.d-script'

export const PACKAGE_CHECKS: readonly PackageCheck[] = [
  {
    name: 'the vendor tarball is the same when it is made again',
    run: () =>
      inFolder((folder) => {
        const again = hashOf(makeVendor(folder))
        assert.equal(again, hashOf(makeVendor(folder)))
        return again
      }),
  },
  {
    name: 'two builds give the same package: another folder, umask, locale, time zone and number of jobs, and without tests',
    run: () =>
      inFolder((folder) => {
        const built = findDeb()
        buildPackage(PACKAGE_FOLDER, folder, { options: 'nocheck', isBinaryOnly: true, isElsewhere: true })
        const hash = hashOf(findDeb(folder))
        assert.equal(hash, hashOf(built))
        return `${hash}, ${(statSync(built).size / 1e6).toFixed(1)} MB`
      }),
  },
  {
    name: 'a unit test that fails ends the build',
    run: () =>
      inFolder((folder) => {
        const failing = "import { test } from 'node:test'\ntest('never', () => { throw new Error('as planned') })\n"
        const change = (tree: string) => writeFileSync(join(tree, 'test', 'base', 'failing.test.ts'), failing)
        assert.throws(() => buildPackage(PACKAGE_FOLDER, folder, { change, isBinaryOnly: true }), /exit status/)
        return ''
      }),
  },
  {
    name: 'lintian --pedantic -EI finds nothing, but that there is no script for another init',
    run: () => {
      const changes = findDeb().replace(/\.deb$/, '.changes')
      const found = output('lintian', '--pedantic', '-EI', '--allow-root', '--fail-on', 'none', changes)
      assert.deepEqual(
        found.split('\n').filter((line) => /^[EWIPX]:/.test(line) && !line.startsWith(NO_INIT_SCRIPT)),
        [],
      )
      return ''
    },
  },
  {
    name: 'the package holds its files and nothing beside them, none with privileges',
    run: () => {
      const lines = output('dpkg-deb', '--contents', findDeb()).trim().split('\n')
      const files = lines.filter((line) => line.startsWith('-')).map((line) => line.split(/\s+/)[5]!)
      assert.deepEqual(files.filter((file) => !file.startsWith('./usr/share/doc/azure-proxy-agent/')).sort(), CONTENTS)
      assert.deepEqual(
        lines.filter((line) => /^\S*[sStT]/.test(line) || !line.includes(' root/root ')),
        [],
      )
      return `${lines.length} entries`
    },
  },
  {
    name: 'an archive with nodejs 26 as one executable has it built in, and Static-Built-Using says so',
    run: () => {
      // Commands that would run if the archive's version were this one; /usr/bin/node is one executable here.
      const plan = (version: string) =>
        output(
          'make',
          '-C',
          ROOT,
          '-f',
          'debian/rules',
          '-n',
          `NODEJS=${version}`,
          'override_dh_auto_build',
          'override_dh_gencontrol',
        )
      assert.match(plan('26.3.0-1'), /Static-Built-Using=nodejs \(= 26\.3\.0-1\)'/)
      assert.match(plan('26.3.0-1'), /build\.mjs .*--runtime \/usr\/bin\/node --node \d+\.\d+\.\d+/)
      assert.match(plan('25.9.0-1'), /Static-Built-Using='/)
      assert.doesNotMatch(plan('25.9.0-1'), /--runtime/)
      return ''
    },
  },
  {
    name: 'the control file has no Built-Using, and does not depend on libatomic1',
    run: () => {
      const control = output('dpkg-deb', '--field', findDeb())
      assert.doesNotMatch(control, /^Built-Using:|libatomic/m)
      assert.match(output('dpkg-deb', '--info', findDeb(), 'conffiles'), /^\/etc\/azure\/proxy-agent\.json$/m)
      return /^Depends: .*$/m.exec(control)?.[0] ?? ''
    },
  },
]
