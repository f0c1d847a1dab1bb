import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { AgentError } from '../../src/base/errors.ts'
import { type Config, parseConfig } from '../../src/config/config.ts'

const PATH = '/etc/azure/proxy-agent.json'
const START = `Error in reading Config from Json file: ${PATH}: `

/** The file that installations have today. */
const SHIPPED = {
  logFolder: '/var/log/azure-proxy-agent',
  eventFolder: '/var/log/azure-proxy-agent/events',
  latchKeyFolder: '/var/lib/azure-proxy-agent/keys',
  monitorIntervalInSeconds: 60,
  pollKeyStatusIntervalInSeconds: 15,
  hostGAPluginSupport: 1,
  ebpfProgramName: 'ebpf_cgroup.o',
  cgroupRoot: '/sys/fs/cgroup',
  fileLogLevel: 'Trace',
  fileLogLevelForEvents: 'Info',
  fileLogLevelForSystemEvents: 'Info',
  canonicalRequestMode: 'Shadow',
}

const REQUIRED = {
  logFolder: '/l',
  eventFolder: '/e',
  latchKeyFolder: '/k',
  pollKeyStatusIntervalInSeconds: 15,
}

type Environment = Readonly<Record<string, string | undefined>>

const parse = (members: object, environment: Environment = {}) =>
  parseConfig(JSON.stringify({ ...REQUIRED, ...members }), PATH, environment)

function refusalOf(text: string, environment: Environment = {}): string {
  try {
    parseConfig(text, PATH, environment)
  } catch (error) {
    assert.ok(error instanceof AgentError)
    assert.equal(error.code, 'CONFIG_INVALID')
    assert.ok(error.message.startsWith(START), error.message)
    return error.message.slice(START.length)
  }
  return assert.fail('parseConfig() accepted the text')
}

/** The required members, one a line, with `lines` behind them; `lines` start in line 6. */
function fileWith(...lines: string[]): string {
  const members = Object.entries(REQUIRED).map(([key, value]) => `  ${JSON.stringify(key)}: ${JSON.stringify(value)}`)
  return ['{', [...members, ...lines].join(',\n'), '}'].join('\n')
}

describe('parseConfig() reads', () => {
  test('the file that installations have today, without a notice', () => {
    assert.deepEqual(parseConfig(JSON.stringify(SHIPPED), PATH, {}), {
      path: PATH,
      logFolder: '/var/log/azure-proxy-agent',
      eventFolder: '/var/log/azure-proxy-agent/events',
      latchKeyFolder: '/var/lib/azure-proxy-agent/keys',
      statusFolder: '/var/log/azure-proxy-agent',
      controlSocket: '/run/azure-proxy-agent/agent.sock',
      monitorIntervalMs: 60_000,
      pollIntervalMs: 15_000,
      maxEventFileCount: 30,
      telemetryIntervalMs: 60_000,
      maxConnections: 16_384,
      maxConnectionsPerUser: 1024,
      fileLogLevel: 'Trace',
      eventLogLevel: 'Info',
      systemLogLevel: 'Info',
      cgroupRoot: '/sys/fs/cgroup',
      canonicalRequestMode: 'shadow',
      enableHttpProxyTrace: false,
      containerRootIsElevated: true,
      closeStaleConnections: false,
      failClosed: false,
      pinFolder: '/sys/fs/bpf/azure-proxy-agent',
      containers: 'serve',
      notices: [],
    } satisfies Config)
  })

  const defaults = {
    statusFolder: '/var/log/azure-proxy-agent',
    controlSocket: '/run/azure-proxy-agent/agent.sock',
    monitorIntervalMs: 60_000,
    maxEventFileCount: 30,
    telemetryIntervalMs: 60_000,
    maxConnections: 16_384,
    maxConnectionsPerUser: 1024,
    fileLogLevel: 'Info',
    eventLogLevel: undefined,
    systemLogLevel: 'Error',
    cgroupRoot: undefined,
    canonicalRequestMode: 'off',
    enableHttpProxyTrace: false,
    containerRootIsElevated: true,
    closeStaleConnections: false,
    failClosed: false,
    pinFolder: '/sys/fs/bpf/azure-proxy-agent',
    containers: 'serve',
    notices: [],
  } as const

  test('the required keys alone, with defaults for the rest', () => {
    const { path, logFolder, eventFolder, latchKeyFolder, pollIntervalMs, ...rest } = parse({})
    assert.deepEqual([path, logFolder, eventFolder, latchKeyFolder, pollIntervalMs], [PATH, '/l', '/e', '/k', 15_000])
    assert.deepEqual(rest, defaults)
  })

  test('null for an optional key as if it were absent', () => {
    const optional = [
      'monitorIntervalInSeconds',
      'telemetryIntervalInSeconds',
      'maxEventFileCount',
      'statusFolder',
      'fileLogLevel',
      'cgroupRoot',
    ]
    const more = [
      'fileLogLevelForEvents',
      'fileLogLevelForSystemEvents',
      'enableHttpProxyTrace',
      'canonicalRequestMode',
    ]
    const ignored = [
      'containerRootIsElevated',
      'closeStaleConnections',
      'failClosed',
      'pinFolder',
      'containers',
      'ebpfProgramName',
      'ebpfFileFullPath',
      'imdsSupport',
    ]
    const nulls = Object.fromEntries([...optional, ...more, ...ignored].map((key) => [key, null]))
    assert.deepEqual(parse(nulls), parse({}))
  })

  test('a file with a byte-order mark', () => {
    assert.equal(parseConfig(`\ufeff${JSON.stringify(REQUIRED)}`, PATH, {}).logFolder, '/l')
  })

  test('switches', () => {
    const switches = {
      enableHttpProxyTrace: true,
      containerRootIsElevated: false,
      closeStaleConnections: true,
      failClosed: true,
    }
    const config = parse(switches)
    assert.deepEqual({ ...config, ...switches }, config)
  })

  test('an empty log folder as no log files', () => assert.equal(parse({ logFolder: '' }).logFolder, ''))

  test('into something that nobody can change', () => {
    assert.throws(() => Object.assign(parse({}), { logFolder: '/elsewhere' }), TypeError)
  })
})

describe('parseConfig() corrects and tells', () => {
  const rows: readonly (readonly [members: object, key: keyof Config, value: unknown, notice?: string])[] = [
    [{ fileLogLevel: 'wArN' }, 'fileLogLevel', 'Warn'],
    [
      { fileLogLevel: 'Off' },
      'fileLogLevel',
      'Info',
      `Config key 'fileLogLevel' is "Off", which is no log level: using Info`,
    ],
    [
      { fileLogLevel: ' Warn' },
      'fileLogLevel',
      'Info',
      `Config key 'fileLogLevel' is " Warn", which is no log level: using Info`,
    ],
    [
      { fileLogLevelForSystemEvents: '' },
      'systemLogLevel',
      'Info',
      `Config key 'fileLogLevelForSystemEvents' is "", which is no log level: using Info`,
    ],
    [
      { fileLogLevelForEvents: 'x' },
      'eventLogLevel',
      'Info',
      `Config key 'fileLogLevelForEvents' is "x", which is no log level: using Info`,
    ],
    [{ canonicalRequestMode: ' ENFORCE\t' }, 'canonicalRequestMode', 'enforce'],
    [{ canonicalRequestMode: '' }, 'canonicalRequestMode', 'off'],
    [
      { canonicalRequestMode: 'on' },
      'canonicalRequestMode',
      'off',
      `Config key 'canonicalRequestMode' is "on", which is none of off, shadow, enforce: using off`,
    ],
    [{ containers: 'Direct ' }, 'containers', 'direct'],
    [{ containers: '' }, 'containers', 'serve'],
    [
      { containers: 'block' },
      'containers',
      'deny',
      `Config key 'containers' is "block", which is none of serve, direct, deny: using deny`,
    ],
    [{ pollKeyStatusIntervalInSeconds: 1 }, 'pollIntervalMs', 1000],
    [{ pollKeyStatusIntervalInSeconds: 3600 }, 'pollIntervalMs', 3_600_000],
    [
      { pollKeyStatusIntervalInSeconds: 0 },
      'pollIntervalMs',
      1000,
      `Config key 'pollKeyStatusIntervalInSeconds' is 0, which is out of 1 to 3600: using 1`,
    ],
    [
      { pollKeyStatusIntervalInSeconds: 3601 },
      'pollIntervalMs',
      3_600_000,
      `Config key 'pollKeyStatusIntervalInSeconds' is 3601, which is out of 1 to 3600: using 3600`,
    ],
    [
      { monitorIntervalInSeconds: 0 },
      'monitorIntervalMs',
      1000,
      `Config key 'monitorIntervalInSeconds' is 0, which is out of 1 to 3600: using 1`,
    ],
    [{ maxEventFileCount: 0 }, 'maxEventFileCount', 0],
    [{ maxConnections: 64 }, 'maxConnections', 64],
    [{ maxConnectionsPerUser: 65_536 }, 'maxConnectionsPerUser', 65_536],
    [
      { maxConnections: 0 },
      'maxConnections',
      64,
      `Config key 'maxConnections' is 0, which is out of 64 to 65536: using 64`,
    ],
    [
      { maxConnectionsPerUser: 1e6 },
      'maxConnectionsPerUser',
      65_536,
      `Config key 'maxConnectionsPerUser' is 1000000, which is out of 64 to 65536: using 65536`,
    ],
    [
      { telemetryIntervalInSeconds: 0 },
      'telemetryIntervalMs',
      1000,
      `Config key 'telemetryIntervalInSeconds' is 0, which is out of 1 to 3600: using 1`,
    ],
    [
      { enableHttpProxyTrace: true },
      'enableHttpProxyTrace',
      true,
      `Config key 'enableHttpProxyTrace' has no effect: 'fileLogLevelForSystemEvents' is Error, and traces are Warn`,
    ],
    [{ enableHttpProxyTrace: true, fileLogLevelForSystemEvents: 'Warn' }, 'enableHttpProxyTrace', true],
    [
      { pollInterval: 1 },
      'pollIntervalMs',
      15_000,
      'Config key "pollInterval" in line 1 is not known and has no effect',
    ],
    [{ LOGFOLDER: '/x' }, 'logFolder', '/l', 'Config key "LOGFOLDER" in line 1 is not known and has no effect'],
    [{ hostGAPluginSupport: 'x', wireServerSupport: [], imdsSupport: {} }, 'logFolder', '/l'],
    [{ ebpfProgramName: 'x', ebpfFileFullPath: '/x' }, 'logFolder', '/l'],
  ]
  for (const [members, key, value, notice] of rows) {
    test(JSON.stringify(members), () => {
      const config = parse(members)
      assert.deepEqual(config[key], value)
      assert.deepEqual(config.notices, notice === undefined ? [] : [notice])
    })
  }

  test('a key that objects have by nature is not known either', () => {
    const text = fileWith('  "__proto__": {"fileLogLevel": "Trace"}', '  "constructor": 1')
    const config = parseConfig(text, PATH, {})
    assert.equal(config.fileLogLevel, 'Info')
    assert.deepEqual(config.notices, [
      'Config key "__proto__" in line 6 is not known and has no effect',
      'Config key "constructor" in line 7 is not known and has no effect',
    ])
  })
})

describe('parseConfig() refuses', () => {
  const json = (members: object) => JSON.stringify({ ...REQUIRED, ...members })
  const rows: readonly (readonly [situation: string, text: string, reason: string])[] = [
    ['an empty file', '', 'Cannot parse JSON: a value is expected at line 1, column 1'],
    [
      'a comment',
      '{\n  // where logs go\n}',
      'Cannot parse JSON: a member name in double quotes is expected at line 2, column 3',
    ],
    [
      'a trailing comma',
      '{\n  "logFolder": "/l",\n}',
      'Cannot parse JSON: a member name in double quotes is expected at line 3, column 1',
    ],
    ['a list', '[]', 'the file must hold one JSON object'],
    ['null', 'null', 'the file must hold one JSON object'],
    ['no log folder', json({ logFolder: undefined }), "key 'logFolder' is missing; it must be a string"],
    ['no event folder', json({ eventFolder: undefined }), "key 'eventFolder' is missing; it must be a string"],
    ['no key folder', json({ latchKeyFolder: undefined }), "key 'latchKeyFolder' is missing; it must be a string"],
    [
      'no poll interval',
      json({ pollKeyStatusIntervalInSeconds: undefined }),
      "key 'pollKeyStatusIntervalInSeconds' is missing; it must be a whole number of 0 or more",
    ],
    ['null for a required key', json({ logFolder: null }), "line 1: key 'logFolder' is null; it must be a string"],
    ['a folder that is a number', json({ eventFolder: 1 }), "line 1: key 'eventFolder' is 1; it must be a string"],
    [
      'a level that is a number',
      fileWith('  "fileLogLevel": 3'),
      "line 6: key 'fileLogLevel' is 3; it must be a string",
    ],
    [
      'a negative interval',
      fileWith('  "monitorIntervalInSeconds": -1'),
      "line 6: key 'monitorIntervalInSeconds' is -1; it must be a whole number of 0 or more",
    ],
    [
      'a fraction',
      json({ pollKeyStatusIntervalInSeconds: 1.5 }),
      "line 1: key 'pollKeyStatusIntervalInSeconds' is 1.5; it must be a whole number of 0 or more",
    ],
    [
      'a textual number',
      json({ maxEventFileCount: '30' }),
      `line 1: key 'maxEventFileCount' is "30"; it must be a whole number of 0 or more`,
    ],
    [
      'a number that is too large for any use',
      fileWith('  "maxEventFileCount": 1e999'),
      "line 6: key 'maxEventFileCount' is Infinity; it must be a whole number of 0 or more",
    ],
    [
      'a textual switch',
      fileWith('  "enableHttpProxyTrace": "yes"'),
      `line 6: key 'enableHttpProxyTrace' is "yes"; it must be a boolean`,
    ],
    ['a key given twice', fileWith('  "logFolder": "/x"'), "line 6: key 'logFolder' is given twice; remove one"],
    [
      'a key given twice deep inside',
      fileWith('  "x": [{"a": 1, "a": 1}]'),
      "line 6: key 'x[0].a' is given twice; remove one",
    ],
    [
      'a relative folder',
      json({ eventFolder: 'x/y' }),
      `line 1: key 'eventFolder' is "x/y"; it must be an absolute path`,
    ],
    [
      'an empty folder',
      json({ latchKeyFolder: '' }),
      `line 1: key 'latchKeyFolder' is ""; it must be an absolute path`,
    ],
    [
      'a long value, shortly',
      json({ eventFolder: 'x'.repeat(1000) }),
      `line 1: key 'eventFolder' is "${'x'.repeat(76)}...; it must be an absolute path`,
    ],
  ]
  for (const [situation, text, reason] of rows) test(situation, () => assert.equal(refusalOf(text), reason))
})

describe('parseConfig() replaces %NAME%', () => {
  const environment = { STATE: '/run/gpa', A_1: 'x', EMPTY: '', TWICE: '%STATE%', DOLLAR: "$&$'$1" }
  for (const [text, folder] of [
    ['%STATE%/keys', '/run/gpa/keys'],
    ['/a/%A_1%/%A_1%', '/a/x/x'],
    ['/a%%b', '/a%%b'],
    ['/100%', '/100%'],
    ['/%A-1%', '/%A-1%'],
    ['/%A_1%A_1%', '/xA_1%'],
    ['/%TWICE%', '/%STATE%'],
    ['/%EMPTY%x', '/x'],
    ['/%DOLLAR%', "/$&$'$1"],
    ['/$HOME/~', '/$HOME/~'],
  ] as const) {
    test(`in ${text}`, () => {
      for (const key of ['logFolder', 'eventFolder', 'latchKeyFolder', 'statusFolder'] as const) {
        assert.equal(parse({ [key]: text }, environment)[key], folder)
      }
    })
  }

  test('nowhere but in folders', () => {
    assert.equal(parse({ cgroupRoot: '/%STATE%' }, environment).cgroupRoot, '/%STATE%')
  })

  for (const name of ['NOPE', 'constructor', '__proto__', 'toString']) {
    test(`and refuses ${name}, which is not set`, () => {
      const text = fileWith().replace('/k', `/%${name}%/k`)
      assert.equal(
        refusalOf(text, environment),
        `line 4: key 'latchKeyFolder' is "/%${name}%/k", but the environment variable ${name} is not set`,
      )
    })
  }

  test('and refuses a path that it makes relative', () => {
    assert.match(
      refusalOf(JSON.stringify({ ...REQUIRED, logFolder: '%A_1%/l' }), environment),
      /must be an absolute path$/,
    )
  })
})

describe('parseConfig() never fails in another way', () => {
  const keys = [...Object.keys(SHIPPED), 'ebpfFileFullPath', 'maxEventFileCount', 'statusFolder', '__proto__', 'x']
  const value = fc.oneof(fc.jsonValue(), fc.constantFrom('/a', '%A%', 'Info', 0, 15, true, null, '', -1, 1e300))
  const members = fc.dictionary(fc.constantFrom(...keys), value)

  test('whatever the text', () => {
    const text = fc.oneof(
      fc.string(),
      fc.json(),
      members.map((each) => JSON.stringify(each)),
      members.map((each) => JSON.stringify({ ...SHIPPED, ...each })),
    )
    fc.assert(
      fc.property(text, (each) => {
        try {
          const config = parseConfig(each, PATH, {})
          assert.ok(config.pollIntervalMs >= 1000 && config.pollIntervalMs <= 3_600_000)
          assert.ok(config.latchKeyFolder.startsWith('/'))
        } catch (error) {
          assert.ok(error instanceof AgentError, String(error))
          assert.ok(error.message.startsWith(START))
        }
      }),
      { numRuns: 2000 },
    )
  })
})
