/** The agreement with the host, on the executable: key, restarts, both protocols, a host that comes late. */

import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { AGENT_UNDER_TEST, createMachine, type Machine, waitFor } from './machine.ts'

const GOAL_STATE = 'http://168.63.129.16/machine?comp=goalstate'
const INSTANCE = 'http://169.254.169.254/metadata/instance?api-version=2021-02-01'

const MARK = 'x-ms-azure-host-authorization'

/** Waits until a request of root passes with a right signature. */
async function waitUntilSigned(machine: Machine): Promise<void> {
  const isSigned = async () => {
    const { requests } = await machine.requestsDuring(() => machine.curl([GOAL_STATE]))
    return requests[0]?.signature === 'right'
  }
  await waitFor(isSigned, 'a signed request', () => machine.agent.output())
}

function modeOf(path: string): string {
  return (statSync(path).mode & 0o7777).toString(8)
}

describe('the executable and its key', () => {
  test('latches a key and keeps it in a file that only root can read', async () => {
    await using machine = await createMachine()
    const { latchedGuid } = await machine.host.readState()
    const keys = join(machine.folder, 'keys')
    assert.equal(modeOf(keys), '700')
    assert.deepEqual(readdirSync(keys).sort(), [`${latchedGuid}.key`, 'provisioned.tag', 'status.tag'].sort())
    for (const name of readdirSync(keys)) assert.equal(modeOf(join(keys, name)), '600', name)
    assert.equal(modeOf(join(machine.folder, 'rules')), '700')
    const key = JSON.parse(machine.read('keys', `${latchedGuid}.key`)) as Record<string, unknown>
    assert.deepEqual(Object.keys(key), ['authorizationScheme', 'incarnationId', 'guid', 'issued', 'key'])
  })

  test('finds its key again after a restart, without asking the host for another', async () => {
    await using machine = await createMachine()
    const { latchedGuid } = await machine.host.readState()
    machine.agent.kill('SIGKILL')
    await machine.agent.ended
    await machine.host.clearRequests()
    machine.startAgent()
    await machine.waitUntilProvisioned()
    await waitUntilSigned(machine)
    assert.match(machine.agent.output(), /Found key details from local and ready to use\./)
    assert.equal((await machine.host.readState()).latchedGuid, latchedGuid)
    const acquired = (await machine.host.readRequests()).filter(({ target }) => target === '/secure-channel/key')
    assert.deepEqual(acquired, [])
  })

  test('follows a rotation: a new key, the old file gone', async () => {
    await using machine = await createMachine()
    const old = (await machine.host.readState()).latchedGuid
    await machine.host.rotateKey()
    const isNew = async () => {
      const { latchedGuid } = await machine.host.readState()
      return latchedGuid !== undefined && latchedGuid !== old
    }
    await waitFor(isNew, 'a new key', () => machine.agent.output())
    await waitUntilSigned(machine)
    const { latchedGuid } = await machine.host.readState()
    const isRemoved = () => !readdirSync(join(machine.folder, 'keys')).includes(`${old}.key`)
    await waitFor(isRemoved, 'the old key file to go')
    assert.ok(readdirSync(join(machine.folder, 'keys')).includes(`${latchedGuid}.key`))
  })

  test('refuses a key file that is a link, and asks the host instead', async () => {
    await using machine = await createMachine({ start: { agent: false } })
    await machine.host.setChannel({ allowReLatch: true })
    const guid = '4d3c2b1a-0000-4000-8000-00000000000a'
    await machine.host.latchKey({ guid, keyHex: 'AB'.repeat(32) })
    mkdirSync(join(machine.folder, 'keys'), { mode: 0o700 })
    const elsewhere = join(machine.folder, 'elsewhere')
    writeFileSync(elsewhere, 'not a key')
    const { symlinkSync } = await import('node:fs')
    symlinkSync(elsewhere, join(machine.folder, 'keys', `${guid}.key`))
    machine.startAgent()
    await machine.waitUntilProvisioned()
    await waitUntilSigned(machine)
    assert.match(machine.agent.output(), /is a link; links are not followed/)
    assert.notEqual((await machine.host.readState()).latchedGuid, guid)
  })

  test('no key and no signature is in any output, log or status', async () => {
    await using machine = await createMachine()
    await waitUntilSigned(machine)
    await machine.host.rotateKey()
    await machine.curl([INSTANCE, '-H', 'Metadata: true'])
    await waitUntilSigned(machine)
    const { secrets, texts } = await machine.findSecrets()
    assert.ok(secrets.length > 3, 'there were secrets to look for')
    assert.ok(texts.join('').length > 1000, 'and texts to look in')
    // Every machine is searched like that when it is taken down.
  })
})

describe('the executable and what the host says', () => {
  const isGuarded = async (machine: Machine, url: string) =>
    (await machine.curl([url, '-H', 'Metadata: true'])).headers.has(MARK)

  test('protocol 1.0, Wireserver: guards WireServer and HostGAPlugin, audits IMDS', async () => {
    await using machine = await createMachine({ hostArguments: ['--protocol', '1.0', '--level', 'Wireserver'] })
    await waitUntilSigned(machine)
    assert.equal(await isGuarded(machine, INSTANCE), true)
    assert.equal((await machine.curl([GOAL_STATE], { uid: 1000, gid: 1000 })).status, 403)
    assert.equal((await machine.curl([INSTANCE, '-H', 'Metadata: true'], { uid: 1000, gid: 1000 })).status, 200)
  })

  test('a disabled channel redirects nothing, and is provisioned', async () => {
    await using machine = await createMachine({ hostArguments: ['--protocol', '1.0', '--level', 'Disabled'] })
    for (const url of [GOAL_STATE, INSTANCE]) assert.equal(await isGuarded(machine, url), false)
    assert.match(machine.agent.output(), /Customer has not enforce the secure channel state\./)
  })

  test('redirection follows the mode of each endpoint, on and off, without a restart', async () => {
    await using machine = await createMachine()
    const open = (mode: string, id: string) => ({ defaultAccess: 'allow', mode, id }) as const
    assert.equal(await isGuarded(machine, INSTANCE), true)
    await machine.host.setRules({ wireserver: open('enforce', 'w'), imds: open('disabled', 'i1') })
    await waitFor(async () => !(await isGuarded(machine, INSTANCE)), 'IMDS to be left alone')
    assert.equal(await isGuarded(machine, GOAL_STATE), true)
    await machine.host.setRules({ wireserver: open('enforce', 'w'), imds: open('audit', 'i2') })
    await waitFor(() => isGuarded(machine, INSTANCE), 'IMDS to be guarded again')
  })

  test('a host that is not there at first: unprovisioned, then served within two polls of its coming', async () => {
    await using machine = await createMachine({ start: { host: false } })
    const isTrying = () =>
      machine.agent.output().includes('Failed to get key status - Connection refused (os error 111)')
    await waitFor(isTrying, 'the failure to be told', () => machine.agent.output())
    const query = await machine.lab.run(AGENT_UNDER_TEST, ['--status', '--wait', '1'])
    assert.equal(query.code, 1)
    assert.match(query.stdout, /^keyLatchStatus - Failed to get key status - Connection refused/)
    await machine.startHost()
    await machine.waitUntilProvisioned(4000)
    await waitUntilSigned(machine)
  })

  test("signatures carry the host's time, not the guest's", async () => {
    await using machine = await createMachine({ hostArguments: ['--enforce', '--skew=3600000'] })
    const { requests } = await machine.requestsDuring(() => machine.curl([GOAL_STATE]))
    assert.equal(requests[0]?.signature, 'right')
    assert.equal(requests[0]?.date, 'fresh')
  })
})
