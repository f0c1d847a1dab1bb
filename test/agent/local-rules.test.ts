import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, linkSync, mkdirSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { createDirectoryWatch } from '../../src/agent/directory-watch.ts'
import { createLocalRulesFile } from '../../src/agent/local-rules.ts'
import { systemClock } from '../../src/base/clock.ts'
import { createFakeLog } from '../fakes/log.ts'
import { temporaryFolder } from '../fakes/temporary-folder.ts'

const GOOD = '{"id": "mine", "defaultAccess": "deny"}'

/** A clock whose sleeps end at once and are counted; `during` runs inside the first. */
function impatientClock(during = () => {}) {
  const sleeps: number[] = []
  const sleep = async (ms: number) => {
    if (sleeps.push(ms) === 1) during()
  }
  return { ...systemClock, sleep, sleeps }
}

function scene(t: TestContext, during?: (path: string) => void) {
  const directory = join(temporaryFolder(t), 'rules')
  mkdirSync(directory, { mode: 0o700 })
  const path = join(directory, 'IMDS_Rules.json')
  const log = createFakeLog()
  const clock = impatientClock(() => during?.(path))
  const ownerUid = process.getuid?.() ?? 0
  const file = createLocalRulesFile({ title: 'IMDS', path, log, clock, ownerUid })
  const write = (text: string | Buffer, mode = 0o600) => {
    writeFileSync(path, text)
    chmodSync(path, mode)
  }
  /** Looks, and says what was told meanwhile. */
  const look = async (isOn = true) => {
    log.lines.length = 0
    const outcome = await file.look(isOn)
    return { outcome, told: log.lines.map((line) => line.replaceAll(directory, 'D')) }
  }
  return { directory, path, write, look, clock, ownerUid }
}

const ENABLED = 'Warn IMDS local file rules enabled.'
const FOUND = 'Warn IMDS local rules file found at D/IMDS_Rules.json.'
const CHANGED = 'Warn IMDS local rules file changed at D/IMDS_Rules.json.'
const GONE = 'Warn IMDS local rules file deleted or not found at D/IMDS_Rules.json.'
const PARSED = "Info Successfully parsed IMDS local rules file D/IMDS_Rules.json with id 'mine' on attempt 1."
const FAILED = 'Error Failed to parse IMDS local rules file D/IMDS_Rules.json: '

test('look() touches nothing while the switch is off', async (t) => {
  const { write, look } = scene(t)
  write('nonsense')
  assert.deepEqual(await look(false), { outcome: undefined, told: [] })
})

test('look() tells the life of a file: missing, found, unchanged, changed, gone, found again', async (t) => {
  const { write, look, path } = scene(t)
  assert.deepEqual(await look(), { outcome: undefined, told: [ENABLED, GONE] })
  assert.deepEqual(await look(), { outcome: undefined, told: [] })
  write(GOOD)
  const mine = { id: 'mine', defaultAccess: 'deny' }
  assert.deepEqual(await look(), { outcome: mine, told: [FOUND, PARSED] })
  assert.deepEqual(await look(), { outcome: mine, told: [] })
  write('{}')
  const [changed, parsed, ...rest] = (await look()).told
  assert.deepEqual([changed, rest], [CHANGED, []])
  assert.match(parsed ?? '', /with id 'unknown' on attempt 1\.$/)
  rmSync(path)
  assert.deepEqual(await look(), { outcome: undefined, told: [GONE] })
  write(GOOD)
  assert.deepEqual((await look()).told, [FOUND, PARSED])
})

test('look() forgets the file when the switch goes off', async (t) => {
  const { write, look } = scene(t)
  write(GOOD)
  await look()
  assert.deepEqual(await look(false), { outcome: undefined, told: ['Warn IMDS local file rules disabled.'] })
  assert.deepEqual((await look()).told, [ENABLED, FOUND, PARSED])
})

test('look() sees a file of the same size and time that took the place of another', async (t) => {
  const { directory, path, write, look } = scene(t)
  write(GOOD)
  utimesSync(path, 1000, 1000)
  await look()
  const next = join(directory, 'next')
  writeFileSync(next, GOOD.replace('mine', 'mime'), { mode: 0o600 })
  utimesSync(next, 1000, 1000)
  renameSync(next, path)
  assert.deepEqual((await look()).outcome, { id: 'mime', defaultAccess: 'deny' })
})

test('look() tries a file that is no JSON three times, 50 ms apart, then fails closed at every look', async (t) => {
  const { write, look, clock } = scene(t)
  write('{\n  "id": oops\n}')
  const last = 'a value is expected at line 2, column 9'
  const failed = `${FAILED}Failed to parse local rules file 'D/IMDS_Rules.json' after 3 attempts: ${last} is invalid. Apply fail-closed rules. D/IMDS_Rules.json:2:9: Write the file as one JSON object.`
  assert.deepEqual(await look(), { outcome: 'fail-closed', told: [ENABLED, FOUND, failed] })
  assert.deepEqual(clock.sleeps, [50, 50])
  assert.deepEqual(await look(), { outcome: 'fail-closed', told: [failed] })
  write(GOOD)
  assert.deepEqual((await look()).told, [CHANGED, PARSED])
})

test('look() takes a file that was being written at the first attempt', async (t) => {
  const { write, look } = scene(t, (path) => writeFileSync(path, GOOD))
  write('')
  const { outcome, told } = await look()
  assert.deepEqual(outcome, { id: 'mine', defaultAccess: 'deny' })
  assert.equal(told.at(-1), PARSED.replace('attempt 1', 'attempt 2'))
})

test('look() gives a file that contradicts itself one attempt', async (t) => {
  const { write, look, clock } = scene(t)
  write('{"id": ""}')
  const { outcome, told } = await look()
  assert.equal(outcome, 'fail-closed')
  assert.equal(
    told.at(-1),
    `${FAILED}local rules id cannot be empty when provided is invalid. Apply fail-closed rules. D/IMDS_Rules.json:1:8: Name the file in id, or leave id out.`,
  )
  assert.deepEqual(clock.sleeps, [])
})

for (const [situation, arrange, reason] of [
  ['a link', (path: string) => symlinkSync('/etc/hostname', path), /: it is a link, which is not followed\. Apply/],
  ['a link to nothing', (path: string) => symlinkSync('/nowhere', path), /: it is a link/],
  [
    'a FIFO nobody writes to',
    (path: string) => execFileSync('mkfifo', ['-m', '600', path]),
    /: it is not a regular file\. Apply/,
  ],
  ['a directory', (path: string) => mkdirSync(path), /: it is not a regular file\. Apply/],
  ['a file that its group can write', (path: string) => writeWithMode(path, 0o620), /mode 0620.* Run: chmod go-w D/],
  ['a file that everybody can write', (path: string) => writeWithMode(path, 0o602), /mode 0602, others than its owner/],
  [
    'a file beyond the limit',
    (path: string) => writeFileSync(path, `${GOOD}${' '.repeat(1024 * 1024)}`),
    /limit is 1048576/,
  ],
  [
    'bytes that are no UTF-8',
    (path: string) => writeFileSync(path, Buffer.from([0x22, 0xff, 0x22])),
    /after 3 attempts/,
  ],
] as const) {
  test(`look() fails closed on ${situation}`, async (t) => {
    const { path, look } = scene(t)
    arrange(path)
    const { outcome, told } = await look()
    assert.equal(outcome, 'fail-closed')
    assert.match(told.at(-1) ?? '', reason)
    assert.equal((await look()).outcome, 'fail-closed', 'and stays closed')
  })
}

function writeWithMode(path: string, mode: number): void {
  writeFileSync(path, GOOD)
  chmodSync(path, mode)
}

test('look() fails closed on a file, or a directory, of another owner', async (t) => {
  const { path, write, clock, ownerUid } = scene(t)
  write(GOOD)
  const log = createFakeLog()
  const file = createLocalRulesFile({ title: 'IMDS', path, log, clock, ownerUid: ownerUid + 1 })
  assert.equal(await file.look(true), 'fail-closed')
  assert.match(log.lines.at(-1) ?? '', /belongs to uid \d+, not to uid \d+/)
})

test('look() fails closed in a directory that others can write, and recovers when it is mended', async (t) => {
  const { directory, write, look } = scene(t)
  write(GOOD)
  chmodSync(directory, 0o777)
  assert.equal((await look()).outcome, 'fail-closed')
  chmodSync(directory, 0o700)
  assert.deepEqual((await look()).outcome, { id: 'mine', defaultAccess: 'deny' })
})

test('look() fails closed when it cannot be said whether there is a file, and tells it in two lines', async (t) => {
  const { directory, look, write } = scene(t)
  rmSync(directory, { recursive: true })
  symlinkSync(directory, directory)
  // The directory is a link to itself: its own metadata can be had, those of the file in it cannot.
  const { outcome, told } = await look()
  assert.equal(outcome, 'fail-closed')
  const reason = 'Unexpected error reading local rules file metadata: Too many symbolic links encountered (os error 40)'
  assert.deepEqual(told.slice(1), [
    `Error IMDS local rules file metadata read failed at D/IMDS_Rules.json: ${reason}`,
    `Error Failed to read IMDS local rules file metadata D/IMDS_Rules.json: ${reason}. Treat it as parse failure and apply fail-closed rules.`,
  ])
  assert.equal((await look()).told.length, 1, 'the state is told once, the failure each time')
  rmSync(directory)
  mkdirSync(directory, { mode: 0o700 })
  write(GOOD)
  assert.deepEqual((await look()).told, [PARSED], 'from the error to a file nothing but the reading is told')
})

test('createDirectoryWatch() tells changes of the names it was given, also after the directory was replaced', async (t) => {
  const { directory, path, write } = scene(t)
  let changes = 0
  const log = createFakeLog()
  const watch = createDirectoryWatch({
    directory,
    names: ['IMDS_Rules.json'],
    clock: systemClock,
    log,
    onChange: () => {
      changes += 1
    },
  })
  t.after(() => watch.close())
  const awaitChange = async (what: string, act: () => void) => {
    const before = changes
    act()
    for (let i = 0; i < 200 && changes === before; i++) await systemClock.sleep(10)
    assert.ok(changes > before, what)
    await systemClock.sleep(150)
  }
  await watch.ensure()
  await awaitChange('a file appears', () => write(GOOD))
  await awaitChange('its mode changes', () => chmodSync(path, 0o644))
  await awaitChange('it goes', () => rmSync(path))

  const before = changes
  writeFileSync(join(directory, '.IMDS_Rules.json.swp'), 'x')
  linkSync(join(directory, '.IMDS_Rules.json.swp'), join(directory, 'x~'))
  await systemClock.sleep(150)
  assert.equal(changes, before, 'what an editor leaves')

  await awaitChange('the directory is replaced', () => {
    renameSync(directory, `${directory}.old`)
    mkdirSync(directory, { mode: 0o700 })
  })
  await awaitChange('a file appears in the new one', () => write(GOOD))
  rmSync(directory, { recursive: true })
  await watch.ensure()
  await watch.ensure()
  const complaints = log.lines.filter((line) => line.startsWith('Warn Changes in '))
  assert.equal(complaints.length, 1, 'a directory that is not there is told once')
})
