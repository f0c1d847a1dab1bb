#!/usr/bin/env node
/**
 * Builds `dist/azure-proxy-agent`, one executable that needs nothing of ours beside it, from what `npm ci` installed.
 *
 *   src/main.ts ── esbuild ──► main + lazy parts ─┐
 *                                                 ├─ @yao-pkg/pkg (SEA) ──► dist/azure-proxy-agent
 *   node-linux-<arch> ── stripElf(), bindCompareExchange() ──► runtime ──┘  + .LICENSES.txt + .cdx.json
 *
 * What holds:
 * - Nothing is downloaded, except by `--arch` for a runtime that is not installed (see `fetchRuntime`). $HOME is not used.
 * - Two builds of one commit give the same bytes, in whatever folder they run: no time, no absolute path, no random
 *   number gets in. That is why V8's code cache stays off (it differs from run to run) and why `main` below is relative.
 * - The runtime is stripped before the program goes in: stripping afterwards moves the ELF note away under its segment.
 * - An executable that is running is replaced by rename, never written into.
 *
 * The top of this file runs on old Node versions too, so that `checkNode` can tell what is wrong.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import { createRequire } from 'node:module'
import { constants as osConstants } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

/** The folder of this file, links resolved: esbuild compares real paths when it shortens names. */
const ROOT = fs.realpathSync(path.dirname(fileURLToPath(import.meta.url)))

const NAME = 'azure-proxy-agent'

/** Architectures as Node names them, and what `e_machine` of an ELF header says for each. Source: elf.h, EM_*. */
export const ELF_MACHINES = Object.freeze({ x64: 62, arm64: 183 })

/**
 * Options the runtime starts with, fixed inside the executable; NODE_OPTIONS is not read (`execArgvExtension: 'none'`).
 * The rest of the environment is the service manager's affair, and the unit sets it.
 */
export const EXEC_ARGV = Object.freeze([
  // node:ffi announces itself as experimental at every start; the version is pinned, so that is no news.
  '--disable-warning=ExperimentalWarning',
  // A small heap that is collected often: 15 to 25 MB of private memory less under load, at the same speed.
  '--max-semi-space-size=1',
  '--heap-growing-percent=20',
  '--v8-pool-size=1',
  // Lets the agent collect garbage when a busy time is over.
  '--expose-gc',
  // Otherwise SIGUSR1 opens a debugger on 127.0.0.1:9229, for anybody on the machine.
  '--disable-sigusr1',
  // OPENSSL_CONF in the environment can name a shared object to load. We need no configuration of OpenSSL.
  '--openssl-config=/dev/null',
  // The agent loads no add-on, makes no code of strings and reads no __proto__: what an intruder may want is not there.
  // (--frozen-intrinsics would cost half as much again of every start, and Node does not promise that it works.)
  '--no-addons',
  '--disallow-code-generation-from-strings',
  '--disable-proto=delete',
])

/** What `node` writes into itself when it carries a program: the last character turns from 0 to 1. */
const SEA_FUSE = ['NODE_SEA', 'FUSE_fce680ab2cc467b6e072b8b5df1996b2:1'].join('_')

const USAGE = `Usage: npm run build [-- OPTIONS]

  --arch x64|arm64   architecture of the executable (default: this machine's). For another one the runtime is taken
                     from --runtime, from node_modules, or by "npm ci --cpu=ARCH" from package-lock.json into
                     node_modules/.cache; the output is then named ${NAME}-ARCH.
  --runtime PATH     the Node executable to build on, or the folder of its npm package. The version must be the pinned one.
  --node VERSION     in place of the pinned one, for distributions that have a Node of their own: the version that runs
                     the build and that --runtime has. The tests then tell whether it will do.
  --entry FILE       program to build in (default: src/main.ts)
  --out FILE         where the executable goes (default: dist/${NAME}); FILE.LICENSES.txt and FILE.cdx.json go beside it,
                     and for the program of its own FILE.schemas/, JSON Schemas for editors
  --help             this text
`

/** A build that cannot go on, for a reason the reader can do something about. */
class BuildError extends Error {
  name = 'BuildError'
}

/**
 * @typedef {{ arch?: string, runtime?: string, node?: string, entry?: string, out?: string, say?: (line: string) => void }} BuildOptions
 *   Paths are relative to the working directory. `say` receives one line per step.
 * @typedef {{ name: string, version: string, license: string, folder: string, lockKey: string, dependencies: string[] }} Package
 * @typedef {{ binary: string, folder: string | undefined, lockKey: string | undefined }} Runtime
 *   `binary` is the unstripped executable, `folder` its npm package if it has one, `lockKey` its entry in the lock file.
 */

/**
 * Builds the executable, its licence file and its bill of materials.
 * The three appear together at the end; a build that fails leaves older ones as they were.
 * @param {BuildOptions} options
 * @returns {Promise<{ out: string, licenses: string, sbom: string, packages: Package[] }>} absolute paths, and what was bundled
 * @throws {BuildError} when something needed is missing or not what it should be
 */
export async function build(options = {}) {
  const say = options.say ?? (() => {})
  const project = readProject(options.node)
  checkNode(project.nodeVersion)
  const arch = options.arch ?? process.arch
  if (!Object.hasOwn(ELF_MACHINES, arch)) throw new BuildError(`Cannot build for "${arch}": know x64 and arm64`)
  const suffix = arch === process.arch ? '' : `-${arch}`
  const out = path.resolve(options.out ?? path.join(ROOT, 'dist', NAME + suffix))
  const entry = path.resolve(options.entry ?? path.join(ROOT, 'src', 'main.ts'))

  fs.mkdirSync(path.dirname(out), { recursive: true })
  const work = fs.mkdtempSync(path.join(path.dirname(out), '.build-'))
  const removeWork = () => fs.rmSync(work, { recursive: true, force: true })
  process.once('exit', removeWork)
  try {
    const runtime = findRuntime(arch, options.runtime, project, say)
    const prepared = path.join(work, 'node')
    prepareRuntime(runtime.binary, prepared, arch, project.nodeVersion, say)

    const { main, parts, packages } = await bundleProgram(entry, work, project, say)
    const made = path.join(work, NAME)
    await makeExecutable({ main, parts }, prepared, made, arch, project.nodeVersion, work)
    fs.chmodSync(made, 0o755)
    checkExecutable(made, arch)
    if (options.entry === undefined && arch === process.arch) tryVersion(made, project.version)

    const licenses = `${out}.LICENSES.txt`
    const sbom = `${out}.cdx.json`
    replaceFile(licenses, renderLicenses(project, runtime, packages))
    replaceFile(sbom, renderSbom(project, runtime, packages, arch, made))
    if (options.entry === undefined) await writeSchemas(`${out}.schemas`)
    fs.renameSync(made, out)
    const sizeMb = (fs.statSync(out).size / 1e6).toFixed(1)
    say(`wrote ${shorten(out)} (linux-${arch}, ${sizeMb} MB)`)
    return { out, licenses, sbom, packages }
  } finally {
    removeWork()
    process.off('exit', removeWork)
  }
}

/**
 * `bool __atomic_compare_exchange(size_t size, void *object, void *expected, void *desired, int success, int failure)`
 * for objects of eight bytes, the one size the runtime calls it with: both orders are the strongest there is, and any
 * other size traps, so that a mistake shows. Position-independent, no stack, no data.
 *
 * @type {Readonly<Record<number, Buffer>>} by `e_machine`
 * Source: GCC manual, "Built-in Functions for Memory Model Aware Atomic Operations"; Intel SDM, CMPXCHG, LOCK;
 * Arm ARM, LDAXR, STLXR; the two procedure call standards.
 */
export const COMPARE_EXCHANGE = Object.freeze({
  [ELF_MACHINES.x64]: fromHex(
    '48 83 ff 08', //     00  cmp   rdi, 8
    '75 19', //           04  jne   1f
    '48 8b 02', //        06  mov   rax, [rdx]          rax = *expected
    '48 8b 09', //        09  mov   rcx, [rcx]          rcx = *desired
    'f0 48 0f b1 0e', //  0c  lock cmpxchg [rsi], rcx   *object == rax ? *object = rcx : rax = *object
    '75 06', //           11  jne   19
    'b8 01 00 00 00', //  13  mov   eax, 1
    'c3', //              18  ret                       return true
    '48 89 02', //        19  mov   [rdx], rax          *expected = what is there
    '31 c0', //           1c  xor   eax, eax
    'c3', //              1e  ret                       return false
    '0f 0b', //           1f  ud2
  ),
  [ELF_MACHINES.arm64]: fromHex(
    '1f 20 00 f1', //     00  cmp   x0, #8
    'a1 01 00 54', //     04  b.ne  38
    '44 00 40 f9', //     08  ldr   x4, [x2]            x4 = *expected
    '65 00 40 f9', //     0c  ldr   x5, [x3]            x5 = *desired
    '26 fc 5f c8', //     10  ldaxr x6, [x1]            x6 = *object, watched from here on
    'df 00 04 eb', //     14  cmp   x6, x4
    'a1 00 00 54', //     18  b.ne  2c
    '25 fc 07 c8', //     1c  stlxr w7, x5, [x1]        *object = x5, unless somebody wrote to it meanwhile
    '87 ff ff 35', //     20  cbnz  w7, 10
    '20 00 80 52', //     24  mov   w0, #1
    'c0 03 5f d6', //     28  ret                       return true
    '46 00 00 f9', //     2c  str   x6, [x2]            *expected = what is there
    '00 00 80 52', //     30  mov   w0, #0
    'c0 03 5f d6', //     34  ret                       return false
    '00 00 20 d4', //     38  brk   #0
  ),
})

/** Name of the section that shows `COMPARE_EXCHANGE` to a disassembler: `objdump -d -j .text.atomic FILE`. */
export const COMPARE_EXCHANGE_SECTION = '.text.atomic'

/**
 * Makes an executable start on machines without libatomic.so.1, should one function be all it wants from there.
 *
 * Node's own executables import `__atomic_compare_exchange` from that library, which small images do not have. The
 * function goes into the file, and every trace of the library out of it:
 *   text segment   grows by `COMPARE_EXCHANGE`, into the padding before the next page, which is mapped anyway
 *   .got           the slot that the call goes through holds its address: such an executable is not relocated
 *   .rela.plt      the entry that had the slot filled at start becomes R_*_NONE
 *   .dynsym        the symbol is defined, hidden and without a version: nobody looks it up any more
 *   .gnu.version_r the library's entry is unlinked
 *   .dynamic       its DT_NEEDED is gone
 * No other instruction and no other byte of data changes.
 * @param {Buffer} elf whole file; not modified
 * @returns {Buffer} the changed file, or the same when it needs no libatomic.so.1
 * @throws {BuildError} when it wants anything else from there, or is not linked as expected
 * Source: elf(5); System V gABI, "Dynamic Linking"; Linux Standard Base, "Symbol Versioning".
 */
export function bindCompareExchange(elf) {
  const LIBRARY = 'libatomic.so.1'
  const refuse = (reason) => {
    throw new BuildError(`Cannot free the runtime of ${LIBRARY}: ${reason}`)
  }
  const changed = Buffer.from(elf)
  const sections = readSections(changed)
  const find = (name) => {
    const section = sections.find((each) => each.name === name)
    if (!section) return refuse(`it has no section ${name}`)
    const offset = Number(section.header.readBigUInt64LE(SH_OFFSET))
    return { ...section, content: changed.subarray(offset, section.endOffset) }
  }
  const dynamic = sections.some(({ name }) => name === '.dynamic') ? find('.dynamic').content : undefined
  if (dynamic === undefined) return elf
  const names = find('.dynstr').content
  const nameAt = (at) => names.toString('latin1', at, names.indexOf(0, at))
  const neededAt = findRecord(dynamic, 16, (at) => {
    return dynamic.readBigUInt64LE(at) === DT_NEEDED && nameAt(Number(dynamic.readBigUInt64LE(at + 8))) === LIBRARY
  })
  if (neededAt === -1) return elf

  const ET_EXEC = 2
  if (changed.readUInt16LE(16) !== ET_EXEC) refuse('it is position-independent, so addresses are not known yet')
  const code = COMPARE_EXCHANGE[changed.readUInt16LE(E_MACHINE)] ?? refuse('there is no code for its machine')
  const { address, offset } = growTextSegment(changed, code, refuse)

  const symbols = find('.dynsym').content
  const versions = find('.gnu.version').content
  const needs = unlinkVersions(find('.gnu.version_r'), (at) => nameAt(at) === LIBRARY)
  const wanted = []
  for (let index = 0; index * 2 < versions.length; index++) {
    if (needs.versions.has(versions.readUInt16LE(index * 2))) wanted.push(index)
  }
  const [symbol] = wanted
  const symbolAt = (symbol ?? 0) * SYM_BYTES
  if (wanted.length !== 1 || nameAt(symbols.readUInt32LE(symbolAt)) !== '__atomic_compare_exchange') {
    refuse(`it imports ${wanted.map((index) => nameAt(symbols.readUInt32LE(index * SYM_BYTES))).join(', ')}`)
  }
  const STV_HIDDEN = 2
  const VER_NDX_GLOBAL = 1
  symbols.writeUInt8(STV_HIDDEN, symbolAt + 5)
  symbols.writeUInt16LE(sections.length, symbolAt + 6)
  symbols.writeBigUInt64LE(BigInt(address), symbolAt + 8)
  symbols.writeBigUInt64LE(BigInt(code.length), symbolAt + 16)
  versions.writeUInt16LE(VER_NDX_GLOBAL, symbol * 2)

  const jumps = find('.rela.plt').content
  const jumpAt = findRecord(jumps, RELA_BYTES, (at) => jumps.readUInt32LE(at + 12) === symbol)
  const isElsewhere = (at) => find('.rela.dyn').content.readUInt32LE(at + 12) === symbol
  if (jumpAt === -1 || findRecord(find('.rela.dyn').content, RELA_BYTES, isElsewhere) !== -1) {
    refuse('its calls do not go through the procedure linkage table alone')
  }
  const slot = jumps.readBigUInt64LE(jumpAt)
  jumps.fill(0, jumpAt + 8, jumpAt + RELA_BYTES)
  changed.writeBigUInt64LE(BigInt(address), toOffset(changed, slot))

  dynamic.copyWithin(neededAt, neededAt + 16)
  dynamic.fill(0, dynamic.length - 16)
  for (const [tag, by] of /** @type {const} */ ([
    [DT_VERNEED, needs.movedBy],
    [DT_VERNEEDNUM, -1],
  ])) {
    const at = findRecord(dynamic, 16, (each) => dynamic.readBigUInt64LE(each) === tag) + 8
    dynamic.writeBigUInt64LE(dynamic.readBigUInt64LE(at) + BigInt(by), at)
  }
  return addSection(changed, sections, COMPARE_EXCHANGE_SECTION, address, offset, code.length)
}

/**
 * Writes the JSON Schemas of the files that people write for the agent: what `rules schema` prints, for editors.
 * @param {string} folder made when it is missing
 */
async function writeSchemas(folder) {
  const { makeSchema, SCHEMA_NAMES } = await import(new URL('./src/rules/schema.ts', import.meta.url).href)
  fs.mkdirSync(folder, { recursive: true })
  for (const name of SCHEMA_NAMES) {
    replaceFile(path.join(folder, `${name}.schema.json`), `${JSON.stringify(makeSchema(name), undefined, 2)}\n`)
  }
}

/**
 * Removes symbols and debugging data from a 64-bit little-endian ELF file, of any architecture.
 *
 * Layout of the result:
 *   [0, end)   as it was, where end is the last byte that a segment or an allocated section occupies
 *   .shstrtab  names of the sections that stay
 *   headers    of the null section, every SHF_ALLOC section, and .shstrtab
 * Segments are never touched, so the program that runs is the same, byte for byte. Stripping twice changes nothing more.
 * @param {Buffer} elf whole file; not modified
 * @returns {Buffer} the smaller file
 * @throws {BuildError} when `elf` is not such a file
 * Source: elf(5); elf.h, Elf64_Ehdr, Elf64_Phdr, Elf64_Shdr.
 */
export function stripElf(elf) {
  const ELFCLASS64_ELFDATA2LSB = 0x0102
  if (elf.length < 64 || elf.readUInt32BE(0) !== 0x7f454c46 || elf.readUInt16LE(4) !== ELFCLASS64_ELFDATA2LSB) {
    throw new BuildError('Cannot strip the runtime: not a 64-bit little-endian ELF file')
  }
  const sections = readSections(elf)
  if (sections.length === 0) return Buffer.from(elf)

  const SHF_ALLOC = 2n
  const kept = sections.filter((section, index) => index === 0 || (section.flags & SHF_ALLOC) !== 0n)
  const newIndex = new Map(kept.map((section, index) => [section.index, index]))
  const end = endOfLoadedPart(elf, kept)

  const names = Buffer.from(['', ...kept.slice(1).map((section) => section.name), '.shstrtab', ''].join('\0'), 'latin1')
  const headersAt = Math.ceil((end + names.length) / 8) * 8
  const stripped = Buffer.alloc(headersAt + (kept.length + 1) * SHDR_BYTES)
  elf.copy(stripped, 0, 0, end)
  names.copy(stripped, end)

  let nameAt = 1
  kept.forEach((section, index) => {
    const at = headersAt + index * SHDR_BYTES
    section.header.copy(stripped, at)
    stripped.writeUInt32LE(index === 0 ? 0 : nameAt, at + SH_NAME)
    stripped.writeUInt32LE(newIndex.get(section.link) ?? 0, at + SH_LINK)
    // sh_info names a section only where the flag says so; elsewhere it is a count, which stays.
    const SHF_INFO_LINK = 0x40n
    if (section.flags & SHF_INFO_LINK) stripped.writeUInt32LE(newIndex.get(section.info) ?? 0, at + SH_INFO)
    if (index > 0) nameAt += section.name.length + 1
  })
  const SHT_STRTAB = 3
  const at = headersAt + kept.length * SHDR_BYTES
  stripped.writeUInt32LE(nameAt, at + SH_NAME)
  stripped.writeUInt32LE(SHT_STRTAB, at + SH_TYPE)
  stripped.writeBigUInt64LE(BigInt(end), at + SH_OFFSET)
  stripped.writeBigUInt64LE(BigInt(names.length), at + SH_SIZE)
  stripped.writeBigUInt64LE(1n, at + SH_ADDRALIGN)

  stripped.writeBigUInt64LE(BigInt(headersAt), E_SHOFF)
  stripped.writeUInt16LE(kept.length + 1, E_SHNUM)
  stripped.writeUInt16LE(kept.length, E_SHSTRNDX)
  return stripped
}

/**
 * Refuses any Node but the pinned one: the program uses node:ffi of exactly that version, and the blob that goes into the
 * runtime can be read only by the version that wrote it.
 * @param {string} wanted three numbers
 * @param {string} running `process.versions.node`
 * @throws {BuildError} saying what to do
 */
export function checkNode(wanted, running = process.versions.node) {
  if (running === wanted) return
  throw new BuildError(
    `Cannot build with Node ${running}: package.json pins ${wanted}.\n` +
      '  Run "npm ci", then "npm run build": npm finds the pinned Node in node_modules/.bin.\n' +
      `  If this line comes back, npm skipped the optional package node-linux-${process.arch}; ` +
      '"npm ci --include=optional" tells why.',
  )
}

/**
 * What package.json and the lock file say. The pinned Node version must be the same for every architecture.
 * @param {string | undefined} nodeVersion in place of the pinned one
 */
function readProject(nodeVersion) {
  if (nodeVersion !== undefined && nodeVersion !== process.versions.node) {
    throw new BuildError(
      `Cannot build on Node ${nodeVersion}: this is Node ${process.versions.node}, and only the same version can put a program in`,
    )
  }
  const manifest = readJson(path.join(ROOT, 'package.json'))
  const pins = Object.entries(manifest.optionalDependencies ?? {}).filter(([name]) => name.startsWith('node-linux-'))
  const pinned = pins[0]?.[1]
  if (!/^\d+\.\d+\.\d+$/.test(pinned ?? '') || pins.some(([, version]) => version !== pinned)) {
    throw new BuildError(
      'Cannot tell the pinned Node version: node-linux-* in package.json need one and the same version',
    )
  }
  return {
    version: manifest.version,
    description: manifest.description,
    license: manifest.license,
    nodeVersion: nodeVersion ?? pinned,
    lock: readJson(path.join(ROOT, 'package-lock.json')).packages,
  }
}

/**
 * Finds the Node executable to build on: what the caller names, else the installed npm package, else a fetched one.
 * @param {string} arch
 * @param {string | undefined} given a file, or a folder that holds `bin/node`
 * @param {ReturnType<typeof readProject>} project
 * @param {(line: string) => void} say
 * @returns {Runtime}
 */
function findRuntime(arch, given, project, say) {
  const name = `node-linux-${arch}`
  const lockKey = `node_modules/${name}`
  if (given !== undefined) {
    const isFolder = fs.statSync(given, { throwIfNoEntry: false })?.isDirectory() ?? false
    const binary = path.resolve(isFolder ? path.join(given, 'bin', 'node') : given)
    if (!fs.existsSync(binary)) throw new BuildError(`Cannot use runtime ${given}: no such file`)
    return { binary, folder: path.resolve(path.dirname(binary), '..'), lockKey: undefined }
  }
  const installed = path.join(ROOT, 'node_modules', name)
  const folder = fs.existsSync(path.join(installed, 'bin', 'node')) ? installed : fetchRuntime(arch, project, say)
  const version = readJson(path.join(folder, 'package.json')).version
  if (version !== project.nodeVersion) {
    throw new BuildError(`Cannot use ${name} ${version}: package.json pins ${project.nodeVersion}; run "npm ci"`)
  }
  return { binary: path.join(folder, 'bin', 'node'), folder, lockKey }
}

/**
 * Fetches the runtime of another architecture, which npm leaves out of node_modules. npm installs it into a project of its
 * own, whose lock file is the entry of ours, and refuses a package that does not have that entry's integrity hash.
 * The only step of a build that may use a network, and only for `--arch`; done once, then found in node_modules/.cache.
 * @param {string} arch
 * @param {ReturnType<typeof readProject>} project
 * @param {(line: string) => void} say
 * @returns {string} the package's folder
 */
function fetchRuntime(arch, project, say) {
  const name = `node-linux-${arch}`
  if (arch === process.arch)
    throw new BuildError(`Cannot find ${name}: npm skipped it; run "npm ci --include=optional"`)
  const home = path.join(ROOT, 'node_modules', '.cache', NAME, `runtime-${arch}-${project.nodeVersion}`)
  const folder = path.join(home, 'node_modules', name)
  const isThere = () => fs.existsSync(path.join(folder, 'bin', 'node'))
  if (isThere()) return folder

  say(`fetching ${name} ${project.nodeVersion} with npm, by package-lock.json`)
  const entry = project.lock[`node_modules/${name}`]
  if (!entry?.integrity) throw new BuildError(`Cannot fetch ${name}: package-lock.json has no integrity hash for it`)
  // Optional, because npm holds only an optional package against --cpu; for others it looks at the machine.
  const optionalDependencies = { [name]: entry.version }
  const packages = { '': { optionalDependencies }, [`node_modules/${name}`]: { ...entry, optional: true } }
  fs.mkdirSync(home, { recursive: true })
  fs.writeFileSync(path.join(home, 'package.json'), JSON.stringify({ private: true, optionalDependencies }))
  fs.writeFileSync(path.join(home, 'package-lock.json'), JSON.stringify({ lockfileVersion: 3, packages }))

  const npm = process.env.npm_execpath ? [process.execPath, process.env.npm_execpath] : ['npm']
  const flags = ['ci', `--cpu=${arch}`, '--os=linux', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']
  const ran = spawnSync(npm[0] ?? 'npm', [...npm.slice(1), ...flags], { cwd: home, encoding: 'utf8' })
  if (ran.status === 0 && isThere()) return folder
  fs.rmSync(home, { recursive: true, force: true })
  const cause = (ran.stderr || ran.error?.message || `npm left no ${name} behind`).trim()
  throw new BuildError(
    `Cannot fetch ${name}: ${cause}\n  With no network, name the runtime with --runtime (see --help).`,
  )
}

/**
 * Writes the runtime to `target`, in need of fewer libraries and without symbols, from node_modules/.cache when the same
 * input was prepared before. The cache is a convenience: where it cannot be written, the build goes on without.
 * @param {string} source
 * @param {string} target
 * @param {string} arch
 * @param {string} nodeVersion
 * @param {(line: string) => void} say
 */
function prepareRuntime(source, target, arch, nodeVersion, say) {
  const elf = fs.readFileSync(source)
  checkMachine(elf, arch, source)
  // A foreign binary cannot be asked for its version, but it names the archive it was released in.
  if (!elf.includes(`/v${nodeVersion}/node-v${nodeVersion}`)) {
    throw new BuildError(`Cannot use runtime ${shorten(source)}: it is not Node ${nodeVersion}`)
  }
  // The number changes with what is done to the runtime, the hash with the runtime.
  const cached = path.join(ROOT, 'node_modules', '.cache', NAME, `node-prepared-1-${sha256(elf)}`)
  if (fs.existsSync(cached)) {
    say(`took the prepared Node ${nodeVersion} linux-${arch} from the cache`)
    return fs.copyFileSync(cached, target, fs.constants.COPYFILE_FICLONE)
  }
  const prepared = bindCompareExchange(stripElf(elf))
  fs.writeFileSync(target, prepared, { mode: 0o755 })
  say(`prepared Node ${nodeVersion} linux-${arch}: ${toMb(elf.length)} to ${toMb(prepared.length)} MB`)
  try {
    fs.mkdirSync(path.dirname(cached), { recursive: true })
    replaceFile(cached, prepared, 0o755)
  } catch {
    say('kept no copy of the prepared runtime: node_modules/.cache cannot be written')
  }
}

/**
 * Bundles the program: `main` with all it imports, and one part for each module reached by `import()` only. Parts become
 * assets of the executable and are read, parsed and evaluated when first needed, so `--version` pays for `main` alone.
 *
 * Two steps, because the bundler splits ES modules only and the executable starts CommonJS only: split, then convert each
 * file. Nothing is renamed or minified: that would gain nothing here, and a stack trace should read like the source.
 * A warning of the bundler fails the build, for it names code that will not run.
 * @param {string} entry
 * @param {string} work
 * @param {ReturnType<typeof readProject>} project
 * @param {(line: string) => void} say
 * @returns {Promise<{ main: string, parts: string[], packages: Package[] }>} files, and the packages with code in them
 */
async function bundleProgram(entry, work, project, say) {
  const esbuild = await import('esbuild')
  const common = /** @type {const} */ ({ platform: 'node', target: `node${project.nodeVersion}`, logLevel: 'silent' })
  const split = await esbuild.build({
    ...common,
    absWorkingDir: ROOT,
    entryPoints: [entry],
    outdir: path.join(work, 'parts'),
    entryNames: 'main',
    bundle: true,
    format: 'esm',
    splitting: true,
    define: { __VERSION__: JSON.stringify(project.version) },
    // A linked node_modules then gives the same names, and bytes, as a real one.
    preserveSymlinks: true,
    metafile: true,
    write: false,
  })
  checkLazyImports(split.metafile)
  const warnings = [...split.warnings]
  const folder = path.join(work, 'parts')
  fs.mkdirSync(folder)
  for (const { path: file, text } of split.outputFiles) {
    const sourcefile = path.basename(file)
    const supported = { 'dynamic-import': false }
    const converted = await esbuild.transform(text, { ...common, format: 'cjs', supported, sourcefile })
    warnings.push(...converted.warnings)
    fs.writeFileSync(
      file,
      sourcefile === 'main.js' ? `require = (${linkParts})(require)\n${converted.code}` : converted.code,
    )
  }
  if (warnings.length > 0) {
    const lines = await esbuild.formatMessages(warnings, { kind: 'warning' })
    throw new BuildError(`Cannot bundle ${shorten(entry)} without doubt:\n${lines.join('')}`)
  }
  const inputs = Object.values(split.metafile.outputs).flatMap((output) => Object.entries(output.inputs))
  const packages = findPackages(inputs.filter(([, { bytesInOutput }]) => bytesInOutput > 0).map(([file]) => file))
  const files = split.outputFiles.map((file) => file.path).sort()
  const main = path.join(folder, 'main.js')
  const sizeKb = (file) => Math.ceil(fs.statSync(file).size / 1e3)
  const parts = files.filter((file) => file !== main)
  const totalKb = parts.reduce((sum, file) => sum + sizeKb(file), 0)
  say(`bundled ${inputs.length} modules: ${sizeKb(main)} kB read at start, ${totalKb} kB when needed`)
  return { main, parts, packages }
}

/**
 * Lets the parts of the program find one another inside the executable. Goes into it as text, in front of `main`, hence
 * refers to nothing outside itself.
 * @param {NodeJS.Require} builtin the executable's own `require`, which knows the modules of Node only
 * @returns {(name: string) => unknown} the same for parts too, each evaluated once
 */
function linkParts(builtin) {
  const loaded = new Map()
  function link(name) {
    if (!name.startsWith('./')) return builtin(name)
    const known = loaded.get(name)
    if (known) return known.exports
    const filename = name.slice(2)
    const part = { exports: {} }
    loaded.set(name, part)
    const code = builtin('node:sea').getAsset(filename, 'utf8')
    const run = builtin('node:vm').compileFunction(code, ['exports', 'require', 'module'], { filename })
    try {
      run(part.exports, link, part)
    } catch (error) {
      // Half a part is no part: whoever asks next shall see the error too.
      loaded.delete(name)
      throw error
    }
    return part.exports
  }
  return link
}

/**
 * Refuses `import('package')` where the package is CommonJS: split off, it would have a default export only, while the
 * same line run from source has named ones as well. A module of ours in between makes both the same.
 * @param {import('esbuild').Metafile} metafile
 */
function checkLazyImports({ inputs }) {
  for (const [file, { imports }] of Object.entries(inputs)) {
    const wrong = imports.find(({ kind, path: to }) => kind === 'dynamic-import' && inputs[to]?.format === 'cjs')
    if (!wrong) continue
    throw new BuildError(
      `Cannot split the bundle: ${file} calls import() on ${wrong.original ?? wrong.path}, a CommonJS package.\n` +
        '  Import it in a module of ours, and call import() on that one.',
    )
  }
}

/**
 * Names the packages that `files` belong to.
 * @param {string[]} files paths relative to the project
 * @returns {Package[]} sorted by name, then version
 */
function findPackages(files) {
  const folders = new Set(files.flatMap((file) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file)?.[0] ?? []))
  return [...folders]
    .map((lockKey) => {
      const folder = path.join(ROOT, lockKey)
      const manifest = readJson(path.join(folder, 'package.json'))
      const dependencies = Object.keys(manifest.dependencies ?? {})
      return {
        name: manifest.name,
        version: manifest.version,
        license: manifest.license,
        folder,
        lockKey,
        dependencies,
      }
    })
    .sort((a, b) => (`${a.name} ${a.version}` < `${b.name} ${b.version}` ? -1 : 1))
}

/**
 * Puts the bundle into the runtime, with pkg's SEA function.
 *
 * pkg looks for the runtime in `$HOME/.pkg-cache` before it would download it, so $HOME points into our work folder and the
 * prepared runtime lies there, with the marks of a finished download. The function is called directly because the command
 * line of pkg cannot pass `seaConfig`; it is not a public interface, which is one reason for the exact version of pkg.
 * @param {{ main: string, parts: string[] }} program files in one folder inside `work`
 * @param {string} runtime prepared; moved away
 * @param {string} output absolute: pkg changes its working folder
 * @param {string} arch
 * @param {string} nodeVersion
 * @param {string} work
 */
async function makeExecutable({ main, parts }, runtime, output, arch, nodeVersion, work) {
  const cached = path.join(work, '.pkg-cache', 'sea', `node-v${nodeVersion}-linux-${arch}`)
  fs.mkdirSync(path.join(cached, 'bin'), { recursive: true })
  fs.renameSync(runtime, path.join(cached, 'bin', 'node'))
  for (const mark of [`${cached}.tar.gz`, `${cached}.tar.gz.ok`, path.join(cached, 'bin', 'node.ok')]) {
    fs.writeFileSync(mark, '')
  }

  const require = createRequire(import.meta.url)
  const { log } = require('@yao-pkg/pkg/lib-es5/log.js')
  const makeSea = require('@yao-pkg/pkg/lib-es5/sea.js').default
  log.info = () => {}
  const restore = setEnv({ HOME: work, TMPDIR: work, NODE_OPTIONS: undefined })
  try {
    await makeSea(main, {
      signature: false,
      targets: [{ platform: 'linux', arch, nodeRange: `node${nodeVersion}`, output }],
      seaConfig: {
        // pkg runs the generator in a fresh folder under $TMPDIR. This path gets into the blob: relative, it is the same
        // for everybody.
        main: path.join('..', path.relative(work, main)),
        assets: Object.fromEntries(parts.map((file) => [path.basename(file), file])),
        disableExperimentalSEAWarning: true,
        useSnapshot: false,
        useCodeCache: false,
        execArgv: EXEC_ARGV,
        execArgvExtension: 'none',
      },
    })
  } finally {
    restore()
  }
}

/** Checks what can be seen from outside: the architecture, and that the runtime knows it carries a program. */
function checkExecutable(file, arch) {
  const bytes = fs.readFileSync(file)
  checkMachine(bytes, arch, file)
  if (!bytes.includes(SEA_FUSE)) throw new BuildError(`Cannot use ${shorten(file)}: the program was not put in`)
}

/** Runs `--version` once, with nothing in the environment: an executable that cannot do this is not written. */
function tryVersion(file, version) {
  const ran = spawnSync(file, ['--version'], { cwd: '/', env: {}, encoding: 'utf8', timeout: 60_000 })
  if (ran.status === 0 && ran.stdout === `${version}\n` && ran.stderr === '') return
  const seen = JSON.stringify({ status: ran.status, signal: ran.signal, stdout: ran.stdout, stderr: ran.stderr })
  throw new BuildError(`Cannot use the new executable: --version should print ${version}, got ${seen}`)
}

/**
 * Renders the licence texts of everything inside the executable, our own first, then the runtime's, then each package's.
 * @param {ReturnType<typeof readProject>} project
 * @param {Runtime} runtime
 * @param {Package[]} packages
 */
function renderLicenses(project, runtime, packages) {
  const parts = [
    { title: `${NAME} ${project.version} (${project.license})`, text: readLicense(ROOT, NAME) },
    { title: `Node.js ${project.nodeVersion}`, text: readRuntimeLicense(runtime) },
    ...packages.map(({ name, version, license, folder }) => ({
      title: `${name} ${version} (${license})`,
      text: readLicense(folder, name),
    })),
  ]
  const rule = '='.repeat(80)
  const head = `The executable ${NAME} contains the works below.\n\n${parts.map(({ title }) => `- ${title}\n`).join('')}`
  return head + parts.map(({ title, text }) => `\n${rule}\n${title}\n${rule}\n\n${text.trim()}\n`).join('')
}

/** The runtime's licence file; for one given as a bare file, that of the installed package, which has the same version. */
function readRuntimeLicense(runtime) {
  const installed = path.join(ROOT, 'node_modules', `node-linux-${process.arch}`)
  const folder = [runtime.folder, installed].find((dir) => dir && fs.existsSync(path.join(dir, 'LICENSE')))
  if (!folder) throw new BuildError('Cannot write the licences: no LICENSE of Node.js beside the runtime')
  return fs.readFileSync(path.join(folder, 'LICENSE'), 'utf8')
}

/** The licence and notice texts of a package. One that ships none cannot be distributed, so the build stops. */
function readLicense(folder, name) {
  const files = fs.readdirSync(folder).filter((file) => /^(licen[cs]e|copying|notice)([.-].*)?$/i.test(file))
  if (files.length === 0) throw new BuildError(`Cannot write the licences: ${name} has no licence file`)
  return files
    .sort()
    .map((file) => fs.readFileSync(path.join(folder, file), 'utf8'))
    .join('\n')
}

/**
 * Renders the bill of materials in CycloneDX 1.6: the runtime with the libraries linked into it, and the bundled packages.
 * Carries no time; the serial number is made from the executable's hash, so it is new exactly when the executable is.
 * @param {ReturnType<typeof readProject>} project
 * @param {Runtime} runtime
 * @param {Package[]} packages
 * @param {string} arch
 * @param {string} executable
 * Source: CycloneDX 1.6 JSON reference.
 */
function renderSbom(project, runtime, packages, arch, executable) {
  const hash = sha256(fs.readFileSync(executable))
  const self = `pkg:generic/${NAME}@${project.version}?arch=${arch}`
  const node = describeRuntime(project, runtime, arch)
  const libraries = packages.map((pkg) => describePackage(pkg, project.lock))
  const bom = {
    $schema: 'http://cyclonedx.org/schema/bom-1.6.schema.json',
    bomFormat: 'CycloneDX',
    specVersion: '1.6',
    serialNumber: `urn:uuid:${toUuid(hash)}`,
    version: 1,
    metadata: {
      lifecycles: [{ phase: 'build' }],
      tools: { components: ['esbuild', '@yao-pkg/pkg', 'postject'].map((name) => describeTool(name, project.lock)) },
      component: {
        type: 'application',
        'bom-ref': self,
        name: NAME,
        version: project.version,
        description: project.description,
        licenses: describeLicense(project.license),
        hashes: [{ alg: 'SHA-256', content: hash }],
        purl: self,
      },
    },
    components: [node, ...libraries],
    dependencies: [
      { ref: self, dependsOn: [node['bom-ref'], ...libraries.map((library) => library['bom-ref'])] },
      { ref: node['bom-ref'], dependsOn: node.components.map((part) => part['bom-ref']) },
      ...packages.map((pkg) => ({
        ref: toPurl(pkg.name, pkg.version),
        dependsOn: packages.filter(({ name }) => pkg.dependencies.includes(name)).map((d) => toPurl(d.name, d.version)),
      })),
    ],
  }
  return `${JSON.stringify(bom, undefined, 2)}\n`
}

/** The Node runtime as a component. The libraries inside have no package of their own; scanners know them by name. */
function describeRuntime(project, runtime, arch) {
  const name = `node-linux-${arch}`
  const ref = toPurl(name, project.nodeVersion)
  const notLibraries = new Set(['node', 'modules', 'napi', 'unicode', 'tz', 'cldr'])
  const parts = Object.entries(process.versions).filter(([part, version]) => version && !notLibraries.has(part))
  return {
    type: 'platform',
    'bom-ref': ref,
    name: 'node',
    version: project.nodeVersion,
    description: 'Node.js runtime, without its symbol table',
    licenses: describeLicense('MIT'),
    cpe: `cpe:2.3:a:nodejs:node.js:${project.nodeVersion}:*:*:*:*:*:*:*`,
    purl: ref,
    ...(runtime.lockKey ? { hashes: describeHashes(project.lock[runtime.lockKey]?.integrity) } : {}),
    properties: [{ name: `${NAME}:binary:sha256`, value: sha256(fs.readFileSync(runtime.binary)) }],
    components: parts.map(([part, version]) => ({
      type: 'library',
      'bom-ref': `${ref}#${part}`,
      name: part,
      version,
      purl: `pkg:generic/${part}@${encodeURIComponent(version)}`,
    })),
  }
}

/**
 * @param {Package} pkg
 * @param {Record<string, { integrity?: string }>} lock
 */
function describePackage(pkg, lock) {
  const purl = toPurl(pkg.name, pkg.version)
  return {
    type: 'library',
    'bom-ref': purl,
    name: pkg.name,
    version: pkg.version,
    licenses: describeLicense(pkg.license),
    purl,
    hashes: describeHashes(lock[pkg.lockKey]?.integrity),
  }
}

/**
 * @param {string} name
 * @param {Record<string, { version?: string }>} lock
 */
function describeTool(name, lock) {
  const version = lock[`node_modules/${name}`]?.version ?? ''
  return { type: 'application', name, version, purl: toPurl(name, version) }
}

/** @param {string} license an SPDX identifier or expression */
function describeLicense(license) {
  return /^[\w.+-]+$/.test(license) ? [{ license: { id: license } }] : [{ expression: license }]
}

/** @param {string | undefined} integrity what a lock file says: algorithm, dash, base64 */
function describeHashes(integrity) {
  const base64 = /^sha512-(\S+)/.exec(integrity ?? '')?.[1]
  return base64 ? [{ alg: 'SHA-512', content: Buffer.from(base64, 'base64').toString('hex') }] : []
}

/** @param {string} name @param {string} version */
function toPurl(name, version) {
  return `pkg:npm/${name.replace('@', '%40')}@${version}`
}

/** Shapes a hash as a version 8 UUID: the sort whose bits mean what the application says. Source: RFC 9562, section 5.8. */
function toUuid(hexHash) {
  const variant = ((Number.parseInt(hexHash.slice(16, 18), 16) & 0x3f) | 0x80).toString(16)
  const h = `${hexHash.slice(0, 12)}8${hexHash.slice(13, 16)}${variant}${hexHash.slice(18, 32)}`
  return [h.slice(0, 8), h.slice(8, 12), h.slice(12, 16), h.slice(16, 20), h.slice(20)].join('-')
}

const E_MACHINE = 18
const E_PHOFF = 32
const E_SHOFF = 40
const E_PHENTSIZE = 54
const E_PHNUM = 56
const E_SHENTSIZE = 58
const E_SHNUM = 60
const E_SHSTRNDX = 62
const P_FLAGS = 4
const P_OFFSET = 8
const P_VADDR = 16
const P_FILESZ = 32
const P_MEMSZ = 40
const SHDR_BYTES = 64
const SH_NAME = 0
const SH_TYPE = 4
const SH_FLAGS = 8
const SH_ADDR = 16
const SH_OFFSET = 24
const SH_SIZE = 32
const SH_LINK = 40
const SH_INFO = 44
const SH_ADDRALIGN = 48
const SYM_BYTES = 24
const RELA_BYTES = 24
const DT_NEEDED = 1n
const DT_VERNEED = 0x6ffffffen
const DT_VERNEEDNUM = 0x6fffffffn

/** Reads the section headers; none at all is a legal file. @param {Buffer} elf */
function readSections(elf) {
  const at = Number(elf.readBigUInt64LE(E_SHOFF))
  const count = elf.readUInt16LE(E_SHNUM)
  if (at === 0) return []
  if (elf.readUInt16LE(E_SHENTSIZE) !== SHDR_BYTES || count === 0 || at + count * SHDR_BYTES > elf.length) {
    throw new BuildError('Cannot strip the runtime: its section headers are not where the ELF header says')
  }
  const headers = Array.from({ length: count }, (_, i) => elf.subarray(at + i * SHDR_BYTES, at + (i + 1) * SHDR_BYTES))
  const namesAt = Number(headers[elf.readUInt16LE(E_SHSTRNDX)]?.readBigUInt64LE(SH_OFFSET) ?? 0n)
  return headers.map((header, index) => {
    const nameAt = namesAt + header.readUInt32LE(SH_NAME)
    return {
      index,
      header,
      name: elf.toString('latin1', nameAt, elf.indexOf(0, nameAt)),
      type: header.readUInt32LE(SH_TYPE),
      flags: header.readBigUInt64LE(SH_FLAGS),
      endOffset: Number(header.readBigUInt64LE(SH_OFFSET) + header.readBigUInt64LE(SH_SIZE)),
      link: header.readUInt32LE(SH_LINK),
      info: header.readUInt32LE(SH_INFO),
    }
  })
}

/** The offset of the first record that `isIt` accepts, or -1. @param {Buffer} table @param {number} sizeBytes */
function findRecord(table, sizeBytes, isIt) {
  for (let at = 0; at + sizeBytes <= table.length; at += sizeBytes) if (isIt(at)) return at
  return -1
}

/** The loaded segments: where their program headers are, and what those say. @param {Buffer} elf */
function readLoadSegments(elf) {
  const PT_LOAD = 1
  const table = Number(elf.readBigUInt64LE(E_PHOFF))
  const size = elf.readUInt16LE(E_PHENTSIZE)
  return Array.from({ length: elf.readUInt16LE(E_PHNUM) }, (_, i) => table + i * size)
    .filter((at) => elf.readUInt32LE(at) === PT_LOAD)
    .map((at) => ({
      at,
      flags: elf.readUInt32LE(at + P_FLAGS),
      offset: Number(elf.readBigUInt64LE(at + P_OFFSET)),
      address: Number(elf.readBigUInt64LE(at + P_VADDR)),
      fileBytes: Number(elf.readBigUInt64LE(at + P_FILESZ)),
      memoryBytes: Number(elf.readBigUInt64LE(at + P_MEMSZ)),
    }))
}

/** Where in the file the byte lies that is loaded at `address`. @param {Buffer} elf @param {bigint} address */
function toOffset(elf, address) {
  const wanted = Number(address)
  const holder = readLoadSegments(elf).find((each) => wanted >= each.address && wanted < each.address + each.fileBytes)
  if (!holder) throw new BuildError(`Cannot change the runtime: nothing is loaded at 0x${wanted.toString(16)}`)
  return holder.offset + wanted - holder.address
}

/**
 * Puts `code` behind the last instruction of the executable segment, where its last page has room.
 * @param {Buffer} elf modified
 * @param {Buffer} code
 * @param {(reason: string) => never} refuse
 */
function growTextSegment(elf, code, refuse) {
  const PF_X = 1
  const segments = readLoadSegments(elf)
  const index = segments.findIndex(({ flags }) => (flags & PF_X) !== 0)
  const text = segments[index]
  const next = segments[index + 1]
  if (!text || !next || text.fileBytes !== text.memoryBytes) return refuse('its executable segment is not as expected')
  const offset = Math.ceil((text.offset + text.fileBytes) / 16) * 16
  const address = text.address + offset - text.offset
  const room = elf.subarray(offset, Math.min(next.offset, offset + code.length + 8))
  if (room.length < code.length + 8 || address + code.length > next.address || room.some((byte) => byte !== 0)) {
    return refuse('there is no room behind its code')
  }
  code.copy(elf, offset)
  // In whole words: whoever puts something behind it, the tool that adds the program does, is aligned as well.
  const size = BigInt(Math.ceil((offset + code.length - text.offset) / 8) * 8)
  elf.writeBigUInt64LE(size, text.at + P_FILESZ)
  elf.writeBigUInt64LE(size, text.at + P_MEMSZ)
  return { address, offset }
}

/**
 * Takes the entry of one library out of the list of wanted versions; the section begins with the next when it was first.
 * @param {{ header: Buffer, content: Buffer, info: number }} section .gnu.version_r, modified
 * @param {(nameAt: number) => boolean} isIt
 * @returns the version numbers it gave, and by how many bytes the list now starts later
 * Source: Linux Standard Base, Elfxx_Verneed, Elfxx_Vernaux.
 */
function unlinkVersions({ header, content, info }, isIt) {
  const NEXT = 12
  let before = -1
  let at = 0
  while (!isIt(content.readUInt32LE(at + 4))) {
    const step = content.readUInt32LE(at + NEXT)
    if (step === 0) throw new BuildError('Cannot change the runtime: it names a library, but no version of it')
    before = at
    at += step
  }
  const versions = new Set()
  let one = at + content.readUInt32LE(at + 8)
  for (let count = content.readUInt16LE(at + 2); count > 0; count--) {
    versions.add(content.readUInt16LE(one + 6))
    one += content.readUInt32LE(one + NEXT)
  }
  const step = content.readUInt32LE(at + NEXT)
  const movedBy = before === -1 ? step : 0
  if (before !== -1) content.writeUInt32LE(step === 0 ? 0 : at + step - before, before + NEXT)
  header.writeUInt32LE(info - 1, SH_INFO)
  for (const [field, by] of /** @type {const} */ ([
    [SH_ADDR, movedBy],
    [SH_OFFSET, movedBy],
    [SH_SIZE, -movedBy],
  ])) {
    header.writeBigUInt64LE(header.readBigUInt64LE(field) + BigInt(by), field)
  }
  return { versions, movedBy }
}

/** Adds a section of code, by a new table of sections behind the end of the file. @param {Buffer} elf */
function addSection(elf, sections, name, address, offset, sizeBytes) {
  const SHT_PROGBITS = 1
  const SHF_ALLOC_EXECINSTR = 6n
  const strings = sections[elf.readUInt16LE(E_SHSTRNDX)].header
  const stringsAt = Number(strings.readBigUInt64LE(SH_OFFSET))
  const old = elf.subarray(stringsAt, stringsAt + Number(strings.readBigUInt64LE(SH_SIZE)))
  const names = Buffer.concat([old, Buffer.from(`${name}\0`, 'latin1')])
  const header = Buffer.alloc(SHDR_BYTES)
  header.writeUInt32LE(old.length, SH_NAME)
  header.writeUInt32LE(SHT_PROGBITS, SH_TYPE)
  header.writeBigUInt64LE(SHF_ALLOC_EXECINSTR, SH_FLAGS)
  header.writeBigUInt64LE(BigInt(address), SH_ADDR)
  header.writeBigUInt64LE(BigInt(offset), SH_OFFSET)
  header.writeBigUInt64LE(BigInt(sizeBytes), SH_SIZE)
  header.writeBigUInt64LE(16n, SH_ADDRALIGN)

  strings.writeBigUInt64LE(BigInt(elf.length), SH_OFFSET)
  strings.writeBigUInt64LE(BigInt(names.length), SH_SIZE)
  const headersAt = Math.ceil((elf.length + names.length) / 8) * 8
  const padding = Buffer.alloc(headersAt - elf.length - names.length)
  elf.writeBigUInt64LE(BigInt(headersAt), E_SHOFF)
  elf.writeUInt16LE(sections.length + 1, E_SHNUM)
  return Buffer.concat([elf, names, padding, ...sections.map((section) => section.header), header])
}

/** The end, in bytes, of what a segment, an allocated section or the program header table occupies in the file. */
function endOfLoadedPart(elf, kept) {
  const SHT_NOBITS = 8
  const at = Number(elf.readBigUInt64LE(E_PHOFF))
  const size = elf.readUInt16LE(E_PHENTSIZE)
  const count = elf.readUInt16LE(E_PHNUM)
  const segmentEnds = Array.from({ length: count }, (_, i) => {
    const header = at + i * size
    return Number(elf.readBigUInt64LE(header + P_OFFSET) + elf.readBigUInt64LE(header + P_FILESZ))
  })
  const sectionEnds = kept.filter(({ type }) => type !== SHT_NOBITS).map(({ endOffset }) => endOffset)
  return Math.max(at + count * size, ...segmentEnds, ...sectionEnds)
}

/** @param {Buffer} elf @param {string} arch @param {string} file for the message */
function checkMachine(elf, arch, file) {
  const machine = elf.length > 20 && elf.readUInt32BE(0) === 0x7f454c46 ? elf.readUInt16LE(E_MACHINE) : undefined
  if (machine === ELF_MACHINES[arch]) return
  throw new BuildError(
    `Cannot use ${shorten(file)}: it is no linux-${arch} executable (ELF machine ${machine ?? 'none'})`,
  )
}

/** Writes through a temporary name in the same folder, so that a reader sees the old file or the new one. */
function replaceFile(file, content, mode = 0o644) {
  const temporary = `${file}.${process.pid}.tmp`
  try {
    fs.writeFileSync(temporary, content, { mode, flush: true })
    fs.renameSync(temporary, file)
  } catch (error) {
    fs.rmSync(temporary, { force: true })
    throw error
  }
}

/** Sets environment variables (`undefined` removes one) and returns the function that puts them back. */
function setEnv(values) {
  const before = Object.fromEntries(Object.keys(values).map((name) => [name, process.env[name]]))
  const assign = (settings) => {
    for (const [name, value] of Object.entries(settings)) {
      if (value === undefined) delete process.env[name]
      else process.env[name] = value
    }
  }
  assign(values)
  return () => assign(before)
}

function readJson(file) {
  return JSON.parse(fs.readFileSync(file, 'utf8'))
}

function sha256(bytes) {
  return createHash('sha256').update(bytes).digest('hex')
}

/** Bytes from lines of hexadecimal. @param {string[]} lines */
function fromHex(...lines) {
  return Buffer.from(lines.join('').replaceAll(' ', ''), 'hex')
}

function toMb(bytes) {
  return (bytes / 1e6).toFixed(1)
}

function shorten(file) {
  const relative = path.relative(process.cwd(), file)
  return relative.startsWith('..') ? file : relative
}

async function main() {
  const startedMs = performance.now()
  const say = (line) => fs.writeSync(1, `build: ${((performance.now() - startedMs) / 1e3).toFixed(1)} s  ${line}\n`)
  // The work folder goes away on process exit, which a signal alone would skip.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.once(signal, () => process.exit(128 + osConstants.signals[signal]))
  }
  try {
    const string = { type: 'string' }
    const { values } = parseArgs({
      options: { arch: string, runtime: string, node: string, entry: string, out: string, help: { type: 'boolean' } },
    })
    checkNode(readProject(values.node).nodeVersion)
    if (values.help) fs.writeSync(1, USAGE)
    else await build({ ...values, say })
  } catch (error) {
    const isOurs = error instanceof BuildError || error?.code?.startsWith('ERR_PARSE_ARGS')
    fs.writeSync(2, `build: ${isOurs ? error.message : (error?.stack ?? error)}\n`)
    process.exitCode = 1
  }
}

if (process.argv[1] && fs.realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) await main()
