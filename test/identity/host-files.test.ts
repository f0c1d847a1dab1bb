import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, realpathSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { hostFiles, type Viewpoint } from '../../src/identity/host-files.ts'
import { isInChroot } from '../fakes/chroot.ts'
import { temporaryFolder } from '../fakes/temporary-folder.ts'

const anywhere = () => true

/** A folder whose path has no link in it. */
function folderOf(t: TestContext): string {
  return realpathSync(temporaryFolder(t))
}

test('fileAt() finds a file by its plain path', (t) => {
  const file = join(folderOf(t), 'tool')
  writeFileSync(file, 'x')
  const { ino, dev } = statSync(file, { bigint: true })
  const found = hostFiles.fileAt('agent', file, anywhere)
  assert.equal(found?.inode, ino)
  assert.equal(found?.device, dev)
})

test('fileAt() follows no link, neither on the way nor at the end', (t) => {
  const folder = folderOf(t)
  mkdirSync(join(folder, 'real'))
  writeFileSync(join(folder, 'real', 'tool'), 'x')
  symlinkSync(join(folder, 'real'), join(folder, 'way'))
  symlinkSync(join(folder, 'real', 'tool'), join(folder, 'end'))
  const { ino } = statSync(join(folder, 'real', 'tool'), { bigint: true })
  assert.equal(hostFiles.fileAt('agent', join(folder, 'real', 'tool'), anywhere)?.inode, ino)
  assert.equal(hostFiles.fileAt('agent', join(folder, 'way', 'tool'), anywhere), undefined)
  assert.notEqual(hostFiles.fileAt('agent', join(folder, 'end'), anywhere)?.inode, ino)
})

test('fileAt() stops at the first mount that is not safe', () => {
  const asked: number[] = []
  const found = hostFiles.fileAt('agent', '/proc/self/stat', (mountId) => {
    asked.push(mountId)
    return asked.length === 1
  })
  assert.equal(found, undefined)
  assert.equal(asked.length, 2)
  const proc = [...hostFiles.mounts('agent')].filter(({ mountPoint }) => mountPoint === '/proc').at(-1)
  assert.equal(asked[1], proc?.id)
})

const ODD = ['', '/', 'etc/passwd', '/etc//passwd', '/etc/./passwd', '/etc/../etc/passwd', '/etc/passwd/', '/no/such']

for (const path of ODD) {
  test(`fileAt() finds nothing at '${path}'`, () => {
    assert.equal(hostFiles.fileAt('agent', path, anywhere), undefined)
  })
}

test('fileAt() goes 32 steps and no further', (t) => {
  const folder = folderOf(t)
  const steps = folder.split('/').length - 1
  const deep = (count: number) => join(folder, ...Array<string>(count - steps - 1).fill('d'), 'tool')
  mkdirSync(join(deep(32), '..'), { recursive: true })
  writeFileSync(deep(32), 'x')
  mkdirSync(join(deep(33), '..'))
  writeFileSync(deep(33), 'x')
  assert.ok(hostFiles.fileAt('agent', deep(32), anywhere))
  assert.equal(hostFiles.fileAt('agent', deep(33), anywhere), undefined)
})

test('fileAt() gives its descriptors back, also where it fails', () => {
  const openDescriptors = () => readdirSync('/proc/self/fd').length
  const before = openDescriptors()
  for (const path of ['/etc/passwd', '/etc/passwd/below', '/no/such']) hostFiles.fileAt('agent', path, anywhere)
  hostFiles.fileAt('agent', '/etc/passwd', () => false)
  assert.equal(openDescriptors(), before)
})

test('mounts() shows the root of the agent, and process 1 is looked at through its own root', (t) => {
  if (isInChroot()) return t.skip('the root directory is no mount: this is a chroot')
  const root = (viewpoint: Viewpoint) => [...hostFiles.mounts(viewpoint)].find(({ mountPoint }) => mountPoint === '/')
  assert.ok(root('agent'))
  if (!existsSync(join('/proc/1/root', 'etc'))) return t.skip('process 1 may not be looked at here')
  assert.ok(root('host'))
  const { ino } = statSync(join('/proc/1/root', 'etc', 'passwd'), { bigint: true })
  assert.equal(hostFiles.fileAt('host', '/etc/passwd', anywhere)?.inode, ino)
})
