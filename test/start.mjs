/**
 * Makes a bare machine ready and starts a task on the pinned Node: `node test/start.mjs TASK.ts [ARGUMENTS]`.
 *
 * Plain JavaScript for whatever Node runs npm here, since nothing of ours may be installed yet. What is missing is
 * installed: the locked packages by `npm ci`, the Debian packages by apt-get (as root). What is there costs nothing.
 */

import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { accessSync, constants, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)))

/** Debian packages, and what shows that each is there: a command in PATH, or a shared library. */
const DEBIAN_PACKAGES = [
  { name: 'libatomic1', library: 'libatomic.so.1' },
  { name: 'libstdc++6', library: 'libstdc++.so.6' },
  { name: 'iproute2', command: 'ip' },
  { name: 'curl', command: 'curl' },
  { name: 'python3', command: 'python3' },
  { name: 'util-linux', command: 'nsenter' },
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
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin', '/usr/bin', '/bin']
  return folders.some((folder) => folder !== '' && isExecutable(join(folder, name)))
}

function installDebianPackages() {
  const missing = DEBIAN_PACKAGES.filter(({ command, library }) =>
    command ? !hasCommand(command) : !LIBRARY_FOLDERS.some((folder) => existsSync(join(folder, library))),
  ).map(({ name }) => name)
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

/** Runs `npm ci` when node_modules was not made from this lock file. */
function installNpmPackages() {
  const stampPath = join(ROOT, 'node_modules', '.cache', 'installed-from')
  const lock = createHash('sha256').update(readFileSync(join(ROOT, 'package-lock.json'))).digest('hex')
  const node = join(ROOT, 'node_modules', '.bin', 'node')
  const isCurrent = existsSync(stampPath) && readFileSync(stampPath, 'utf8') === lock
  if (isCurrent && isExecutable(node)) return
  say('Installing npm packages …')
  // The environment of an outer npm names its own package; the inner one finds ours by the working directory.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('npm_')))
  const args = ['ci', '--no-audit', '--no-fund', '--loglevel=error']
  if (run('npm', args, { env, stdio: ['ignore', 'ignore', 'inherit'] }) !== 0) fail('npm ci failed')
  if (!isExecutable(node)) {
    fail(`npm installed no Node runtime for this machine (${process.platform}-${process.arch}): only linux x64 and arm64 work`)
  }
  mkdirSync(dirname(stampPath), { recursive: true })
  writeFileSync(stampPath, lock)
}

const [task, ...rest] = process.argv.slice(2)
if (task === undefined) fail('Usage: node test/start.mjs TASK.ts [ARGUMENTS]')
installDebianPackages()
installNpmPackages()
const bin = join(ROOT, 'node_modules', '.bin')
const child = spawnSync(join(bin, 'node'), ['--disable-warning=ExperimentalWarning', join(ROOT, task), ...rest], {
  cwd: ROOT,
  stdio: 'inherit',
  env: { ...process.env, PATH: `${bin}:${process.env.PATH}` },
})
if (child.error) fail(`Cannot start ${task}: ${child.error.message}`)
process.exit(child.status ?? 1)
