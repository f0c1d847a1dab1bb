import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import {
  bindCompareExchange,
  build,
  COMPARE_EXCHANGE,
  COMPARE_EXCHANGE_SECTION,
  ELF_MACHINES,
  findRuntime,
  makeFolder,
  PROGRAM,
  RUNTIME,
  run,
  stripElf,
} from './built.ts'
import { findSection, readNeeded, readSections } from './elf.ts'

const made = makeFolder()
const out = path.join(made.folder, 'program')

before(() => build({ entry: PROGRAM, out }))
after(() => made[Symbol.dispose]())

const ARCHITECTURES = [
  {
    arch: 'x64',
    objdump: '/usr/bin/x86_64-linux-gnu-objdump',
    expected: [
      'cmp $0x8,%rdi',
      'jne 1f',
      'mov (%rdx),%rax',
      'mov (%rcx),%rcx',
      'lock cmpxchg %rcx,(%rsi)',
      'jne 19',
      'mov $0x1,%eax',
      'ret',
      'mov %rax,(%rdx)',
      'xor %eax,%eax',
      'ret',
      'ud2',
    ],
  },
  {
    arch: 'arm64',
    objdump: '/usr/bin/aarch64-linux-gnu-objdump',
    expected: [
      'cmp x0, #0x8',
      'b.ne 38',
      'ldr x4, [x2]',
      'ldr x5, [x3]',
      'ldaxr x6, [x1]',
      'cmp x6, x4',
      'b.ne 2c',
      'stlxr w7, x5, [x1]',
      'cbnz w7, 10',
      'mov w0, #0x1',
      'ret',
      'str x6, [x2]',
      'mov w0, #0x0',
      'ret',
      'brk #0x0',
    ],
  },
] as const

for (const { arch, objdump, expected } of ARCHITECTURES) {
  test(`COMPARE_EXCHANGE for ${arch} disassembles to what its comments say`, (t) => {
    const { folder } = made
    const file = path.join(folder, `code-${arch}`)
    writeFileSync(file, codeFor(arch))
    const machine = arch === 'x64' ? 'i386:x86-64' : 'aarch64'
    const args = ['-D', '-b', 'binary', '-m', machine, '--no-show-raw-insn', file]
    const ran = spawnSync(objdump, args, { encoding: 'utf8' })
    if (ran.error !== undefined) return t.skip(`no ${objdump}: install binutils for ${arch}`)
    assert.deepEqual(readInstructions(ran.stdout), expected)
  })

  test(`the ${arch} runtime asks for eight bytes at every place that calls __atomic_compare_exchange`, (t) => {
    const runtime = findRuntime(arch)
    if (runtime === undefined) return skipForeign(t, arch)
    const sizes = readFileSync(runtime)
    const calls = arch === 'x64' ? findCallsX64(sizes) : findCallsArm64(sizes)
    assert.ok(calls.length > 0, 'V8 is expected to call it')
    assert.deepEqual(
      calls.filter(({ sizeBytes }) => sizeBytes !== 8),
      [],
    )
  })

  test(`bindCompareExchange() leaves no trace of libatomic in the ${arch} runtime, and no other change`, (t) => {
    const runtime = findRuntime(arch)
    if (runtime === undefined) return skipForeign(t, arch)
    const before = stripElf(readFileSync(runtime))
    const after = bindCompareExchange(before)
    const needed = readNeeded(before)
    assert.ok(needed.includes('libatomic.so.1'), 'a runtime without it needs no such step')
    assert.deepEqual(
      readNeeded(after),
      needed.filter((name) => name !== 'libatomic.so.1'),
    )
    const changed = readSections(before).filter(
      ({ name, content }) => !content.equals(findSection(after, name).content),
    )
    assert.deepEqual(
      changed.map(({ name }) => name).sort(),
      ['.dynamic', '.dynsym', '.gnu.version', '.gnu.version_r', '.got', '.rela.plt', '.shstrtab'].sort(),
    )
    assert.equal(countDifferences(before, after, '.got'), 1)
    assert.equal(countDifferences(before, after, '.rela.plt'), 1, 'the word that says what to do with the slot')
    const code = findSection(after, COMPARE_EXCHANGE_SECTION)
    assert.ok(code.content.equals(codeFor(arch)))
    assert.ok(findSection(after, '.got').content.includes(wordOf(code.address)), 'a slot that leads to the code')
  })
}

test('the executable loads without libatomic', () => {
  const { stdout } = run(out, [], { LD_TRACE_LOADED_OBJECTS: '1' })
  assert.match(stdout, /libstdc\+\+\.so\.6 => /, 'the loader is expected to list what it loads')
  assert.doesNotMatch(stdout, /libatomic|not found/)
  const code = findSection(readFileSync(out), COMPARE_EXCHANGE_SECTION)
  assert.ok(code.content.equals(codeFor(process.arch)), 'adding the program left it as it was')
})

test('COMPARE_EXCHANGE does what the name says, for two threads as well', () => {
  const script = path.join(import.meta.dirname, 'compare-exchange.py')
  const hex = codeFor(process.arch).toString('hex')
  const ran = spawnSync('/usr/bin/python3', [script, hex], { encoding: 'utf8', timeout: 120_000 })
  assert.deepEqual([ran.error, ran.stderr], [undefined, ''])
  assert.deepEqual(JSON.parse(ran.stdout), {
    equal: { result: 1, object: '0xfedcba9876543210', expected: '0x123456789abcdef0' },
    differsInHighHalf: { result: 0, object: '0x123456799abcdef0', expected: '0x123456799abcdef0' },
    differsInLowHalf: { result: 0, object: '0x123456789abcdef1', expected: '0x123456789abcdef1' },
    neighboursUntouched: true,
    countedByTwoThreads: 200_000,
    fourBytes: process.arch === 'x64' ? 'SIGILL' : 'SIGTRAP',
  })
})

test('bindCompareExchange() returns what does not need libatomic as it is', () => {
  const elf = readFileSync('/bin/true')
  assert.equal(bindCompareExchange(elf), elf)
})

test('bindCompareExchange() refuses a runtime that wants more from libatomic', () => {
  const elf = stripElf(readFileSync(RUNTIME))
  // The version of another import, made that of the library.
  const versions = findSection(elf, '.gnu.version')
  const symbols = findSection(elf, '.dynsym').content
  const names = findSection(elf, '.dynstr').content
  const indexOf = (wanted: string) => {
    for (let index = 1; index < versions.content.length / 2; index++) {
      const at = symbols.readUInt32LE(index * 24)
      if (names.toString('latin1', at, names.indexOf(0, at)) === wanted) return index
    }
    throw new Error(`no symbol ${wanted}`)
  }
  const version = versions.content.readUInt16LE(indexOf('__atomic_compare_exchange') * 2)
  versions.content.writeUInt16LE(version, indexOf('malloc') * 2)
  assert.throws(() => bindCompareExchange(elf), {
    name: 'BuildError',
    message: /^Cannot free the runtime of libatomic\.so\.1: it imports .*malloc/,
  })
})

function codeFor(arch: string): Buffer {
  return COMPARE_EXCHANGE[ELF_MACHINES[arch]!]!
}

function skipForeign(t: { skip(reason: string): void }, arch: string): void {
  assert.notEqual(arch, process.arch, 'the runtime of this machine comes with npm ci')
  t.skip(`no ${arch} runtime here; "npm run build -- --arch ${arch}" fetches it`)
}

function wordOf(address: number): Buffer {
  const word = Buffer.alloc(8)
  word.writeBigUInt64LE(BigInt(address))
  return word
}

/** Mnemonic and operands of each line of objdump, with single spaces and without its remarks. */
function readInstructions(listing: string): string[] {
  return [...listing.matchAll(/^\s*[0-9a-f]+:\t(.+)$/gm)].map(([, text]) =>
    text!
      .replace(/\s*(\/\/|#\s|<).*$/, '')
      .replace(/0x([0-9a-f]+)$/, (word, digits: string) => (/^(jne|b\.ne|cbnz)/.test(text!) ? digits : word))
      .replace(/\s+/g, ' ')
      .trim(),
  )
}

/** How many words of eight bytes differ in a section. */
function countDifferences(before: Buffer, after: Buffer, name: string): number {
  const [old, now] = [findSection(before, name).content, findSection(after, name).content]
  let count = 0
  for (let at = 0; at < old.length; at += 8) if (old.readBigUInt64LE(at) !== now.readBigUInt64LE(at)) count++
  return count
}

interface Call {
  readonly address: string
  /** The constant in the first argument; `undefined` when none was found. */
  readonly sizeBytes: number | undefined
}

/** The address of the table entry through which the function is called: the stub that reads its slot. */
function findSlot(elf: Buffer): bigint {
  const jumps = findSection(elf, '.rela.plt').content
  const symbols = findSection(elf, '.dynsym').content
  const names = findSection(elf, '.dynstr').content
  for (let at = 0; at < jumps.length; at += 24) {
    const nameAt = symbols.readUInt32LE(jumps.readUInt32LE(at + 12) * 24)
    if (names.toString('latin1', nameAt, names.indexOf(0, nameAt)) === '__atomic_compare_exchange') {
      return jumps.readBigUInt64LE(at)
    }
  }
  throw new Error('the runtime does not import the function')
}

/** Finds `call stub` (e8 rel32), and the last `mov $N,%edi` (bf imm32) in the 64 bytes before. */
function findCallsX64(elf: Buffer): Call[] {
  const plt = findSection(elf, '.plt')
  const slot = Number(findSlot(elf))
  let stub = -1
  for (let at = 0; at + 6 <= plt.content.length && stub === -1; at += 16) {
    if (plt.content.readUInt16BE(at) === 0xff25 && plt.address + at + 6 + plt.content.readInt32LE(at + 2) === slot) {
      stub = plt.address + at
    }
  }
  const text = findSection(elf, '.text')
  const calls: Call[] = []
  for (
    let at = text.content.indexOf(0xe8);
    at !== -1 && at + 5 <= text.content.length;
    at = text.content.indexOf(0xe8, at + 1)
  ) {
    if (text.address + at + 5 + text.content.readInt32LE(at + 1) !== stub) continue
    const from = text.content.lastIndexOf(0xbf, at - 5)
    const sizeBytes = at - from <= 64 ? text.content.readUInt32LE(from + 1) : undefined
    calls.push({ address: (text.address + at).toString(16), sizeBytes })
  }
  return calls
}

/** Finds `bl stub`, and the last `mov w0, #N` in the 16 instructions before. */
function findCallsArm64(elf: Buffer): Call[] {
  const plt = findSection(elf, '.plt')
  const slot = Number(findSlot(elf))
  let stub = -1
  for (let at = 0; at + 8 <= plt.content.length && stub === -1; at += 4) {
    const [adrp, ldr] = [plt.content.readUInt32LE(at), plt.content.readUInt32LE(at + 4)]
    if ((adrp & 0x9f00001f) >>> 0 !== 0x90000010 || (ldr & 0xffc003ff) >>> 0 !== 0xf9400211) continue
    const pages = (((adrp << 8) >> 13) << 2) | ((adrp >>> 29) & 3)
    const page = Math.floor((plt.address + at) / 4096) * 4096 + pages * 4096
    if (page + ((ldr >>> 10) & 0xfff) * 8 === slot) stub = plt.address + at
  }
  const text = findSection(elf, '.text')
  const calls: Call[] = []
  for (let at = 0; at + 4 <= text.content.length; at += 4) {
    const word = text.content.readUInt32LE(at)
    if (word >>> 26 !== 0x25 || text.address + at + ((word << 6) >> 4) !== stub) continue
    let sizeBytes: number | undefined
    for (let back = at - 4; back >= at - 64 && sizeBytes === undefined; back -= 4) {
      const before = text.content.readUInt32LE(back)
      if ((before & 0xffe0001f) >>> 0 === 0x52800000) sizeBytes = (before >>> 5) & 0xffff
    }
    calls.push({ address: (text.address + at).toString(16), sizeBytes })
  }
  return calls
}
