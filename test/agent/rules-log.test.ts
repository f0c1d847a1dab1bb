import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { createRulesLog } from '../../src/agent/rules-log.ts'
import { compileSnapshot, itemsOf } from '../../src/rules/snapshot.ts'
import { createFakeClock } from '../fakes/clock.ts'
import { createFakeLog } from '../fakes/log.ts'
import { temporaryFolder } from '../fakes/temporary-folder.ts'
import { itemGranting } from '../rules/make.ts'

const NAME = /^AuthorizationRules_\d{4}-\d\d-\d\dT\d\d\.\d\d\.\d\d\.\d{3}-\d{19}\.json$/

function keeper(t: TestContext) {
  const directory = join(temporaryFolder(t), 'log', 'agent')
  const clock = createFakeClock()
  const log = createFakeLog()
  const rulesLog = createRulesLog(directory, clock, log)
  const write = (id: string) => {
    const items = itemsOf({ imds: itemGranting([{ name: 'p', path: '/P' }], undefined, { id }) })
    rulesLog.write(items, compileSnapshot(items, 1).result)
  }
  const ids = () =>
    readdirSync(directory)
      .filter((name) => NAME.test(name))
      .sort()
      .map((name) => JSON.parse(readFileSync(join(directory, name), 'utf8')).inputRules.imds.id)
  return { directory, clock, log, rulesLog, write, ids }
}

const mode = (path: string) => (statSync(path).mode & 0o777).toString(8)

test('write() leaves one indented file for root and its group, named by time', async (t) => {
  const { directory, rulesLog, write } = keeper(t)
  write('first')
  await rulesLog.flush()
  const [name, ...others] = readdirSync(directory)
  assert.equal(name, 'AuthorizationRules_2025-04-23T12.00.00.000-1745409600000000000.json')
  assert.deepEqual(others, [])
  assert.equal(mode(directory), '750')
  assert.equal(mode(join(directory, name)), '640')
  const text = readFileSync(join(directory, name), 'utf8')
  assert.equal(text, JSON.stringify(JSON.parse(text), null, 2))
  assert.deepEqual(Object.keys(JSON.parse(text)), ['inputRules', 'computedRules'])
  assert.equal(JSON.parse(text).computedRules.imds.privileges.p.path, '/p')
})

test('write() keeps the last five, also when the clock stands still or goes back', async (t) => {
  const { clock, rulesLog, write, ids } = keeper(t)
  for (const id of ['1', '2', '3', '4', '5', '6', '7']) {
    write(id)
    await rulesLog.flush()
    if (id === '3') clock.stepWall(1)
    if (id === '5') clock.stepWall(-0.5)
  }
  assert.deepEqual(ids().sort(), ['3', '4', '5', '6', '7'])
})

test('write() keeps the newest also when the clock was ahead in an earlier run', async (t) => {
  const { directory, rulesLog, write } = keeper(t)
  mkdirSync(directory, { recursive: true })
  const ahead = [1n, 2n, 3n, 4n, 5n].map(
    (i) => `AuthorizationRules_2099-01-01T00.00.00.000-${4070908800000000000n + i}.json`,
  )
  for (const name of ahead) writeFileSync(join(directory, name), '{}')
  for (const id of ['1', '2', '3']) {
    write(id)
    await rulesLog.flush()
  }
  const left = readdirSync(directory)
  assert.equal(left.length, 5)
  assert.deepEqual(left.filter((name) => ahead.includes(name)).sort(), ahead.slice(3))
})

test('write() removes nothing but files of its own naming, halves of a killed run among them', async (t) => {
  const { directory, rulesLog, write } = keeper(t)
  const foreign = [
    'AuthorizationRules.json',
    'AuthorizationRules_2020-01-01T00.00.00.000-1.json.bak',
    'ProxyAgent.log',
    'status.json',
    'xAuthorizationRules_2020-01-01T00.00.00.000-1.json',
  ]
  const own = [1, 2, 3, 4, 5, 6].map((ns) => `AuthorizationRules_2020-01-01T00.00.00.${ns}-${ns}.json`)
  mkdirSync(directory, { recursive: true })
  for (const name of [...foreign, ...own, 'AuthorizationRules_2020-01-01T00.00.00-9.tmp']) {
    writeFileSync(join(directory, name), '{}')
  }
  mkdirSync(join(directory, 'AuthorizationRules_2020-01-01T00.00.00.000-0.json'))
  write('new')
  await rulesLog.flush()
  const left = readdirSync(directory)
  for (const name of [...foreign, 'AuthorizationRules_2020-01-01T00.00.00.000-0.json'])
    assert.ok(left.includes(name), name)
  assert.deepEqual(left.filter((name) => own.includes(name)).sort(), own.slice(2))
  assert.equal(left.length, foreign.length + 1 + 4 + 1)
})

test('write() counts all files that bear the name, those without a number as the oldest', async (t) => {
  const { directory, rulesLog, write, ids } = keeper(t)
  mkdirSync(directory, { recursive: true })
  for (const name of ['a', 'b', 'c', 'd', 'e', ''])
    writeFileSync(join(directory, `AuthorizationRules_${name}.json`), '{}')
  write('1')
  await rulesLog.flush()
  assert.deepEqual(
    readdirSync(directory)
      .filter((name) => !NAME.test(name))
      .sort(),
    ['b', 'c', 'd', 'e'].map((name) => `AuthorizationRules_${name}.json`),
  )
  for (const id of ['2', '3', '4', '5']) {
    write(id)
    await rulesLog.flush()
  }
  assert.deepEqual(ids(), ['1', '2', '3', '4', '5'])
  assert.equal(readdirSync(directory).length, 5)
})

test('write() does not queue: what is overtaken before its turn is left out, the newest is written', async (t) => {
  const { rulesLog, write, ids } = keeper(t)
  for (let id = 0; id < 1000; id++) write(`${id}`)
  await rulesLog.flush()
  assert.deepEqual(ids(), ['999'])
  write('a')
  await Promise.resolve()
  for (const id of ['b', 'c', 'd']) write(id)
  await rulesLog.flush()
  assert.deepEqual(ids(), ['999', 'a', 'd'])
})

test('write() tells a failure once, and the next one after a success', async (t) => {
  const { directory, log, rulesLog, write, ids } = keeper(t)
  const fail = async (id: string) => {
    write(id)
    await rulesLog.flush()
  }
  mkdirSync(join(directory, '..'), { recursive: true })
  writeFileSync(directory, 'a file where the folder should be')
  await fail('1')
  await fail('2')
  assert.equal(log.lines.length, 1)
  assert.match(String(log.lines[0]), /^Error Cannot write the rules of epoch 1 to .*: .*(ENOTDIR|EEXIST)/)
  rmSync(directory)
  await fail('3')
  assert.deepEqual(ids(), ['3'])
  rmSync(directory, { recursive: true })
  writeFileSync(directory, '')
  await fail('4')
  assert.equal(log.lines.length, 2)
})

test('flush() resolves when there is nothing to wait for', async (t) => {
  await keeper(t).rulesLog.flush()
})
