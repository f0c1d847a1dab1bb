/** Listeners in other network namespaces, left with the service manager under the cookies of these namespaces. */

import { Fd } from '../sys/fd.ts'
import type { ListenerStore } from './containers.ts'
import type { ServiceManager } from './service-manager.ts'

const NAME = /^netns-(\d{1,20})$/

/** @param isUsed if not, what an earlier agent left is closed, and nothing is kept */
export function createListenerStore(manager: ServiceManager, isUsed: boolean): ListenerStore {
  const inherited = new Map<bigint, number>()
  for (const [name, descriptor] of manager.inherited) {
    const cookie = NAME.exec(name)?.[1]
    if (cookie === undefined) continue
    if (isUsed) {
      inherited.set(BigInt(cookie), descriptor)
      continue
    }
    manager.drop(name)
    new Fd(descriptor, name).close()
  }
  return {
    inherited,
    keep(netns, descriptor) {
      if (isUsed) manager.keep(nameOf(netns), descriptor)
    },
    drop: (netns) => manager.drop(nameOf(netns)),
  }
}

function nameOf(netns: bigint): string {
  return `netns-${netns}`
}
