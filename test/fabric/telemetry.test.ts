import assert from 'node:assert/strict'
import { test } from 'node:test'
import { paramValue, parseHealthState, parseTelemetry } from './telemetry.ts'
import { escapeXml, parseXml, XmlError } from './xml.ts'

const COMMON =
  'KeywordName TenantName RoleName RoleInstanceName ContainerId ResourceGroupName SubscriptionId VMId ImageOrigin:1 ' +
  'OSVersion RAM:7936 Processors:2 EventPid:7 EventTid:7 GAVersion ExecutionMode TaskName OpcodeName'
const LISTS = {
  'FFF0196F-EE4C-4EAF-9AA5-776F622DEB4F': `${COMMON} EventName CapabilityUsed Context1 Context2 Context3`,
  '69B669B9-4AF8-4C50-BDC4-6006FA76E975': `${COMMON} ExtensionType IsInternal:True Name Version Operation OperationSuccess:False Message Duration:12`,
}

function param(word: string): string {
  const [name, value] = word.split(':')
  const type = value === undefined ? 'mt:wstr' : /^[0-9]/.test(value) ? 'mt:uint64' : 'mt:bool'
  return `<Param Name="${name}" Value="${value ?? escapeXml('say "a" & <b>')}" T="${type}" />`
}

function post(change: (xml: string) => string = (xml) => xml): Buffer {
  const providers = Object.entries(LISTS).map(([id, list], at) => {
    const params = list.split(' ').map(param).join('')
    return `<Provider id="${id}"><Event id="${at === 0 ? 7 : 1}"><![CDATA[${params}]]></Event></Provider>`
  })
  return Buffer.from(change(`<?xml version="1.0"?><TelemetryData version="1.0">${providers.join('')}</TelemetryData>`))
}

test('parseTelemetry() reads both kinds of events and unescapes their values', () => {
  const { events, problems } = parseTelemetry(post())
  assert.deepEqual(problems, [])
  assert.deepEqual(
    events.map((event) => [event.eventId, event.params.length]),
    [
      ['7', 23],
      ['1', 26],
    ],
  )
  assert.equal(paramValue(events[0]!, 'Context1'), 'say "a" & <b>')
})

const PROBLEMS: [situation: string, change: (xml: string) => string, problem: RegExp][] = [
  ['a missing parameter', (xml) => xml.replace(/<Param Name="RAM"[^>]*>/, ''), /^parameters of event 7/],
  ['a negative number', (xml) => xml.replace('Value="12"', 'Value="-12"'), /Duration is no mt:uint64/],
  ['a number above 64 bits', (xml) => xml.replace('Value="12"', 'Value="18446744073709551616"'), /Duration is no/],
  ['a truth in lower case', (xml) => xml.replace('"True"', '"true"'), /IsInternal is no mt:bool/],
  ['another type', (xml) => xml.replace('Value="7936" T="mt:uint64"', 'Value="7936" T="mt:wstr"'), /RAM has type/],
  ['an unknown provider', (xml) => xml.replace('FFF0196F', '00000000'), /is not known/],
  ['no event', () => '<TelemetryData version="1.0"><Provider id="x"></Provider></TelemetryData>', /no event/],
  ['a post too large', (xml) => xml.replace('say', 'x'.repeat(65_536)), /post of \d+ bytes/],
]
for (const [situation, change, problem] of PROBLEMS) {
  test(`parseTelemetry() tells of ${situation}`, () => {
    assert.match(parseTelemetry(post(change)).problems.join('\n'), problem)
  })
}

const NOT_XML: [situation: string, change: (xml: string) => string | Buffer, reason: RegExp][] = [
  ['a control character in a value', (xml) => xml.replace('say', 'sa\u0008y'), /U\+0008 is forbidden/],
  ['U+FFFE in a value', (xml) => xml.replace('say', 'sa\ufffey'), /U\+fffe is forbidden/],
  ['bytes that are not UTF-8', (xml) => Buffer.from(xml.replace('say', 'sa\xe9y'), 'latin1'), /not UTF-8/],
  ['an unescaped ampersand', (xml) => xml.replace('&amp;', '&'), /no known reference/],
  ['an unescaped "<" in a value', (xml) => xml.replace('&lt;', '<'), /holds "<"/],
  ['a reference to a forbidden character', (xml) => xml.replace('&lt;', '&#8;'), /no known reference/],
  ['an unquoted value', (xml) => xml.replace('Value="12"', 'Value=12'), /not quoted/],
  ['a CDATA end inside the section', (xml) => xml.replace('say', 'sa]]>y'), /"\]\]>" in text/],
  ['an element that is not closed', (xml) => xml.replace('</TelemetryData>', ''), /not closed/],
  ['text behind the root', (xml) => `${xml}x`, /text after the root/],
  ['an attribute twice', (xml) => xml.replace('version="1.0">', 'version="1.0" version="1.0">'), /repeated/],
  ['another document', () => '<Health/>', /"Health" where "TelemetryData"/],
  ['an empty body', () => '', /an element must begin/],
]
for (const [situation, change, reason] of NOT_XML) {
  test(`parseTelemetry() refuses ${situation}`, () => {
    const changed = change(post().toString())
    assert.throws(
      () => parseTelemetry(Buffer.from(changed as string)),
      (error: unknown) => error instanceof XmlError && reason.test(error.message),
    )
  })
}

test('parseXml() reads comments, CDATA, references and both quotes', () => {
  const root = parseXml(`<a x='1"' y="&#x41;"><!-- - --><b/>t&lt;<![CDATA[<&]]></a>`)
  assert.deepEqual([...root.attributes.values()], ['1"', 'A'])
  assert.equal(root.text, 't<<&')
  assert.deepEqual(
    root.children.map(({ name }) => name),
    ['b'],
  )
})

test('parseXml() refuses a lone surrogate and takes a pair', () => {
  assert.throws(() => parseXml('<a>\ud83d</a>'), /U\+d83d is forbidden/)
  assert.equal(parseXml('<a>\u{1f600}</a>').text, '\u{1f600}')
})

test('parseHealthState() finds the state of the first role', () => {
  const report = (state: string) =>
    Buffer.from(
      `<Health><GoalStateIncarnation>1</GoalStateIncarnation><Container><ContainerId>c</ContainerId><RoleInstanceList><Role><InstanceId>i</InstanceId><Health><State>${state}</State></Health></Role></RoleInstanceList></Container></Health>`,
    )
  assert.equal(parseHealthState(report('NotReady')), 'NotReady')
  assert.throws(() => parseHealthState(report('Tired')), /no State/)
})
