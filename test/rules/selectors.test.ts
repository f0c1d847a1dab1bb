import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Identity } from '../../src/rules/document.ts'
import type { RuleCaller } from '../../src/rules/selectors.ts'
import { ComparableCaller, compileIdentity, matchesEveryone, matchesIdentity } from '../../src/rules/selectors.ts'
import { ALICE } from './make.ts'

function describes(selectors: Omit<Identity, 'name'>, caller: Partial<RuleCaller> = {}): boolean {
  return matchesIdentity(compileIdentity({ name: 'i', ...selectors }, 0), new ComparableCaller({ ...ALICE, ...caller }))
}

const MANY_GROUPS = Array.from({ length: 65_000 }, (_, index) => `g${index}`)

describe('matchesIdentity()', () => {
  const rows: readonly (readonly [
    situation: string,
    selectors: Omit<Identity, 'name'>,
    caller: Partial<RuleCaller>,
    expected: boolean,
  ])[] = [
    ['no selector', {}, {}, true],
    ['no selector, nothing known', {}, { exePath: undefined, processName: undefined, groups: [] }, true],
    [
      'all four hold',
      { userName: 'alice', groupName: 'users', exePath: '/usr/bin/curl', processName: 'curl' },
      {},
      true,
    ],
    [
      'three of four hold',
      { userName: 'alice', groupName: 'users', exePath: '/usr/bin/curl', processName: 'wget' },
      {},
      false,
    ],
    ['user in other case', { userName: 'Alice' }, {}, false],
    ['a user without a name', { userName: 'undefined' }, { userName: 'undefined' }, true],
    ['any of the groups', { groupName: 'wheel' }, { groups: ['users', 'wheel'] }, true],
    ['one of very many groups', { groupName: 'g64999' }, { groups: MANY_GROUPS }, true],
    ['none of very many groups', { groupName: 'wheel' }, { groups: MANY_GROUPS }, false],
    ['no groups', { groupName: 'wheel' }, { groups: [] }, false],
    ['an unknown executable', { exePath: '/usr/bin/curl' }, { exePath: undefined }, false],
    ['an unknown process', { processName: 'curl' }, { processName: undefined }, false],
    ['an empty path, unknown executable', { exePath: '' }, { exePath: undefined }, false],
    ['an empty path, empty executable', { exePath: '' }, { exePath: '' }, false],
    ['an empty name, unknown process', { processName: '' }, { processName: undefined }, false],
    ['an empty name, empty process', { processName: '' }, { processName: '' }, false],
    ['an empty user, empty user', { userName: '' }, { userName: '' }, false],
    ['an empty group, empty group', { groupName: '' }, { groups: [''] }, false],
    ['an unknown executable, another selector holds', { userName: 'alice' }, { exePath: undefined }, true],
  ]
  for (const [situation, selectors, caller, expected] of rows) {
    test(`${situation}: ${expected}`, () => assert.equal(describes(selectors, caller), expected))
  }
})

describe('matchesIdentity() of local rules', () => {
  const HASH = 'AB'.repeat(32)
  const known = {
    cgroupPath: '/system.slice/web.service/worker',
    systemdUnit: 'web.service',
    containerId: HASH.toLowerCase(),
    exeSha256: HASH.toLowerCase(),
  }
  const rows: readonly (readonly [
    selectors: Omit<Identity, 'name'>,
    caller: Partial<RuleCaller>,
    expected: boolean,
  ])[] = [
    [{ cgroupPath: '/system.slice/web.service/worker' }, known, true],
    [{ cgroupPath: '//system.slice/web.service/' }, known, true],
    [{ cgroupPath: '/system.slice' }, known, true],
    [{ cgroupPath: '/system.slice/web' }, known, false],
    [{ cgroupPath: '/system.slice/web.service/worker/deeper' }, known, false],
    [{ cgroupPath: '/system.slice' }, {}, false],
    [{ systemdUnit: 'web.service' }, known, true],
    [{ systemdUnit: 'Web.service' }, known, false],
    [{ systemdUnit: 'web.service' }, {}, false],
    [{ containerId: HASH }, known, true],
    [{ containerId: HASH }, {}, false],
    [{ exeSha256: HASH }, known, true],
    [{ exeSha256: HASH.replace('A', '0') }, known, false],
    [{ exeSha256: HASH }, {}, false],
    [{ exeSha256: HASH, userName: 'bob' }, known, false],
    [{ exeSha256: '' }, { exeSha256: '' }, false],
  ]
  for (const [selectors, caller, expected] of rows) {
    const of = Object.keys(caller).length === 0 ? 'a caller of whom nothing is known' : 'a worker of web.service'
    test(`${JSON.stringify(selectors)} and ${of}: ${expected}`, () => {
      assert.equal(describes(selectors, caller), expected)
    })
  }
})

describe('matchesIdentity() compares paths by components', () => {
  const rows: readonly (readonly [selector: string, exePath: string, expected: boolean])[] = [
    ['/usr/bin/curl', '/usr/bin/curl', true],
    ['/usr//bin/./curl/', '/usr/bin/curl', true],
    ['/usr/bin/curl', '//usr/bin//curl/.', true],
    ['/usr/bin/curl/.', '/usr/bin/curl', true],
    ['/usr/bin', '/usr/bin/curl', false],
    ['/usr/bin/../bin/curl', '/usr/bin/curl', false],
    ['/usr/bin/CURL', '/usr/bin/curl', false],
    ['/usr/bin/curl', '/usr/bin/curl (deleted)', false],
    ['usr/bin/curl', '/usr/bin/curl', false],
    ['./curl', 'curl', false],
    ['./curl', './/./curl', true],
    ['/', '//', true],
    ['/./', '/', true],
    ['.', './', true],
    ['/.hidden', '/hidden', false],
    ['/a./b', '/a/b', false],
  ]
  for (const [selector, exePath, expected] of rows) {
    test(`${selector} and ${exePath}: ${expected}`, () =>
      assert.equal(describes({ exePath: selector }, { exePath }), expected))
  }
})

test('matchesEveryone() is about absent selectors, not empty ones', () => {
  assert.equal(matchesEveryone({ name: 'i' }), true)
  assert.equal(matchesEveryone({ name: 'i', exePath: '' }), false)
  assert.equal(matchesEveryone({ name: 'i', groupName: 'users' }), false)
})
