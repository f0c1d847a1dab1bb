import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { statDevice } from '../../src/ebpf/records.ts'
import { isWithin, type Mount, parseMounts, readMounts } from '../../src/sys/mountinfo.ts'
import { temporaryFolder } from '../fakes/temporary-folder.ts'

const ORDINARY: Mount = {
  id: 36,
  kernelDevice: (98 << 20) | 3,
  root: '/mnt1',
  mountPoint: '/mnt2',
  fileSystem: 'ext3',
}

const LINES: readonly (readonly [situation: string, line: string, mount: Mount | undefined])[] = [
  ['an ordinary line', '36 35 98:3 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw', ORDINARY],
  ['no optional field', '36 35 98:3 /mnt1 /mnt2 rw - ext3 /dev/root rw', ORDINARY],
  ['several optional fields', '36 35 98:3 /mnt1 /mnt2 rw shared:1 master:2 unbindable - ext3 /dev/root rw', ORDINARY],
  ['a mount point called -', '36 35 98:3 /mnt1 - rw - ext3 none rw', { ...ORDINARY, mountPoint: '-' }],
  ['a subtype', '36 35 98:3 /mnt1 /mnt2 rw - fuse.sshfs x rw', { ...ORDINARY, fileSystem: 'fuse.sshfs' }],
  [
    'blank, tab, line feed, backslash and hash in names',
    '36 35 98:3 /a\\040b\\011c /d\\012e\\134040\\043 rw - ext3 none rw',
    { ...ORDINARY, root: '/a b\tc', mountPoint: '/d\ne\\040#' },
  ],
  [
    'the largest device',
    '36 35 4095:1048575 /mnt1 /mnt2 rw - ext3 none rw',
    { ...ORDINARY, kernelDevice: 0xffff_ffff },
  ],
  ['a line without a type', '36 35 98:3 /mnt1 /mnt2 rw master:1 -', undefined],
  ['a line without the separator', '36 35 98:3 /mnt1 /mnt2 rw ext3 none rw', undefined],
  ['a line without a device', '36 35 98 /mnt1 /mnt2 rw - ext3 none rw', undefined],
  ['a line without an id', 'x 35 98:3 /mnt1 /mnt2 rw - ext3 none rw', undefined],
  ['an empty line', '', undefined],
]

for (const [situation, line, mount] of LINES) {
  test(`parseMounts() reads ${situation}`, () => {
    assert.deepEqual(parseMounts(`${line}\n`), mount === undefined ? [] : [mount])
  })
}

test('readMounts() reads a long table whole, whatever its pieces cut in two', (t) => {
  const file = join(temporaryFolder(t), 'mountinfo')
  const lines = Array.from({ length: 400 }, (_, i) => `${i} 1 0:${i} /ü${'ä'.repeat(i)} /€${i} rw - tmpfs none rw`)
  writeFileSync(file, `${lines.join('\n')}\n`)
  const mounts = [...readMounts(file)]
  assert.equal(mounts.length, 400)
  assert.deepEqual(mounts, parseMounts(readFileSync(file, 'utf8')))
})

test('readMounts() closes its file when the reader has enough', (t) => {
  const file = join(temporaryFolder(t), 'mountinfo')
  writeFileSync(file, '1 1 0:1 / / rw - tmpfs none rw\n'.repeat(1000))
  const openDescriptors = () => readdirSync('/proc/self/fd').length
  const before = openDescriptors()
  for (const { id } of readMounts(file)) if (id === 1) break
  assert.equal(openDescriptors(), before)
  assert.throws(() => [...readMounts(join(file, 'below'))], { code: 'ENOTDIR' })
})

test('readMounts() reads our own table: devices are those of stat, for file systems that have one set of inodes', () => {
  const mounts = [...readMounts('/proc/self/mountinfo')]
  const topmost = new Map(mounts.map((mount) => [mount.mountPoint, mount]))
  const proc = topmost.get('/proc')
  assert.ok(proc, '/proc is mounted')
  assert.equal(proc.fileSystem, 'proc')
  for (const { mountPoint, fileSystem, kernelDevice } of topmost.values()) {
    if (!['proc', 'ext4', 'xfs', 'tmpfs'].includes(fileSystem) || !existsSync(mountPoint)) continue
    assert.equal(statDevice(kernelDevice), statSync(mountPoint).dev, mountPoint)
  }
})

const PLACES: readonly (readonly [path: string, mountPoint: string, expected: boolean])[] = [
  ['/usr/bin/curl', '/', true],
  ['/usr/bin/curl', '/usr', true],
  ['/usr/bin/curl', '/usr/bin/curl', true],
  ['/usr/bin/curl', '/usr/bin/cur', false],
  ['/usr', '/usr/bin', false],
  ['/', '/', true],
  ['curl', '/', false],
  ['', '/', false],
]

for (const [path, mountPoint, expected] of PLACES) {
  test(`isWithin() finds '${path}' ${expected ? 'on' : 'not on'} a mount at '${mountPoint}'`, () => {
    assert.equal(isWithin(path, mountPoint), expected)
  })
}

describe('parseMounts(), as the choice of a cgroup reads it,', () => {
  test('reads octal escapes, optional fields and types with a dot', () => {
    const text = [
      '36 35 98:0 /a\\040b /mnt/tab\\011line\\012back\\134slash rw shared:1 master:2 - fuse.sshfs host:/x rw',
      '37 35 98:0 / /mnt/ünïcode rw - cgroup2 - rw',
    ].join('\n')
    const mounts = parseMounts(text).map(({ root, mountPoint, fileSystem }) => ({ root, mountPoint, fileSystem }))
    assert.deepEqual(mounts, [
      { root: '/a b', mountPoint: '/mnt/tab\tline\nback\\slash', fileSystem: 'fuse.sshfs' },
      { root: '/', mountPoint: '/mnt/ünïcode', fileSystem: 'cgroup2' },
    ])
  })

  for (const line of ['', '36 35 98:0 /', '36 35 98:0 / /mnt rw shared:1', '36 35 98:0 / /mnt rw -', 'garbage']) {
    test(`leaves out ${JSON.stringify(line)}`, () => assert.deepEqual(parseMounts(line), []))
  }
})
