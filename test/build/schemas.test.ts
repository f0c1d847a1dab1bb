import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { SCHEMA_NAMES } from '../../src/rules/schema.ts'
import { ROOT } from './built.ts'

const OUT = path.join(ROOT, 'dist', 'azure-proxy-agent')

test('the build leaves the schemas beside the executable, as it prints them itself', () => {
  assert.deepEqual(readdirSync(`${OUT}.schemas`).sort(), SCHEMA_NAMES.map((name) => `${name}.schema.json`).sort())
  for (const name of SCHEMA_NAMES) {
    const { status, stdout, stderr } = spawnSync(OUT, ['rules', 'schema', name], { encoding: 'utf8' })
    assert.equal(status, 0, stderr)
    assert.equal(readFileSync(path.join(`${OUT}.schemas`, `${name}.schema.json`), 'utf8'), stdout)
  }
})
