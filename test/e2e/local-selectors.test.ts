/** Selectors of local rules, against the executable: where a caller runs, and what its program is to the bit. */

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { chmodSync, chownSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { reasonToSkip, SLOWNESS } from '../kernel/lab.ts'
import { startAttack } from './attacks/attacker.ts'
import { NOBODY } from './attacks/stage.ts'
import { createMachine, type Machine, reasonForNoNamespaces, waitFor } from './machine.ts'

const INSTANCE = ['-H', 'Metadata: true', 'http://169.254.169.254/metadata/instance?api-version=2021-02-01&who=local']
const CONTAINER = '0123456789abcdef'.repeat(4)
const SWITCHED_ON = Buffer.from(JSON.stringify({ id: 'on', useLocalFileRules: true })).toString('base64')

const skip = reasonToSkip() ?? false

describe('local rules can ask', { skip, timeout: 120_000 * SLOWNESS }, () => {
  let machine: Machine
  /** Path of the lab's cgroup from the root of the tree. */
  let top: string
  before(async () => {
    machine = await createMachine({
      rules: {
        wireserver: { defaultAccess: 'allow', mode: 'enforce', id: 'open' },
        imds: { defaultAccess: 'deny', mode: 'enforce', id: SWITCHED_ON },
      },
      config: { pollKeyStatusIntervalInSeconds: 60 },
    })
    top = machine.lab.cgroup.slice(machine.lab.cgroup.lastIndexOf('/'))
    chmodSync(machine.folder, 0o711)
  })
  after(() => machine[Symbol.asyncDispose]())

  /** Lets whom `identity` describes read the instance, and nobody else. */
  const allow = async (identity: object, id: string) => {
    const rules = {
      privileges: [{ name: 'p', path: '/metadata/' }],
      roles: [{ name: 'r', privileges: ['p'] }],
      identities: [{ name: 'i', ...identity }],
      roleAssignments: [{ role: 'r', identities: ['i'] }],
    }
    writeFileSync(join(machine.folder, 'rules', 'IMDS_Rules.json'), JSON.stringify({ id, rules }), { mode: 0o600 })
    const log = () => machine.read('log', 'ProxyAgent.log')
    const inForce = new RegExp(`with id '${id}' on attempt[^]*Rules of epoch \\d+ are in force`)
    await waitFor(() => inForce.test(log()), `the rules ${id}`, log)
  }
  const ask = async (program: string, cgroup = '') => {
    const script =
      'if [ -n "$1" ]; then echo $$ > "$1/cgroup.procs" || exit 1; fi; shift; exec setpriv --reuid=1000 --regid=1000 --clear-groups "$@"'
    const args = ['-c', script, 'sh', cgroup, program, '-s', '-o', '/dev/null', '-w', '%{http_code}', ...INSTANCE]
    return (await machine.lab.run('/bin/sh', args)).stdout
  }
  /** Waits for claims in the log. */
  const untilLogged = (claims: RegExp) => {
    const log = () => machine.read('log', 'ProxyAgent.Connection.log')
    return waitFor(() => claims.test(log()), `claims like ${claims}`, log)
  }
  const below = (name: string) => {
    const path = join(machine.lab.cgroup, name)
    mkdirSync(path)
    return path
  }

  test('for a cgroup: those in it and below it, and nobody beside it', async () => {
    const [web, webb] = [below('web'), below('webb')]
    const worker = below('web/worker')
    await allow({ cgroupPath: `${top}/web` }, 'cgroup')
    assert.deepEqual(await Promise.all([web, worker, webb, ''].map((cgroup) => ask('curl', cgroup))), [
      '200',
      '200',
      '403',
      '403',
    ])
    await untilLogged(/"cgroupPath":"[^"]*\/worker","containerId":"","foreignNamespaces":\[\]/)
  })

  test('for a container: the one that root made, not one that a user called so', async () => {
    const real = below(`docker-${CONTAINER}.scope`)
    below('his')
    const his = below(`his/docker-${CONTAINER}.scope`)
    for (const path of [join(machine.lab.cgroup, 'his'), his]) chownSync(path, 1000, 1000)
    await allow({ containerId: CONTAINER.toUpperCase() }, 'container')
    assert.deepEqual(await Promise.all([real, his, ''].map((cgroup) => ask('curl', cgroup))), ['200', '403', '403'])
    await untilLogged(/"containerId":"0123456789ab"/)
  })

  test('for the content of a program: wherever it lies, as long as it is the same to the bit', async () => {
    const copy = join(machine.folder, 'copy')
    const other = join(machine.folder, 'other')
    for (const path of [copy, other]) copyFileSync('/usr/bin/curl', path)
    writeFileSync(other, Buffer.concat([readFileSync(other), Buffer.from([0])]))
    for (const path of [copy, other]) chmodSync(path, 0o755)
    const sha256 = createHash('sha256').update(readFileSync('/usr/bin/curl')).digest('hex')
    await allow({ exeSha256: sha256 }, 'hash')
    assert.deepEqual(await Promise.all(['/usr/bin/curl', copy, other].map((program) => ask(program))), [
      '200',
      '200',
      '403',
    ])
    assert.equal(await ask(copy), '200', 'remembered')
  })

  test('and are not deceived by a file that is written over after the connect', async () => {
    const sha256 = createHash('sha256').update(readFileSync('/usr/bin/curl')).digest('hex')
    await allow({ exeSha256: sha256 }, 'rewritten')
    const folder = join(machine.folder, 'his')
    mkdirSync(folder)
    chownSync(folder, 1000, 1000)
    machine.agent.kill('SIGSTOP')
    const attacker = startAttack(machine.lab, 'rewritten.py', [folder, '/usr/bin/curl'], NOBODY)
    try {
      const { child } = await attacker.next()
      machine.agent.kill('SIGCONT')
      attacker.proceed()
      assert.deepEqual(await attacker.next(), { status: 403 })
      // It was the recorded process, and the recorded file, and the allowed content by then.
      assert.equal(
        createHash('sha256')
          .update(readFileSync(`/proc/${child}/exe`))
          .digest('hex'),
        sha256,
      )
      await untilLogged(new RegExp(`"processId":${child},.*"processFullPath":"${folder}/mine"`))
    } finally {
      machine.agent.kill('SIGCONT')
      attacker.kill()
    }
  })

  test('what a user in namespaces of his own is shown by', { skip: reasonForNoNamespaces() ?? false }, async () => {
    const args = ['--user', '--map-root-user', '--mount', 'curl', '-s', '-o', '/dev/null', ...INSTANCE]
    await machine.lab.run('unshare', args, NOBODY)
    // That of mounts is only told apart where process 1 may be looked at.
    await untilLogged(/"foreignNamespaces":\[("mount",)?"user"\]/)
  })
})
