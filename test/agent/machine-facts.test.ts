import assert from 'node:assert/strict'
import { test } from 'node:test'
import { osName, osVersion, readMachineFacts } from '../../src/agent/machine-facts.ts'

const ROWS: readonly (readonly [situation: string, osRelease: string, version: string])[] = [
  ['Ubuntu', 'NAME="Ubuntu"\nVERSION_ID="22.04"\nID=ubuntu\nID_LIKE=debian\n', 'Linux:Ubuntu-22.4.0'],
  ['Debian', 'NAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n', 'Linux:Debian-12.0.0'],
  ['Debian before its release', 'NAME="Debian GNU/Linux"\nID=debian\n', 'Linux:Debian-Unknown'],
  ['RHEL', 'NAME="Red Hat Enterprise Linux"\nID="rhel"\nVERSION_ID="9.4"\n', 'Linux:Red Hat Enterprise Linux-9.4.0'],
  ['three numbers in single quotes', "ID='ubuntu'\nVERSION_ID='24.04.01'\n", 'Linux:Ubuntu-24.4.1'],
  ['one that is not known', 'NAME=NixOS\nID=nixos\nVERSION_ID="24.11 (x)"\n', 'Linux:NixOS-24.11 (x)'],
  [
    'a version that is no number',
    'NAME="openSUSE"\nID=opensuse-tumbleweed\nVERSION_ID="rolling"\n',
    'Linux:openSUSE-rolling',
  ],
  ['no file', '', 'Linux:Linux-Unknown'],
]
for (const [situation, osRelease, version] of ROWS) {
  test(`osVersion() of ${situation}`, () => assert.equal(osVersion(osRelease), version))
}

test('osName() is what people read', () => {
  assert.equal(osName('NAME=x\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'), 'Debian GNU/Linux 12 (bookworm)')
  assert.equal(osName(''), 'Linux')
})

test('readMachineFacts() knows this machine', () => {
  const { cpuArchitecture, ramMib, processors } = readMachineFacts('')
  assert.match(cpuArchitecture, /^(x86_64|aarch64)$/)
  assert.ok(Number.isInteger(ramMib) && ramMib > 100)
  assert.ok(processors >= 1)
})
