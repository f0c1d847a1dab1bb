/**
 * Makes a bare machine ready and starts a task on the pinned Node:
 * `node test/start.mjs [--light|--bench|--package] TASK.ts [ARGUMENTS]`.
 * `--light`: the task makes no namespaces and runs no clients. `--bench`: it measures with nginx and wrk. `--package`: it
 * makes Debian packages and boots machines.
 *
 * Plain JavaScript for whatever Node runs npm here, since nothing of ours may be installed yet. What is missing is
 * installed: the locked packages by `npm ci`, the Debian packages by apt-get (as root). What is there costs nothing.
 */

import { spawn, spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)))

/** The pinned runtime, which comes with the npm packages. */
const NODE = join(ROOT, 'node_modules', '.bin', 'node')

/** Debian packages, and what shows that each is there: a command, or a shared library. Other users must see them too. */
const RUNTIME_PACKAGES = [
  { name: 'libatomic1', library: 'libatomic.so.1' },
  { name: 'libstdc++6', library: 'libstdc++.so.6' },
]
const LAB_PACKAGES = [
  { name: 'iproute2', command: 'ip' },
  { name: 'curl', command: 'curl' },
  { name: 'python3', command: '/usr/bin/python3' },
  { name: 'util-linux', command: 'nsenter' },
  { name: 'libfaketime', library: 'faketime/libfaketime.so.1' },
  { name: 'binutils-x86-64-linux-gnu', command: 'x86_64-linux-gnu-objdump' },
  { name: 'binutils-aarch64-linux-gnu', command: 'aarch64-linux-gnu-objdump' },
]
const BENCH_PACKAGES = [
  { name: 'nginx-light', command: 'nginx' },
  { name: 'wrk', command: 'wrk' },
]

const PACKAGE_PACKAGES = [
  { name: 'debhelper', command: 'dh' },
  { name: 'dpkg-dev', command: 'dpkg-buildpackage' },
  { name: 'build-essential', command: 'make' },
  { name: 'lintian', command: 'lintian' },
  { name: 'git', command: 'git' },
  { name: 'debootstrap', command: 'debootstrap' },
  { name: 'qemu-system-x86', command: 'qemu-system-x86_64' },
  { name: 'qemu-utils', command: 'qemu-img' },
]

const LIBRARY_FOLDERS = ['/lib', '/usr/lib', '/lib64', '/usr/lib64'].flatMap((folder) => [
  folder,
  ...(existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith('-linux-gnu')) : []).map((name) =>
    join(folder, name),
  ),
])

function say(line) {
  process.stdout.write(`${line}\n`)
}

function fail(reason) {
  process.stderr.write(`${reason}\n`)
  process.exit(1)
}

function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: ROOT, stdio: 'inherit', ...options })
  if (result.error) fail(`Cannot run ${command}: ${result.error.message}`)
  return result.status ?? 1
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

function hasCommand(name) {
  if (name.startsWith('/')) return isExecutable(name)
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin', '/usr/bin', '/bin']
  return folders.some((folder) => folder !== '' && isExecutable(join(folder, name)))
}

function installDebianPackages(packages) {
  const missing = packages
    .filter(({ command, library }) =>
      command ? !hasCommand(command) : !LIBRARY_FOLDERS.some((folder) => existsSync(join(folder, library))),
    )
    .map(({ name }) => name)
  if (missing.length === 0) return
  const list = missing.join(' ')
  if (!hasCommand('apt-get')) fail(`These are missing: ${list}. There is no apt-get here: install them by other means.`)
  if (process.getuid() !== 0) fail(`These are missing: ${list}. Run this as root, or: apt-get install ${list}`)
  say(`Installing Debian packages: ${list} …`)
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const quiet = { env, stdio: ['ignore', 'ignore', 'inherit'] }
  run('apt-get', ['-qq', 'update'], quiet)
  const status = run('apt-get', ['-qq', '-y', '--no-install-recommends', 'install', ...missing], quiet)
  if (status !== 0) fail(`apt-get could not install: ${list}`)
}

/** Tells whether node_modules holds what the lock file names: npm keeps a list of what it installed. */
function isInstalled() {
  const read = (...path) => JSON.parse(readFileSync(join(ROOT, ...path), 'utf8')).packages
  try {
    const locked = read('package-lock.json')
    const installed = read('node_modules', '.package-lock.json')
    const isSame = (name) => installed[name]?.version === locked[name]?.version
    const wanted = Object.keys(locked).filter((name) => name !== '' && locked[name].optional !== true)
    return [...wanted, ...Object.keys(installed)].every(isSame) && isExecutable(NODE)
  } catch {
    return false
  }
}

function installNpmPackages() {
  if (isInstalled()) return
  say('Installing npm packages …')
  const args = ['ci', '--no-audit', '--no-fund', '--loglevel=error']
  if (run('npm', args, { stdio: ['ignore', 'ignore', 'inherit'] }) !== 0) fail('npm ci failed')
  if (!isExecutable(NODE)) {
    fail(`npm installed no Node runtime for ${process.platform}-${process.arch}: only linux x64 and arm64 have one`)
  }
}

const words = process.argv.slice(2)
const PACKAGES = {
  '--light': RUNTIME_PACKAGES,
  '--bench': [...RUNTIME_PACKAGES, ...LAB_PACKAGES, ...BENCH_PACKAGES],
  '--package': [...RUNTIME_PACKAGES, ...LAB_PACKAGES, ...PACKAGE_PACKAGES],
}
const packages = PACKAGES[words[0]]
const [task, ...rest] = packages === undefined ? words : words.slice(1)
if (task === undefined) fail('Usage: node test/start.mjs [--light|--bench|--package] TASK.ts [ARGUMENTS]')
installDebianPackages(packages ?? [...RUNTIME_PACKAGES, ...LAB_PACKAGES])
installNpmPackages()
const child = spawn(NODE, ['--disable-warning=ExperimentalWarning', join(ROOT, task), ...rest], {
  cwd: ROOT,
  stdio: 'inherit',
  env: { ...process.env, PATH: `${dirname(NODE)}:${process.env.PATH}` },
})
// Ctrl-C reaches the child by itself; we stay until it has cleaned up.
process.on('SIGINT', () => undefined)
process.on('SIGTERM', () => child.kill('SIGTERM'))
child.on('error', (error) => fail(`Cannot start ${task}: ${error.message}`))
child.on('exit', (code) => process.exit(code ?? 1))
