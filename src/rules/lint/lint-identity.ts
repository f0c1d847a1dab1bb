/** Who an identity describes, where that is anybody, or nobody. */

import type { JsonPath } from '../../base/json.ts'
import type { Identity } from '../document.ts'
import { matchesEveryone, selectorsOf } from '../selectors.ts'
import type { Surroundings } from './finding.ts'

/** Places where any user may put a file of any name. */
const OPEN_PLACES = /^\/(tmp|var\/tmp|dev\/shm|home)(\/|$)/

/** Looks at one identity. @param at leads to it */
export function lintIdentity(identity: Identity, at: JsonPath, { isLocal, report }: Surroundings): void {
  const { name, userName, groupName, exePath, processName, exeSha256 } = identity
  const selectors = selectorsOf(identity).filter((each) => each !== undefined)
  if (matchesEveryone(identity) || (isLocal && selectors.every((each) => each.trim() === ''))) {
    const message = `identity '${name}' has no selector: ${isLocal ? 'the rules are refused' : 'anyone can assume it'}`
    report('error', 'identity-anyone', at, message, 'Give it a userName or a groupName.')
    return
  }
  if (selectors.includes('')) {
    const message = `identity '${name}' has an empty selector: it is nobody`
    report('warning', 'identity-nobody', at, message, 'Leave empty selectors out.')
    return
  }
  if (userName === 'undefined') {
    const message = `identity '${name}' is any user whose name is not known`
    report('warning', 'identity-anyone', [...at, 'userName'], message, 'Name a user that exists.')
  }
  if (exePath !== undefined && !exePath.startsWith('/')) {
    const message = `exePath '${exePath}' is not absolute: it is nobody`
    report('warning', 'identity-nobody', [...at, 'exePath'], message, 'Write the whole path.')
  }
  const { cgroupPath, systemdUnit, containerId } = identity
  if ([userName, groupName, cgroupPath, systemdUnit, containerId].some((each) => each !== undefined)) return
  if (exeSha256 !== undefined) {
    const message = `anyone can assume identity '${name}' who may run a program of this content`
    report('warning', 'identity-anyone', at, message, 'Name a userName or a groupName beside exeSha256.')
  } else if (exePath === undefined) {
    const message = `anyone can assume identity '${name}': any file can be named '${processName}'`
    report('warning', 'identity-anyone', at, message, 'Name a userName or a groupName beside processName.')
  } else if (OPEN_PLACES.test(exePath)) {
    const message = `anyone can assume identity '${name}' who can write '${exePath}'`
    report('warning', 'identity-anyone', at, message, 'Name an executable that only root can write, and a user.')
  } else {
    const message = `anyone can assume identity '${name}' who may run '${exePath}'`
    report('warning', 'identity-anyone', at, message, 'Name a userName or a groupName beside exePath.')
  }
}
