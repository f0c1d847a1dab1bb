import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { copyFileSync, readdirSync, readFileSync, readlinkSync, realpathSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import {
  type Executable,
  type ProcessView,
  parseNamespace,
  parseStartTicks,
  procReader,
  readHostNamespaces,
} from '../../src/identity/process.ts'
import { temporaryFolder } from '../fakes/temporary-folder.ts'

const SLEEP = realpathSync('/usr/bin/sleep')

/** Starts a program that ends with the test. */
async function start(t: TestContext, program: string, args: readonly string[], argv0 = program): Promise<ChildProcess> {
  const child = spawn(program, args, { argv0, stdio: 'ignore' })
  await new Promise((resolve, reject) => child.once('spawn', () => resolve(undefined)).once('error', reject))
  t.after(() => void child.kill('SIGKILL'))
  return child
}

function open(pid: number | undefined): ProcessView {
  const view = procReader.open(pid as number)
  assert.ok(view, 'the process is there')
  return view
}

async function end(child: ChildProcess): Promise<void> {
  const gone = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGKILL')
  await gone
}

const openDescriptors = () => readdirSync('/proc/self/fd').length

test('open() sees start, executable and arguments of a process', async (t) => {
  const child = await start(t, SLEEP, ['60'], 'an argument zero')
  using view = open(child.pid)
  const stat = statSync(SLEEP, { bigint: true })
  const executable = view.executable()
  assert.equal(executable?.path(), SLEEP)
  assert.equal(executable?.inode, stat.ino)
  assert.deepEqual(executable?.stat(), {
    inode: stat.ino,
    device: stat.dev,
    links: stat.nlink,
    changedAtNs: stat.ctimeNs,
    sizeBytes: stat.size,
  })
  assert.equal(view.commandLine()?.toString(), 'an argument zero\0' + '60\0')
  // Field 22 counted by hand: the name of this process has neither blanks nor parentheses.
  const fields = readFileSync(`/proc/${child.pid}/stat`, 'latin1').split(' ')
  assert.equal(view.startTicks(), BigInt(fields[21] as string))
})

test('open() sees the start of a process whose name imitates the end of a name', async (t) => {
  const folder = temporaryFolder(t)
  const odd = join(folder, 'a) R 1 (b')
  copyFileSync(SLEEP, odd)
  const child = await start(t, odd, ['60'])
  assert.equal(readFileSync(`/proc/${child.pid}/comm`, 'latin1'), 'a) R 1 (b\n')
  using view = open(child.pid)
  using own = open(process.pid)
  const [theirs, ours] = [view.startTicks(), own.startTicks()]
  assert.ok(
    theirs !== undefined && ours !== undefined && theirs >= ours && theirs < ours + 100_000n,
    `${theirs}, ${ours}`,
  )
})

test('open() sees exec: the same start, another executable', async (t) => {
  const waiting = spawn('/bin/sh', ['-c', `read x; exec ${SLEEP} 60`], { stdio: ['pipe', 'ignore', 'ignore'] })
  t.after(() => void waiting.kill('SIGKILL'))
  using view = open(waiting.pid)
  while (!view.commandLine()?.toString().startsWith('/bin/sh')) await delay(5)
  const before = { start: view.startTicks(), executable: view.executable() }
  waiting.stdin?.write('\n')
  while (view.commandLine()?.toString().startsWith('/bin/sh')) await delay(5)
  assert.equal(view.startTicks(), before.start)
  assert.equal(before.executable?.path(), realpathSync('/bin/sh'))
  assert.equal(view.executable()?.path(), SLEEP)
  assert.notEqual(view.executable()?.inode, before.executable?.inode)
})

test('open() sees a removed executable by its old name with a mark', async (t) => {
  const file = join(temporaryFolder(t), 'gone')
  copyFileSync(SLEEP, file)
  const child = await start(t, file, ['60'])
  const { ino } = statSync(file, { bigint: true })
  rmSync(file)
  using view = open(child.pid)
  const executable = view.executable()
  assert.equal(executable?.path(), `${file} (deleted)`)
  assert.equal(executable?.inode, ino)
  assert.equal(executable?.stat()?.links, 0n)
})

test('an executable is held until the view is disposed, whatever becomes of the process', async (t) => {
  const child = await start(t, SLEEP, ['60'])
  let executable: Executable | undefined
  {
    using view = open(child.pid)
    executable = view.executable()
    await end(child)
    assert.equal(executable?.path(), SLEEP)
    assert.equal(executable?.stat()?.inode, executable?.inode)
  }
  assert.equal(executable?.path(), undefined)
  assert.equal(executable?.stat(), undefined)
})

test('open() sees nothing more through a view whose process has ended', async (t) => {
  const child = await start(t, SLEEP, ['60'])
  using view = open(child.pid)
  await end(child)
  assert.equal(view.startTicks(), undefined)
  assert.equal(view.executable(), undefined)
  assert.equal(view.commandLine(), undefined)
})

test('open() sees of a zombie that it was, and no executable', async (t) => {
  // The shell becomes a sleep that never looks after its child.
  const parent = spawn('/bin/sh', ['-c', `${SLEEP} 0 & echo $!; exec ${SLEEP} 60`], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  t.after(() => void parent.kill('SIGKILL'))
  const pid = Number(await new Promise((resolve) => parent.stdout?.once('data', resolve)))
  const state = () => /\) (\w) /.exec(readFileSync(`/proc/${pid}/stat`, 'latin1'))?.[1]
  while (state() !== 'Z') await delay(5)
  using view = open(pid)
  assert.equal(typeof view.startTicks(), 'bigint')
  assert.equal(view.executable(), undefined)
  assert.equal(view.commandLine()?.length, 0)
})

test('open() reads the first 8 KiB of very long arguments', async (t) => {
  const child = await start(t, SLEEP, ['60'], 'x'.repeat(100_000))
  using view = open(child.pid)
  assert.equal(view.commandLine()?.toString(), 'x'.repeat(8192))
})

for (const pid of [0, -1, 4_194_305]) {
  test(`open() finds no process ${pid}`, () => {
    assert.equal(procReader.open(pid), undefined)
  })
}

test('a view gives its descriptor back', async (t) => {
  const child = await start(t, SLEEP, ['60'])
  const before = openDescriptors()
  for (let i = 0; i < 20; i++) {
    using view = open(child.pid)
    view.startTicks()
    view.executable()
    view.executable()
    view.commandLine()
  }
  assert.equal(openDescriptors(), before)
})

test('readHostNamespaces() reads our own, and 0 for what may not be read', () => {
  const own = readHostNamespaces()
  const inode = (link: string) => Number(/\d+/.exec(readlinkSync(link))?.[0])
  assert.equal(own.ownMount, inode('/proc/self/ns/mnt'))
  assert.equal(own.ownPid, inode('/proc/self/ns/pid'))
  const first = () => inode('/proc/1/ns/mnt')
  let expected = 0
  try {
    expected = first()
  } catch {
    // Process 1 is not ours to look at here.
  }
  assert.equal(own.hostMount, expected)
})

const after = (count: number) => Array.from({ length: count }, (_, i) => i + 3).join(' ')

const LINES: readonly (readonly [situation: string, line: string, ticks: bigint | undefined])[] = [
  ['an ordinary line', `12 (sleep) S ${after(18)} 4711 22 23\n`, 4711n],
  ['a name with blanks and parentheses', `12 (a) S (b c) R ${after(18)} 4711 22\n`, 4711n],
  ['an empty name', `12 () S ${after(18)} 4711 22\n`, 4711n],
  ['a start larger than 53 bits', `12 (x) S ${after(18)} 18446744073709551615 22\n`, 18446744073709551615n],
  ['a line that ends too early', '12 (x) S 1 2 3\n', undefined],
  ['a negative number', `12 (x) S ${after(18)} -5 22\n`, undefined],
  ['nothing', '', undefined],
]

for (const [situation, line, ticks] of LINES) {
  test(`parseStartTicks() reads ${situation}`, () => {
    assert.equal(parseStartTicks(line), ticks)
  })
}

test('parseNamespace() reads the number of a namespace link and nothing else', () => {
  assert.equal(parseNamespace('mnt:[4026531841]'), 4026531841)
  for (const text of ['', 'mnt:[]', 'mnt:4026531841', 'mnt:[1]x', '/proc/1/ns/mnt'])
    assert.equal(parseNamespace(text), undefined)
})
