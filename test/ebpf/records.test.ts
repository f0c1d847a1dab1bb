import assert from 'node:assert/strict'
import { statSync } from 'node:fs'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import {
  decodeEndpoint,
  decodeRecord,
  encodeEndpoint,
  encodeRecord,
  encodeSelfKey,
  ipv4Bytes,
  isSameStart,
  kernelDevice,
  monotonicNowNs,
  type RawRecord,
  startTicks,
  statDevice,
  writeConnectionKey,
} from '../../src/ebpf/records.ts'

const u32 = fc.integer({ min: 0, max: 0xffff_ffff })
const u64 = fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn })
const plain = { noNullPrototype: true } as const
const endpoint = fc.record({ address: fc.ipV4(), port: fc.integer({ min: 0, max: 65_535 }) }, plain)
const fields = {
  destination: endpoint,
  netnsCookie: u64,
  pid: u32,
  uid: u32,
  gid: u32,
  startTimeNs: u64,
  exeInode: u64,
  exeDevice: u32,
  exeChangedAtNs: u64,
  exeSizeBytes: u64,
  cgroupId: u64,
  mountNamespace: u32,
  userNamespace: u32,
  pidNamespace: u32,
  comm: fc.stringMatching(/^[ -~]{0,15}$/),
  recordedAtNs: u64,
  reduced: fc.boolean(),
  listener: endpoint,
  direct: fc.boolean(),
}
const record: fc.Arbitrary<RawRecord> = fc.record(fields, plain)

const EXAMPLE: RawRecord = {
  destination: { address: '169.254.169.254', port: 80 },
  netnsCookie: 0x1n,
  pid: 0x24,
  uid: 0x28,
  gid: 0x32,
  startTimeNs: 0x40n,
  exeInode: 0x48n,
  exeDevice: 0xfd01,
  exeChangedAtNs: 0x104n * 1_000_000_000n + 0x76n,
  exeSizeBytes: 0x112n,
  cgroupId: 0x56n,
  mountNamespace: 0x64,
  userNamespace: 0x68,
  pidNamespace: 0x72,
  comm: 'curl',
  recordedAtNs: 0x80n,
  reduced: true,
  listener: { address: '127.0.0.1', port: 3080 },
  direct: false,
}

describe('records', () => {
  test('decodeRecord() reads what encodeRecord() writes', () => {
    fc.assert(fc.property(record, (value) => assert.deepEqual(decodeRecord(encodeRecord(value)), value)))
  })

  test('encodeRecord() puts each field where the picture says', () => {
    const bytes = encodeRecord(EXAMPLE)
    const want = [
      '0100000000000000', // 0 netnsCookie
      'a9fea9fe', // 8 destination, network order
      '0050', // 12 port 80, network order
      '0200', // 14 flags: reduced
      '7f000001', // 16 listener
      '0c080000', // 20 port 3080, zero
      '24000000', // 24 pid
      '28000000', // 28 uid
      '32000000', // 32 gid
      '0100d00f', // 36 device 253:1 as major << 20 | minor
      '4000000000000000', // 40 startTimeNs
      '4800000000000000', // 48 exeInode
      '5600000000000000', // 56 cgroupId
      '64000000', // 64 mountNamespace
      '68000000', // 68 userNamespace
      '72000000', // 72 pidNamespace
      '76000000', // 76 exeChangedNs
      '8000000000000000', // 80 recordedAtNs
      '6375726c000000000000000000000000', // 88 comm
      '0401000000000000', // 104 exeChangedSeconds
      '1201000000000000', // 112 exeSizeBytes
    ]
    assert.equal(bytes.toString('hex'), want.join(''))
  })

  test('decodeRecord() reads a comm without end and one that is not UTF-8', () => {
    const bytes = encodeRecord(EXAMPLE)
    bytes.fill('x', 88, 104)
    assert.equal(decodeRecord(bytes).comm, 'x'.repeat(16))
    bytes.fill(0xff, 88, 90)
    bytes.fill(0, 90)
    assert.equal(decodeRecord(bytes).comm, '\ufffd\ufffd')
  })

  test('keys have the layout that the programs use', () => {
    const key = Buffer.alloc(16)
    writeConnectionKey(key, 2n, '127.0.0.1', 45_001)
    assert.equal(key.toString('hex'), '0200000000000000' + '7f000001' + 'c9af0000')
    const mapped = Buffer.alloc(16)
    writeConnectionKey(mapped, 2n, '::ffff:127.0.0.1', 45_001)
    assert.deepEqual(mapped, key)
    assert.equal(encodeSelfKey(7, 0x0102n).toString('hex'), '0700000000000000' + '0201000000000000')
    assert.equal(encodeEndpoint({ address: '168.63.129.16', port: 32_526 }).toString('hex'), 'a83f8110' + '7f0e0000')
    assert.deepEqual(decodeEndpoint(Buffer.from('a83f81107f0e0000', 'hex')), { address: '168.63.129.16', port: 32_526 })
  })

  for (const address of ['', '1.2.3', '1.2.3.256', '1.2.3.4.5', '::1', '1.2.3.4 ', '0x1.2.3.4', 'fe80::ffff:1.2.3.4']) {
    test(`ipv4Bytes() refuses ${JSON.stringify(address)}`, () => {
      assert.throws(() => ipv4Bytes(address), { code: 'NOT_AN_IPV4_ADDRESS' })
    })
  }

  for (const row of [
    { situation: 'a virtio disk', major: 254, minor: 1, device: 0xfe01 },
    { situation: 'an anonymous device', major: 0, minor: 42, device: 42 },
    { situation: 'a minor above 255', major: 253, minor: 0x12345, device: 0x1230_fd45 },
    { situation: 'the largest', major: 0xfff, minor: 0xfffff, device: 0xffff_ffff },
  ]) {
    test(`statDevice() and kernelDevice() convert ${row.situation}`, () => {
      const kernel = ((row.major << 20) | row.minor) >>> 0
      assert.equal(statDevice(kernel), row.device)
      assert.equal(kernelDevice(row.device), kernel)
    })
  }

  test('statDevice() gives back the device of a real file', () => {
    const { dev } = statSync(process.execPath)
    assert.equal(statDevice(kernelDevice(dev)), dev)
  })

  test('isSameStart() compares whole ticks, rounded down', () => {
    assert.equal(startTicks(12_349_999_999n), 1234n)
    assert.equal(isSameStart({ startTimeNs: 12_349_999_999n }, 1234), true)
    assert.equal(isSameStart({ startTimeNs: 12_350_000_000n }, 1234n), false)
  })

  test('isSameStart() matches nothing when the kernel gave no start time', () => {
    assert.equal(isSameStart({ startTimeNs: 0n }, 0), false)
  })

  test('monotonicNowNs() moves forward', () => {
    const before = monotonicNowNs()
    assert.ok(monotonicNowNs() >= before)
  })
})
