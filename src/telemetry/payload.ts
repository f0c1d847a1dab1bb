/**
 * Renders events for the host: one XML document for many, each event a list of parameters within a CDATA section.
 *
 *   <?xml version="1.0"?><TelemetryData version="1.0">
 *     <Provider id="…"><Event id="7"><![CDATA[<Param Name="…" Value="…" T="mt:wstr" />…]]></Event>…</Provider>…
 *   </TelemetryData>                                      without white space between elements
 *
 * Providers, names, types and order of the parameters are a contract.
 */

import { isStatusEvent, type LogEvent, type StatusEvent, type TelemetryEvent } from './event.ts'
import type { VmFacts } from './vm-facts.ts'
import { escapeXml } from './xml.ts'

/** The host takes less than 64 KiB. */
export const MAX_PAYLOAD_BYTES = 64 * 1024 - 1

const LOG_PROVIDER = 'FFF0196F-EE4C-4EAF-9AA5-776F622DEB4F'
const STATUS_PROVIDER = '69B669B9-4AF8-4C50-BDC4-6006FA76E975'

const HEAD = '<?xml version="1.0"?><TelemetryData version="1.0">'
const TAIL = '</TelemetryData>'

/** One event as it stands in a payload. */
export interface RenderedEvent {
  readonly provider: string
  readonly xml: string
  readonly sizeBytes: number
}

/** A payload that grows as long as it is small enough. */
export interface Payload {
  /** Adds an event. @returns false when the payload would be too large: it is not added */
  add(event: RenderedEvent): boolean
  /** Renders the document: providers in the order of their first events. */
  render(): string
}

/** Starts a payload without events. */
export function createPayload(): Payload {
  const eventsOf = new Map<string, string[]>()
  let sizeBytes = HEAD.length + TAIL.length
  return {
    add({ provider, xml, sizeBytes: eventBytes }) {
      const events = eventsOf.get(provider) ?? []
      const addedBytes = eventBytes + (events.length === 0 ? wrap(provider, '').length : 0)
      if (sizeBytes + addedBytes > MAX_PAYLOAD_BYTES) return false
      sizeBytes += addedBytes
      events.push(xml)
      eventsOf.set(provider, events)
      return true
    },
    render: () => HEAD + [...eventsOf].map(([provider, events]) => wrap(provider, events.join(''))).join('') + TAIL,
  }
}

function wrap(provider: string, events: string): string {
  return `<Provider id="${provider}">${events}</Provider>`
}

/** Renders one event of the machine that `vm` describes. */
export function renderEvent(event: TelemetryEvent, vm: VmFacts): RenderedEvent {
  const isStatus = isStatusEvent(event)
  const params = isStatus ? renderStatusEvent(event, vm) : renderLogEvent(event, vm)
  const xml = `<Event id="${isStatus ? 1 : 7}"><![CDATA[${params}]]></Event>`
  return { provider: isStatus ? STATUS_PROVIDER : LOG_PROVIDER, xml, sizeBytes: Buffer.byteLength(xml) }
}

function renderLogEvent(event: LogEvent, vm: VmFacts): string {
  return (
    renderMachine(vm) +
    renderSource(event.EventPid, event.EventTid, event.Version, event.TaskName, event.TimeStamp) +
    text('EventName', 'MicrosoftAzureGuestProxyAgent') +
    text('CapabilityUsed', event.EventLevel) +
    text('Context1', event.Message) +
    text('Context2', event.TimeStamp) +
    text('Context3', event.OperationId)
  )
}

function renderStatusEvent(event: StatusEvent, vm: VmFacts): string {
  const { extension, operation_status: status } = event
  return (
    renderMachine(vm) +
    renderSource(event.event_pid, event.event_tid, extension.version, status.task_name, event.time_stamp) +
    text('ExtensionType', extension.extension_type) +
    truth('IsInternal', extension.is_internal) +
    text('Name', extension.name) +
    text('Version', extension.version) +
    text('Operation', status.operation) +
    truth('OperationSuccess', status.operation_success) +
    text('Message', status.message) +
    // A signed number in the file, an unsigned one here.
    uint64('Duration', BigInt.asUintN(64, BigInt(status.duration)))
  )
}

function renderMachine(vm: VmFacts): string {
  return (
    text('KeywordName', JSON.stringify({ CpuArchitecture: vm.cpuArchitecture })) +
    text('TenantName', vm.tenantName) +
    text('RoleName', vm.roleName) +
    text('RoleInstanceName', vm.roleInstanceName) +
    text('ContainerId', vm.containerId) +
    text('ResourceGroupName', vm.resourceGroupName) +
    text('SubscriptionId', vm.subscriptionId) +
    text('VMId', vm.vmId) +
    uint64('ImageOrigin', vm.imageOrigin) +
    text('OSVersion', vm.osVersion) +
    uint64('RAM', vm.ramMib) +
    uint64('Processors', vm.processors)
  )
}

function renderSource(pid: string, tid: string, version: string, task: string, time: string): string {
  return (
    uint64('EventPid', toUint64(pid)) +
    uint64('EventTid', toUint64(tid)) +
    text('GAVersion', version) +
    text('ExecutionMode', 'ProxyAgent') +
    text('TaskName', task) +
    text('OpcodeName', time)
  )
}

function text(name: string, value: string): string {
  return `<Param Name="${name}" Value="${escapeXml(value)}" T="mt:wstr" />`
}

function uint64(name: string, value: number | bigint): string {
  return `<Param Name="${name}" Value="${value}" T="mt:uint64" />`
}

function truth(name: string, value: boolean): string {
  return `<Param Name="${name}" Value="${value ? 'True' : 'False'}" T="mt:bool" />`
}

/** Reads a decimal number; what is none, or does not fit, is 0. */
function toUint64(digits: string): bigint {
  const value = /^\d{1,20}$/.test(digits) ? BigInt(digits) : 0n
  return value < 2n ** 64n ? value : 0n
}
