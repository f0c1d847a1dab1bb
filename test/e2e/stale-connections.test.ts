/** Connections to the host from before the agent came: told, and ended where the configuration says so. */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { reasonToSkip, SLOWNESS } from '../kernel/lab.ts'
import { startAttack } from './attacks/attacker.ts'
import { NOBODY } from './attacks/stage.ts'
import { createMachine, waitFor } from './machine.ts'

/** A host that enforces refuses what is not signed, so there nobody would be served around the agent. */
const AUDIT = { defaultAccess: 'allow', mode: 'audit', id: 'audit' } as const
const RULES = { wireserver: AUDIT, imds: AUDIT }

const skip = reasonToSkip() ?? false

describe('a connection from before the agent started', { skip, timeout: 60_000 * SLOWNESS }, () => {
  for (const row of [
    { what: 'is told', config: {}, second: { status: 200 }, fate: /left as it is/ },
    {
      what: 'is told and ended when closeStaleConnections is on',
      config: { closeStaleConnections: true },
      second: { status: 0, error: 'ECONNABORTED' },
      fate: /: ended$/,
    },
  ]) {
    for (const family of ['4', '6']) {
      test(`${row.what}, family ${family}`, async () => {
        await using machine = await createMachine({ rules: RULES, config: row.config, start: { agent: false } })
        const attacker = startAttack(machine.lab, 'early.py', [family], NOBODY)
        const { port, pid } = await attacker.next()
        attacker.proceed()
        assert.deepEqual(await attacker.next(), { status: 200 })
        machine.startAgent()
        await machine.waitUntilProvisioned()
        const log = () => machine.read('log', 'ProxyAgent.log')
        await waitFor(() => log().includes('from before redirection'), 'the connection to be told', log)
        const lines = log().split('\n')
        const told = lines.filter((line) => line.includes('A connection from before redirection'))
        assert.equal(told.length, 1, 'the agent’s own connections are none of these')
        const who = `168.63.129.16:80 from port ${port}, user id 1000, held by python3 (pid ${pid}): `
        assert.match(told[0] as string, row.fate)
        assert.ok(told[0]?.includes(who), `${told[0]} should include ${who}`)
        attacker.proceed()
        assert.deepEqual(await attacker.next(), row.second)
        attacker.kill()
      })
    }
  }
})
