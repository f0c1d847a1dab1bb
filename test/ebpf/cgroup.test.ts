import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { findCgroup } from '../../src/ebpf/cgroup.ts'

const fixture = (name: string) =>
  readFileSync(join(import.meta.dirname, '../fixtures', `mountinfo-${name}.txt`), 'utf8')

/** A machine where exactly the given paths lie on cgroup2. */
const machine = (name: string, ...cgroup2: string[]) => ({
  readMountinfo: () => fixture(name),
  isCgroup2: (path: string) => cgroup2.includes(path),
})

describe('findCgroup()', () => {
  for (const row of [
    {
      situation: 'a unified hierarchy',
      machine: machine('unified', '/sys/fs/cgroup'),
      want: { path: '/sys/fs/cgroup', from: 'mountinfo' },
    },
    {
      situation: 'a hybrid hierarchy',
      machine: machine('hybrid', '/sys/fs/cgroup/unified'),
      want: { path: '/sys/fs/cgroup/unified', from: 'mountinfo' },
    },
    {
      situation: 'a hybrid hierarchy, and the customary directory configured',
      machine: machine('hybrid', '/sys/fs/cgroup/unified'),
      configured: '/sys/fs/cgroup',
      want: { path: '/sys/fs/cgroup/unified', from: 'mountinfo' },
    },
    {
      situation: 'a configured directory below the root',
      machine: machine('unified', '/sys/fs/cgroup', '/sys/fs/cgroup/system.slice'),
      configured: '/sys/fs/cgroup/system.slice',
      want: { path: '/sys/fs/cgroup/system.slice', from: 'configuration' },
    },
    {
      situation: 'a bind mount of a part before the whole',
      machine: machine('several', '/srv/jail/cgroup', '/mnt/my cgroups', '/sys/fs/cgroup'),
      want: { path: '/mnt/my cgroups', from: 'mountinfo' },
    },
    {
      situation: 'a whole that another mount hides',
      machine: machine('several', '/srv/jail/cgroup', '/sys/fs/cgroup'),
      want: { path: '/sys/fs/cgroup', from: 'mountinfo' },
    },
  ]) {
    test(`chooses in ${row.situation}`, () => assert.deepEqual(findCgroup(row.configured, row.machine), row.want))
  }

  test('refuses a container that sees only a part of the tree, and names it', () => {
    assert.throws(() => findCgroup(undefined, machine('nested-container', '/sys/fs/cgroup')), {
      code: 'NO_CGROUP2',
      message:
        'Cannot find a cgroup2 directory: only parts of the tree are mounted: /sys/fs/cgroup (root /docker/3f2a9c/inner)',
    })
  })

  test('refuses a machine without cgroup2', () => {
    const env = { readMountinfo: () => '22 1 8:1 / / rw - ext4 /dev/sda1 rw\n', isCgroup2: () => false }
    assert.throws(() => findCgroup('/sys/fs/cgroup', env), {
      code: 'NO_CGROUP2',
      message: /no cgroup2 file system is mounted/,
    })
  })
})
