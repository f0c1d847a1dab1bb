/** A name service that never answers, as a directory server that is gone, in front of the executable. */

import assert from 'node:assert/strict'
import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { reasonToSkip, SLOWNESS } from '../kernel/lab.ts'
import { AGENT_UNDER_TEST, createMachine, type Machine, waitFor } from './machine.ts'

/** Not in the file of any machine. */
const REMOTE_USERS = [424_242, 424_243, 424_244, 424_245, 424_246, 424_247]
const INSTANCE = ['-H', 'Metadata: true', 'http://169.254.169.254/metadata/instance?api-version=2021-02-01']

/** An executable that starts the agent where getent is a program that sleeps, and says which users it was asked for. */
function withHangingGetent(machine: Machine): string {
  const write = (name: string, script: string) => {
    const path = join(machine.folder, name)
    writeFileSync(path, `#!/bin/sh\n${script}\n`)
    chmodSync(path, 0o755)
    return path
  }
  const getent = write('getent', `echo "$@" >> ${join(machine.folder, 'asked')}\nexec sleep 60`)
  const inside = `mount --bind ${getent} /usr/bin/getent && exec "$0" "$@"`
  return write('agent', `exec unshare --mount /bin/sh -c '${inside}' ${AGENT_UNDER_TEST} "$@"`)
}

test('a name service that hangs makes nobody wait but those whom it alone knows', {
  skip: reasonToSkip() ?? false,
  timeout: 60_000 * SLOWNESS,
}, async () => {
  await using machine = await createMachine({ start: { agent: false } })
  machine.startAgent([], {}, withHangingGetent(machine))
  await machine.waitUntilProvisioned()
  let answered = 0
  const remote = REMOTE_USERS.map(async (uid) => {
    const { status } = await machine.curl(INSTANCE, { uid, gid: uid })
    answered++
    return status
  })
  const asked = () => machine.read('asked').split('\n').filter(Boolean)
  await waitFor(
    () => asked().length === 4,
    'four users to be asked for',
    () => machine.read('asked'),
  )
  const local = await Promise.all([{}, { uid: 33, gid: 33 }].map((as) => machine.curl(INSTANCE, as)))
  assert.deepEqual(
    local.map(({ status }) => status),
    [200, 200],
  )
  // An emulated machine takes longer to ask than a name service is waited for.
  if (SLOWNESS === 1) assert.deepEqual([answered, asked().length], [0, 4], 'local users were answered first')
  // Those are users without a name then, and served as such.
  assert.deepEqual(await Promise.all(remote), [200, 200, 200, 200, 200, 200])
  const log = () => machine.read('log', 'ProxyAgent.Connection.log')
  await waitFor(() => log().includes('"userId":424247,"userName":"undefined"'), 'the claims', log)
})
