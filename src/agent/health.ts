/** Whether the service does its work, in one line: for supervisors, and for people who want no more than that. */

import type { ChannelSnapshot } from '../channel/key-machine.ts'
import type { StatusBoard } from '../telemetry/status.ts'
import type { CheckState } from './self-check.ts'

export interface Health {
  readonly isHealthy: boolean
  /** The first thing that is wrong, or what is guarded. */
  readonly reason: string
}

/**
 * Judges. The guard comes first, then the agreement with the host: without a key that the host wants, requests are of no
 * use. A host that has fallen silent is not the service's illness; how long ago it spoke is in the status.
 */
export function judgeHealth(
  board: Pick<StatusBoard, 'state' | 'message'>,
  check: CheckState,
  channel: ChannelSnapshot,
  isStopping: boolean,
): Health {
  const ill = (reason: string): Health => ({ isHealthy: false, reason })
  if (isStopping) return ill('stopping')
  const gap = findGap(board)
  if (gap !== undefined) return ill(gap)
  if (check.result === 'failed') return ill(check.reason)
  if (check.result === 'starting') return ill(`starting: ${check.reason}`)
  if (!channel.isLatched) return ill(`no agreement with the host: ${board.message('keyKeeper')}`)
  const untried = check.result === 'untried' ? `; not tried: ${check.reason}` : ''
  return { isHealthy: true, reason: `guarding: ${channel.stateText}${untried}` }
}

/** Says what is missing to the guard as far as its parts tell; `undefined`: nothing. */
export function findGap(board: Pick<StatusBoard, 'state' | 'message'>): string | undefined {
  if (board.state('proxyServer') !== 'RUNNING') return `the listener is not bound: ${board.message('proxyServer')}`
  if (board.state('redirector') !== 'RUNNING') return `the kernel does not redirect: ${board.message('redirector')}`
  return undefined
}
