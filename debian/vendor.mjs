/**
 * Brings the npm packages that package-lock.json names into the source package, and from there to node_modules.
 *
 *   node debian/vendor.mjs make DIR    writes DIR/azure-proxy-agent_VERSION.orig-vendor.tar.xz
 *   node debian/vendor.mjs unpack [CPU] vendor/ to node_modules/, as `npm ci` would, with neither npm nor a network;
 *                                      and the runtime for CPU, when that is another architecture's
 *
 * The tarball holds one file a package, as npm downloaded it: `vendor/mri-1.2.0.tgz`. It holds the packages that belong on
 * Linux with glibc, on the architectures we build for, and nothing else. The lock file says what must be in each file;
 * both commands refuse one that differs. Two runs give the same bytes: names are sorted, times come from the changelog.
 *
 * Plain JavaScript for the archive's Node, whatever its version: the one we build with is among the packages.
 */

import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

export const ROOT = path.dirname(path.dirname(fileURLToPath(import.meta.url)))

const NAME = 'azure-proxy-agent'
const CPUS = ['x64', 'arm64']

/**
 * @typedef {{ readonly name: string, readonly version: string, readonly license: string, readonly integrity: string,
 *   readonly folders: string[], readonly cpu: string[] | undefined, readonly file: string }} Vendored
 *   `folders`: where it is installed, relative to the project; `file`: its name in vendor/; `cpu`: for these alone.
 */

/**
 * Lists what the lock file wants on our architectures, sorted by file name.
 * @returns {Vendored[]}
 */
export function listVendored(root = ROOT) {
  const { packages } = JSON.parse(fs.readFileSync(path.join(root, 'package-lock.json'), 'utf8'))
  const found = new Map()
  for (const [folder, entry] of Object.entries(packages)) {
    if (folder === '' || !suits(entry.os, ['linux']) || !suits(entry.cpu, CPUS) || !suits(entry.libc, ['glibc']))
      continue
    if (!entry.integrity) throw new Error(`package-lock.json has no integrity for ${folder}`)
    const name = folder.slice(folder.lastIndexOf('node_modules/') + 'node_modules/'.length)
    const file = `${name.replace('@', '').replace('/', '-')}-${entry.version}.tgz`
    const known = found.get(file)
    if (known) known.folders.push(folder)
    else {
      const { version, license = 'UNKNOWN', integrity } = entry
      const cpu = entry.cpu && [entry.cpu].flat()
      found.set(file, { name, version, license, integrity, folders: [folder], cpu, file })
    }
  }
  return [...found.values()].sort((a, b) => (a.file < b.file ? -1 : 1))
}

/** @param {string | string[] | undefined} given @param {string[]} ours */
function suits(given, ours) {
  return given === undefined || [given].flat().some((each) => ours.includes(each))
}

/** Makes the component tarball. @param {string} folder @returns {string} the file */
export function make(folder) {
  const work = fs.mkdtempSync(path.join(tmpdir(), 'apa-vendor-'))
  try {
    const vendor = path.join(work, 'vendor')
    fs.mkdirSync(vendor)
    const cache = run('npm', ['config', 'get', 'cache'], ROOT).trim()
    const wanted = listVendored()
    if (wanted.some(({ integrity }) => !fs.existsSync(cachedFile(cache, integrity)))) fill(cache, work)
    for (const { integrity, file } of wanted) {
      fs.writeFileSync(path.join(vendor, file), check(file, fs.readFileSync(cachedFile(cache, integrity)), integrity))
    }
    const { version, time } = readChangelog()
    const out = path.join(path.resolve(folder), `${NAME}_${version}.orig-vendor.tar.xz`)
    const order = ['--sort=name', '--owner=0', '--group=0', '--numeric-owner', '--mode=u=rwX,go=rX', `--mtime=@${time}`]
    const form = ['--format=ustar', '--use-compress-program=xz -0 --threads=1']
    run('tar', [...form, ...order, '-cf', out, 'vendor'], work)
    return out
  } finally {
    fs.rmSync(work, { recursive: true, force: true })
  }
}

/** Has npm put every package into its cache: it installs for each architecture into a folder that is thrown away. */
function fill(cache, work) {
  for (const cpu of CPUS) {
    const folder = path.join(work, cpu)
    fs.mkdirSync(folder)
    for (const file of ['package.json', 'package-lock.json'])
      fs.copyFileSync(path.join(ROOT, file), path.join(folder, file))
    const platform = [`--cpu=${cpu}`, '--os=linux', '--libc=glibc']
    const flags = [
      '--ignore-scripts',
      '--no-audit',
      '--no-fund',
      '--loglevel=error',
      '--prefer-offline',
      `--cache=${cache}`,
    ]
    run('npm', ['ci', ...platform, ...flags], folder)
    fs.rmSync(folder, { recursive: true })
  }
}

/** Where npm keeps what it downloaded, by its hash. */
function cachedFile(cache, integrity) {
  const hex = Buffer.from(integrity.slice('sha512-'.length), 'base64').toString('hex')
  return path.join(cache, '_cacache', 'content-v2', 'sha512', hex.slice(0, 2), hex.slice(2, 4), hex.slice(4))
}

/** Installs from vendor/ what belongs on this machine, and the runtime that is to be built in. @param {string} target */
export function unpack(target = process.arch) {
  const modules = path.join(ROOT, 'node_modules')
  fs.rmSync(modules, { recursive: true, force: true })
  const commands = []
  for (const { name, integrity, folders, cpu, file } of listVendored()) {
    const isForeign = cpu !== undefined && !cpu.includes(process.arch)
    if (isForeign && name !== `node-linux-${target}`) continue
    const archive = path.join(ROOT, 'vendor', file)
    check(file, fs.readFileSync(archive), integrity)
    for (const folder of folders) {
      const place = path.join(ROOT, folder)
      fs.mkdirSync(place, { recursive: true })
      run('tar', ['-xzf', archive, '--strip-components=1', '--no-same-owner', '-C', place], ROOT)
      if (!isForeign && !folder.slice('node_modules/'.length).includes('node_modules/')) commands.push(place)
    }
  }
  fs.mkdirSync(path.join(modules, '.bin'), { recursive: true })
  for (const folder of commands) linkCommands(folder, path.join(modules, '.bin'))
}

/** Links the commands of an installed package into `bin`. */
function linkCommands(folder, bin) {
  const { name, bin: commands = {} } = JSON.parse(fs.readFileSync(path.join(folder, 'package.json'), 'utf8'))
  const list = typeof commands === 'string' ? { [name.replace(/^@.*\//, '')]: commands } : commands
  for (const [command, file] of Object.entries(list)) {
    const target = path.join(folder, file)
    fs.chmodSync(target, 0o755)
    fs.rmSync(path.join(bin, command), { force: true })
    fs.symlinkSync(path.relative(bin, target), path.join(bin, command))
  }
}

/** @param {string} file @param {Buffer} content @param {string} integrity @returns {Buffer} `content` */
function check(file, content, integrity) {
  if (`sha512-${createHash('sha512').update(content).digest('base64')}` === integrity) return content
  throw new Error(`${file} is not what package-lock.json says: run "make" anew`)
}

/** The upstream version and the time of the newest entry of debian/changelog. */
export function readChangelog(root = ROOT) {
  const text = fs.readFileSync(path.join(root, 'debian', 'changelog'), 'utf8')
  const version = /^\S+ \(([^)]+)-[^-)]+\)/.exec(text)?.[1]
  const date = /^ -- .*> {2}(.+)$/m.exec(text)?.[1]
  if (!version || !date) throw new Error('debian/changelog begins with no version and time')
  return { version, time: Date.parse(date) / 1000 }
}

function run(command, args, cwd) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd, encoding: 'utf8', maxBuffer: 1 << 26 })
  if (error) throw error
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} failed: ${stderr}`)
  return stdout
}

function main([command, folder]) {
  if (command === 'make' && folder) process.stdout.write(`${make(folder)}\n`)
  else if (command === 'unpack') unpack(folder)
  else {
    process.stderr.write('Usage: node debian/vendor.mjs make DIR | unpack [CPU]\n')
    process.exitCode = 2
  }
}

if (process.argv[1] && fs.realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) main(process.argv.slice(2))
