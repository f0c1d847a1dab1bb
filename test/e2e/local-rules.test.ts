/** Local rules files, as the executable follows them: what an edit changes, and what a file that cannot be used closes. */

import assert from 'node:assert/strict'
import { chmodSync, chownSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, beforeEach, describe, test } from 'node:test'
import { createMachine, type Machine, waitFor } from './machine.ts'

const INSTANCE = 'http://169.254.169.254/metadata/instance?api-version=2021-02-01'
const GOAL_STATE = 'http://168.63.129.16/machine?comp=goalstate'
const HOSTGA = 'http://168.63.129.16:32526/vmSettings'
const USER = { uid: 1000, gid: 1000 }

/**
 * How long an edit may take to count, while the host is asked once a minute. It takes 0.1 s; the rest is for a machine that is
 * busy with other tests.
 */
const AT_ONCE_MS = 5000

const switchedOn = (id: string) => Buffer.from(JSON.stringify({ id, useLocalFileRules: true })).toString('base64')

/** What the host sends: all is allowed, audited only, and local files count. */
const received = (id: string) => ({ defaultAccess: 'allow', mode: 'audit', id: switchedOn(id) }) as const
const ENFORCED = { ...received('imds'), mode: 'enforce' } as const

/** A file by which `userName` alone may read the instance. */
const only = (userName: string) =>
  JSON.stringify({
    id: 'local',
    rules: {
      privileges: [{ name: 'instance', path: '/metadata/instance' }],
      roles: [{ name: 'reader', privileges: ['instance'] }],
      identities: [{ name: 'who', userName }],
      roleAssignments: [{ role: 'reader', identities: ['who'] }],
    },
  })

describe('the executable follows local rules files', () => {
  let machine: Machine
  before(async () => {
    machine = await createMachine({
      rules: { wireserver: received('wireserver'), imds: ENFORCED },
      config: { pollKeyStatusIntervalInSeconds: 60 },
    })
  })
  after(() => machine[Symbol.asyncDispose]())
  beforeEach(async () => {
    rmSync(at('IMDS_Rules.json'), { force: true })
    rmSync(at('WireServer_Rules.json'), { force: true })
    await waitFor(async () => (await ask(INSTANCE)) === 200, 'IMDS to be open', log)
    await waitFor(async () => (await ask(GOAL_STATE)) === 200, 'WireServer to be open', log)
  })

  const at = (name: string) => join(machine.folder, 'rules', name)
  const log = () => machine.read('log', 'ProxyAgent.log')
  const write = (name: string, text: string, mode = 0o600) => {
    writeFileSync(at(name), text, { mode })
    chmodSync(at(name), mode)
  }
  const ask = async (url: string, options = {}) =>
    (await machine.curl(['-H', 'Metadata: true', '-H', 'x-ms-version: 2012-11-30', url], options)).status
  const answers = (url: string, status: number, options = {}) =>
    waitFor(async () => (await ask(url, options)) === status, `${status} from ${url}`, log, AT_ONCE_MS)
  /** Waits for a line that is new since `act` began. */
  const saysAfter = async (act: () => void, line: RegExp) => {
    const told = log().length
    act()
    await waitFor(() => line.test(log().slice(told)), `${line} in the log`, log, AT_ONCE_MS)
  }

  test('a restriction counts as soon as it is written, another one as soon as it takes its place', async () => {
    write('IMDS_Rules.json', only('root'))
    await answers(INSTANCE, 403, USER)
    assert.equal(await ask(INSTANCE), 200)
    writeFileSync(at('next'), only('nobody'), { mode: 0o600 })
    renameSync(at('next'), at('IMDS_Rules.json'))
    await answers(INSTANCE, 403)
  })

  test('a grant counts under a default that denies', async () => {
    write('IMDS_Rules.json', '{"defaultAccess": "deny"}')
    await answers(INSTANCE, 403)
    const name = (await machine.lab.run('id', ['-un'], USER)).stdout.trim() || 'undefined'
    write('IMDS_Rules.json', JSON.stringify({ ...JSON.parse(only(name)), defaultAccess: 'deny' }))
    await answers(INSTANCE, 200, USER)
    assert.equal(await ask(INSTANCE), 403)
  })

  test('a file that goes leaves the rules of the host', async () => {
    write('IMDS_Rules.json', only('nobody'))
    await answers(INSTANCE, 403)
    const gone = /IMDS local rules file deleted or not found at .*\/IMDS_Rules\.json\./
    await saysAfter(() => rmSync(at('IMDS_Rules.json')), gone)
    await answers(INSTANCE, 200)
  })

  test('a bad edit closes WireServer and HostGAPlugin, for root and whatever the mode, until it is mended', async () => {
    write('WireServer_Rules.json', '{"defaultAccess": "allow"}')
    await waitFor(() => /parsed WireServer local rules file/.test(log()), 'the good file', log, AT_ONCE_MS)
    const failed =
      /Failed to parse WireServer local rules file .*: local rules defaultAccess must be 'allow' or 'deny', got 'alow' is invalid\. Apply fail-closed rules\. .*\/WireServer_Rules\.json:2:19: Write allow or deny/
    await saysAfter(() => write('WireServer_Rules.json', '{\n "defaultAccess": "alow"}'), failed)
    await answers(GOAL_STATE, 403)
    assert.equal(await ask(HOSTGA), 403)
    assert.equal(await ask(INSTANCE), 200, 'IMDS has a file of its own')
    write('WireServer_Rules.json', '{"defaultAccess": "allow"}')
    await answers(GOAL_STATE, 200)
    assert.notEqual(await ask(HOSTGA), 403)
  })

  for (const [situation, arrange, line] of [
    ['a link', () => symlinkSync('/etc/hostname', at('IMDS_Rules.json')), /it is a link, which is not followed/],
    ['a file of a user', () => exchange((path) => chownSync(path, 1000, 1000)), /belongs to uid 1000, not to uid 0/],
    ['a file that everybody can write', () => exchange((path) => chmodSync(path, 0o666)), /has mode 0666/],
  ] as const) {
    test(`${situation} closes, and the log says why`, async () => {
      await saysAfter(arrange, line)
      await answers(INSTANCE, 403)
    })
  }
  /** Puts a file that would allow all in place, prepared by `prepare`. */
  const exchange = (prepare: (path: string) => void) => {
    writeFileSync(at('next'), '{"defaultAccess": "allow"}', { mode: 0o600 })
    prepare(at('next'))
    renameSync(at('next'), at('IMDS_Rules.json'))
  }

  test('status shows the ids that the host sent', async () => {
    const { body } = await machine.curl(['-H', 'Metadata: true', 'http://168.63.129.16/gpa-aggregated-status'])
    assert.ok(body.includes(switchedOn('imds')), body)
  })

  test('SIGHUP has the files read again while the host is down', async () => {
    await machine.host.addFault({ path: '/secure-channel/status', fault: { kind: 'status', status: 500 } })
    write('IMDS_Rules.json', '{"id": ""}')
    await answers(INSTANCE, 403)
    // A file that failed is read again, and told again, at every look.
    await saysAfter(() => machine.agent.kill('SIGHUP'), /local rules id cannot be empty when provided is invalid/)
    await waitFor(() => log().includes('status code: 500'), 'the host to be down', log)
    write('IMDS_Rules.json', '{}')
    await answers(INSTANCE, 200)
  })
})
