import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { copyFileSync, cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { build, makeFolder, PROGRAM, ROOT } from './built.ts'

test('build() gives the same bytes in another folder, with no network, no home and another clock', async () => {
  using made = makeFolder()
  const here = path.join(made.folder, 'here')
  await build({ entry: PROGRAM, out: path.join(here, 'program') })

  const copy = path.join(made.folder, 'a copy of the project')
  copyProject(copy)
  const there = path.join(made.folder, 'there')
  buildCutOff(copy, path.join(there, 'program'))

  const files = ['program', 'program.LICENSES.txt', 'program.cdx.json']
  assert.deepEqual(readdirSync(here), files)
  assert.deepEqual(readdirSync(there), files)
  for (const name of files) {
    const isSame = readFileSync(path.join(here, name)).equals(readFileSync(path.join(there, name)))
    assert.ok(isSame, `${name} differs`)
  }
  for (const folder of [ROOT, made.folder]) {
    assert.ok(!readFileSync(path.join(here, 'program')).includes(folder), `the executable names ${folder}`)
  }
})

/** Everything a build reads; node_modules by a link. */
function copyProject(to: string): void {
  mkdirSync(path.join(to, 'test'), { recursive: true })
  for (const name of ['build.mjs', 'package.json', 'package-lock.json', 'LICENSE']) {
    copyFileSync(path.join(ROOT, name), path.join(to, name))
  }
  cpSync(path.join(ROOT, 'test', 'build'), path.join(to, 'test', 'build'), { recursive: true })
  symlinkSync(path.join(ROOT, 'node_modules'), path.join(to, 'node_modules'))
}

/** Builds in a network namespace that has no interface up, which takes root. */
function buildCutOff(project: string, out: string): void {
  const entry = path.join(project, 'test', 'build', 'program.ts')
  const command = [process.execPath, path.join(project, 'build.mjs'), '--entry', entry, '--out', out]
  const env = { TZ: 'Pacific/Kiritimati', LANG: 'tr_TR.UTF-8', HOME: '/proc' }
  const ran = spawnSync('/usr/bin/unshare', ['--net', ...command], { cwd: '/', env, encoding: 'utf8' })
  assert.equal(ran.status, 0, ran.stderr)
}
