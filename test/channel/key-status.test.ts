import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { inspect } from 'node:util'
import fc from 'fast-check'
import { AgentError } from '../../src/base/errors.ts'
import {
  computeChannelState,
  describeKeyStatus,
  type KeyStatus,
  type Mode,
  parseKeyStatus,
  type RuleParser,
} from '../../src/channel/key-status.ts'
import { isAllowedDuplicate, parseAuthorizationRules } from '../../src/rules/document.ts'

const RULES: RuleParser = { parse: (json) => parseAuthorizationRules(json), isAllowedDuplicate }

/** A status of protocol 1.0 with `changes`; a member set to `undefined` is left out. */
function v1(changes: Record<string, unknown> = {}): string {
  return JSON.stringify({
    version: '1.0',
    authorizationScheme: 'Azure-HMAC-SHA256',
    keyDeliveryMethod: 'http',
    keyGuid: null,
    requiredClaimsHeaderPairs: null,
    secureChannelState: 'Wireserver',
    ...changes,
  })
}

function v2(changes: Record<string, unknown> = {}): string {
  return v1({ version: '2.0', secureChannelState: undefined, secureChannelEnabled: true, ...changes })
}

const item = (mode: string, id = 'id') => ({ defaultAccess: 'deny', mode, id })
const parse = (text: string) => parseKeyStatus(text, RULES)

function failureOf(text: string): AgentError {
  try {
    parse(text)
  } catch (error) {
    assert.ok(error instanceof AgentError, `not an AgentError: ${error}`)
    return error
  }
  return assert.fail('parseKeyStatus() accepted the text')
}

describe('parseKeyStatus() reads', () => {
  test('a status of protocol 1.0', () => {
    assert.deepEqual(parse(v1()), {
      version: '1.0',
      authorizationScheme: 'Azure-HMAC-SHA256',
      keyDeliveryMethod: 'http',
      keyGuid: undefined,
      keyIncarnationId: undefined,
      secureChannelState: 'Wireserver',
      secureChannelEnabled: undefined,
      authorizationRules: undefined,
      remarks: [],
    } satisfies KeyStatus)
  })

  test('a disabled status of protocol 2.0 with all members null', () => {
    const status = parse(
      v2({
        secureChannelEnabled: false,
        secureChannelState: null,
        keyIncarnationId: null,
        authorizationRules: null,
        requiredClaimsHeaderPairs: [],
      }),
    )
    assert.equal(status.secureChannelEnabled, false)
    assert.equal(status.authorizationRules, undefined)
    assert.equal(status.secureChannelState, undefined)
  })

  test('an enabled status of protocol 2.0 with rules', () => {
    const status = parse(
      v2({ keyGuid: 'g', keyIncarnationId: 4294967295, authorizationRules: { imds: item('audit') } }),
    )
    assert.equal(status.keyGuid, 'g')
    assert.equal(status.keyIncarnationId, 4294967295)
    assert.equal(status.authorizationRules?.imds?.mode, 'audit')
  })

  test('members it does not know, also ones named like those of objects', () => {
    assert.equal(parse(`{"__proto__":{"version":"9"},"toString":1,"new":[{}],${v1().slice(1)}`).version, '1.0')
  })
})

describe('parseKeyStatus() refuses for its shape', () => {
  const rows: readonly (readonly [situation: string, text: string, message: string | RegExp])[] = [
    ['no JSON', 'Service Unavailable', 'Cannot read key status: a value is expected at line 1, column 1'],
    ['an array', '[]', 'Cannot read key status: the document must be an object'],
    ['a string', '"1.0"', 'Cannot read key status: the document must be an object'],
    ['null', 'null', 'Cannot read key status: the document must be an object'],
    ['no version', v1({ version: undefined }), 'Cannot read key status: version is missing'],
    ['no scheme', v1({ authorizationScheme: undefined }), 'Cannot read key status: authorizationScheme is missing'],
    ['a null version', v1({ version: null }), 'Cannot read key status: version must be string'],
    ['a numeric version', v1({ version: 2 }), 'Cannot read key status: version must be string'],
    ['a null delivery method', v1({ keyDeliveryMethod: null }), /keyDeliveryMethod must be string$/],
    ['a numeric key id', v1({ keyGuid: 7 }), /: keyGuid must be string$/],
    ['a negative incarnation', v1({ keyIncarnationId: -1 }), /: keyIncarnationId must be an unsigned 32-bit integer$/],
    [
      'an incarnation above 32 bits',
      v1({ keyIncarnationId: 4294967296 }),
      /: keyIncarnationId must be an unsigned 32-bit integer$/,
    ],
    [
      'a fractional incarnation',
      v1({ keyIncarnationId: 1.5 }),
      /: keyIncarnationId must be an unsigned 32-bit integer$/,
    ],
    ['a textual incarnation', v1({ keyIncarnationId: '1' }), /: keyIncarnationId must be number$/],
    ['a textual switch', v2({ secureChannelEnabled: 'true' }), /: secureChannelEnabled must be boolean$/],
    ['a boolean state', v1({ secureChannelState: true }), /: secureChannelState must be string$/],
    ['claims that are a string', v1({ requiredClaimsHeaderPairs: 'a' }), /: requiredClaimsHeaderPairs must be array$/],
    [
      'claims with a number',
      v1({ requiredClaimsHeaderPairs: ['a', 1] }),
      /: requiredClaimsHeaderPairs.1 must be string$/,
    ],
    ['rules that are a list', v2({ authorizationRules: [] }), /^Cannot read authorization rules: /],
    ['an item without its mode', v2({ authorizationRules: { imds: { defaultAccess: 'a', id: 'b' } } }), /imds\.mode/],
    ['a repeated member', `{"version":"1.0",${v1().slice(1)}`, 'Cannot read key status: member version is repeated'],
    [
      'a repeated member deep inside',
      v2({ authorizationRules: { imds: item('audit') } }).replace('"mode":', '"mode":"disabled","mode":'),
      'Cannot read key status: member authorizationRules.imds.mode is repeated',
    ],
  ]
  for (const [situation, text, message] of rows) {
    test(situation, () => {
      const error = failureOf(text)
      if (typeof message === 'string') assert.equal(error.message, message)
      else assert.match(error.message, message)
    })
  }
})

describe('parseKeyStatus() refuses for its meaning, in the words that are known', () => {
  const invalid = 'Key error: Key status validation failed with the error: '
  const both = 'Both secureChannelEnabled and secureChannelState are missing in version: '
  const rows: readonly (readonly [situation: string, text: string, message: string])[] = [
    [
      'version 1.0 with neither member',
      v1({ secureChannelState: null }),
      `${both}1.0secureChannelState is missing in version: 1.0`,
    ],
    [
      'version 2.0 with neither member',
      v2({ secureChannelEnabled: undefined }),
      `${both}2.0secureChannelEnabled is missing in version: 2.0`,
    ],
    ['another version with neither member', v1({ version: '3', secureChannelState: undefined }), `${both}3`],
    [
      'version 1.0 with the other member',
      v1({ secureChannelState: undefined, secureChannelEnabled: true }),
      'secureChannelState is missing in version: 1.0',
    ],
    [
      'version 2.0 with the other member',
      v2({ secureChannelEnabled: undefined, secureChannelState: 'Wireserver' }),
      'secureChannelEnabled is missing in version: 2.0',
    ],
    ['an unknown state', v1({ secureChannelState: 'Foo' }), "secureChannelState 'foo' is invalid; "],
    ['the state Audit', v1({ secureChannelState: 'Audit' }), "secureChannelState 'audit' is invalid; "],
    ['an unknown state in 2.0', v2({ secureChannelState: 'Foo' }), "secureChannelState 'foo' is invalid; "],
    [
      'all faults at once, mild ones first',
      v1({ authorizationScheme: 'X', keyDeliveryMethod: 'pigeon', version: '2.0', secureChannelState: 'Foo' }),
      "authorizationScheme must be 'Azure-HMAC-SHA256'; keyDeliveryMethod 'pigeon' is invalid; " +
        "secureChannelState 'foo' is invalid; secureChannelEnabled is missing in version: 2.0",
    ],
  ]
  for (const [situation, text, message] of rows) {
    test(situation, () => {
      const error = failureOf(text)
      assert.equal(error.code, 'STATUS_INVALID')
      assert.equal(error.message, invalid + message)
    })
  }

  test('but only remarks on a scheme or a delivery it does not know', () => {
    const { remarks } = parse(v1({ authorizationScheme: 'azure-hmac-sha256', keyDeliveryMethod: 'HTTP' }))
    assert.deepEqual(remarks, [
      "authorizationScheme must be 'Azure-HMAC-SHA256'; ",
      "keyDeliveryMethod 'HTTP' is invalid; ",
    ])
    assert.deepEqual(parse(v1({ keyDeliveryMethod: 'vtpm' })).remarks, [])
  })
})

describe('parseKeyStatus() repeats nothing of the body', () => {
  const secret = '4A404E635266556A586E3272357538782F413F4428472B4B6250645367566B59'

  test('when the text is cut off or spoilt anywhere', () => {
    const text = v2({ key: secret, authorizationRules: { imds: { ...item('audit'), key: secret } } })
    for (let cut = 0; cut < text.length; cut++) {
      for (const spoilt of [text.slice(0, cut), `${text.slice(0, cut)}\u0001${text.slice(cut)}`]) {
        const error = failureOf(spoilt)
        assert.doesNotMatch(inspect(error, { depth: null, showHidden: true }), /4A404E/)
      }
    }
  })

  test('when a member has the wrong type', () => {
    const members = ['keyGuid', 'keyIncarnationId', 'requiredClaimsHeaderPairs', 'secureChannelEnabled', 'version']
    const rows = [...members, 'authorizationScheme'].map((member) => ({ [member]: { [secret]: secret } }))
    for (const changes of [...rows, { authorizationRules: { imds: { ...item('audit'), rules: secret } } }]) {
      const error = failureOf(v2(changes))
      assert.doesNotMatch(inspect(error, { depth: null, showHidden: true }), /4A404E/)
    }
  })

  test('and throws nothing but AgentError, whatever the document', () => {
    const members = fc.dictionary(
      fc.constantFrom('version', 'secureChannelState', 'secureChannelEnabled', 'keyGuid', 'authorizationRules', 'imds'),
      fc.oneof(fc.jsonValue(), fc.constantFrom('1.0', '2.0', 'Disabled', true)),
    )
    const text = fc.oneof(fc.json(), fc.string(), members.map(v1), members.map(v2))
    fc.assert(
      fc.property(text, (each) => {
        try {
          computeChannelState(parse(each))
        } catch (error) {
          assert.ok(error instanceof AgentError)
        }
      }),
      { numRuns: 1000 },
    )
  })
})

describe('computeChannelState() of protocol 1.0 and others', () => {
  const rows: readonly (readonly [situation: string, text: string, state: string, wireserver: Mode, imds: Mode])[] = [
    ['Disabled', v1({ secureChannelState: 'Disabled' }), 'disabled', 'disabled', 'disabled'],
    ['Wireserver', v1({ secureChannelState: 'Wireserver' }), 'wireserver', 'enforce', 'audit'],
    ['WireserverAndImds', v1({ secureChannelState: 'WireserverAndImds' }), 'wireserverandimds', 'enforce', 'enforce'],
    ['WIRESERVER', v1({ secureChannelState: 'WIRESERVER' }), 'wireserver', 'enforce', 'audit'],
    ['version 3 with a state', v1({ version: '3' }), 'wireserver', 'enforce', 'audit'],
    ['version 2.00, which is not 2.0', v1({ version: '2.00' }), 'wireserver', 'enforce', 'audit'],
    [
      'version 3 with the switch alone',
      v1({ version: '3', secureChannelState: undefined, secureChannelEnabled: true }),
      'disabled',
      'disabled',
      'disabled',
    ],
    [
      'a switch that says otherwise',
      v1({ secureChannelEnabled: false, secureChannelState: 'Wireserver' }),
      'wireserver',
      'enforce',
      'audit',
    ],
  ]
  for (const [situation, text, state, wireserver, imds] of rows) {
    test(situation, () => {
      assert.deepEqual(computeChannelState(parse(text)), {
        text: state,
        modes: { wireserver, imds, hostga: wireserver },
        ruleIds: { wireserver: '', imds: '', hostga: '' },
      })
    })
  }
})

describe('computeChannelState() of protocol 2.0', () => {
  const rules = (wireserver?: string, imds?: string, hostga?: string) => ({
    authorizationRules: {
      ...(wireserver === undefined ? {} : { wireserver: item(wireserver, 'w') }),
      ...(imds === undefined ? {} : { imds: item(imds, 'i') }),
      ...(hostga === undefined ? {} : { hostga: item(hostga, 'h') }),
    },
  })
  const composite = (wireserver: string, imds: string) =>
    `WireServer ${wireserver} -  IMDS ${imds} - HostGA ${wireserver}`
  const rows: readonly (readonly [situation: string, text: string, state: string, wireserver: Mode, imds: Mode])[] = [
    ['enabled without rules', v2(), 'disabled', 'disabled', 'disabled'],
    ['disabled without rules', v2({ secureChannelEnabled: false }), 'disabled', 'disabled', 'disabled'],
    [
      'disabled although rules say enforce',
      v2({ secureChannelEnabled: false, ...rules('enforce', 'enforce') }),
      'disabled',
      'disabled',
      'disabled',
    ],
    ['both enforced', v2(rules('enforce', 'enforce')), composite('Enforce', 'Enforce'), 'enforce', 'enforce'],
    ['enforce and audit', v2(rules('Enforce', 'AUDIT')), composite('Enforce', 'Audit'), 'enforce', 'audit'],
    ['audit and enforce', v2(rules('audit', 'enforce')), composite('Audit', 'Enforce'), 'audit', 'enforce'],
    ['both disabled', v2(rules('disabled', 'Disabled')), composite('Disabled', 'Disabled'), 'disabled', 'disabled'],
    ['empty rules', v2({ authorizationRules: {} }), composite('Disabled', 'Disabled'), 'disabled', 'disabled'],
    ['no item for IMDS', v2(rules('audit')), composite('Audit', 'Disabled'), 'audit', 'disabled'],
    ['no item for WireServer', v2(rules(undefined, 'audit')), composite('Disabled', 'Audit'), 'disabled', 'audit'],
    ['an unknown mode', v2(rules('foo', 'disabled')), composite('Enforce', 'Disabled'), 'enforce', 'disabled'],
    ['an empty mode', v2(rules('disabled', '')), composite('Disabled', 'Enforce'), 'disabled', 'enforce'],
    ['a mode with a blank', v2(rules('disabled ', 'audit ')), composite('Enforce', 'Enforce'), 'enforce', 'enforce'],
    ['a mode of hostga', v2(rules('audit', 'audit', 'enforce')), composite('Audit', 'Audit'), 'audit', 'audit'],
  ]
  for (const [situation, text, state, wireserver, imds] of rows) {
    test(situation, () => {
      const computed = computeChannelState(parse(text))
      assert.equal(computed.text, state)
      assert.deepEqual(computed.modes, { wireserver, imds, hostga: wireserver })
    })
  }

  test('takes the rule ids as received, that of HostGAPlugin from WireServer', () => {
    const { ruleIds } = computeChannelState(parse(v2(rules('audit', 'audit', 'audit'))))
    assert.deepEqual(ruleIds, { wireserver: 'w', imds: 'i', hostga: 'w' })
    assert.deepEqual(computeChannelState(parse(v2())).ruleIds, { wireserver: '', imds: '', hostga: '' })
  })
})

describe('describeKeyStatus()', () => {
  const line = (text: string) => describeKeyStatus(parse(text), computeChannelState(parse(text)))
  test('renders the line that tools look for', () => {
    assert.equal(
      line(v1({ keyGuid: '9cf81e97-0316-4ad3-94a7-8ccbdee8ccbf' })),
      'Got key status successfully: authorizationScheme: Azure-HMAC-SHA256, keyDeliveryMethod: http, ' +
        'keyGuid: 9cf81e97-0316-4ad3-94a7-8ccbdee8ccbf, secureChannelState: wireserver, version: 1.0, ' +
        'WireServerMode: enforce, IMDSMode: audit.',
    )
  })
  test('writes None for no key', () => assert.match(line(v1()), /, keyGuid: None, /))
})
