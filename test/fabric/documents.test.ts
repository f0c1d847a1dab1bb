import assert from 'node:assert/strict'
import { verify, X509Certificate } from 'node:crypto'
import { test } from 'node:test'
import { DEFAULT_VM } from './documents.ts'
import { type Fabric, type FabricOptions, startFabric } from './fabric.ts'
import type { Address } from './host-control.ts'
import { exchange, type RawReply, requestBytes } from './raw-client.ts'
import { childrenNamed, parseXml, type XmlElement } from './xml.ts'

interface Asked {
  method?: string
  headers?: Record<string, string>
  body?: string
}

function ask(
  address: Address,
  target: string,
  { method = 'GET', headers = {}, body = '' }: Asked = {},
): Promise<RawReply> {
  const length: [string, string][] = method === 'GET' ? [] : [['Content-Length', String(Buffer.byteLength(body))]]
  const lines: [string, string][] = [['Host', 'h'], ['Connection', 'close'], ...length, ...Object.entries(headers)]
  return exchange(address, requestBytes({ method, target, headers: lines, body }))
}

async function withFabric(options: FabricOptions, use: (fabric: Fabric) => Promise<void>): Promise<void> {
  const fabric = await startFabric(options)
  try {
    await use(fabric)
  } finally {
    await fabric.close()
  }
}

function descend(root: XmlElement, ...names: string[]): XmlElement {
  return names.reduce((element, name) => childrenNamed(element, name)[0]!, root)
}

const METADATA = { Metadata: 'true' }
const HOSTGA = {
  'x-ms-containerid': DEFAULT_VM.containerId,
  'x-ms-host-config-name': `${DEFAULT_VM.deploymentId}.1.${DEFAULT_VM.deploymentId}.1._demo-vm.1.xml`,
}

test('WireServer serves the goal state at both forms of the path, and every document it names', async () => {
  await withFabric({}, async ({ addresses: { wireserver } }) => {
    const goalState = await ask(wireserver, '/machine/?comp=goalstate')
    assert.equal((await ask(wireserver, '/machine?comp=goalstate')).body, goalState.body)
    assert.match(goalState.headText, /^Content-Type: text\/xml; charset=utf-8\r$/m)
    const root = parseXml(goalState.body)
    assert.equal(descend(root, 'Machine', 'StopRolesDeadlineHint').text, '300000')
    const configuration = descend(root, 'Container', 'RoleInstanceList', 'RoleInstance', 'Configuration')
    const roots: string[] = []
    for (const { name, text } of configuration.children) {
      if (name === 'ConfigName') continue
      const { pathname, search, host } = new URL(text)
      assert.equal(host, '168.63.129.16')
      roots.push(parseXml((await ask(wireserver, pathname + search)).body).name)
    }
    assert.deepEqual(roots, ['HostingEnvironmentConfig', 'SharedConfig', 'Extensions', 'FullConfig', 'CertificateFile'])
  })
})

test('WireServer names the machine in the shared config, and has no certificate data', async () => {
  await withFabric({ documents: { vmName: 'a&b' } }, async ({ addresses: { wireserver } }) => {
    const path = `/machine/${DEFAULT_VM.containerId}/demo?incarnation=1`
    const shared = parseXml((await ask(wireserver, `${path}&comp=config&type=sharedConfig`)).body)
    assert.equal(descend(shared, 'Role').attributes.get('name'), 'a&b')
    assert.equal(descend(shared, 'Instances', 'Instance').attributes.get('id'), '_a&b')
    const certificates = parseXml((await ask(wireserver, `${path}&comp=certificates`)).body)
    assert.deepEqual(
      certificates.children.map(({ name }) => name),
      ['Version', 'Incarnation', 'Format'],
    )
  })
})

test('WireServer answers 410 to URLs of an earlier incarnation or another container', async () => {
  await withFabric({}, async (fabric) => {
    const { wireserver } = fabric.addresses
    const of = (container: string, incarnation: number) =>
      ask(wireserver, `/machine/${container}/demo?comp=config&type=sharedConfig&incarnation=${incarnation}`)
    assert.equal((await of(DEFAULT_VM.containerId, 1)).status, 200)
    fabric.raiseIncarnation()
    assert.equal((await of(DEFAULT_VM.containerId, 1)).status, 410)
    assert.equal((await of(DEFAULT_VM.containerId, 2)).status, 200)
    assert.equal((await of('another', 2)).status, 410)
  })
})

test('WireServer can leave optional elements out, and write UTF-16', async () => {
  await withFabric(
    { documents: { goalState: 'short', xmlCharset: 'utf-16' } },
    async ({ addresses: { wireserver } }) => {
      const reply = await ask(wireserver, '/machine/?comp=goalstate')
      assert.match(reply.headText, /^Content-Type: text\/xml; charset=utf-16\r$/m)
      const text = Buffer.from(reply.body, 'latin1').toString('utf16le')
      assert.equal(childrenNamed(parseXml(text), 'Incarnation')[0]?.text, '1')
      assert.doesNotMatch(text, /StopRolesDeadlineHint|ExpectHealthReport|FullConfig/)
    },
  )
})

const HEALTH =
  '<Health><GoalStateIncarnation>1</GoalStateIncarnation><Container><ContainerId>c</ContainerId><RoleInstanceList><Role><InstanceId>i</InstanceId><Health><State>Ready</State></Health></Role></RoleInstanceList></Container></Health>'
const WIRESERVER_ROWS: [situation: string, target: string, asked: Asked, status: number][] = [
  ['versions', '/?comp=versions', {}, 200],
  ['the bare root', '/', {}, 404],
  ['an unknown path', '/nothing', {}, 404],
  ['an unknown comp', '/machine?comp=nothing', {}, 404],
  ['a goal state by POST', '/machine?comp=goalstate', { method: 'POST' }, 405],
  ['a health report', '/machine?comp=health', { method: 'POST', body: HEALTH }, 200],
  ['a health report with a slash', '/machine/?comp=health', { method: 'POST', body: HEALTH }, 200],
  ['a health report by GET', '/machine?comp=health', {}, 405],
  ['a health report that is not XML', '/machine?comp=health', { method: 'POST', body: '<Health>' }, 400],
  ['role properties', '/machine?comp=roleProperties', { method: 'POST', body: '<RoleProperties/>' }, 202],
  ['telemetry that is not XML', '/machine/?comp=telemetrydata', { method: 'POST', body: '<T>\u0001</T>' }, 400],
  [
    'a report to the health service',
    '/HealthService',
    { method: 'POST', body: '{"Api":"reporttargethealth","Version":"1.0","Source":"x","Observations":[]}' },
    200,
  ],
  ['nonsense to the health service', '/HealthService', { method: 'POST', body: '{' }, 400],
  ['the key by GET', '/secure-channel/key', {}, 405],
  [
    'the key for another scheme',
    '/secure-channel/key',
    { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{"authorizationScheme":"x"}' },
    400,
  ],
  [
    'the key without a content type',
    '/secure-channel/key',
    { method: 'POST', body: '{"authorizationScheme":"Azure-HMAC-SHA256"}' },
    400,
  ],
  ['an attestation of an unknown key', '/secure-channel/key/x/key-attestation', { method: 'POST' }, 404],
]
for (const [situation, target, asked, status] of WIRESERVER_ROWS) {
  test(`WireServer answers ${status} to ${situation}`, async () => {
    await withFabric({}, async ({ addresses }) => {
      assert.equal((await ask(addresses.wireserver, target, asked)).status, status)
    })
  })
}

test('WireServer keeps telemetry, with its problems; strictly it refuses such a post', async () => {
  const body =
    '<TelemetryData version="1.0"><Provider id="x"><Event id="1"><![CDATA[<Param Name="A" Value="b" T="mt:wstr" />]]></Event></Provider></TelemetryData>'
  for (const [isStrict, status] of [
    [false, 200],
    [true, 400],
  ] as const) {
    await withFabric({ strict: { telemetry: isStrict } }, async (fabric) => {
      const reply = await ask(fabric.addresses.wireserver, '/machine/?comp=telemetrydata', { method: 'POST', body })
      assert.equal(reply.status, status)
      assert.deepEqual(fabric.telemetry[0]?.events[0]?.params, [{ name: 'A', value: 'b', type: 'mt:wstr' }])
      assert.deepEqual(fabric.telemetry[0]?.problems, ['provider x is not known'])
    })
  }
})

test('WireServer throttles telemetry only when limits are on', async () => {
  await withFabric({ rateLimit: true }, async ({ addresses: { wireserver } }) => {
    const statuses: number[] = []
    const body = '<TelemetryData version="1.0"></TelemetryData>'
    for (let at = 0; at < 16; at++)
      statuses.push((await ask(wireserver, '/machine?comp=telemetrydata', { method: 'POST', body })).status)
    assert.deepEqual(statuses, [...Array(15).fill(200), 429])
  })
})

const HOSTGA_ROWS: [situation: string, target: string, asked: Asked, status: number][] = [
  ['health without headers', '/health', {}, 200],
  ['versions', '/versions', { headers: HOSTGA }, 200],
  ['versions without a container', '/versions', {}, 400],
  ['settings', '/vmSettings', { headers: HOSTGA }, 200],
  ['settings for another container', '/vmSettings', { headers: { ...HOSTGA, 'x-ms-containerid': 'x' } }, 400],
  ['settings for a stale configuration', '/vmSettings', { headers: { ...HOSTGA, 'x-ms-host-config-name': 'x' } }, 410],
  ['an artifact without a location', '/extensionArtifact', { headers: HOSTGA }, 400],
  [
    'an artifact',
    '/extensionArtifact',
    { headers: { ...HOSTGA, 'x-ms-artifact-location': 'https://x.invalid/' } },
    200,
  ],
  ['a status that is no JSON', '/status', { method: 'PUT', headers: HOSTGA, body: '{' }, 400],
  ['a status by POST', '/status', { method: 'POST', headers: HOSTGA }, 405],
  ['an unknown path', '/nothing', { headers: HOSTGA }, 404],
]
for (const [situation, target, asked, status] of HOSTGA_ROWS) {
  test(`HostGAPlugin answers ${status} to ${situation}`, async () => {
    await withFabric({}, async ({ addresses }) => {
      assert.equal((await ask(addresses.hostga, target, asked)).status, status)
    })
  })
}

test('HostGAPlugin answers 304 to the entity tag it gave, and 200 after a change', async () => {
  await withFabric({}, async (fabric) => {
    const { hostga } = fabric.addresses
    const first = await ask(hostga, '/vmSettings', { headers: HOSTGA })
    const etag = /^ETag: (.*)\r$/m.exec(first.headText)![1]!
    const again = await ask(hostga, '/vmSettings', { headers: { ...HOSTGA, 'if-none-match': etag } })
    assert.deepEqual([again.status, again.body], [304, ''])
    fabric.setDocuments({ vmSettingsSource: 'FastTrack' })
    const changed = await ask(hostga, '/vmSettings', { headers: { ...HOSTGA, 'if-none-match': etag } })
    assert.equal(JSON.parse(changed.body).extensionGoalStatesSource, 'FastTrack')
  })
})

test('HostGAPlugin stores a status document, and serves artifacts of the size set', async () => {
  await withFabric({ documents: { artifactSizeBytes: 300_000 } }, async (fabric) => {
    const put = { requestUri: 'https://x.invalid/s', headers: [], content: Buffer.from('{"a":1}').toString('base64') }
    await ask(fabric.addresses.hostga, '/status', { method: 'PUT', headers: HOSTGA, body: JSON.stringify(put) })
    assert.equal(fabric.statusUploads[0]?.content?.toString(), '{"a":1}')
    const artifact = await ask(fabric.addresses.hostga, '/extensionArtifact', {
      headers: { ...HOSTGA, 'x-ms-artifact-location': 'x' },
    })
    assert.equal(artifact.body.length, 300_000)
  })
})

const VM_ID = DEFAULT_VM.vmId
const TOKEN = '/metadata/identity/oauth2/token?api-version=2018-02-01'
const IMDS_ROWS: [situation: string, target: string, asked: Asked, status: number, body?: RegExp][] = [
  ['the instance', '/metadata/instance?api-version=2020-06-01', { headers: METADATA }, 200, /"vmId"/],
  ['Metadata: True with a space', '/metadata/instance?api-version=2020-06-01', { headers: { metadata: 'True ' } }, 200],
  ['no Metadata', '/metadata/instance?api-version=2020-06-01', {}, 400, /Required metadata header not specified/],
  ['Metadata: false', '/metadata/instance?api-version=2020-06-01', { headers: { Metadata: 'false' } }, 400],
  [
    'X-Forwarded-For',
    '/metadata/instance?api-version=2020-06-01',
    { headers: { ...METADATA, 'X-Forwarded-For': '1.2.3.4' } },
    400,
  ],
  ['no version', '/metadata/instance', { headers: METADATA }, 400, /newest-versions.*2025-04-07/],
  ['an unknown version', '/metadata/instance?api-version=2020-06-02', { headers: METADATA }, 400],
  ['two versions', '/metadata/instance?api-version=2020-06-01&api-version=2020-06-01', { headers: METADATA }, 400],
  ['an unknown path', '/metadata/nothing?api-version=2020-06-01', { headers: METADATA }, 404],
  ['an unknown leaf', '/metadata/instance/compute/nothing?api-version=2020-06-01', { headers: METADATA }, 404],
  ['POST', '/metadata/instance?api-version=2020-06-01', { method: 'POST', headers: METADATA }, 405],
  ['HEAD', '/metadata/instance?api-version=2020-06-01', { method: 'HEAD', headers: METADATA }, 405],
  [
    'a part',
    '/metadata/instance/network/interface/0/macAddress?api-version=2020-06-01&format=text',
    { headers: METADATA },
    200,
    /^000D3A123456$/,
  ],
  [
    'a leaf as text',
    '/metadata/instance/compute/vmId?api-version=2020-06-01&format=text',
    { headers: METADATA },
    200,
    new RegExp(`^${VM_ID}$`),
  ],
  ['a leaf without format=text', '/metadata/instance/compute/vmId?api-version=2020-06-01', { headers: METADATA }, 404],
  [
    'a part as text',
    '/metadata/instance?api-version=2020-06-01&format=text',
    { headers: METADATA },
    200,
    /^compute\/\nnetwork\/$/,
  ],
  ['an unknown format', '/metadata/instance?api-version=2020-06-01&format=xml', { headers: METADATA }, 400],
  [
    'the extended instance',
    '/metadata/instance?api-version=2021-08-01&extended=true',
    { headers: METADATA },
    200,
    /"extended"/,
  ],
  ['versions without a version', '/metadata/versions', { headers: METADATA }, 200, /2017-04-02.*2025-04-07/],
  [
    're-provisioning data before there is any',
    '/metadata/reprovisiondata?api-version=2019-06-01',
    { headers: METADATA },
    404,
  ],
  [
    'a token',
    `${TOKEN}&resource=https%3A%2F%2Fmanagement.azure.com%2F`,
    { headers: METADATA },
    200,
    /"resource":"https:\/\/management\.azure\.com\/"/,
  ],
  ['a token without Metadata', `${TOKEN}&resource=https%3A%2F%2Fx%2F`, {}, 400, /bad_request_102/],
  ['a token without a resource', TOKEN, { headers: METADATA }, 400, /invalid_request/],
  ['a token for an unknown resource', `${TOKEN}&resource=nothing`, { headers: METADATA }, 400, /invalid_resource/],
  [
    'a token of the second identity',
    `${TOKEN}&resource=https://x/&client_id=${DEFAULT_VM.identityClientIds[1]}`,
    { headers: METADATA },
    200,
    /"client_id":"8888/,
  ],
  [
    'a token of an unknown identity',
    `${TOKEN}&resource=https://x/&client_id=x`,
    { headers: METADATA },
    400,
    /Identity not found/,
  ],
  [
    'a token of two identities',
    `${TOKEN}&resource=https://x/&client_id=x&object_id=y`,
    { headers: METADATA },
    400,
    /invalid_request/,
  ],
  [
    'the probe of newer token clients',
    '/metadata/identity/credential?cred-api-version=1.0',
    { method: 'POST', body: '.' },
    404,
  ],
  [
    'an attested document for an old version',
    '/metadata/attested/document?api-version=2018-02-01',
    { headers: METADATA },
    400,
  ],
  [
    'a nonce that is no number',
    '/metadata/attested/document?api-version=2018-10-01&nonce=x',
    { headers: METADATA },
    400,
  ],
]
for (const [situation, target, asked, status, body = /^/] of IMDS_ROWS) {
  test(`IMDS answers ${status} to ${situation}`, async () => {
    await withFabric({}, async ({ addresses }) => {
      const reply = await ask(addresses.imds, target, asked)
      assert.equal(reply.status, status)
      assert.match(reply.body, body)
    })
  })
}

test('IMDS gives token times as decimal strings of the host clock', async () => {
  await withFabric({ clockSkewMs: 86_400_000 }, async ({ addresses: { imds } }) => {
    const token = JSON.parse((await ask(imds, `${TOKEN}&resource=https://x/`, { headers: METADATA })).body)
    assert.match(token.expires_on, /^[0-9]+$/)
    assert.ok(Number(token.expires_on) * 1000 > Date.now() + 86_400_000)
    assert.equal(token.token_type, 'Bearer')
  })
})

test('IMDS signs the attested document with its certificate', async () => {
  await withFabric({}, async (fabric) => {
    const reply = await ask(
      fabric.addresses.imds,
      '/metadata/attested/document?api-version=2021-02-01&nonce=1234567890',
      { headers: METADATA },
    )
    const { encoding, signature } = JSON.parse(reply.body)
    assert.equal(encoding, 'pkcs7')
    const message = Buffer.from(signature, 'base64')
    const certificate = new X509Certificate(fabric.attestedCertificate)
    assert.equal(certificate.verify(certificate.publicKey), true)
    assert.ok(message.includes(fabric.attestedCertificate))
    const start = message.indexOf('{"nonce"')
    const content = message.subarray(start, message.indexOf('}', message.indexOf('"sku":', start)) + 1)
    assert.equal(JSON.parse(content.toString()).nonce, '1234567890')
    // The signature is the last element: an octet string (tag 4) that reaches to the end.
    const lengths = Array.from({ length: 80 }, (_, length) => length)
    const length = lengths.find((n) => message.at(-n - 2) === 0x04 && message.at(-n - 1) === n && n > 60)!
    const der = message.subarray(-length)
    assert.equal(verify('sha256', content, certificate.publicKey, der), true)
  })
})

test('IMDS lists scheduled events, starts known ones and refuses unknown ones', async () => {
  await withFabric({}, async (fabric) => {
    const target = '/metadata/scheduledevents?api-version=2020-07-01'
    const read = async () => JSON.parse((await ask(fabric.addresses.imds, target, { headers: METADATA })).body)
    assert.deepEqual(await read(), { DocumentIncarnation: 1, Events: [] })
    fabric.setScheduledEvents([{ EventId: 'E1', EventType: 'Reboot', EventStatus: 'Scheduled' }])
    const start = (id: string) =>
      ask(fabric.addresses.imds, target, {
        method: 'POST',
        headers: METADATA,
        body: JSON.stringify({ StartRequests: [{ EventId: id }] }),
      })
    assert.equal((await start('E2')).status, 400)
    assert.deepEqual([(await start('E1')).status, (await start('E1')).body], [200, ''])
    const { DocumentIncarnation, Events } = await read()
    assert.deepEqual([DocumentIncarnation > 2, Events[0].EventStatus], [true, 'Started'])
  })
})

test('IMDS limits its rate only when told to, tokens apart from the rest', async () => {
  await withFabric({ rateLimit: true }, async ({ addresses: { imds } }) => {
    const statuses = await Promise.all(
      Array.from({ length: 7 }, () => ask(imds, '/metadata/versions', { headers: METADATA })),
    )
    assert.equal(statuses.filter(({ status }) => status === 429).length, 2)
    assert.match(statuses.find(({ status }) => status === 429)!.headText, /^Retry-After: 1/m)
    assert.equal((await ask(imds, `${TOKEN}&resource=https://x/`, { headers: METADATA })).status, 200)
  })
})

test('WireServer asks for x-ms-version only strictly', async () => {
  await withFabric({ strict: { msVersion: true } }, async ({ addresses: { wireserver } }) => {
    assert.equal((await ask(wireserver, '/?comp=versions')).status, 400)
    assert.equal((await ask(wireserver, '/?comp=versions', { headers: { 'x-ms-version': '2012-11-30' } })).status, 200)
  })
})
