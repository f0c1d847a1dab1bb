import assert from 'node:assert/strict'
import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { makeFolder, NODE_VERSION, RUNTIME, run, stripElf } from './built.ts'
import { readSections } from './elf.ts'

/** One program header: where its bytes lie in the file, and its kind. */
interface Segment {
  readonly type: number
  readonly offset: number
  readonly sizeBytes: number
}

const files = [
  { situation: 'a small executable, stripped by its distribution', file: '/bin/true', args: [], prints: '' },
  { situation: 'the Node runtime, with its symbols', file: RUNTIME, args: ['--version'], prints: `v${NODE_VERSION}\n` },
]

for (const { situation, file, args, prints } of files) {
  test(`stripElf() keeps every segment byte for byte: ${situation}`, () => {
    const before = readFileSync(file)
    const after = stripElf(before)
    assert.deepEqual(readSegments(after), readSegments(before))
    for (const { offset, sizeBytes } of readSegments(before)) {
      const isSame = before.subarray(offset, offset + sizeBytes).equals(maskHeader(before, after, offset, sizeBytes))
      assert.ok(isSame, `segment at ${offset}`)
    }
  })

  test(`stripElf() leaves a file that runs: ${situation}`, () => {
    using made = makeFolder()
    const copy = path.join(made.folder, 'stripped')
    writeFileSync(copy, stripElf(readFileSync(file)))
    chmodSync(copy, 0o755)
    assert.deepEqual(run(copy, args), { status: 0, stdout: prints, stderr: '' })
  })

  test(`stripElf() changes nothing the second time: ${situation}`, () => {
    const once = stripElf(readFileSync(file))
    assert.ok(stripElf(once).equals(once))
  })
}

test('stripElf() takes symbols and debugging data away, and keeps what a loader or a note reader looks for', () => {
  const before = readFileSync(RUNTIME)
  const after = stripElf(before)
  const names = readSections(after).map(({ name }) => name)
  assert.ok(
    readSections(before).some(({ name }) => name === '.symtab'),
    'the runtime is expected to come with its symbols',
  )
  assert.deepEqual(
    names.filter((name) => ['.symtab', '.strtab', '.comment'].includes(name) || name.startsWith('.debug')),
    [],
  )
  for (const kept of ['', '.dynsym', '.dynstr', '.text', '.dynamic', '.shstrtab']) assert.ok(names.includes(kept), kept)
  assert.ok(after.length < before.length - 20_000_000, `${before.length} to ${after.length} bytes`)
})

test('stripElf() does not touch the buffer it is given', () => {
  const given = readFileSync('/bin/true')
  stripElf(given)
  assert.ok(given.equals(readFileSync('/bin/true')))
})

const refused = [
  { situation: 'an empty file', bytes: Buffer.alloc(0) },
  { situation: 'a shell script', bytes: Buffer.from('#!/bin/sh\nexit 0\n'.padEnd(100)) },
  { situation: 'a 32-bit executable', bytes: withByte(readFileSync('/bin/true'), 4, 1) },
  { situation: 'a big-endian executable', bytes: withByte(readFileSync('/bin/true'), 5, 2) },
  { situation: 'a file cut short', bytes: readFileSync('/bin/true').subarray(0, 4096) },
]

for (const { situation, bytes } of refused) {
  test(`stripElf() refuses ${situation}`, () => {
    assert.throws(() => stripElf(bytes), { name: 'BuildError', message: /^Cannot strip the runtime: / })
  })
}

function withByte(bytes: Buffer, at: number, value: number): Buffer {
  bytes[at] = value
  return bytes
}

/** The first segment starts with the ELF header, whose section fields alone may differ: those are taken from `before`. */
function maskHeader(before: Buffer, after: Buffer, offset: number, sizeBytes: number): Buffer {
  const segment = Buffer.from(after.subarray(offset, offset + sizeBytes))
  if (offset !== 0) return segment
  const fields: [number, number][] = [
    [40, 48], // e_shoff
    [60, 64], // e_shnum, e_shstrndx
  ]
  for (const [from, to] of fields) before.copy(segment, from, from, to)
  return segment
}

function readSegments(elf: Buffer): Segment[] {
  const at = Number(elf.readBigUInt64LE(32))
  return Array.from({ length: elf.readUInt16LE(56) }, (_, index) => {
    const header = at + index * elf.readUInt16LE(54)
    return {
      type: elf.readUInt32LE(header),
      offset: Number(elf.readBigUInt64LE(header + 8)),
      sizeBytes: Number(elf.readBigUInt64LE(header + 32)),
    }
  })
}
