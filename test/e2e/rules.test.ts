/** The host's rules, as the executable applies them to real callers. */

import assert from 'node:assert/strict'
import { copyFileSync, existsSync, readdirSync, realpathSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { createMachine, type Machine, waitFor } from './machine.ts'

const IMDS = 'http://169.254.169.254'
const USER = { uid: 1000, gid: 1000 }

/** A rule set in which only `identity` may read `/metadata/instance`; all else follows `defaultAccess`. */
function only(
  identity: Record<string, string>,
  mode = 'enforce',
  defaultAccess: 'allow' | 'deny' = 'allow',
  id = `rules-${serial++}`,
) {
  return {
    defaultAccess,
    mode,
    id,
    rules: {
      privileges: [{ name: 'p', path: '/metadata/instance', queryParameters: { 'api-version': '2021-02-01' } }],
      roles: [{ name: 'r', privileges: ['p'] }],
      identities: [{ name: 'i', ...identity }],
      roleAssignments: [{ role: 'r', identities: ['i'] }],
    },
  }
}
let serial = 1

const OPEN = { defaultAccess: 'allow', mode: 'enforce', id: 'open' } as const

describe('the executable follows the rules of the host', () => {
  let machine: Machine
  before(async () => {
    machine = await createMachine()
  })
  after(() => machine[Symbol.asyncDispose]())

  /** Sets rules and waits until the agent has them in force. */
  const setImds = async (imds: ReturnType<typeof only>) => {
    await machine.host.setRules({ wireserver: OPEN, imds })
    const log = () => machine.read('log', 'ProxyAgent.log')
    await waitFor(() => log().includes(`to '${imds.id}'`), `rules ${imds.id}`, log)
  }
  const ask = async (options = {}, query = 'api-version=2021-02-01', program = 'curl') => {
    const url = `${IMDS}/metadata/instance?${query}`
    const args = ['--silent', '--output', '/dev/null', '--write-out', '%{http_code}', '-H', 'Metadata: true', url]
    const { stdout, stderr } = await machine.lab.run(program, args, options)
    return stdout === '' ? stderr : Number(stdout)
  }

  test('a privilege is granted by user name, to nobody else', async () => {
    await setImds(only({ userName: 'root' }))
    assert.equal(await ask(), 200)
    assert.equal(await ask(USER), 403)
  })

  test('a request that no privilege names follows the default access', async () => {
    assert.equal(await ask(USER, 'api-version=2018-02-01'), 200)
    await setImds(only({ userName: 'root' }, 'enforce', 'deny'))
    assert.equal(await ask(USER, 'api-version=2018-02-01'), 403)
  })

  test('audit mode carries what it would deny, signed, and counts it', async () => {
    await setImds(only({ userName: 'root' }, 'audit'))
    const { result, requests } = await machine.requestsDuring(() => ask(USER))
    assert.equal(result, 200)
    assert.deepEqual(
      requests.map(({ signature, isRoot }) => ({ signature, isRoot })),
      [{ signature: 'right', isRoot: false }],
    )
    const status = await machine.curl(['-H', 'Metadata: true', 'http://168.63.129.16/gpa-aggregated-status'])
    const { failedAuthenticateSummary } = JSON.parse(status.body) as { failedAuthenticateSummary: { ip: string }[] }
    assert.ok(failedAuthenticateSummary.some(({ ip }) => ip === '169.254.169.254'))
  })

  test('an unknown mode is enforced', async () => {
    await setImds(only({ userName: 'root' }, 'blocking'))
    assert.equal(await ask(USER), 403)
  })

  test('a group is that of the user in the system, and the executable the one that connected', async () => {
    await setImds(only({ groupName: 'root' }))
    assert.equal(await ask(), 200)
    assert.equal(await ask(USER), 403)

    const curl = realpathSync('/usr/bin/curl')
    await setImds(only({ exePath: curl, processName: 'curl' }))
    assert.equal(await ask(USER), 200)
    const copy = join(machine.folder, 'curl')
    copyFileSync(curl, copy)
    assert.equal(await ask({}, undefined, copy), 403, 'a copy of the same program elsewhere')
  })

  test('changed content under the same id takes effect', async () => {
    await setImds(only({ userName: 'root' }, 'enforce', 'allow', 'fixed'))
    assert.equal(await ask(USER), 403)
    await machine.host.setRules({ wireserver: OPEN, imds: only({ groupName: 'nosuch' }, 'disabled', 'allow', 'fixed') })
    await waitFor(async () => (await ask(USER)) === 200, 'the changed rules')
  })

  test('rules that took effect are on disk, for root and its group, in at most five files', async () => {
    const rules = only({ userName: 'root' }, 'audit', 'deny', 'written')
    await setImds(rules)
    const folder = join(machine.folder, 'status')
    const names = () =>
      existsSync(folder) ? readdirSync(folder).filter((name) => /^AuthorizationRules_.*\.json$/.test(name)) : []
    const newest = () => names().sort().at(-1) ?? 'none yet'
    await waitFor(
      () => machine.read('status', newest()).includes('"id": "written'),
      'the rules file',
      () => machine.read('log', 'ProxyAgent.log'),
    )
    assert.match(newest(), /^AuthorizationRules_\d{4}-\d\d-\d\dT\d\d\.\d\d\.\d\d\.\d{3}-\d{19}\.json$/)
    assert.ok(names().length <= 5, names().join())
    assert.equal(statSync(join(folder, newest())).mode & 0o777, 0o640)

    const { inputRules, computedRules } = JSON.parse(machine.read('status', newest()))
    assert.deepEqual(Object.keys(inputRules), ['imds', 'wireserver', 'hostga'])
    assert.deepEqual(inputRules.imds.rules, rules.rules)
    assert.deepEqual(inputRules.hostga, OPEN)
    const { id, ...computed } = computedRules.imds
    assert.match(id, /^written/)
    assert.deepEqual(computed, {
      defaultAllowed: false,
      mode: 'Audit',
      privileges: { p: rules.rules.privileges[0] },
      privilegeAssignments: { p: ['i'] },
      identities: { i: { name: 'i', userName: 'root' } },
    })
  })

  test('a rule set whose document is invalid leaves the last good one in force', async () => {
    await setImds(only({ userName: 'root' }))
    await machine.host.addFault({
      path: '/secure-channel/status',
      times: 3,
      fault: { kind: 'patch-json', set: { authorizationRules: { imds: { mode: 7 } } } },
    })
    const log = () => machine.read('log', 'ProxyAgent.log')
    await waitFor(() => log().includes('Failed to get key status - '), 'the complaint', log)
    assert.equal(await ask(USER), 403)
    assert.equal(await ask(), 200)
  })
})

/** No canonical spelling has such a value; the legacy matcher leaves the request to the default access, which allows it. */
const UNCANONICAL = '/metadata/instance?api-version=2018-02-01&x=%zz'

describe('the executable compares matchers as canonicalRequestMode says', () => {
  for (const [mode, status, isTold] of [
    ['off', 200, false],
    ['shadow', 200, true],
    ['enforce', 403, true],
  ] as const) {
    test(`${mode}: ${status}, ${isTold ? 'and' : 'without'} the record of the divergence`, async () => {
      await using machine = await createMachine({ config: { canonicalRequestMode: mode } })
      const rules = only({ userName: 'root' })
      await machine.host.setRules({ wireserver: OPEN, imds: rules })
      const log = () => machine.read('log', 'ProxyAgent.log')
      await waitFor(() => log().includes(`to '${rules.id}'`), `rules ${rules.id}`, log)
      const ask = async (target: string) => {
        const args = ['--silent', '--output', '/dev/null', '--write-out', '%{http_code}', '-H', 'Metadata: true']
        const { stdout } = await machine.lab.run('curl', [...args, IMDS + target], USER)
        return Number(stdout)
      }
      assert.equal(await ask('/metadata/instance?api-version=2021-02-01'), 403)
      assert.equal(await ask('/metadata/instance?api-version=2018-02-01'), 200)
      assert.equal(await ask(UNCANONICAL), status)
      const connections = () => machine.read('log', 'ProxyAgent.Connection.log')
      // Lines are written in order: once this later one is there, an earlier one would be.
      assert.equal(await ask('/metadata/instance?api-version=2021-02-01&x=last'), 403)
      await waitFor(() => connections().includes('&x=last'), 'the last request', connections)
      const record = `CANON_DIVERGENCE mode=${mode} rule_set=${rules.id}-useLocalFileRules-false legacy=allow canon=error:CANON_PCT `
      assert.equal(connections().includes(record), isTold, connections())
      assert.equal(connections().includes('CANON_DIVERGENCE'), isTold)
    })
  }
})
