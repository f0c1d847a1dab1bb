import assert from 'node:assert/strict'
import { copyFileSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { build, EXEC_ARGV, MANIFEST, makeFolder, PROGRAM, run, startWaiting } from './built.ts'
import type { Report } from './program-report.ts'

const made = makeFolder()
const out = path.join(made.folder, 'program')

before(() => build({ entry: PROGRAM, out }))
after(() => made[Symbol.dispose]())

test('the executable runs alone: in an empty folder, with an empty environment', () => {
  const folder = path.join(made.folder, 'alone')
  mkdirSync(folder)
  const copy = path.join(folder, 'program')
  copyFileSync(out, copy)
  assert.deepEqual(run(copy, ['--version'], {}, folder), { status: 0, stdout: `${MANIFEST.version}\n`, stderr: '' })
  const { report, stderr } = runReport(copy)
  assert.equal(report.fetched, 'answered')
  assert.equal(report.ffiPid, report.pid)
  assert.equal(stderr, '', 'no warning, though node:ffi is experimental')
})

test('the executable starts with the options fixed at build time', () => {
  const { report } = runReport(out)
  assert.deepEqual(report.execArgv, EXEC_ARGV)
  assert.equal(report.hasProto, false)
  assert.equal(report.codeFromString, 'EvalError')
})

test('the executable answers --version before it loads anything else', () => {
  const { stdout } = run(out, ['loaded'])
  const loaded: string[] = JSON.parse(stdout)
  assert.ok(loaded.includes('NativeModule fs'), 'the list is expected to name what is loaded')
  assert.deepEqual(
    loaded.filter((name) => ['NativeModule http', 'NativeModule ffi', 'NativeModule net'].includes(name)),
    [],
  )
})

test('the executable does not listen to NODE_OPTIONS', () => {
  const script = path.join(made.folder, 'intruder.cjs')
  writeFileSync(script, 'require("node:fs").writeSync(2, "intruder was here")')
  const { report, stderr } = runReport(out, { NODE_OPTIONS: `--require ${script} --inspect=127.0.0.1:0` })
  assert.equal(stderr, '')
  assert.equal(report.inspectorUrl, null)
})

test('the executable loads no shared object that OPENSSL_CONF names', () => {
  const config = path.join(made.folder, 'openssl.cnf')
  const lines = ['nodejs_conf = init', '[init]', 'providers = all', '[all]', 'intruder = one', '[one]', 'activate = 1']
  writeFileSync(config, [...lines, 'module = /nowhere/intruder.so', ''].join('\n'))
  const { report, stderr } = runReport(out, { OPENSSL_CONF: config })
  assert.equal(stderr, '', 'OpenSSL would complain that it cannot load the module')
  assert.equal(report.fetched, 'answered')
})

test('the executable opens no debugger on SIGUSR1', async () => {
  using waiting = await startWaiting(out)
  for (let i = 0; i < 3; i++) {
    waiting.child.kill('SIGUSR1')
    await sleep(100)
  }
  assert.deepEqual(await waiting.finish(), {
    status: 0,
    signal: null,
    stdout: 'ready\n{"inspectorUrl":null}\n',
    stderr: '',
  })
})

test('build() replaces an executable that is running, and leaves nothing else behind', async () => {
  using waiting = await startWaiting(out)
  const inode = statSync(out).ino
  await build({ entry: PROGRAM, out })
  assert.notEqual(statSync(out).ino, inode)
  const { status, stdout } = await waiting.finish()
  assert.deepEqual([status, stdout], [0, 'ready\n{"inspectorUrl":null}\n'])
  assert.equal(run(out, ['--version']).stdout, `${MANIFEST.version}\n`)
  assert.deepEqual(
    readdirSync(made.folder).filter((name) => name.startsWith('.') || name.startsWith('program')),
    ['program', 'program.LICENSES.txt', 'program.cdx.json'],
  )
})

function runReport(file: string, env: NodeJS.ProcessEnv = {}): { readonly report: Report; readonly stderr: string } {
  const { status, stdout, stderr } = run(file, ['report'], env, made.folder)
  assert.equal(status, 0, stderr)
  return { report: JSON.parse(stdout), stderr }
}
