import assert from 'node:assert/strict'
import { lstatSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { replaceFile, syncDirectory } from '../../src/base/private-file.ts'
import { temporaryFolder } from '../fakes/temporary-folder.ts'

describe('replaceFile()', () => {
  test('gives the file exactly the mode asked for, whatever the umask', async (t) => {
    const folder = temporaryFolder(t)
    const old = process.umask()
    t.after(() => process.umask(old))
    for (const [umask, mode] of [
      [0o000, 0o600],
      [0o077, 0o640],
      [0o777, 0o600],
    ] as const) {
      process.umask(umask)
      await replaceFile(join(folder, 'f'), 'text', { mode })
      assert.equal(statSync(join(folder, 'f')).mode & 0o7777, mode)
    }
  })

  test('replaces the whole text and leaves no other file', async (t) => {
    const folder = temporaryFolder(t)
    await replaceFile(join(folder, 'f'), 'a long text', { mode: 0o600 })
    await replaceFile(join(folder, 'f'), '\u00e9', { mode: 0o600, isDurable: true })
    assert.equal(readFileSync(join(folder, 'f'), 'utf8'), '\u00e9')
    assert.deepEqual(readdirSync(folder), ['f'])
  })

  test('makes a new file, so that a reader of the old one keeps all of it', async (t) => {
    const path = join(temporaryFolder(t), 'f')
    writeFileSync(path, 'old')
    const { ino } = statSync(path)
    await replaceFile(path, 'new', { mode: 0o600 })
    assert.notEqual(statSync(path).ino, ino)
  })

  test('takes a leftover temporary file away, also when it is a link', async (t) => {
    const folder = temporaryFolder(t)
    writeFileSync(join(folder, 'victim'), 'precious')
    symlinkSync(join(folder, 'victim'), join(folder, 'f.tmp'))
    await replaceFile(join(folder, 'f'), 'text', { mode: 0o600 })
    assert.equal(readFileSync(join(folder, 'victim'), 'utf8'), 'precious')
    assert.deepEqual(readdirSync(folder).sort(), ['f', 'victim'])
  })

  test('replaces a link, not what it points to', async (t) => {
    const folder = temporaryFolder(t)
    writeFileSync(join(folder, 'victim'), 'precious')
    symlinkSync(join(folder, 'victim'), join(folder, 'f'))
    await replaceFile(join(folder, 'f'), 'text', { mode: 0o600 })
    assert.equal(readFileSync(join(folder, 'victim'), 'utf8'), 'precious')
    assert.ok(lstatSync(join(folder, 'f')).isFile())
  })

  test('uses the temporary path it is given', async (t) => {
    const folder = temporaryFolder(t)
    mkdirSync(join(folder, 'f.tmp'))
    await replaceFile(join(folder, 'f'), 'text', { mode: 0o600, temporaryPath: join(folder, 'other') })
    assert.deepEqual(readdirSync(folder).sort(), ['f', 'f.tmp'])
  })

  test('keeps the old text and leaves nothing half-written when it fails', async (t) => {
    const folder = temporaryFolder(t)
    mkdirSync(join(folder, 'directory'))
    await assert.rejects(replaceFile(join(folder, 'directory'), 'text', { mode: 0o600 }), { code: 'EISDIR' })
    await assert.rejects(replaceFile(join(folder, 'missing', 'f'), 'text', { mode: 0o600 }), { code: 'ENOENT' })
    assert.deepEqual(readdirSync(folder), ['directory'])
  })
})

describe('syncDirectory()', () => {
  test('takes directories and nothing else', async (t) => {
    const folder = temporaryFolder(t)
    await syncDirectory(folder)
    writeFileSync(join(folder, 'f'), '')
    await assert.rejects(syncDirectory(join(folder, 'f')), { code: 'ENOTDIR' })
  })
})
