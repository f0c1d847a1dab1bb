import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { type BuildOptions, build, checkNode, makeFolder, NODE_VERSION, ROOT, run } from './built.ts'

test('checkNode() accepts the pinned version only, and says what to do', () => {
  checkNode('26.10.0', '26.10.0')
  for (const running of ['26.10.1', '26.9.0', '20.19.2']) {
    assert.throws(() => checkNode('26.10.0', running), {
      name: 'BuildError',
      message: new RegExp(`^Cannot build with Node ${running}: package.json pins 26.10.0.\n.*npm ci.*npm run build`),
    })
  }
})

test('build.mjs tells an older Node what to do, instead of failing to parse', (t) => {
  const older = '/usr/bin/node'
  const version = existsSync(older) ? run(older, ['--version']).stdout.trim() : undefined
  if (version === undefined || version === `v${NODE_VERSION}`) {
    return t.skip(`${older} is ${version ?? 'not there'}: no other Node to try`)
  }
  const { status, stdout, stderr } = run(older, [path.join(ROOT, 'build.mjs')])
  assert.deepEqual([status, stdout], [1, ''])
  assert.match(
    stderr,
    new RegExp(`^build: Cannot build with Node ${version.slice(1)}: package.json pins ${NODE_VERSION}`),
  )
})

test('build.mjs explains itself with --help, and refuses an option it does not know', () => {
  const help = runBuild('--help')
  assert.equal(help.status, 0)
  for (const option of ['--arch', '--runtime', '--node', '--entry', '--out'])
    assert.match(help.stdout, new RegExp(`^  ${option} `, 'm'))
  const unknown = runBuild('--fast')
  assert.equal(unknown.status, 1)
  assert.match(unknown.stderr, /^build: Unknown option '--fast'/)
})

const programs: readonly { situation: string; source: string; message: RegExp }[] = [
  {
    situation: 'a program that names what CommonJS does not have',
    source: 'export const here = import.meta.url',
    message: /^Cannot bundle .* without doubt:[\s\S]*import\.meta/,
  },
  {
    situation: 'a program that loads a CommonJS package lazily',
    source: 'import("undici").then(console.log)',
    message: /calls import\(\) on undici, a CommonJS package/,
  },
  {
    situation: 'a program that imports what is not there',
    source: 'import "./nothing.ts"',
    message: /Could not resolve ".\/nothing.ts"/,
  },
]

for (const { situation, source, message } of programs) {
  test(`build() refuses ${situation}, and keeps the older executable`, async () => {
    using made = makeFolder()
    symlinkSync(path.join(ROOT, 'node_modules'), path.join(made.folder, 'node_modules'))
    const entry = path.join(made.folder, 'entry.ts')
    writeFileSync(entry, source)
    await refuses(made.folder, { entry }, message)
  })
}

const others: readonly { situation: string; options: BuildOptions; message: RegExp }[] = [
  {
    situation: 'a version of Node that is not the one that runs the build',
    options: { node: '26.9.0' },
    message: new RegExp(`^Cannot build on Node 26\\.9\\.0: this is Node ${NODE_VERSION}, `),
  },
  {
    situation: 'an architecture it does not know',
    options: { arch: 'riscv64' },
    message: /^Cannot build for "riscv64": know x64 and arm64$/,
  },
  {
    situation: 'a runtime that is not there',
    options: { runtime: '/nowhere/node' },
    message: /^Cannot use runtime \/nowhere\/node: no such file$/,
  },
  {
    situation: 'a runtime that is another program',
    options: { runtime: '/bin/true' },
    message: new RegExp(`^Cannot use runtime .*true: it is not Node ${NODE_VERSION}$`),
  },
  {
    situation: 'a runtime that is no executable',
    options: { runtime: '/etc/passwd' },
    message: /^Cannot use .*passwd: it is no linux-\w+ executable/,
  },
  {
    situation: 'a runtime of another architecture',
    options: { arch: process.arch === 'x64' ? 'arm64' : 'x64', runtime: '/bin/true' },
    message: /^Cannot use .*true: it is no linux-\w+ executable \(ELF machine \d+\)$/,
  },
]

for (const { situation, options, message } of others) {
  test(`build() refuses ${situation}, and keeps the older executable`, async () => {
    using made = makeFolder()
    await refuses(made.folder, options, message)
  })
}

/** Expects the build to fail, and the folder of its output to look as before. */
async function refuses(folder: string, options: BuildOptions, message: RegExp): Promise<void> {
  const out = path.join(folder, 'dist', 'program')
  mkdirSync(path.dirname(out))
  writeFileSync(out, 'older')
  await assert.rejects(build({ ...options, out }), { message })
  assert.equal(readFileSync(out, 'utf8'), 'older')
  assert.deepEqual(readdirSync(path.dirname(out)), ['program'])
}

function runBuild(...args: string[]) {
  return spawnSync(process.execPath, [path.join(ROOT, 'build.mjs'), ...args], { encoding: 'utf8' })
}
