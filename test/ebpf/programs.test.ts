import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { disassemble } from '../../src/ebpf/asm/disassemble.ts'
import type { KernelField, KernelFields } from '../../src/ebpf/kernel-fields.ts'
import { connect4Program } from '../../src/ebpf/programs/connect4.ts'
import { connect6Program } from '../../src/ebpf/programs/connect6.ts'
import { holdProgram } from '../../src/ebpf/programs/hold.ts'
import { mapSpecs } from '../../src/ebpf/programs/maps.ts'
import type { ProgramOptions, ProgramSpec } from '../../src/ebpf/programs/program.ts'
import { sockopsProgram } from '../../src/ebpf/programs/sockops.ts'
import { whoamiConnectProgram, whoamiRunProgram } from '../../src/ebpf/programs/whoami.ts'

const at = (offset: number, size: KernelField['size'] = 8): KernelField => ({ offset, size })

/** Offsets of no kernel, each one its own, so that a field in the wrong place shows. */
const FIELDS: KernelFields = {
  start: { groupLeader: at(1000), startBoottime: at(1008) },
  pid: {
    groupLeader: at(1000),
    threadPid: at(1016),
    level: at(20, 4),
    numbersNr: at(200, 4),
    numbersNs: at(208),
    stride: 16,
    declaredLength: 0,
    namespaceInum: at(30, 4),
  },
  executable: {
    mm: at(1100),
    exeFile: at(1108),
    inode: at(1116),
    inodeNumber: at(1124),
    superBlock: at(1132),
    device: at(1140, 4),
    version: { seconds: at(1144), nanoseconds: at(1152, 4), size: at(1160) },
  },
  mountNamespace: { nsproxy: at(1200), mountNamespace: at(1208), inum: at(1216, 4) },
  userNamespace: { cred: at(1300), userNamespace: at(1308), inum: at(1316, 4) },
}

const FULL: ProgramOptions = {
  fields: FIELDS,
  taskReader: 'helper',
  pendingStore: 'storage',
  pidView: { kind: 'initial' },
  sockopsNetns: true,
  otherNetns: 'hold',
  listener: { address: '127.0.0.1', port: 3080 },
  hasBell: true,
}
const DIRECT: ProgramOptions = {
  ...FULL,
  taskReader: 'direct',
  pidView: { kind: 'child', level: 1, namespace: 0xf000_0001 },
}
const LEAST: ProgramOptions = {
  taskReader: 'helper',
  pendingStore: 'lru',
  pidView: { kind: 'unknown' },
  sockopsNetns: false,
  otherNetns: 'direct',
  listener: { address: '127.0.0.1', port: 3080 },
  hasBell: false,
}

const PROGRAMS: readonly (readonly [string, ProgramSpec])[] = [
  ['connect4', connect4Program(FULL)],
  ['connect6', connect6Program(FULL)],
  ['sockops', sockopsProgram(FULL)],
  ['connect4-direct-in-child-pid-namespace', connect4Program(DIRECT)],
  ['connect4-checking-listener', connect4Program({ ...FULL, checksListener: true })],
  ['connect4-deny', connect4Program({ ...LEAST, otherNetns: 'deny' })],
  ['connect4-ask', connect4Program({ ...LEAST, otherNetns: 'ask' })],
  ['hold', holdProgram()],
  ['connect4-least', connect4Program(LEAST)],
  ['sockops-least', sockopsProgram(LEAST)],
  ['whoami-run', whoamiRunProgram(FULL)],
  ['whoami-connect', whoamiConnectProgram(FULL, 0x0403_027f, 0x901f)],
]

describe('programs', () => {
  for (const [name, program] of PROGRAMS) {
    // To accept a change: read the difference as you would read the program, then run with --test-update-snapshots.
    test(`${name} is what was reviewed`, (t) => {
      const path = join(import.meta.dirname, 'snapshots', `${name}.txt`)
      t.assert.fileSnapshot(disassemble(program.code), path, { serializers: [(text: string) => text] })
    })

    test(`${name} fits what the kernel takes`, () => {
      assert.ok(program.name.length <= 15)
      assert.ok(program.code.bytes.length / 8 <= 4096) // BPF_MAXINSNS
      const known = new Set<string>([...Object.keys(mapSpecs('storage')), 'listening', 'whoami', 'bell'])
      assert.deepEqual(
        program.code.maps.filter(({ map }) => !known.has(map)),
        [],
      )
    })
  }

  test('assembling twice gives the same bytes', () => {
    assert.deepEqual(connect4Program(FULL).code, connect4Program(FULL).code)
  })

  test('connect4 reads pids below the declared end of an old kernel only by helper', () => {
    const fields = { ...FIELDS, pid: { ...FIELDS.pid!, declaredLength: 1 } }
    const levels = (taskReader: ProgramOptions['taskReader']) =>
      disassemble(connect4Program({ ...FULL, fields, taskReader }).code).match(/if w9 != \d+ goto/g)?.length
    assert.deepEqual([levels('helper'), levels('direct')], [8, 1])
  })

  test('the map specs keep names within what the kernel shows', () => {
    for (const spec of Object.values(mapSpecs('lru'))) assert.ok(spec.name.length <= 15)
  })
})
