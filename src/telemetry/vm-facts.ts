/**
 * What telemetry says about the virtual machine, and how the host's documents tell it.
 *
 * Only what is used is asked for: a host that leaves out anything else is understood all the same.
 */

import { AgentError } from '../base/errors.ts'
import { isJsonObject, parseJson } from '../base/json.ts'
import { findElement, readXml, type XmlElement } from './xml.ts'

/** What the machine knows of itself. */
export interface MachineFacts {
  /** As `uname -m` says it. */
  readonly cpuArchitecture: string
  /** Such as `Linux:Ubuntu-22.4.0`. */
  readonly osVersion: string
  readonly ramMib: number
  readonly processors: number
}

/** What the host knows of it. */
export interface VmIdentity {
  readonly containerId: string
  readonly tenantName: string
  readonly roleName: string
  readonly roleInstanceName: string
  readonly subscriptionId: string
  readonly resourceGroupName: string
  readonly vmId: string
  /** 1: an image of the platform, 0: one of the customer. */
  readonly imageOrigin: 0 | 1
}

export type VmFacts = MachineFacts & VmIdentity

/** What is needed of the goal state. */
export interface GoalState {
  readonly containerId: string
  /** Where the shared config is, as a target of WireServer. */
  readonly sharedConfigTarget: string
}

/**
 * Reads the goal state.
 * @param wireserverAddress the only place where the shared config may be: the request for it is signed with the key
 * @throws AgentError naming what is missing
 */
export function readGoalState(document: string, wireserverAddress: string): GoalState {
  const root = readXml(document, 'the goal state')
  const text = (...path: readonly string[]) =>
    findElement(expectRoot(root, 'GoalState', 'the goal state'), ...path)?.text ||
    refuse('the goal state', path.join('/'))
  const url = text('Container', 'RoleInstanceList', 'RoleInstance', 'Configuration', 'SharedConfig')
  return {
    containerId: text('Container', 'ContainerId'),
    sharedConfigTarget: toTarget(url, wireserverAddress),
  }
}

/** Reads the shared config. @throws AgentError naming what is missing */
export function readSharedConfig(document: string): Pick<VmIdentity, 'tenantName' | 'roleName' | 'roleInstanceName'> {
  const what = 'the shared config'
  const root = expectRoot(readXml(document, what), 'SharedConfig', what)
  const attribute = (name: string, ...path: readonly string[]) =>
    findElement(root, ...path)?.attributes.get(name) ?? refuse(what, `${path.join('/')}/@${name}`)
  return {
    tenantName: attribute('name', 'Deployment'),
    roleName: attribute('name', 'Role'),
    roleInstanceName: attribute('id', 'Instances', 'Instance'),
  }
}

/** Reads the instance metadata. @throws AgentError naming what is missing */
export function readInstance(
  document: string,
): Pick<VmIdentity, 'subscriptionId' | 'resourceGroupName' | 'vmId' | 'imageOrigin'> {
  const what = 'the instance metadata'
  const { value } = parseJson(document)
  const compute = isJsonObject(value) && isJsonObject(value.compute) ? value.compute : refuse(what, 'compute')
  const text = (name: string) => {
    const found = compute[name]
    return typeof found === 'string' ? found : refuse(what, `compute.${name}`)
  }
  return {
    subscriptionId: text('subscriptionId'),
    resourceGroupName: text('resourceGroupName'),
    vmId: text('vmId'),
    imageOrigin: typeof compute.offer === 'string' && compute.offer !== '' ? 1 : 0,
  }
}

function expectRoot(root: XmlElement, name: string, what: string): XmlElement {
  return root.name === name ? root : refuse(what, name)
}

/** Turns a URL that the host gave into a target there. @throws AgentError when it leads anywhere else */
function toTarget(text: string, address: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const isThere = url?.protocol === 'http:' && url.host === address && url.username === '' && url.password === ''
  if (url === undefined || !isThere) {
    throw new AgentError(
      'HOST_DOCUMENT_INVALID',
      `Cannot read the goal state: the shared config is not at http://${address}/`,
    )
  }
  return url.pathname + url.search
}

function refuse(what: string, missing: string): never {
  throw new AgentError('HOST_DOCUMENT_INVALID', `Cannot read ${what}: ${missing} is missing`)
}
