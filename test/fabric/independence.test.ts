import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'

/** The host is a witness against the agent: code shared by both would hide a mistake made in it. */
test('the simulated host imports nothing from outside its folder but Node and the argument parser', () => {
  const folder = new URL('.', import.meta.url)
  const foreign: string[] = []
  for (const name of readdirSync(folder).filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'))) {
    const text = readFileSync(new URL(name, folder), 'utf8')
    for (const [, source] of text.matchAll(/(?:\bfrom |^import |\bimport\()'([^']+)'/gm)) {
      if (!/^(node:|\.\/)|^mri$/.test(source!)) foreign.push(`${name}: ${source}`)
    }
  }
  assert.deepEqual(foreign, [])
})
