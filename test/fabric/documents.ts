/** The documents of an invented virtual machine. Every identifier is made up; addresses of clouds end in `.invalid`. */

import { createHash } from 'node:crypto'
import { escapeXml } from './xml.ts'

/** Who the machine is, and what a test may turn about its documents. */
export interface VmDocuments {
  vmName: string
  vmId: string
  subscriptionId: string
  resourceGroup: string
  location: string
  vmSize: string
  /** Empty for a custom image. */
  offer: string
  containerId: string
  deploymentId: string
  /** Of the goal state; raised by `raiseIncarnation()`. */
  incarnation: number
  /** Host and port in the goal state's URLs; the real ones, wherever this host listens. */
  wireserverAuthority: string
  /** `short` leaves out what only some clients read (StopRolesDeadlineHint, ExpectHealthReport …). */
  goalState: 'full' | 'short'
  /** Encoding of WireServer's documents; utf-16 is little-endian without a byte-order mark. */
  xmlCharset: 'utf-8' | 'utf-16'
  vmSettingsSource: 'Fabric' | 'FastTrack'
  /** Size of what `GET /extensionArtifact` serves. */
  artifactSizeBytes: number
  /** The `ovf-env.xml` of re-provisioning; `undefined` answers 404. */
  reprovisionData: string | undefined
  /** Client ids of the machine's identities, the system-assigned one first. */
  identityClientIds: readonly string[]
}

export const DEFAULT_VM: VmDocuments = {
  vmName: 'demo-vm',
  vmId: '99999999-8888-4777-8666-555555555555',
  subscriptionId: '11111111-2222-3333-4444-555555555555',
  resourceGroup: 'demo-rg',
  location: 'westeurope',
  vmSize: 'Standard_D2s_v5',
  offer: 'ubuntu-24_04-lts',
  containerId: 'a1b2c3d4-0000-4000-8000-00000000abcd',
  deploymentId: '0f1e2d3c-1111-4222-8333-444455556666',
  incarnation: 1,
  wireserverAuthority: '168.63.129.16:80',
  goalState: 'full',
  xmlCharset: 'utf-8',
  vmSettingsSource: 'Fabric',
  artifactSizeBytes: 4096,
  reprovisionData: undefined,
  identityClientIds: ['77777777-0000-4000-8000-000000000000', '88888888-0000-4000-8000-000000000000'],
}

const DECLARATION = '<?xml version="1.0" encoding="utf-8"?>\n'
const STATUS_BLOB = 'https://demo.blob.invalid/$system/demo.status?sig=REDACTED'

export function versionsXml(): string {
  return `${DECLARATION}<Versions>
  <Preferred><Version>2015-04-05</Version></Preferred>
  <Supported><Version>2015-04-05</Version><Version>2012-11-30</Version></Supported>
</Versions>
`
}

/** The role instance's name, as the shared config calls it. */
export function instanceName(vm: VmDocuments): string {
  return `_${vm.vmName}`
}

/** The `x-ms-host-config-name` that HostGAPlugin asks for. */
export function configName(vm: VmDocuments): string {
  const { deploymentId, incarnation } = vm
  return `${deploymentId}.${incarnation}.${deploymentId}.${incarnation}.${instanceName(vm)}.1.xml`
}

export function goalStateXml(vm: VmDocuments): string {
  const url = (query: string) =>
    escapeXml(`http://${vm.wireserverAuthority}/machine/${vm.containerId}/demo?${query}&incarnation=${vm.incarnation}`)
  const isFull = vm.goalState === 'full'
  const optional = (line: string) => (isFull ? `${line}\n` : '')
  return `${DECLARATION}<GoalState xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="goalstate10.xsd">
${optional('  <Version>2015-04-05</Version>')}  <Incarnation>${vm.incarnation}</Incarnation>
  <Machine>
    <ExpectedState>Started</ExpectedState>
${optional('    <StopRolesDeadlineHint>300000</StopRolesDeadlineHint>')}    <LBProbePorts><Port>16001</Port></LBProbePorts>
${optional('    <ExpectHealthReport>FALSE</ExpectHealthReport>')}  </Machine>
  <Container>
    <ContainerId>${escapeXml(vm.containerId)}</ContainerId>
    <RoleInstanceList>
      <RoleInstance>
        <InstanceId>${escapeXml(`${vm.deploymentId}.${instanceName(vm)}`)}</InstanceId>
        <State>Started</State>
        <Configuration>
          <HostingEnvironmentConfig>${url('comp=config&type=hostingEnvironmentConfig')}</HostingEnvironmentConfig>
          <SharedConfig>${url('comp=config&type=sharedConfig')}</SharedConfig>
          <ExtensionsConfig>${url('comp=config&type=extensionsConfig')}</ExtensionsConfig>
${optional(`          <FullConfig>${url('comp=config&type=fullConfig')}</FullConfig>`)}          <Certificates>${url('comp=certificates')}</Certificates>
          <ConfigName>${escapeXml(configName(vm))}</ConfigName>
        </Configuration>
      </RoleInstance>
    </RoleInstanceList>
  </Container>
</GoalState>
`
}

/** The configuration documents by the lower-case `type` of the query. */
export function configXml(vm: VmDocuments, type: string): string | undefined {
  const version = `version="1.0.0.0" goalStateIncarnation="${vm.incarnation}"`
  const id = escapeXml(vm.deploymentId)
  const instance = escapeXml(instanceName(vm))
  const name = escapeXml(vm.vmName)
  const deployment = `<Deployment name="${id}" guid="{${id}}" incarnation="${vm.incarnation}"`
  const incarnation = `<Incarnation number="1" instance="${instance}" guid="{22222222-0000-4000-8000-000000000000}" />`
  const roleGuid = '{33333333-0000-4000-8000-000000000000}'
  switch (type) {
    case 'hostingenvironmentconfig':
      return `${DECLARATION}<HostingEnvironmentConfig ${version}>
  ${deployment}>
    <Service name="demo" guid="{00000000-0000-0000-0000-000000000000}" />
    <ServiceInstance name="${id}.1" guid="{11111111-0000-4000-8000-000000000000}" />
  </Deployment>
  ${incarnation}
  <Role guid="${roleGuid}" name="${name}" hostingEnvironmentVersion="1" software="" softwareType="ApplicationPackage" entryPoint="" parameters="" settleTimeSeconds="0" />
</HostingEnvironmentConfig>
`
    case 'sharedconfig':
      return `${DECLARATION}<SharedConfig ${version}>
  ${deployment} />
  ${incarnation}
  <Role guid="${roleGuid}" name="${name}" settleTimeSeconds="0" />
  <Instances>
    <Instance id="${instance}" address="10.0.0.4" />
  </Instances>
</SharedConfig>
`
    case 'extensionsconfig':
      return `${DECLARATION}<Extensions ${version}>
  <GuestAgentExtension xmlns:i="http://www.w3.org/2001/XMLSchema-instance"><GAFamilies /></GuestAgentExtension>
  <StatusUploadBlob statusBlobType="BlockBlob">${escapeXml(STATUS_BLOB)}</StatusUploadBlob>
</Extensions>
`
    case 'fullconfig':
      return `${DECLARATION}<FullConfig ${version}>
  ${deployment} />
</FullConfig>
`
    default:
      return undefined
  }
}

/** The certificates document of a machine without certificates: no `Data`, which clients take as "nothing to install". */
export function certificatesXml(vm: VmDocuments): string {
  return `${DECLARATION}<CertificateFile>
  <Version>2010-12-15</Version>
  <Incarnation>${vm.incarnation}</Incarnation>
  <Format>Pkcs7BlobWithPfxContents</Format>
</CertificateFile>
`
}

/** The vmSettings document as text with its entity tag. */
export function vmSettings(vm: VmDocuments): { text: string; etag: string } {
  const text = JSON.stringify({
    hostGAPluginVersion: '1.0.8.150',
    vmSettingsSchemaVersion: '0.0',
    activityId: '10000000-0000-4000-8000-000000000001',
    correlationId: '10000000-0000-4000-8000-000000000002',
    inSvdSeqNo: vm.incarnation,
    extensionsLastModifiedTickCount: 638700000000000000,
    extensionGoalStatesSource: vm.vmSettingsSource,
    onHold: false,
    statusUploadBlob: { statusBlobType: 'BlockBlob', value: STATUS_BLOB },
    inVMMetadata: {
      subscriptionId: vm.subscriptionId,
      resourceGroupName: vm.resourceGroup,
      vmName: vm.vmName,
      location: vm.location,
      vmId: vm.vmId,
      vmSize: vm.vmSize,
      osType: 'Linux',
    },
    requiredFeatures: [],
    gaFamilies: [{ name: 'Prod', uris: [] }],
    extensionGoalStates: [],
  })
  return { text, etag: `"${createHash('sha1').update(text).digest('hex').slice(0, 16)}"` }
}

/** The whole of `/metadata/instance`. */
export function instanceMetadata(vm: VmDocuments): Record<string, unknown> {
  const group = `/subscriptions/${vm.subscriptionId}/resourceGroups/${vm.resourceGroup}`
  const image = { offer: vm.offer, publisher: vm.offer === '' ? '' : 'canonical', sku: 'server', version: 'latest' }
  return {
    compute: {
      azEnvironment: 'AzurePublicCloud',
      location: vm.location,
      name: vm.vmName,
      offer: vm.offer,
      osProfile: { adminUsername: 'azureuser', computerName: vm.vmName, disablePasswordAuthentication: 'true' },
      osType: 'Linux',
      placementGroupId: '',
      platformFaultDomain: '0',
      platformUpdateDomain: '0',
      provider: 'Microsoft.Compute',
      publicKeys: [
        {
          keyData: 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDemoDemoDemo demo',
          path: '/home/azureuser/.ssh/authorized_keys',
        },
      ],
      publisher: image.publisher,
      resourceGroupName: vm.resourceGroup,
      resourceId: `${group}/providers/Microsoft.Compute/virtualMachines/${vm.vmName}`,
      sku: image.sku,
      storageProfile: {
        dataDisks: [],
        imageReference: { id: '', ...image },
        osDisk: { name: 'demo-os', osType: 'Linux', diskSizeGB: '30' },
      },
      subscriptionId: vm.subscriptionId,
      tags: 'env:demo',
      tagsList: [{ name: 'env', value: 'demo' }],
      userData: '',
      version: '24.04.202601010',
      vmId: vm.vmId,
      vmScaleSetName: '',
      vmSize: vm.vmSize,
      zone: '1',
    },
    network: {
      interface: [
        {
          ipv4: {
            ipAddress: [{ privateIpAddress: '10.0.0.4', publicIpAddress: '' }],
            subnet: [{ address: '10.0.0.0', prefix: '24' }],
          },
          ipv6: { ipAddress: [] },
          macAddress: '000D3A123456',
        },
      ],
    },
  }
}
