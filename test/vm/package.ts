/**
 * Makes what is released, in dist/package/: source package, binary package, the executable with what belongs to it, and
 * SHA256SUMS of all. `npm run package [-- --nocheck]`.
 *
 * Built as on a distribution's builder: from the source package alone, in a network namespace that has loopback and
 * nothing else.
 */

import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { make as makeVendor, readChangelog } from '../../debian/vendor.mjs'

export const ROOT = dirname(dirname(import.meta.dirname))
export const PACKAGE_FOLDER = join(ROOT, 'dist', 'package')
const NAME = 'azure-proxy-agent'

/** Runs a program to its end, its output to ours. @throws Error when it fails */
export function run(
  command: string,
  args: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
): void {
  const { status, error } = spawnSync(command, args, { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'], ...options })
  if (error !== undefined) throw error
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: exit status ${status}`)
}

/** Makes the two upstream tarballs in `folder`. The vendor tarball is kept while what it is made from is the same. */
export function makeTarballs(folder: string): void {
  mkdirSync(folder, { recursive: true })
  const { version, time } = readChangelog()
  const listed = spawnSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], { cwd: ROOT })
  const files = listed.stdout
    .toString()
    .split('\0')
    .filter((file) => file !== '' && !file.startsWith('debian/'))
  const list = join(folder, 'files')
  writeFileSync(
    list,
    files
      .filter((file) => existsSync(join(ROOT, file)))
      .sort()
      .join('\0'),
  )
  const form = ['--format=ustar', '--owner=0', '--group=0', '--numeric-owner', '--mode=u=rwX,go=rX', `--mtime=@${time}`]
  const place = [`--transform=s,^,${NAME}-${version}/,`, '--null', `--files-from=${list}`]
  run('tar', [...form, ...place, '-cJf', join(folder, `${NAME}_${version}.orig.tar.xz`)])
  rmSync(list)

  const lock = ['package-lock.json', 'debian/vendor.mjs', 'debian/changelog']
    .map((file) => readFileSync(join(ROOT, file), 'utf8'))
    .join('')
  const mark = join(folder, '.vendor-lock')
  const vendor = join(folder, `${NAME}_${version}.orig-vendor.tar.xz`)
  if (existsSync(vendor) && existsSync(mark) && readFileSync(mark, 'utf8') === lock) return
  makeVendor(folder)
  writeFileSync(mark, lock)
}

export interface BuildOptions {
  /** DEB_BUILD_OPTIONS, such as `nocheck`. */
  readonly options?: string
  /** Changes the unpacked source before it is built, to see what the build makes of it. */
  readonly change?: (tree: string) => void
  /** Makes the binary package alone, from the source package that is there. */
  readonly isBinaryOnly?: boolean
  /** Builds where much is different that must have no effect: folder, umask, locale, time zone. */
  readonly isElsewhere?: boolean
}

/** Builds in a fresh folder from the tarballs in `tarballs`, into `output`. @throws Error when the build fails */
export function buildPackage(tarballs: string, output: string, options: BuildOptions = {}): void {
  const { version } = readChangelog()
  const { isElsewhere = false } = options
  const work = mkdtempSync(join(tmpdir(), isElsewhere ? 'built-in-another-folder-' : 'apa-package-'))
  try {
    const tree = join(work, `${NAME}-${version}`)
    if (options.isBinaryOnly) {
      const source = readdirSync(tarballs).find((name) => name.endsWith('.dsc'))
      run('dpkg-source', ['--no-check', '--extract', join(tarballs, source ?? '*.dsc'), tree])
    } else unpackSource(tarballs, work, tree)
    options.change?.(tree)
    const build = `umask ${isElsewhere ? '077' : '022'} && ip link set lo up && exec dpkg-buildpackage -us -uc ${options.isBinaryOnly ? '-b' : ''}`
    const { PATH, HOME } = process.env
    // A builder's environment has the system's programs and no more.
    const path = PATH!
      .split(':')
      .filter((folder) => !folder.includes('node_modules'))
      .join(':')
    const env = {
      PATH: path,
      HOME,
      ...(isElsewhere ? { LC_ALL: 'C', TZ: 'Pacific/Chatham' } : { LC_ALL: 'C.UTF-8' }),
      DEB_BUILD_OPTIONS: options.options ?? 'parallel=2',
    }
    run('unshare', ['--net', 'sh', '-c', build], { cwd: tree, env })
    mkdirSync(output, { recursive: true })
    for (const file of readdirSync(work).filter((name) => /\.(deb|dsc|changes|buildinfo|xz)$/.test(name))) {
      copyFileSync(join(work, file), join(output, file))
    }
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

/** Lays out what dpkg-buildpackage makes a source package of: the tarballs in `work`, and in `tree` them and debian/. */
function unpackSource(tarballs: string, work: string, tree: string): void {
  const { version } = readChangelog()
  for (const file of readdirSync(tarballs).filter((name) => name.includes('.orig'))) {
    copyFileSync(join(tarballs, file), join(work, file))
  }
  run('tar', ['-xf', `${NAME}_${version}.orig.tar.xz`], { cwd: work })
  run('tar', ['-xf', join('..', `${NAME}_${version}.orig-vendor.tar.xz`)], { cwd: tree })
  const copy = 'git ls-files -z --cached --others --exclude-standard debian | xargs -0 cp --parents -pt "$1"'
  run('sh', ['-c', copy, 'sh', tree])
}

/** The binary package in `folder`. */
export function findDeb(folder = PACKAGE_FOLDER): string {
  const found = readdirSync(folder).find((name) => name.endsWith('.deb') && !name.includes('dbgsym'))
  if (found === undefined) throw new Error(`no .deb in ${folder}`)
  return join(folder, found)
}

const DOCS = `usr/share/doc/${NAME}`

/** What is released beside the package, for images without dpkg, and where it is in there. SHA256SUMS is about all of it. */
export const RELEASED: Readonly<Record<string, string>> = {
  [NAME]: `usr/sbin/${NAME}`,
  [`${NAME}.service`]: `lib/systemd/system/${NAME}.service`,
  'proxy-agent.json': 'etc/azure/proxy-agent.json',
  [`${NAME}.LICENSES.txt`]: `${DOCS}/${NAME}.LICENSES.txt`,
  [`${NAME}.cdx.json`]: `${DOCS}/${NAME}.cdx.json`,
}

/** Takes the files of `RELEASED` out of the package in `folder`, and writes SHA256SUMS of them and of the packages. */
export function makeRelease(folder: string): void {
  const tree = mkdtempSync(join(tmpdir(), 'apa-release-'))
  try {
    run('dpkg-deb', ['--extract', findDeb(folder), tree])
    run('gzip', ['-dr', join(tree, DOCS)])
    for (const [name, path] of Object.entries(RELEASED)) copyFileSync(join(tree, path), join(folder, name))
  } finally {
    rmSync(tree, { recursive: true, force: true })
  }
  const sums = readdirSync(folder)
    .filter((file) => !file.startsWith('.') && file !== 'SHA256SUMS')
    .sort()
    .map(
      (file) =>
        `${createHash('sha256')
          .update(readFileSync(join(folder, file)))
          .digest('hex')}  ${file}\n`,
    )
  writeFileSync(join(folder, 'SHA256SUMS'), sums.join(''))
}

if (import.meta.main) {
  makeTarballs(PACKAGE_FOLDER)
  const isUnchecked = process.argv.includes('--nocheck')
  buildPackage(PACKAGE_FOLDER, PACKAGE_FOLDER, isUnchecked ? { options: 'nocheck parallel=2' } : {})
  makeRelease(PACKAGE_FOLDER)
  process.stdout.write(`${findDeb()}\n`)
}
