/**
 * Attacks on identity, as programs of an unprivileged user against the executable: whatever they do to be taken for another,
 * they are taken for themselves or for nobody, and what they ask never reaches the host.
 *
 * The rules let /usr/bin/curl read the metadata and nobody else; WireServer is open to root. `attacks/table.ts` says which
 * weakness of the design each test is about, with those that live in other files.
 */

import assert from 'node:assert/strict'
import { existsSync, readFileSync, realpathSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { PYTHON } from '../kernel/agent.ts'
import { isKernelSince, reasonToSkip, SLOWNESS } from '../kernel/lab.ts'
import { runAttack, startAttack } from './attacks/attacker.ts'
import { NOBODY, sourceOf } from './attacks/stage.ts'
import { createMachine, type Machine, reasonForNoNamespaces, waitFor } from './machine.ts'

const CURL = realpathSync('/usr/bin/curl')
const INSTANCE = ['-H', 'Metadata: true', 'http://169.254.169.254/metadata/instance?api-version=2021-02-01&who=honest']
const GOAL_STATE = 'http://168.63.129.16/machine?comp=goalstate'

const RULES = {
  wireserver: { defaultAccess: 'allow', mode: 'enforce', id: 'open' },
  imds: {
    defaultAccess: 'deny',
    mode: 'enforce',
    id: 'curl-alone',
    rules: {
      privileges: [{ name: 'p', path: '/metadata' }],
      roles: [{ name: 'r', privileges: ['p'] }],
      identities: [{ name: 'i', exePath: CURL }],
      roleAssignments: [{ role: 'r', identities: ['i'] }],
    },
  },
} as const

const skip = reasonToSkip() ?? false
const noNamespaces = reasonForNoNamespaces() ?? false

describe('nobody is taken for another', { skip, timeout: 180_000 * SLOWNESS }, () => {
  let machine: Machine
  before(async () => {
    machine = await createMachine({ rules: RULES })
  })
  after(() => machine[Symbol.asyncDispose]())

  /** What `who` asked and the host saw. */
  const arrived = async (who: string) =>
    (await machine.host.readRequests()).filter(({ target }) => target.includes(`who=${who}`)).length

  test('curl itself is served, to a user and to root', async () => {
    for (const as of [NOBODY, {}]) assert.equal((await machine.curl(INSTANCE, as)).status, 200)
  })

  test('a program that connects and becomes an allowed one is not taken for it', async () => {
    machine.agent.kill('SIGSTOP')
    const attacker = startAttack(machine.lab, 'exec_after_connect.py', [], NOBODY)
    try {
      await attacker.next()
      machine.agent.kill('SIGCONT')
      attacker.proceed()
      assert.deepEqual(await attacker.next(), { status: 403 })
      await machine.toldOf('exec', /The executable is unknown: the process runs another program than when it connected/)
      assert.equal(await arrived('exec'), 0)
    } finally {
      machine.agent.kill('SIGCONT')
      attacker.kill()
    }
  })

  // What a small pid_max gives him who waits, the number of the last pid gives at once.
  const lastPid = '/proc/sys/kernel/ns_last_pid'
  test('an allowed program that got the pid of the one that connected is not taken for it', {
    skip: !existsSync(lastPid) && 'the kernel does not let pids be chosen (CONFIG_CHECKPOINT_RESTORE)',
  }, async () => {
    machine.agent.kill('SIGSTOP')
    const attacker = startAttack(machine.lab, 'reused_pid.py', [], NOBODY)
    try {
      const { child } = (await attacker.next()) as { child: number }
      const heir = await startWithPid(child)
      machine.agent.kill('SIGCONT')
      attacker.proceed()
      assert.deepEqual(await attacker.next(), { status: 403 })
      await machine.toldOf('pid', /The executable is unknown: the process id belongs to another process by now/)
      assert.equal(readFileSync(`/proc/${child}/comm`, 'latin1'), 'curl\n')
      assert.equal(await arrived('pid'), 0)
      heir.kill()
    } finally {
      machine.agent.kill('SIGCONT')
      attacker.kill()
    }
  })

  /** Starts curl, which then waits, as a process with that number. */
  async function startWithPid(pid: number): Promise<{ kill(): void }> {
    const script = `for i in $(seq 100); do echo $(($1 - 1)) > ${lastPid}
      setpriv --reuid=1000 --regid=1000 --clear-groups curl --config "$2" 3<> "$2" & [ $! = $1 ] && break; kill $!; done
      echo $!; wait`
    const fifo = `${machine.folder}/fifo`
    await machine.lab.run('mkfifo', ['-m', '666', fifo])
    await machine.lab.run('chmod', ['711', machine.folder])
    const child = machine.lab.spawn('/bin/sh', ['-c', script, 'sh', String(pid), fifo])
    let said = ''
    child.stdout.on('data', (chunk) => {
      said += chunk
    })
    await waitFor(
      () => said.includes(`${pid}\n`),
      `the pid ${pid}`,
      () => said,
    )
    await waitFor(() => readFileSync(`/proc/${pid}/comm`, 'latin1') === 'curl\n', 'curl to run')
    return { kill: () => child.kill('SIGKILL') }
  }

  test('a connection that a user passes to a process of root stays his', async () => {
    const name = `${machine.lab.netns}-passed`
    const victim = startAttack(machine.lab, 'passed_descriptor.py', ['victim', name], {})
    try {
      await victim.next()
      const attacker = startAttack(machine.lab, 'passed_descriptor.py', ['attack', name], NOBODY)
      assert.deepEqual(await victim.next(), { status: 403, uid: 0 })
      attacker.kill()
      assert.match(await machine.toldOf('passed', /Use claims/), /"userId":1000,/)
      assert.equal(await arrived('passed'), 0)
    } finally {
      victim.kill()
    }
  })

  test('what root left in the queue is not for who connects to the listener from its port', async () => {
    machine.agent.kill('SIGSTOP')
    const port = '41010'
    await machine.lab.run(PYTHON, ['-c', attackSource('heir.py'), 'root', port])
    const attacker = startAttack(machine.lab, 'heir.py', ['attack', port], NOBODY)
    try {
      assert.deepEqual(await attacker.next(), { connected: true })
      machine.agent.kill('SIGCONT')
      attacker.proceed()
      assert.deepEqual(await attacker.next(), { status: 421 })
      assert.equal(await arrived('heir'), 0)
    } finally {
      machine.agent.kill('SIGCONT')
      attacker.kill()
    }
  })

  for (const row of [
    { who: 'a user whose primary group is root', as: { uid: 1000, gid: 0 }, status: 403 },
    { who: 'root with another primary group', as: { uid: 0, gid: 3000 }, status: 200 },
  ]) {
    test(`${row.who} is ${row.status === 200 ? '' : 'not '}root`, async () => {
      assert.equal((await machine.curl([GOAL_STATE], row.as)).status, row.status)
    })
  }

  for (const row of [
    { whose: 'of a user', as: NOBODY },
    { whose: 'that root made for itself', as: {} },
  ]) {
    test(`root of a user namespace ${row.whose} is not root`, { skip: noNamespaces }, async () => {
      const command = 'test $(id -u) = 0 && exec curl -s -o /dev/null -w "%{http_code}" "$0"'
      const args = ['--user', '--map-root-user', '/bin/sh', '-c', command, GOAL_STATE]
      assert.equal((await machine.lab.run('unshare', args, row.as)).stdout, '403')
    })
  }

  test('a false /proc in a mount namespace of his own says nothing to the agent', { skip: noNamespaces }, async () => {
    const script = `mount -t tmpfs none /mnt && mkdir /mnt/self /mnt/$$ && ln -s ${CURL} /mnt/self/exe &&
      ln -s ${CURL} /mnt/$$/exe && cp /proc/self/stat /mnt/$$/stat && mount --bind /mnt /proc && exec ${PYTHON} -c "$0"`
    const source = `${attackSource()}\ntell(exe=os.readlink(f'/proc/{os.getpid()}/exe'), status=ask(socket.create_connection(IMDS), 'proc'))`
    const args = ['--user', '--map-root-user', '--mount', '/bin/sh', '-c', script, source]
    const { stdout, stderr } = await machine.lab.run('unshare', args, NOBODY)
    assert.deepEqual(JSON.parse(stdout || `{"stderr":${JSON.stringify(stderr)}}`), { exe: CURL, status: 403 })
    assert.match(await machine.toldOf('proc', /Use claims/), new RegExp(`"processFullPath":"${realpathSync(PYTHON)}"`))
    assert.equal(await arrived('proc'), 0)
  })

  test('no spelling of the address, and no way to open a connection, goes past the agent', async (t) => {
    const told = await runAttack(machine.lab, 'address_forms.py', [], NOBODY)
    const { compatible, translated, 'no family': noFamily, ...rest } = told
    const { 'family of another socket': otherFamily, multipath, ...redirected } = rest
    // No address of the host, no route to one: nothing left the machine.
    for (const answer of [compatible, translated])
      assert.match(String(answer), /^(ENETUNREACH|EADDRNOTAVAIL|EHOSTUNREACH)$/)
    assert.match(String(otherFamily), /^(EAFNOSUPPORT|EINVAL)$/)
    // Sends on a socket that was not connected.
    assert.equal(noFamily, 'EPIPE')
    assert.deepEqual(redirected, Object.fromEntries(Object.keys(redirected).map((form) => [form, 403])))
    assert.equal(Object.keys(redirected).length, 14)
    if (multipath === 'EPROTONOSUPPORT' && !isKernelSince(6, 1)) t.diagnostic('this kernel has no MPTCP')
    else assert.equal(multipath, 403)
    assert.equal(await arrived('form'), 0)
  })

  test('a listener on the same port in another network namespace catches nobody and lends nobody a record', {
    skip: noNamespaces,
  }, async () => {
    const told = await runAttack(machine.lab, 'foreign_namespace.py', ['41020'], NOBODY)
    assert.deepEqual(told, { caught: 41020, redirected: 403, direct: 421, more: 'EAGAIN' })
    assert.equal(await arrived('namespace'), 0)
  })

  test('20 000 connects push nobody out of the kernel’s table', async () => {
    const attacker = startAttack(machine.lab, 'flush.py', ['20000'], NOBODY)
    const flushing = attacker.next()
    let isOver = false
    void flushing.finally(() => {
      isOver = true
    })
    const answers: number[] = []
    do answers.push((await machine.curl([GOAL_STATE])).status)
    while (!isOver)
    assert.deepEqual(await flushing, { made: 20_000 })
    assert.deepEqual([...new Set(answers)], [200], `of ${answers.length} answers to root`)
  })

  for (const way of ['submit', 'poll'] as const) {
    test(`io_uring connects as who it is for: ${way === 'submit' ? 'by his thread' : 'by a thread of the kernel'}`, async (t) => {
      const { refused, connected, status, pid } = await runAttack(machine.lab, 'ring.py', [way], NOBODY)
      if (refused !== undefined) return t.skip(`this kernel does not allow io_uring: ${refused}`)
      assert.deepEqual({ connected, status }, { connected: 0, status: 403 })
      const told = await machine.toldOf(`ring-${way}`, /Use claims/)
      const claims = `"userId":1000,.*"processId":${pid},.*"processFullPath":"${realpathSync(PYTHON)}"`
      assert.match(told, new RegExp(claims))
      assert.equal(await arrived('ring'), 0)
    })
  }
})

/** The source of an attack, behind what all of them share. */
function attackSource(script?: string): string {
  return sourceOf('common.py') + (script === undefined ? '' : sourceOf(script))
}
