/**
 * Tests the package in booted machines: `npm run test:vm [-- GROUP ...]`, all groups when none is named, with `--here` on
 * this machine's kernel in place of an emulated machine; or, without the package, the tests of the kernel side on another
 * kernel: `npm run test:vm -- --kernel NAME [--only PART]`.
 *
 * Builds the package and looks at it, makes a Debian root, and gives each group a machine of its own: a list of boots, each
 * with a script from inside/. Prints every check with its time; exits with 1 when one failed or a script did not come to its end.
 */

import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { bindCompareExchange, stripElf } from '../build/built.ts'
import { type BootOptions, createMachine } from './boot.ts'
import { createMachineHere } from './here.ts'
import { buildExecutable, KERNELS, PART_NAMES, runKernel, SELECTIONS } from './kernels.ts'
import { buildPackage, findDeb, makeRelease, makeTarballs, PACKAGE_FOLDER, RELEASED, ROOT } from './package.ts'
import { PACKAGE_CHECKS } from './package-checks.ts'
import { makeRoot, type RootOptions, VM_FOLDER } from './root.ts'
import { makePreviousPackage, makeReferencePackage } from './stand-ins.ts'

interface Group {
  readonly name: string
  /** What the machine boots from; by default Debian 12 with both real clients. */
  readonly root?: RootOptions
  readonly boots: readonly GroupBoot[]
}

interface GroupBoot extends Pick<BootOptions, 'append' | 'hardware'> {
  /** Of inside/. */
  readonly script: string
  /** What the serial console must have shown. */
  readonly console?: RegExp
}

const DEBIAN_12: RootOptions = { suite: 'bookworm', kernel: 'linux-image-amd64', packages: ['cloud-init', 'waagent'] }

/** Its cloud-init is new enough to ask for the agent by itself. */
const DEBIAN_13: RootOptions = {
  suite: 'trixie',
  kernel: 'linux-image-amd64',
  packages: ['cloud-init', 'dnsmasq-base'],
}

/** What tells a system that it is in Azure: the asset tag of the chassis. Source: cloud-init, tools/ds-identify. */
const AZURE_HARDWARE = [
  ...['-smbios', 'type=3,asset=7783-7084-3265-9085-8269-3286-77'],
  ...['-uuid', '9cf81e97-0316-4ad3-94a7-8ccbdee8ccbf'],
]

/** Keeps both real clients still where the test is about the agent. `azure-host`: see prepare.sh. */
const STILL = 'cloud-init=disabled systemd.mask=walinuxagent.service'

const INSTALL: GroupBoot = {
  script: 'install.sh',
  append: STILL,
  console: /azure-proxy-agent_\S+ - Started proxy listener/,
}

const GROUPS: readonly Group[] = [
  { name: 'install', boots: [INSTALL] },
  { name: 'install-debian-13', root: DEBIAN_13, boots: [INSTALL] },
  {
    name: 'by-hand',
    boots: [
      { script: 'by-hand.sh', append: STILL },
      { script: 'by-hand-booted.sh', append: STILL },
    ],
  },
  { name: 'fail-closed', boots: [{ script: 'fail-closed.sh', append: STILL }] },
  {
    name: 'fail-closed-containers',
    boots: [
      { script: 'prepare.sh', append: STILL },
      { script: 'fail-closed-containers.sh', append: `${STILL} azure-host` },
    ],
  },
  { name: 'upgrade', boots: [{ script: 'upgrade.sh', append: STILL }] },
  {
    name: 'boot',
    boots: [
      { script: 'prepare.sh', append: STILL },
      { script: 'boot-without-host.sh', append: STILL },
      { script: 'boot-with-host.sh', append: `${STILL} azure-host` },
    ],
  },
  {
    name: 'clients',
    boots: [
      { script: 'prepare-clients.sh', append: STILL },
      { script: 'clients.sh', append: 'cloud-init=disabled azure-host' },
    ],
  },
  {
    name: 'cloud-init',
    root: DEBIAN_13,
    boots: [
      { script: 'prepare-cloud-init.sh', append: 'cloud-init=disabled' },
      { script: 'cloud-init.sh', append: 'azure-host', hardware: AZURE_HARDWARE },
    ],
  },
]

/** Makes the runtime for machines, which has to start without libatomic as well. @returns its path */
function makeRuntime(): string {
  mkdirSync(VM_FOLDER, { recursive: true })
  const node = join(VM_FOLDER, 'node')
  const runtime = join(ROOT, 'node_modules', `node-linux-${process.arch}`, 'bin', 'node')
  writeFileSync(node, bindCompareExchange(stripElf(readFileSync(runtime))))
  chmodSync(node, 0o755)
  return node
}

/** What every boot brings: the package and what its tests need of the source. */
function payload(): BootOptions['files'] {
  const node = makeRuntime()
  const deb = findDeb()
  const tree = Object.fromEntries(
    ['debian', 'test/fabric', 'node_modules/mri', 'package.json'].map((path) => [`tree/${path}`, join(ROOT, path)]),
  )
  const release = Object.fromEntries(
    [...Object.keys(RELEASED), 'SHA256SUMS'].map((name) => [`release/${name}`, join(PACKAGE_FOLDER, name)]),
  )
  return {
    ...tree,
    ...release,
    'README.md': join(ROOT, 'README.md'),
    'tree/node_modules/.bin/node': node,
    inside: join(ROOT, 'test/vm/inside'),
    'new.deb': deb,
    'previous.deb': makePreviousPackage(deb, VM_FOLDER),
    'reference.deb': makeReferencePackage(VM_FOLDER),
  }
}

async function runGroup(group: Group, files: BootOptions['files'], isHere: boolean): Promise<boolean> {
  process.stdout.write(`\n== ${group.name}\n`)
  if (isHere && group.boots.some(({ hardware }) => hardware !== undefined)) {
    process.stdout.write('     not run here: it needs hardware of its own, which an emulated machine has\n')
    return true
  }
  let isGood = true
  const root = makeRoot(group.root ?? DEBIAN_12)
  using machine = isHere ? createMachineHere(root) : createMachine(root)
  for (const { script, console = /^/, ...machineOptions } of group.boots) {
    const boot = await machine.boot({
      ...machineOptions,
      files,
      script: `. /vm/inside/${script}`,
      timeoutSeconds: 600,
    })
    for (const { isOk, seconds, name, detail } of boot.checks) {
      process.stdout.write(
        `${isOk ? 'ok  ' : 'FAIL'} ${seconds.toFixed(1).padStart(6)} s  ${name}${detail && `: ${detail}`}\n`,
      )
    }
    const log = join(VM_FOLDER, `${group.name}-${script.replace('.sh', '')}${isHere ? '-here' : ''}.log`)
    writeFileSync(log, boot.console)
    process.stdout.write(`     ${boot.seconds.toFixed(1).padStart(6)} s  the boot with ${script}\n`)
    if (!boot.isComplete) process.stdout.write(`FAIL ${script} did not come to its end: see ${log}\n`)
    if (!console.test(boot.console)) process.stdout.write(`FAIL the serial console does not show ${console}\n`)
    isGood &&=
      console.test(boot.console) && boot.isComplete && boot.checks.length > 0 && boot.checks.every(({ isOk }) => isOk)
  }
  return isGood
}

function runPackageChecks(): boolean {
  process.stdout.write('\n== package\n')
  let isGood = true
  for (const { name, run } of PACKAGE_CHECKS) {
    const started = performance.now()
    const seconds = () => ((performance.now() - started) / 1000).toFixed(1).padStart(6)
    try {
      const detail = run()
      process.stdout.write(`ok   ${seconds()} s  ${name}${detail && `: ${detail}`}\n`)
    } catch (error) {
      isGood = false
      process.stdout.write(`FAIL ${seconds()} s  ${name}: ${error instanceof Error ? error.message : error}\n`)
    }
  }
  return isGood
}

/**
 * Reads an option with a value that may be repeated.
 * @returns the values, or what is wrong with them
 */
function readRepeated(words: readonly string[], option: string, known: readonly string[]): readonly string[] | string {
  const values = words.flatMap((word, i) => {
    if (word.startsWith(`${option}=`)) return [word.slice(option.length + 1)]
    return words[i - 1] === option ? [word] : []
  })
  const isGood = values.every((value) => known.includes(value)) && (values.length > 0 || !words.includes(option))
  return isGood ? values : `'${option}' takes one of ${known.join(', ')}`
}

async function runKernels(kernels: readonly string[], parts: readonly string[], match: string): Promise<number> {
  buildExecutable()
  const runtime = makeRuntime()
  const failed: string[] = []
  for (const name of kernels) if (!(await runKernel(name, parts, match, runtime))) failed.push(name)
  return tellEnd(failed)
}

async function main(words: readonly string[]): Promise<number> {
  const kernels = readRepeated(words, '--kernel', Object.keys(KERNELS))
  const parts = readRepeated(words, '--only', Object.keys(SELECTIONS))
  if (typeof kernels === 'string' || typeof parts === 'string') {
    process.stderr.write(`${typeof kernels === 'string' ? kernels : parts}\n`)
    return 2
  }
  const match = words.find((word) => word.startsWith('--match='))?.slice('--match='.length) ?? ''
  if (match.includes("'")) {
    process.stderr.write("'--match' takes a pattern without a quote\n")
    return 2
  }
  if (kernels.length > 0) return runKernels(kernels, parts.length > 0 ? parts : PART_NAMES, match)
  const names = words.filter((word) => !word.startsWith('--'))
  const known = ['package', ...GROUPS.map(({ name }) => name)]
  const unknown = names.find((name) => !known.includes(name))
  if (unknown !== undefined) {
    process.stderr.write(`There is no group '${unknown}': know ${known.join(', ')}\n`)
    return 2
  }
  const isWanted = (name: string) => names.length === 0 || names.includes(name)
  // For who works on the tests: the package of the last time.
  if (!words.includes('--keep-package')) {
    makeTarballs(PACKAGE_FOLDER)
    buildPackage(PACKAGE_FOLDER, PACKAGE_FOLDER)
    makeRelease(PACKAGE_FOLDER)
  }
  const failed: string[] = []
  if (isWanted('package') && !runPackageChecks()) failed.push('package')
  const groups = GROUPS.filter(({ name }) => isWanted(name))
  if (groups.length > 0) failed.push(...(await runMachines(groups, words.includes('--here'))))
  return tellEnd(failed)
}

function tellEnd(failed: readonly string[]): number {
  process.stdout.write(failed.length === 0 ? '\nAll passed\n' : `\nFailed: ${failed.join(', ')}\n`)
  return failed.length === 0 ? 0 : 1
}

/** @returns the names of the groups that failed */
async function runMachines(groups: readonly Group[], isHere: boolean): Promise<string[]> {
  const files = payload()
  const failed: string[] = []
  for (const group of groups) if (!(await runGroup(group, files, isHere))) failed.push(group.name)
  return failed
}

process.exitCode = await main(process.argv.slice(2))
