/** The demo's scene is a test as well: every row must end as it says. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RULES, scene } from '../demo/scene.ts'
import { createMachine } from './machine.ts'

test('the demo scene: real clients are identified, judged, signed or refused', async (t) => {
  await using machine = await createMachine({ rules: RULES })
  for (const row of scene(process.execPath)) {
    await t.test(`${row.who}: ${row.asks}`, async () => {
      const [program, ...args] = row.command
      const { result, requests } = await machine.requestsDuring(() => machine.lab.run(program, args, row.as))
      assert.equal(result.stdout.trim().slice(-3), String(row.status), result.stderr)
      const seen = requests.map((request) => `${request.signature}, ${request.isRoot ? 'root' : 'not root'}`)
      assert.deepEqual(seen, row.hostSaw === 'nothing' ? [] : [`right, ${row.hostSaw}`])
    })
  }
})
