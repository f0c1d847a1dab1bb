import assert from 'node:assert/strict'
import { isIPv6 } from 'node:net'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { isCanonicalFailure } from '../../src/rules/canonical-failure.ts'
import type { Destination } from '../../src/rules/destination.ts'
import { classifyDestination, parseIpv6, parseNumericIpv4 } from '../../src/rules/destination.ts'

function kindOf(authority: string | undefined): string {
  const result = classifyDestination(authority)
  return isCanonicalFailure(result) ? result.code : result.kind
}

const IMDS_SPELLINGS = [
  '169.254.169.254',
  '169.254.169.254.',
  '2852039166',
  '0xa9fea9fe',
  '0XA9FEA9FE',
  '0251.0376.0251.0376',
  '0xa9.0xfe.0xa9.0xfe',
  '169.254.43518',
  '169.16689662',
  '[::ffff:169.254.169.254]',
  '[::ffff:a9fe:a9fe]',
  '[0:0:0:0:0:FFFF:A9FE:A9FE]',
  '::ffff:a9fe:a9fe',
]
const HOST_SPELLINGS = ['168.63.129.16', '2822734096', '0xa83f8110', '[::ffff:a83f:8110]', '168.63.129.16...']

describe('classifyDestination()', () => {
  const rows: readonly (readonly [kind: string, situation: string, authorities: readonly string[]])[] = [
    ['imds', 'IMDS, default port', IMDS_SPELLINGS],
    ['imds', 'IMDS, port 80', IMDS_SPELLINGS.slice(0, -1).map((host) => `${host}:80`)],
    ['imds', 'IMDS, port 80 with zeros', ['169.254.169.254:0080']],
    ['unknown', 'the address of IMDS, another port', IMDS_SPELLINGS.slice(0, -1).map((host) => `${host}:8080`)],
    ['wireserver', 'WireServer', [...HOST_SPELLINGS, ...HOST_SPELLINGS.map((host) => `${host}:80`)]],
    ['hostga', 'HostGAPlugin', HOST_SPELLINGS.map((host) => `${host}:32526`)],
    [
      'unknown',
      'elsewhere',
      [
        '[::1]',
        '1.2.3.4',
        'metadata.azure.internal',
        '0',
        '[::169.254.169.254]',
        'h:0',
        'h:65535',
        'a-b.',
        '::1',
        '0xg',
      ],
    ],
    ['CANON_HOST', 'no host at all', ['', '.', '...', ':80', '[]', '[', '[]:80', '[::1', '-', '--.-']],
    [
      'CANON_HOST',
      'characters that no host has',
      ['foo_bar', 'a%41', 'a b', 'é', '[::1]x', '[fe80::1%25eth0]', '[::1]:8:0', '*'],
    ],
    [
      'CANON_HOST',
      'numbers out of range',
      ['999.999.999.999', '1.2.3.4.5', '0x100000000', '4294967296', '1.16777216', '1.2.3.256', '256.1'],
    ],
    ['CANON_HOST', 'numbers that are none', ['08', '0x', '1..2', '.1', '1.2.3.0x', '0x000000001', 'xx']],
    ['CANON_HOST', 'names made of hexadecimal letters only', ['abc', 'dead.beef', 'face']],
    ['CANON_PORT', 'a port out of range', ['169.254.169.254:99999', '169.254.169.254:65536', '[::1]:65536']],
    ['CANON_PORT', 'a port that is no number', ['169.254.169.254:', 'h:+80', 'h:-1', 'h:0x50', 'h:8 0', '[::1]:', ':']],
    [
      'CANON_USERINFO',
      'user information, before anything else',
      ['a@169.254.169.254', '@', 'a:b@h:99999', 'h:80@', '169.254.169.254@_'],
    ],
  ]
  for (const [kind, situation, authorities] of rows) {
    for (const authority of authorities) {
      test(`${situation}: ${JSON.stringify(authority)} is ${kind}`, () => assert.equal(kindOf(authority), kind))
    }
  }

  test('origin form names nothing', () => {
    assert.deepEqual(classifyDestination(undefined), { kind: 'unknown', host: '', port: 0 })
  })

  test('spellings of one address give one host text, too', () => {
    for (const authority of IMDS_SPELLINGS) {
      assert.deepEqual(classifyDestination(authority), { kind: 'imds', host: '169.254.169.254', port: 80 })
    }
  })

  test('decimal, hexadecimal and mapped spellings of any address agree', () => {
    fc.assert(
      fc.property(fc.nat(0xffff_ffff), fc.constantFrom('', ':80', ':32526'), (address, port) => {
        const bytes = [address >>> 24, (address >>> 16) & 255, (address >>> 8) & 255, address & 255]
        const expected = classifyDestination(bytes.join('.') + port) as Destination
        const octal = bytes.map((byte) => `0${byte.toString(8)}`).join('.')
        const mapped = `[::ffff:${(address >>> 16).toString(16)}:${(address & 0xffff).toString(16)}]`
        for (const text of [
          String(address),
          `0x${address.toString(16)}`,
          octal,
          mapped,
          `[::FFFF:${bytes.join('.')}]`,
        ]) {
          assert.deepEqual(classifyDestination(text + port), expected, text)
        }
      }),
    )
  })
})

describe('parseNumericIpv4()', () => {
  for (const [text, address] of [
    ['0', 0],
    ['4294967295', 0xffff_ffff],
    ['037777777777', 0xffff_ffff],
    ['1.2', 0x0100_0002],
    ['1.2.3', 0x0102_0003],
    ['0x7f.1', 0x7f00_0001],
  ] as const) {
    test(`${text} is 0x${address.toString(16)}`, () => assert.equal(parseNumericIpv4(text), address))
  }
})

describe('parseIpv6() accepts what the system accepts', () => {
  const group = fc.constantFrom('0', '1', 'ffff', 'A9fe', '', '12345', 'g', '1.2.3.4', '1.2.3.400', '01.2.3.4')
  const texts = fc.oneof(
    fc.array(group, { maxLength: 9 }).map((groups) => groups.join(':')),
    fc.ipV6(),
    fc.string({ unit: fc.constantFrom(...'0af:.1'), maxLength: 12 }),
  )
  for (const text of [
    '1::2:3:4:5:6:7',
    '1::2:3:4:5:6:7:8',
    '1:2:3:4:5:6:7::',
    '1:2:3:4:5:6:7:8::',
    '1:2:3:4:5:6:1.2.3.4',
    '1:2:3:4:5:6:7:1.2.3.4',
    '1::2::3',
    ':::',
    '::',
    ':',
    '1.2.3.4::',
  ]) {
    test(text, () => assert.equal(parseIpv6(text) !== undefined, isIPv6(text)))
  }

  test('generated texts', () => {
    fc.assert(
      fc.property(texts, (text) => {
        const groups = parseIpv6(text)
        assert.equal(groups !== undefined, isIPv6(text))
        if (groups !== undefined) assert.equal(groups.length, 8)
      }),
      { numRuns: 5000 },
    )
  })
})
