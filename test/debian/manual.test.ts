import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import {
  namesIn,
  readCommands,
  readOptions,
  readTable,
  renderCompletion,
  renderConfigPage,
  renderProgramPage,
  toRoff,
} from '../../debian/manual.ts'
import { parseArguments, USAGE } from '../../src/cli/arguments.ts'
import { RULES_USAGE } from '../../src/cli/rules-arguments.ts'
import { KEYS, parseConfig } from '../../src/config/config.ts'

const ROOT = dirname(dirname(import.meta.dirname))

const OPTION_NAMES = readTable(['Option', 'Meaning']).flatMap(([cell]) => namesIn(cell!))

test('README tells of the options that --help tells of, and the page of both', () => {
  const words = OPTION_NAMES.flatMap((name) => name.split(' ')).filter((word) => word.startsWith('-'))
  assert.deepEqual(words.sort(), readOptions(USAGE).sort())
  const page = renderProgramPage()
  for (const option of readOptions(USAGE)) assert.ok(page.includes(toRoff(option)), option)
})

test('README tells of the commands that --help tells of, and each is one', () => {
  const commands = OPTION_NAMES.map((name) => name.split(' ')[0]!).filter((word) => !word.startsWith('-'))
  assert.deepEqual(commands.sort(), readCommands(USAGE).sort())
  for (const command of commands) {
    const parsed = parseArguments([command])
    assert.ok(parsed.kind !== 'usage-error' || !parsed.reason.includes('unexpected'), command)
  }
})

test('README, the page and --help name the same exit statuses', () => {
  const statuses = readTable(['Exit status', 'Meaning']).map(([status]) => status!)
  const helped = /Exit status:\n([\s\S]*)$/.exec(USAGE)![1]!
  for (const status of statuses) {
    assert.match(helped, new RegExp(`(^|\\s)${status}\\s`), status)
    assert.match(renderProgramPage(), new RegExp(`^\\.TP\n${status}\n`, 'm'), status)
  }
})

test('README and the page name every configuration key that is read, with its kind and default', () => {
  const rows = readTable(['Key', 'Default', 'Meaning'])
  const documented = rows.flatMap(([cell]) => namesIn(cell!))
  const ignored = documented.filter((name) => KEYS[name] === undefined)
  assert.deepEqual(documented.filter((name) => !ignored.includes(name)).sort(), Object.keys(KEYS).sort())
  const page = renderConfigPage()
  for (const name of documented) assert.ok(page.includes(`\\fB${name}\\fR`), name)
  for (const [cell, fallback] of rows) {
    const isRequired = namesIn(cell!).some((name) => KEYS[name]?.isRequired)
    assert.equal(fallback === 'required', isRequired, String(cell))
  }
  const required = Object.fromEntries(
    rows
      .filter(([, fallback]) => fallback === 'required')
      .map(([cell]) => [namesIn(cell!)[0]!, cell!.includes('Interval') ? 15 : '/x']),
  )
  const { notices } = parseConfig(
    JSON.stringify({ ...required, ...Object.fromEntries(ignored.map((name) => [name, 1])) }),
    'x',
    {},
  )
  assert.deepEqual(notices, [], 'keys that are documented as ignored are passed over in silence')
})

test('the configuration that the package ships is one without remarks', () => {
  const text = readFileSync(join(ROOT, 'debian', 'proxy-agent.json'), 'utf8')
  assert.deepEqual(parseConfig(text, 'debian/proxy-agent.json', {}).notices, [])
})

test('completion offers every option and command, and bash can read it', () => {
  const script = renderCompletion()
  for (const word of [...readOptions(USAGE), ...readCommands(USAGE)]) assert.ok(script.includes(word), word)
  const line = `${script}\nCOMP_WORDS=(azure-proxy-agent rules ''); COMP_CWORD=2; _azure_proxy_agent; echo "\${COMPREPLY[*]}"`
  const { stdout, stderr } = spawnSync('bash', ['-c', line], { encoding: 'utf8' })
  assert.deepEqual([stdout.trim(), stderr], [readCommands(RULES_USAGE).join(' '), ''])
})

for (const [name, page] of [
  ['azure-proxy-agent.8', renderProgramPage()],
  ['proxy-agent.json.5', renderConfigPage()],
] as const) {
  test(`man renders ${name} without a warning`, (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'apa-man-'))
    try {
      const file = join(folder, name)
      writeFileSync(file, page)
      const ran = spawnSync('man', ['--warnings', '-E', 'UTF-8', '-l', '-Tutf8', file], { encoding: 'utf8' })
      if (ran.error !== undefined) return t.skip('no man here: install man-db')
      assert.deepEqual([ran.stderr, ran.status], ['', 0])
      assert.match(ran.stdout, /System Administration Utilities/)
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
}

const MARKDOWN = [
  { situation: 'code with a hyphen', markdown: '`--wait`', roff: '\\fB\\-\\-wait\\fR' },
  { situation: 'a link', markdown: 'see [Rules](#rules)', roff: 'see Rules' },
  { situation: 'a line that begins with a dot', markdown: '.x', roff: '\\&.x' },
  { situation: 'a backslash', markdown: 'a\\b', roff: 'a\\eb' },
]

for (const { situation, markdown, roff } of MARKDOWN) {
  test(`toRoff() turns ${situation} into what roff shows as such`, () => assert.equal(toRoff(markdown), roff))
}
