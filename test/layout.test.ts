/**
 * Which folder may use which, and why. The table is the architecture in short; a test that fails here shows an arrow that
 * is not in it. Change the table when the architecture changes, not to make a test pass.
 */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join, posix } from 'node:path'
import { test } from 'node:test'

const ROOT = dirname(import.meta.dirname)

interface Part {
  /** Paths below src that belong to it: folders end in `/`. A file belongs to the first part that claims it. */
  readonly paths: readonly string[]
  /** Parts it may import values and types of. */
  readonly uses: readonly string[]
  /** Parts, or single files, it may import types of and nothing else. */
  readonly types?: readonly string[]
  /** npm packages, and modules of Node that are not for everybody. */
  readonly packages?: readonly string[]
  readonly because: string
}

const PARTS: Readonly<Record<string, Part>> = {
  base: { paths: ['base/'], uses: [], because: 'it is the floor: a file joins it when three folders ask for it' },
  config: { paths: ['config/'], uses: ['base'], because: 'parsing stands alone' },
  sys: {
    paths: ['sys/'],
    uses: ['base'],
    packages: ['node:ffi'],
    because: 'it is the door to libc, and knows nothing of what comes through',
  },
  'ebpf specs': {
    paths: ['ebpf/asm/', 'ebpf/programs/', 'ebpf/records.ts', 'ebpf/btf.ts', 'ebpf/kernel-fields.ts'],
    uses: ['base'],
    because: 'specs give the same bytes on every machine, and are tested on every machine',
  },
  'ebpf objects': {
    paths: ['ebpf/'],
    uses: ['sys', 'ebpf specs', 'base'],
    because: 'objects are about this kernel only',
  },
  identity: {
    paths: ['identity/'],
    uses: ['sys', 'base', 'ebpf/records.ts'],
    because: 'it reads what the kernel recorded; how start times are rounded lives with the record',
  },
  rules: {
    paths: ['rules/'],
    uses: ['base'],
    types: ['identity'],
    packages: ['valibot'],
    because: 'a pure decision is a table test',
  },
  channel: {
    paths: ['channel/'],
    uses: ['base'],
    types: ['rules/document.ts'],
    packages: ['valibot'],
    because: 'the key stands alone; it carries the rule document without reading it',
  },
  telemetry: {
    paths: ['telemetry/'],
    uses: ['base'],
    types: ['identity', 'rules'],
    because: 'it describes, it does not decide',
  },
  proxy: {
    paths: ['proxy/'],
    uses: ['base'],
    types: ['identity', 'rules', 'channel', 'telemetry'],
    packages: ['undici'],
    because: 'the stages arrive as arguments',
  },
  agent: {
    paths: ['agent/'],
    uses: ['base', 'config', 'sys', 'ebpf specs', 'ebpf objects', 'identity', 'rules', 'channel', 'telemetry', 'proxy'],
    because: 'one place knows everyone',
  },
  cli: {
    paths: ['cli/'],
    uses: ['agent', 'config', 'rules', 'base'],
    packages: ['mri', 'valibot'],
    because: 'the ends are thin; authors of rules need the evaluator and no daemon',
  },
  main: { paths: ['main.ts'], uses: ['cli'], because: 'the ends are thin' },
}

interface Import {
  /** The importing file below src. */
  readonly from: string
  /** A file below src, or the name of a package. */
  readonly to: string
  readonly isType: boolean
}

/** Finds all imports of a file, however they are written. */
function findImports(from: string, text: string): Import[] {
  const found: Import[] = []
  const statement = /\b(?:import|export)\s+((?:type\s)?[\w*{}\s,$]*?)\s*from\s*['"]([^'"]+)['"]/g
  const bare = /\bimport\s*\(?\s*['"]([^'"]+)['"]/g
  for (const [, clause = '', specifier = ''] of text.matchAll(statement))
    found.push({ from, to: resolve(from, specifier), isType: isTypeClause(clause) })
  for (const [, specifier = ''] of text.matchAll(bare))
    found.push({ from, to: resolve(from, specifier), isType: false })
  return found
}

/** `type X`, `type { X }`, or braces in which each name is a type. */
function isTypeClause(clause: string): boolean {
  if (/^type\s/.test(clause)) return true
  const names = /^\{([^}]*)\}$/.exec(clause.trim())?.[1]?.split(',') ?? ['a value']
  return names.filter((name) => name.trim() !== '').every((name) => /^\s*type\s/.test(name))
}

function resolve(from: string, specifier: string): string {
  return specifier.startsWith('.') ? posix.join(posix.dirname(from), specifier) : specifier
}

function partOf(file: string): string | undefined {
  return Object.keys(PARTS).find((name) =>
    PARTS[name]?.paths.some((path) => (path.endsWith('/') ? file.startsWith(path) : file === path)),
  )
}

/** @returns a sentence about an arrow that is not in the table, `undefined` for one that is. */
function findDrift({ from, to, isType }: Import): string | undefined {
  const name = partOf(from)
  const part = name === undefined ? undefined : PARTS[name]
  if (part === undefined) return `src/${from} belongs to no part: put it in a folder of the table, or add one`
  const target = to.endsWith('.ts') ? partOf(to) : undefined
  const what = isType ? 'types' : 'values'
  const allowed = [part.uses.join(', ') || 'nothing of ours', ...(part.types ?? []).map((each) => `types of ${each}`)]
  const explain = (subject: string) =>
    `src/${from} imports ${subject}; ${name} may import ${allowed.join(', ')}, because ${part.because}`
  if (!to.endsWith('.ts')) {
    if (GUARDED.test(to) && !(part.packages ?? []).some((each) => to === each || to.startsWith(`${each}/`)))
      return `src/${from} imports ${to}; ${name} may import ${part.packages?.join(', ') ?? 'no package'}`
    return undefined
  }
  if (target === undefined) return explain(`'${to}', which belongs to no part`)
  const matches = (list: readonly string[]) => list.includes(target) || list.includes(to)
  if (target === name || matches(part.uses) || (isType && matches(part.types ?? []))) return undefined
  return explain(`${what} of ${to}`)
}

/** Modules that not every folder may import: packages, and the one door to libc. */
const GUARDED = /^(?!node:)|^node:ffi$/

const FILES = globSync('**/*.ts', { cwd: join(ROOT, 'src') })
const TEXTS = new Map(FILES.map((file) => [file, readFileSync(join(ROOT, 'src', file), 'utf8')]))
const IMPORTS = [...TEXTS].flatMap(([file, text]) => findImports(file, text))

test('every import of src is an arrow of the table', () => {
  assert.ok(IMPORTS.length > 100, `only ${IMPORTS.length} imports were found`)
  assert.deepEqual(IMPORTS.map(findDrift).filter(Boolean), [])
})

test('every part of the table has files, and every arrow leads somewhere', () => {
  const empty = Object.keys(PARTS).filter((name) => !FILES.some((file) => partOf(file) === name))
  assert.deepEqual(empty, [], 'a part without files')
  const known = (name: string) => name in PARTS || FILES.includes(name)
  const dangling = Object.values(PARTS).flatMap(({ uses, types = [] }) =>
    [...uses, ...types].filter((to) => !known(to)),
  )
  assert.deepEqual(dangling, [], 'an arrow to nowhere')
})

test('no file imports itself over others, not even for types', () => {
  const arrows = new Map(FILES.map((file) => [file, IMPORTS.filter(({ from }) => from === file).map(({ to }) => to)]))
  const done = new Set<string>()
  const findCycle = (file: string, path: readonly string[]): readonly string[] | undefined => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file]
    if (done.has(file)) return undefined
    for (const next of arrows.get(file) ?? []) {
      const cycle = findCycle(next, [...path, file])
      if (cycle !== undefined) return cycle
    }
    done.add(file)
    return undefined
  }
  assert.deepEqual(FILES.map((file) => findCycle(file, [])?.join(' -> ')).filter(Boolean), [])
})

test('the table itself has no cycle', () => {
  const reaches = (from: string, to: string, seen = new Set<string>()): boolean => {
    if (seen.has(from)) return false
    seen.add(from)
    const part = PARTS[from]
    return [...(part?.uses ?? []), ...(part?.types ?? [])]
      .map((each) => (each in PARTS ? each : (partOf(each) ?? each)))
      .some((next) => next === to || reaches(next, to, seen))
  }
  assert.deepEqual(
    Object.keys(PARTS).filter((name) => reaches(name, name)),
    [],
    'a part that uses itself over others',
  )
})

const DRIFTS: readonly (readonly [situation: string, from: string, text: string, isDrift: boolean])[] = [
  ['the floor uses nothing', 'base/log.ts', `import { x } from '../config/config.ts'`, true],
  ['the floor uses itself', 'base/log.ts', `import { x } from './text.ts'`, false],
  ['types of rules in channel', 'channel/a.ts', `import type { X } from '../rules/document.ts'`, false],
  ['types within braces', 'channel/a.ts', `import { type X,\n type Y } from '../rules/document.ts'`, false],
  ['one value among types', 'channel/a.ts', `import { type X,\n y } from '../rules/document.ts'`, true],
  ['types of another file of rules in channel', 'channel/a.ts', `import type { X } from '../rules/decide.ts'`, true],
  ['values of a stage in the proxy', 'proxy/a.ts', `import { decide } from '../rules/decide.ts'`, true],
  ['types of a stage in the proxy', 'proxy/a.ts', `import type { X } from '../rules/decide.ts'`, false],
  ['types handed on', 'proxy/a.ts', `export type { X } from '../ebpf/records.ts'`, true],
  ['all of a file handed on', 'telemetry/a.ts', `export * from '../proxy/server.ts'`, true],
  ['a late import', 'proxy/a.ts', `const x = await import('../agent/agent.ts')`, true],
  ['an import for its effect', 'proxy/a.ts', `import '../agent/agent.ts'`, true],
  ['the record in identity', 'identity/a.ts', `import { isSameStart } from '../ebpf/records.ts'`, false],
  ['more of ebpf in identity', 'identity/a.ts', `import type { X } from '../ebpf/redirector.ts'`, true],
  ['libc in a spec', 'ebpf/programs/a.ts', `import { x } from '../../sys/libc.ts'`, true],
  ['an object in a spec', 'ebpf/asm/a.ts', `import type { X } from '../load.ts'`, true],
  ['libc by itself', 'ebpf/load.ts', `import ffi from 'node:ffi'`, true],
  ['a package where it belongs', 'proxy/a.ts', `import Pool from 'undici/lib/dispatcher/pool.js'`, false],
  ['a package elsewhere', 'identity/a.ts', `import Pool from 'undici'`, true],
  ['a folder nobody knows', 'helpers/a.ts', `import { x } from '../base/log.ts'`, true],
]

for (const [situation, from, text, isDrift] of DRIFTS) {
  test(`the table ${isDrift ? 'refuses' : 'allows'} ${situation}`, () => {
    const [found, ...more] = findImports(from, text)
    assert.ok(found, 'the import was not seen')
    assert.equal(more.length, 0)
    assert.equal(findDrift(found) !== undefined, isDrift, `found: ${findDrift(found)}`)
  })
}

interface Privilege {
  readonly what: string
  readonly pattern: RegExp
  readonly files: readonly string[]
  readonly because: string
}

/** Things that stand in a few files and nowhere else. */
const PRIVILEGES: readonly Privilege[] = [
  {
    what: 'node:ffi',
    pattern: /['"]node:ffi['"]/,
    files: ['sys/libc.ts'],
    because: 'one file holds all that can crash the process',
  },
  {
    what: 'an answer to a client',
    pattern: /\bturn\.(answer|begin)\(/,
    files: ['proxy/answer.ts', 'proxy/forward.ts'],
    because: 'answer.ts makes all answers of the agent, forward.ts hands on those of the host',
  },
  {
    what: 'a status line',
    pattern: /\.writeHead\(|\.statusCode\s*=[^=]|['"`]HTTP\/1\.1 /,
    files: ['proxy/control-server.ts', 'proxy/http1/answer-head.ts', 'proxy/http1/server-connection.ts'],
    because: 'one folder writes HTTP/1, root has his own pages; the second line of it is the invitation to send a body',
  },
  {
    what: 'process.stdout or console',
    pattern: /process\.(stdout|stderr)\b|\bconsole\.(log|info|warn|error)\b/,
    files: [],
    because: 'touching it makes descriptor 1 lose lines at exit; base/system-log.ts writes there',
  },
]

for (const { what, pattern, files, because } of PRIVILEGES) {
  test(`${what} stands in ${files.join(' and ') || 'no file of src'}, because ${because}`, () => {
    const found = [...TEXTS].filter(([, text]) => pattern.test(withoutComments(text))).map(([file]) => file)
    assert.deepEqual(found.sort(), files)
  })
}

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '')
}

/** People of fixtures, who live nowhere. */
const FICTIONAL = new Set(['azureuser', 'alice', 'bob', 'ldapuser'])

test("no tracked file names a place of somebody's machine", (t) => {
  const listed = spawnSync('git', ['ls-files', '-z'], { cwd: ROOT, encoding: 'utf8' })
  if (listed.status !== 0) {
    assert.equal(existsSync(join(ROOT, '.git')), false, `git does not list the files: ${listed.stderr}`)
    t.skip('this is no git checkout: what is tracked is not known')
    return
  }
  const own = [ROOT, homedir()].filter((path) => path.length > 1).map((path) => `${path}/`)
  const found: string[] = []
  for (const file of listed.stdout.split('\0')) {
    if (file === '' || !existsSync(join(ROOT, file))) continue
    const text = readFileSync(join(ROOT, file), 'latin1')
    if (text.includes('\0')) continue
    for (const [path, name = ''] of text.matchAll(/\/(?:home|Users)\/([\w.-]+)/g))
      if (!FICTIONAL.has(name)) found.push(`${file}: ${path}`)
    for (const path of own) if (text.includes(path)) found.push(`${file}: ${path}`)
  }
  assert.deepEqual(found, [])
})
