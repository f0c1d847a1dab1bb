import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { createPayload, MAX_PAYLOAD_BYTES, renderEvent } from '../../src/telemetry/payload.ts'
import { paramValue, parseTelemetry } from '../fabric/telemetry.ts'
import { logEvent, statusEvent, VM } from './vm.ts'

const MACHINE = [
  '<Param Name="KeywordName" Value="{&quot;CpuArchitecture&quot;:&quot;x86_64&quot;}" T="mt:wstr" />',
  '<Param Name="TenantName" Value="0f1e2d3c-1111-4222-8333-444455556666" T="mt:wstr" />',
  '<Param Name="RoleName" Value="demo-vm" T="mt:wstr" />',
  '<Param Name="RoleInstanceName" Value="_demo-vm" T="mt:wstr" />',
  '<Param Name="ContainerId" Value="a1b2c3d4-0000-4000-8000-00000000abcd" T="mt:wstr" />',
  '<Param Name="ResourceGroupName" Value="demo-rg" T="mt:wstr" />',
  '<Param Name="SubscriptionId" Value="11111111-2222-3333-4444-555555555555" T="mt:wstr" />',
  '<Param Name="VMId" Value="99999999-8888-4777-8666-555555555555" T="mt:wstr" />',
  '<Param Name="ImageOrigin" Value="1" T="mt:uint64" />',
  '<Param Name="OSVersion" Value="Linux:Ubuntu-22.4.0" T="mt:wstr" />',
  '<Param Name="RAM" Value="7936" T="mt:uint64" />',
  '<Param Name="Processors" Value="2" T="mt:uint64" />',
]

/** What existing agents send, byte for byte. */
const VECTOR = [
  '<?xml version="1.0"?><TelemetryData version="1.0">',
  '<Provider id="FFF0196F-EE4C-4EAF-9AA5-776F622DEB4F"><Event id="7"><![CDATA[',
  ...MACHINE,
  '<Param Name="EventPid" Value="742" T="mt:uint64" />',
  '<Param Name="EventTid" Value="742" T="mt:uint64" />',
  '<Param Name="GAVersion" Value="1.0.45" T="mt:wstr" />',
  '<Param Name="ExecutionMode" Value="ProxyAgent" T="mt:wstr" />',
  '<Param Name="TaskName" Value="start" T="mt:wstr" />',
  '<Param Name="OpcodeName" Value="2026-01-02T03:04:05.678" T="mt:wstr" />',
  '<Param Name="EventName" Value="MicrosoftAzureGuestProxyAgent" T="mt:wstr" />',
  '<Param Name="CapabilityUsed" Value="INFO" T="mt:wstr" />',
  '<Param Name="Context1" Value="{&quot;elapsed&quot;:35, &quot;message&quot;:&quot;Started proxy listener, ready to accept request&quot;}" T="mt:wstr" />',
  '<Param Name="Context2" Value="2026-01-02T03:04:05.678" T="mt:wstr" />',
  '<Param Name="Context3" Value="proxy_server" T="mt:wstr" />',
  ']]></Event></Provider>',
  '<Provider id="69B669B9-4AF8-4C50-BDC4-6006FA76E975"><Event id="1"><![CDATA[',
  ...MACHINE,
  '<Param Name="EventPid" Value="742" T="mt:uint64" />',
  '<Param Name="EventTid" Value="742" T="mt:uint64" />',
  '<Param Name="GAVersion" Value="1.0.45" T="mt:wstr" />',
  '<Param Name="ExecutionMode" Value="ProxyAgent" T="mt:wstr" />',
  '<Param Name="TaskName" Value="loop_status" T="mt:wstr" />',
  '<Param Name="OpcodeName" Value="2026-01-02T03:19:05.678" T="mt:wstr" />',
  '<Param Name="ExtensionType" Value="Monitoring" T="mt:wstr" />',
  '<Param Name="IsInternal" Value="True" T="mt:bool" />',
  '<Param Name="Name" Value="azure-proxy-agent" T="mt:wstr" />',
  '<Param Name="Version" Value="1.0.45" T="mt:wstr" />',
  '<Param Name="Operation" Value="report_proxy_agent_status" T="mt:wstr" />',
  '<Param Name="OperationSuccess" Value="True" T="mt:bool" />',
  '<Param Name="Message" Value="{&quot;version&quot;:&quot;1.0.45&quot;}" T="mt:wstr" />',
  '<Param Name="Duration" Value="900012" T="mt:uint64" />',
  ']]></Event></Provider></TelemetryData>',
].join('')

test('an event of each kind is rendered as existing agents do', () => {
  const payload = createPayload()
  const message = '{"elapsed":35, "message":"Started proxy listener, ready to accept request"}'
  assert.ok(payload.add(renderEvent(logEvent({ Message: message }), VM)))
  assert.ok(payload.add(renderEvent(statusEvent(), VM)))
  assert.equal(payload.render(), VECTOR)
  assert.deepEqual(parseTelemetry(Buffer.from(VECTOR)).problems, [])
})

test('providers come in the order of their first events, each once', () => {
  const payload = createPayload()
  for (const event of [statusEvent(), logEvent(), statusEvent(), logEvent()]) payload.add(renderEvent(event, VM))
  const { events, problems } = parseTelemetry(Buffer.from(payload.render()))
  assert.deepEqual(problems, [])
  assert.deepEqual(
    events.map(({ eventId }) => eventId),
    ['1', '1', '7', '7'],
  )
  assert.equal(payload.render().match(/<Provider /g)?.length, 2)
})

test('numbers that are none are 0, and a negative duration wraps', () => {
  const rows: readonly (readonly [digits: string, value: string])[] = [
    ['742', '742'],
    ['00000742', '742'],
    ['18446744073709551615', '18446744073709551615'],
    ['18446744073709551616', '0'],
    ['-1', '0'],
    ['', '0'],
    ['0x7', '0'],
    ['99999999999999999999999', '0'],
  ]
  for (const [digits, value] of rows) {
    const payload = createPayload()
    payload.add(renderEvent(logEvent({ EventPid: digits }), VM))
    const [event] = parseTelemetry(Buffer.from(payload.render())).events
    assert.equal(paramValue(event!, 'EventPid'), value, digits)
  }
  const { operation_status: operation, ...status } = statusEvent()
  const { xml } = renderEvent({ ...status, operation_status: { ...operation, duration: -1 } }, VM)
  assert.match(xml, /Name="Duration" Value="18446744073709551615" T="mt:uint64"/)
})

test('a payload takes events up to 65535 bytes of UTF-8, and not one more', () => {
  const sizeOf = (...events: object[]) => {
    const payload = createPayload()
    const isTaken = events.map((event) => payload.add(renderEvent(event as ReturnType<typeof logEvent>, VM)))
    return { isTaken, sizeBytes: Buffer.byteLength(payload.render()) }
  }
  // The operation is not bounded: it fills the payload to the byte, in characters of two bytes.
  const { sizeBytes: emptyBytes } = sizeOf(logEvent({ OperationId: '' }))
  const room = MAX_PAYLOAD_BYTES - emptyBytes
  const filled = 'é'.repeat(Math.floor(room / 2)) + 'x'.repeat(room % 2)
  assert.deepEqual(sizeOf(logEvent({ OperationId: filled })), { isTaken: [true], sizeBytes: 65_535 })
  assert.deepEqual(sizeOf(logEvent({ OperationId: `${filled}x` })).isTaken, [false])
  assert.deepEqual(sizeOf(logEvent(), logEvent({ OperationId: filled }), statusEvent()).isTaken, [true, false, true])
})

test('whatever events hold, what comes out is what a strict host takes', () => {
  const text = fc.string({ unit: 'binary', maxLength: 300 })
  const event = fc.oneof(
    fc.record({ Message: text, EventLevel: text, TaskName: text, EventPid: text }).map((changes) => logEvent(changes)),
    fc.tuple(text, fc.maxSafeInteger()).map(([message, duration]) => {
      const status = statusEvent()
      return { ...status, event_pid: message, operation_status: { ...status.operation_status, message, duration } }
    }),
  )
  fc.assert(
    fc.property(fc.array(event, { minLength: 1, maxLength: 40 }), (events) => {
      const payload = createPayload()
      const added = events.filter((each) => payload.add(renderEvent(each, VM)))
      const body = Buffer.from(payload.render())
      const post = parseTelemetry(body)
      assert.deepEqual(post.problems, [])
      assert.equal(post.events.length, added.length)
      assert.ok(body.length <= MAX_PAYLOAD_BYTES)
    }),
    { numRuns: 60 },
  )
})
