import assert from 'node:assert/strict'
import { readFileSync, statSync } from 'node:fs'
import { describe, test } from 'node:test'
import { cgroupsEnv, createCgroups, describePath, NO_WORKLOAD, parseCgroupPath } from '../../src/identity/cgroup.ts'

const ID = '0123456789abcdef'.repeat(4)
const OTHER_ID = 'f'.repeat(64)

describe('parseCgroupPath()', () => {
  for (const [situation, text, expected] of [
    ['a unified tree', '0::/system.slice/nginx.service\n', '/system.slice/nginx.service'],
    ['the line of cgroup2 among old ones', '2:cpu:/docker/x\n1:name=systemd:/a\n0::/b c\n', '/b c'],
    ['the root', '0::/\n', '/'],
    ['old hierarchies alone', '2:cpu:/docker/x\n', undefined],
    ['a directory that was removed', '0::/a (deleted)\n', undefined],
    ['a directory outside of what we see', '0::/../b\n', undefined],
    ['nothing', '', undefined],
  ] as const) {
    test(`reads ${situation}`, () => assert.equal(parseCgroupPath(text), expected))
  }
})

describe('describePath()', () => {
  for (const [path, systemdUnit, containerId] of [
    ['/', undefined, undefined],
    ['/init.scope', 'init.scope', undefined],
    ['/system.slice/nginx.service', 'nginx.service', undefined],
    ['/system.slice/nginx.service/worker.service', 'nginx.service', undefined],
    ['/system.slice/system-getty.slice/getty@tty1.service', 'getty@tty1.service', undefined],
    ['/system.slice/_cpu.service', 'cpu.service', undefined],
    ['/system.slice', undefined, undefined],
    ['/apa-1-0', undefined, undefined],
    [`/system.slice/docker-${ID}.scope`, `docker-${ID}.scope`, ID],
    [`/system.slice/docker-${ID}.scope/docker-${OTHER_ID}.scope`, `docker-${ID}.scope`, ID],
    [`/docker/${ID}`, undefined, ID],
    [`/kubepods.slice/kubepods-pod1.slice/cri-containerd-${ID}.scope`, `cri-containerd-${ID}.scope`, ID],
    [`/kubepods/burstable/pod1/${ID}`, undefined, ID],
    [`/machine.slice/libpod-${ID}.scope/container`, `libpod-${ID}.scope`, ID],
    [`/system.slice/crio-${ID}.scope`, `crio-${ID}.scope`, ID],
    [`/system.slice/docker-${ID.slice(1)}.scope`, `docker-${ID.slice(1)}.scope`, undefined],
    ['/user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service', 'user@1000.service', undefined],
    ['/user.slice/user-1000.slice/session-3.scope', 'session-3.scope', undefined],
    // Directories that a user made in the part of the tree that is his.
    [`/user.slice/user-1000.slice/user@1000.service/alice/docker-${ID}.scope`, 'user@1000.service', undefined],
    [`/system.slice/web.service/alice/${ID}/x`, 'web.service', undefined],
    ['/system.slice/web.service/alice/nginx.service', 'web.service', undefined],
  ] as const) {
    test(`reads ${path}`, () => {
      const isRoots = (top: string) => !top.includes('/alice')
      assert.deepEqual(describePath(path, isRoots), { cgroupPath: path, systemdUnit, containerId })
    })
  }
})

describe('find()', () => {
  const stat = (path: string) => (path === '/a.service' ? { inode: 7n, uid: 0 } : undefined)
  const A = { cgroupPath: '/a.service', systemdUnit: 'a.service', containerId: undefined }

  test('takes the path of a process only if the directory has the recorded number', () => {
    const cgroups = createCgroups({ stat })
    assert.deepEqual(
      cgroups.find(8n, () => '0::/a.service\n'),
      NO_WORKLOAD,
    )
    assert.deepEqual(
      cgroups.find(8n, () => '0::/gone.service\n'),
      NO_WORKLOAD,
    )
    assert.deepEqual(
      cgroups.find(7n, () => undefined),
      NO_WORKLOAD,
    )
    assert.deepEqual(
      cgroups.find(7n, () => '0::/a.service\n'),
      A,
    )
  })

  test('remembers what it found, also for a process that is gone', () => {
    const cgroups = createCgroups({ stat })
    cgroups.find(7n, () => '0::/a.service\n')
    assert.deepEqual(
      cgroups.find(7n, () => assert.fail('asked again')),
      A,
    )
  })

  test('finds the cgroup of this process, as the kernel numbers it', (t) => {
    const text = readFileSync('/proc/self/cgroup', 'utf8')
    const path = parseCgroupPath(text)
    const mount = /\S+ \S+ \S+ \/ (\S+) .* - cgroup2 /.exec(readFileSync('/proc/self/mountinfo', 'utf8'))?.[1]
    if (path === undefined || mount === undefined) return t.skip('there is no cgroup2 to be seen here')
    const { ino } = statSync(`${mount}${path}`, { bigint: true })
    assert.equal(createCgroups(cgroupsEnv()).find(ino, () => text).cgroupPath, path)
  })
})
