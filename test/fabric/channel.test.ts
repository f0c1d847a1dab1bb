import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Channel, type ChannelOptions, type Mode } from './channel.ts'

function makeChannel(options: Partial<ChannelOptions> = {}): Channel {
  return new Channel(options, () => Date.parse('2026-01-02T03:04:05Z'))
}

test('Channel goes from no key over offered to latched', () => {
  const channel = makeChannel()
  assert.equal(channel.state, 'no-key')
  assert.equal(channel.statusDocument().keyGuid, null)
  const offer = channel.offerKey()!
  assert.equal(channel.state, 'offered')
  assert.equal(channel.statusDocument().keyGuid, null)
  assert.match(String(offer.key), /^[0-9A-F]{64}$/)
  assert.equal(offer.issued, '2026-01-02T03:04:05Z')
  assert.equal(channel.attest(String(offer.guid), true), 'latched')
  assert.equal(channel.state, 'latched')
  assert.equal(channel.statusDocument().keyGuid, offer.guid)
})

test('Channel stays offered after a wrong proof, and latches after the right one', () => {
  const channel = makeChannel()
  const guid = String(channel.offerKey()!.guid)
  assert.equal(channel.attest(guid, false), 'wrong-proof')
  assert.equal(channel.state, 'offered')
  assert.equal(channel.attest(guid, true), 'latched')
})

test('Channel makes a new offer each time, and only the last one can be attested', () => {
  const channel = makeChannel()
  const first = String(channel.offerKey()!.guid)
  const second = String(channel.offerKey()!.guid)
  assert.notEqual(first, second)
  assert.equal(channel.attest(first, true), 'not-offered')
  assert.equal(channel.attest(second, true), 'latched')
})

test('Channel repeats its offer when told to', () => {
  const channel = makeChannel({ repeatOffer: true })
  assert.deepEqual(channel.offerKey(), channel.offerKey())
})

test('Channel refuses another key while one is latched, and takes a repeated attestation', () => {
  const channel = makeChannel()
  const guid = String(channel.offerKey()!.guid)
  channel.attest(guid, true)
  assert.equal(channel.offerKey(), undefined)
  assert.equal(channel.attest(guid, true), 'latched')
})

test('Channel with re-latching keeps the latched key until the new one is attested', () => {
  const channel = makeChannel({ allowReLatch: true })
  const first = String(channel.offerKey()!.guid)
  channel.attest(first, true)
  const second = String(channel.offerKey()!.guid)
  assert.equal(channel.state, 'latched')
  assert.equal(channel.latchedGuid, first)
  channel.attest(second, true)
  assert.equal(channel.latchedGuid, second)
  assert.equal(channel.findKey(first)?.standing, 'retired')
})

test('Channel.rotate() raises the incarnation, clears the guid and remembers the old key as retired', () => {
  const channel = makeChannel()
  const guid = String(channel.offerKey()!.guid)
  channel.attest(guid, true)
  channel.rotate()
  assert.equal(channel.state, 'no-key')
  const { keyGuid, keyIncarnationId } = channel.statusDocument()
  assert.deepEqual({ keyGuid, keyIncarnationId }, { keyGuid: null, keyIncarnationId: 2 })
  assert.equal(channel.findKey(guid)?.standing, 'retired')
  assert.equal(channel.offerKey()?.incarnationId, 2)
})

const MODES: [situation: string, options: Partial<ChannelOptions>, wireserver: Mode, hostga: Mode, imds: Mode][] = [
  ['1.0 Disabled', { protocol: '1.0', level: 'Disabled' }, 'disabled', 'disabled', 'disabled'],
  ['1.0 Wireserver', { protocol: '1.0', level: 'Wireserver' }, 'enforce', 'enforce', 'audit'],
  ['1.0 WireserverAndImds', { protocol: '1.0', level: 'WireserverAndImds' }, 'enforce', 'enforce', 'enforce'],
  ['2.0 without rules', { enabled: true }, 'disabled', 'disabled', 'disabled'],
  [
    '2.0, HostGAPlugin follows WireServer',
    {
      enabled: true,
      rules: {
        wireserver: { defaultAccess: 'allow', mode: 'enforce' },
        hostga: { defaultAccess: 'allow', mode: 'disabled' },
        imds: { defaultAccess: 'deny', mode: 'audit' },
      },
    },
    'enforce',
    'enforce',
    'audit',
  ],
  [
    '2.0, modes in odd spellings',
    {
      enabled: true,
      rules: { wireserver: { defaultAccess: 'allow', mode: 'Enforce' }, imds: { defaultAccess: 'allow', mode: 'foo' } },
    },
    'enforce',
    'enforce',
    'audit',
  ],
  [
    '2.0 switched off, rules left in place',
    { enabled: false, rules: { wireserver: { defaultAccess: 'allow', mode: 'enforce' } } },
    'disabled',
    'disabled',
    'disabled',
  ],
]
for (const [situation, options, wireserver, hostga, imds] of MODES) {
  test(`Channel.modeOf() in ${situation}`, () => {
    const channel = makeChannel(options)
    assert.deepEqual(
      [channel.modeOf('wireserver'), channel.modeOf('hostga'), channel.modeOf('imds')],
      [wireserver, hostga, imds],
    )
  })
}

test('Channel.statusDocument() in protocol 1.0 has a state and no rules', () => {
  assert.deepEqual(makeChannel({ protocol: '1.0', level: 'Wireserver' }).statusDocument(), {
    authorizationScheme: 'Azure-HMAC-SHA256',
    keyDeliveryMethod: 'http',
    keyGuid: null,
    keyIncarnationId: 1,
    requiredClaimsHeaderPairs: ['isRoot'],
    secureChannelState: 'Wireserver',
    version: '1.0',
  })
})

test('Channel.configure() gives rule items an id, and another one with each change', () => {
  const channel = makeChannel({ enabled: true })
  const ids = () => (channel.statusDocument().authorizationRules as { imds: { id: string } }).imds.id
  channel.configure({ rules: { imds: { defaultAccess: 'allow', mode: 'audit' } } })
  const first = ids()
  channel.configure({ rules: { imds: { defaultAccess: 'deny', mode: 'audit' } } })
  assert.notEqual(ids(), first)
  assert.notEqual(first, '')
  channel.configure({ rules: { imds: { defaultAccess: 'deny', mode: 'audit', id: 'mine' } } })
  assert.equal(ids(), 'mine')
})
