import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { run, runProcess } from './rules-commands.ts'

const ALICE = ['--endpoint', 'imds', '--user', 'alice', '--exe', '/usr/bin/curl']

function explainJson(file: string, caller: readonly string[], target: string, ...options: string[]) {
  const { status, stdout } = run(['explain', '--json', '--rules', file, ...caller, ...options, 'GET', target])
  assert.equal(status, 0)
  return JSON.parse(stdout)
}

describe('rules explain', () => {
  test('as a process, prints the decision and both matchers within 80 columns', () => {
    const { status, stdout, stderr } = runProcess(
      'explain',
      '--rules',
      'item-sound.json',
      ...ALICE,
      'GET',
      '/metadata/instance/x',
    )
    assert.deepEqual([status, stderr], [0, ''])
    assert.match(stdout, /^verdict {4}ok: privilege "instance" is granted to identity "alice" by role\n {11}"reader"/)
    assert.match(stdout, /^legacy {5}allows: /m)
    assert.match(stdout, /^canonical {2}allows: /m)
    assert.deepEqual(
      stdout.split('\n').filter((line) => line.length > 80),
      [],
    )
  })

  test('--json names the privilege, the role and the identity of a grant', () => {
    const { verdict, privilege, role, identity, canonical } = explainJson(
      'item-sound.json',
      ALICE,
      '/metadata/instance/x',
    )
    const grant = { privilege: 'instance', role: 'reader', identity: 'alice' }
    assert.deepEqual({ verdict, privilege, role, identity }, { verdict: 'ok', ...grant })
    assert.deepEqual(canonical, { allowed: true, reason: { kind: 'granted', ...grant } })
  })

  test('--json names the privilege that matches and is not granted', () => {
    const bob = ['--endpoint', 'imds', '--user', 'bob']
    const { verdict, privilege, role, identity, reason } = explainJson('item-sound.json', bob, '/metadata/instance/x')
    assert.deepEqual([verdict, privilege, role, identity], ['forbidden', 'instance', null, null])
    assert.deepEqual(reason, { kind: 'not-granted', privileges: ['instance'] })
  })

  test('takes where a caller runs and what its program is, for the selectors of local rules', () => {
    const HASH = 'AB'.repeat(32)
    const identity = { name: 'web', cgroupPath: '/a', systemdUnit: 'b.service', containerId: HASH, exeSha256: HASH }
    const rules = {
      privileges: [{ name: 'p', path: '/metadata/' }],
      roles: [{ name: 'r', privileges: ['p'] }],
      identities: [identity],
      roleAssignments: [{ role: 'r', identities: ['web'] }],
    }
    const ask = (...options: string[]) => {
      const words = [
        'explain',
        '--rules',
        'f.json',
        '--endpoint',
        'imds',
        '--user',
        'bob',
        ...options,
        'GET',
        '/metadata/x',
      ]
      return run(words, { 'f.json': JSON.stringify({ rules }) }).stdout
    }
    const all = ['--cgroup', '/a/b', '--unit', 'b.service', '--container', HASH, '--sha256', HASH.toLowerCase()]
    assert.match(ask(...all), /^verdict {4}ok: /)
    assert.match(ask(...all).replaceAll(/\n +/g, ' '), /cgroup \/a\/b; unit b\.service; container abab/)
    for (let i = 0; i < all.length; i += 2) assert.match(ask(...all.toSpliced(i, 2)), /^verdict {4}forbidden: /)
  })

  test('--json gives the code of a request without canonical form, which denies in enforce alone', () => {
    const target = '/metadata/instance/x%3Fy'
    for (const [mode, verdict] of [
      ['off', 'ok'],
      ['shadow', 'ok'],
      ['enforce', 'forbidden'],
    ] as const) {
      const found = explainJson('item-sound.json', ALICE, target, '--canonical', mode)
      assert.equal(found.verdict, verdict, mode)
      assert.deepEqual(found.canonical, { error: 'CANON_EMBQ' }, mode)
      assert.equal(found.legacy.allowed, true)
    }
  })

  test('reads the endpoint of a log, and its mode', () => {
    const { verdict, reason, ruleSet } = explainJson('log.json', ALICE, '/metadata/identity/x')
    assert.equal(verdict, 'audit')
    assert.deepEqual(reason, { kind: 'not-granted', privileges: ['token'] })
    assert.equal(ruleSet, 'imds-1')
  })

  test('says that a log has no rules for an endpoint', () => {
    const caller = ['--endpoint', 'hostga', '--user', 'root', '--elevated']
    const { verdict, canonical, notes } = explainJson('log.json', caller, '/status')
    assert.deepEqual([verdict, canonical], ['ok', null])
    assert.deepEqual(notes, ['The file has no rules for this endpoint.'])
  })

  test('keeps a caller without --elevated from WireServer', () => {
    const { verdict, reason } = explainJson('log.json', ['--endpoint', 'wireserver', '--user', 'root'], '/machine')
    assert.deepEqual([verdict, reason.kind], ['forbidden', 'elevated-only'])
  })

  test('takes a local rules file as if the host enforced, and says so', () => {
    const { verdict, mode, notes } = explainJson('local.json', ALICE, '/metadata/identity/oauth2/token')
    assert.deepEqual([verdict, mode], ['forbidden', 'enforce'])
    assert.match(notes[0], /as if the host sent nothing but the mode enforce/)
  })

  test('says what is odd about a request', () => {
    const notes = (method: string, target: string) => {
      const words = ['explain', '--json', '--rules', 'item-sound.json', ...ALICE, method, target]
      return JSON.parse(run(words).stdout).notes
    }
    assert.deepEqual(notes('get', '/metadata'), [
      'The service refuses this method before it asks the rules: it takes GET, POST, PUT, DELETE, HEAD, OPTIONS, PATCH, in capitals.',
    ])
    assert.deepEqual(notes('GET', 'metadata/instance'), [
      "The target does not begin with a slash: 'metadata' is read as a host.",
    ])
    for (const target of ['/metadata', '*', 'http://169.254.169.254', 'HTTP://x/y'])
      assert.deepEqual(notes('GET', target), [])
  })

  test('exits with 1 and names the place when the rules cannot be used', () => {
    const files = { 'bad.json': '{\n  "mode": "enforce",\n  "mode": "audit"\n}' }
    const { status, stdout, stderr } = run(['explain', '--rules', 'bad.json', ...ALICE, 'GET', '/'], files)
    assert.deepEqual([status, stdout], [1, ''])
    assert.match(stderr, /^bad\.json:3:3: error: member 'mode' stands twice in one object \(duplicate-member\)\n/)
  })

  test('--json gives the fault of rules that cannot be used as well, to explain and to test', () => {
    const files = {
      'bad.json': '{\n  "mode": "enforce",\n  "mode": "audit"\n}',
      't.json': '{"rules": "bad.json",\n "cases": 5}',
    }
    const explained = run(['explain', '--json', '--rules', 'bad.json', ...ALICE, 'GET', '/'], files)
    assert.equal(explained.status, 1)
    assert.deepEqual(JSON.parse(explained.stdout), {
      error: {
        code: 'duplicate-member',
        message: "member 'mode' stands twice in one object",
        hint: 'Keep one of the two members.',
        file: 'bad.json',
        line: 3,
        column: 3,
      },
    })
    const tested = run(['test', '--json', 't.json'], files)
    const { error } = JSON.parse(tested.stdout)
    assert.deepEqual([tested.status, error.file, error.line, error.code], [1, 't.json', 2, 'shape'])
  })
})
